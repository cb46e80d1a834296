//! Sessions: cookies, caching headers, what is stored.

use super::suite::Suite;

pub(crate) fn cases(suite: &mut Suite) {
    suite.file("session.php", "<?php session_start(); $_SESSION['n'] = ($_SESSION['n'] ?? 0) + 1; echo session_id(), ' ', $_SESSION['n'], ' ', session_status();");
    for number in 1..=3 {
        let request = suite
            .get("/session.php")
            .header("Cookie", "PHPSESSID=abcdefghij0123456789abcdef");
        suite.case(&format!("counted {number}"), request);
    }
    let other = suite
        .get("/session.php")
        .header("Cookie", "PHPSESSID=otherotherotherotherother1");
    suite.case("another session", other);
    let invalid = suite
        .get("/session.php")
        .header("Cookie", "PHPSESSID=../../etc/passwd");
    suite.case("invalid id", invalid.param("QUERY_STRING", "x"));
    suite.script("new id", "<?php session_start(); $id = session_id(); echo strlen($id), ctype_alnum($id) ? 'alnum' : $id; header_remove('Set-Cookie');");
    for (name, source) in CASES {
        suite.script_with(name, &format!("<?php {source}"), |request| {
            request.header("Cookie", "PHPSESSID=abcdefghij0123456789abcdef")
        });
    }
    for limiter in [
        "nocache",
        "public",
        "private",
        "private_no_expire",
        "none",
        "",
    ] {
        let source = format!(
            "<?php session_cache_limiter('{limiter}'); session_start(); header_remove('Last-Modified'); foreach (headers_list() as $h) {{ if (preg_match('/^Expires: .*20[2-9]/', $h)) header_remove('Expires'); }} echo session_cache_limiter(), session_cache_expire();"
        );
        suite.script_with(&format!("limiter {limiter:?}"), &source, |request| {
            request.header("Cookie", "PHPSESSID=limiter")
        });
    }
}

const CASES: &[(&str, &str)] = &[
    (
        "read and close",
        "session_start(['read_and_close' => true]); print_r($_SESSION); var_dump(session_status());",
    ),
    (
        "options",
        "session_start(['name' => 'other', 'cookie_lifetime' => 0, 'cookie_path' => '/p', 'cookie_httponly' => 1, 'cookie_samesite' => 'Strict', 'sid_length' => 32]); echo session_name(), strlen(session_id()); header_remove('Set-Cookie');",
    ),
    (
        "own id",
        "session_id('ownid'); session_start(); echo session_id();",
    ),
    (
        "regenerated",
        "session_start(); $old = session_id(); session_regenerate_id(true); var_dump($old !== session_id(), count(preg_grep('/^Set-Cookie/', headers_list()))); header_remove('Set-Cookie');",
    ),
    (
        "destroyed",
        "session_id('tobedestroyed'); session_start(); $_SESSION['a'] = 1; session_destroy(); var_dump($_SESSION, session_status());",
    ),
    (
        "unset",
        "session_start(); session_unset(); var_dump($_SESSION);",
    ),
    (
        "abort",
        "session_start(); $_SESSION['n'] = 'aborted'; session_abort(); session_start(); var_dump($_SESSION['n'] ?? null);",
    ),
    (
        "write close",
        "session_start(); $_SESSION['b'] = [1, 'x' => null]; session_write_close(); $_SESSION['c'] = 1; echo file_get_contents(session_save_path() . '/sess_' . session_id());",
    ),
    (
        "encode",
        "session_start(); $_SESSION = ['a' => 1, 'b' => 'x']; echo session_encode(); session_decode('c|i:5;'); print_r($_SESSION);",
    ),
    (
        "started twice",
        "session_start(); session_start(); echo 'body';",
    ),
    (
        "after output",
        "echo 'body'; ob_end_flush(); flush(); session_start(); var_dump(session_status());",
    ),
    (
        "own handler",
        "class H extends SessionHandler { function write($i, $d): bool { echo \"write $d\"; return true; } function read($i): string { return 'z|i:1;'; } } session_set_save_handler(new H, true); session_start(); print_r($_SESSION);",
    ),
    (
        "own functions",
        "class M implements SessionHandlerInterface { function open($p, $n): bool { echo 'open '; return true; } function close(): bool { echo 'close '; return true; } function read($i): string { echo 'read '; return ''; } function write($i, $d): bool { echo \"write($d) \", getcwd() === __DIR__ ? 'here' : 'elsewhere'; return true; } function destroy($i): bool { return true; } function gc($m): int { return 0; } } session_set_save_handler(new M); session_start(); $_SESSION['a'] = 1; echo 'body ';",
    ),
    (
        "missing directory",
        "session_save_path('/missing/dir'); session_start(); echo 'body';",
    ),
    (
        "cookie params",
        "session_set_cookie_params(['path' => '/x', 'secure' => true]); print_r(session_get_cookie_params()); session_start();",
    ),
    (
        "written at fatal",
        "session_id('fatal'); session_start(); $_SESSION['a'] = 'kept'; missing();",
    ),
    (
        "read after fatal",
        "session_id('fatal'); session_start(); print_r($_SESSION);",
    ),
    (
        "written at exit",
        "session_id('exit'); session_start(); $_SESSION['a'] = 'kept'; exit('words');",
    ),
    (
        "read after exit",
        "session_id('exit'); session_start(); print_r($_SESSION);",
    ),
    (
        "objects",
        "class A { public $x = 1; function __destruct() { echo 'destroyed'; } } session_id('objects'); session_start(); $_SESSION['a'] = new A;",
    ),
    (
        "objects read",
        "session_id('objects'); session_start(); var_dump($_SESSION);",
    ),
    (
        "save path",
        "echo basename(session_save_path()), session_module_name();",
    ),
    (
        "trans sid",
        "ini_set('session.use_trans_sid', '1'); ini_set('session.use_only_cookies', '0'); session_start(); echo '<a href=\"x.php\">x</a>';",
    ),
    (
        "shutdown function",
        "session_start(); register_shutdown_function(function () { $_SESSION['late'] = 1; echo session_status(); }); echo 'body';",
    ),
    (
        "late value",
        "session_start(); var_dump(isset($_SESSION['late']));",
    ),
];
