//! Whatever a script does, the next request in the same worker finds everything as a fresh worker has it.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::Value;

use crate::support::client::Request;
use crate::support::server::{Builder, Server};

fn builder() -> Builder {
    Server::builder()
        .ini("display_errors=0")
        .ini("opcache.revalidate_freq=0")
        .ini("session.gc_probability=0")
        .ini("max_execution_time=30")
        .ini("user_ini.cache_ttl=0")
        .ini("session.save_path={directory}/sessions")
        .ini("sys_temp_dir={directory}")
}

/// Starts a server with the script that looks at everything.
fn start() -> Server {
    let server = builder().start();
    std::fs::create_dir(server.directory().join("sessions")).unwrap();
    server.php("look.php", &look());
    server
}

fn look() -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/php/look.php"))
        .unwrap()
}

/// What a request finds, and the head of its answer.
fn state(server: &Server) -> Value {
    let response = server.get("/look.php");
    let mut state: Value = serde_json::from_slice(&response.body)
        .unwrap_or_else(|error| panic!("{error}: {response:?}"));
    state["head"] = String::from_utf8_lossy(&response.head).into();
    state["stderr"] = response.stderr_text().into();
    state
}

/// Panics if `now` is not what it was before `name`.
fn compare(name: &str, before: &Value, now: &Value, report: &mut String) {
    let (before, now) = (before.as_object().unwrap(), now.as_object().unwrap());
    for (key, value) in before {
        if now.get(key) == Some(value) {
            continue;
        }
        let now = now.get(key).unwrap_or(&Value::Null);
        match (value, now) {
            (Value::Object(_), Value::Object(_)) => {
                compare(&format!("{name}: {key}"), value, now, report);
            }
            _ => writeln!(report, "{name}: {key}: {value} before, {now} after").unwrap(),
        }
    }
    for (key, value) in now.iter().filter(|(key, _)| !before.contains_key(*key)) {
        writeln!(report, "{name}: {key}: {value} is new").unwrap();
    }
}

/// Runs each script between two looks.
fn assert_nothing_is_left(server: &Server, cases: &[(&str, &str)]) {
    state(server); // the first request of a worker fills caches
    let before = state(server);
    let mut report = String::new();
    for (name, source) in cases {
        server.php("leave.php", &format!("<?php {source}"));
        let answer = server.connect().try_exchange(&leaving_request(server));
        assert!(
            answer.is_ok(),
            "{name}: no answer: {answer:?}\n{report}{}",
            server.log().text()
        );
        compare(name, &before, &state(server), &mut report);
    }
    assert!(report.is_empty(), "{report}");
}

/// A request that brings as much along as it can.
fn leaving_request(server: &Server) -> Request {
    let form = "--b\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\nposted\r\n\
        --b\r\nContent-Disposition: form-data; name=\"f\"; filename=\"x\"\r\n\r\nfile\r\n--b--\r\n";
    server
        .request("/leave.php?a=query")
        .post("multipart/form-data; boundary=b", form)
        .header("Cookie", "a=cookie; PHPSESSID=left")
        .header("X-Left", "header")
        .header("Authorization", "Basic dXNlcjpwYXNz")
        .param("HTTPS", "on")
        .param("LEFT", "param")
}

#[test]
fn nothing_of_a_request_is_seen_by_the_next() {
    assert_nothing_is_left(&start(), CASES);
}

#[test]
fn nothing_is_left_when_a_script_ends_badly() {
    const EVERYTHING: &str = "chdir('/'); setlocale(LC_ALL, 'C'); putenv('LEFT=1'); ini_set('precision', '5'); umask(077);
        session_start(); $_SESSION['left'] = 1; header('X-Left: 1'); http_response_code(404); ob_start(fn ($b) => $b);
        $left = fopen(dirname(__DIR__) . '/left.lock', 'c'); flock($left, LOCK_EX); stream_wrapper_unregister('http');
        set_error_handler(fn () => true); date_default_timezone_set('Asia/Tokyo'); set_include_path('/');";
    let endings = [
        ("exit", "exit(5);"),
        ("exception", "throw new Exception('x');"),
        ("fatal", "missing();"),
        (
            "parse error",
            "include __FILE__ . '.missing'; eval('this is not');",
        ),
        (
            "memory limit",
            "ini_set('memory_limit', '8M'); $x = str_repeat('x', 100000000);",
        ),
        ("time limit", "set_time_limit(1); while (true);"),
        (
            "fatal in a shutdown function",
            "register_shutdown_function(fn () => missing());",
        ),
        (
            "exit in a shutdown function",
            "register_shutdown_function(fn () => exit(3));",
        ),
        (
            "fatal in an output callback",
            "ob_start(fn ($b) => missing()); echo 'x';",
        ),
        (
            "fatal in a destructor",
            "class Left { function __destruct() { missing(); } } $l = new Left;",
        ),
        (
            "answer finished early",
            "fastcgi_finish_request(); missing();",
        ),
        (
            "endless recursion",
            "ini_set('memory_limit', '16M'); function left($n) { return left($n + 1) + 1; } left(1);",
        ),
    ];
    let sources: Vec<(String, String)> = endings
        .iter()
        .map(|(name, ending)| ((*name).to_owned(), format!("{EVERYTHING} {ending}")))
        .collect();
    let cases: Vec<(&str, &str)> = sources
        .iter()
        .map(|(name, source)| (name.as_str(), source.as_str()))
        .collect();
    assert_nothing_is_left(&start(), &cases);
}

#[test]
fn settings_of_one_request_are_not_those_of_the_next() {
    let server = start();
    server.php("leave.php", "<?php echo ini_get('precision');");
    state(&server);
    let before = state(&server);
    let mut report = String::new();
    for name in ["PHP_VALUE", "PHP_ADMIN_VALUE"] {
        for value in [
            "precision=5\nmemory_limit=64M",
            "disable_functions=strrev",
            "open_basedir=/usr",
            "allow_url_fopen=0\nopcache.enable=0",
            "auto_prepend_file=missing.php",
            "session.save_path=/missing\nsession.name=LEFT",
            "error_log=/dev/null\nlog_errors=0\ndisplay_errors=1",
            "date.timezone=Asia/Tokyo\ninclude_path=/left",
            "output_buffering=0\ndefault_mimetype=text/left",
        ] {
            server.send(&leaving_request(&server).param(name, value));
            compare(
                &format!("{name} {value:?}"),
                &before,
                &state(&server),
                &mut report,
            );
        }
    }
    assert!(report.is_empty(), "{report}");
}

#[test]
fn a_program_of_a_script_gets_none_of_our_sockets() {
    let server = builder().start();
    server.php("fds.php", "<?php echo `ls -l /proc/self/fd`;");
    let own: Vec<String> = std::fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok())
        .map(|target| target.display().to_string())
        .collect(); // what the tests themselves were started with may be inherited
    let mut idle = server.connect();
    idle.exchange(&server.request("/fds.php").keep());
    let listing = server.get("/fds.php").text();
    for line in listing.lines().filter(|line| {
        line.contains("socket:") || line.contains("memfd:") || line.contains("anon_inode:")
    }) {
        let target = line.rsplit("-> ").next().unwrap();
        assert!(
            own.iter().any(|own| own == target),
            "a program inherits {target}:\n{listing}"
        );
    }
}

const CASES: &[(&str, &str)] = &[
    ("nothing", ""),
    (
        "superglobals",
        "$_GET['left'] = $_POST['left'] = $_COOKIE['left'] = $_REQUEST['left'] = $_SERVER['LEFT2'] = $_ENV['LEFT'] = 1; $_FILES['left'] = []; $GLOBALS['left'] = 1;",
    ),
    (
        "headers",
        "header('X-Left: 1'); setcookie('left', '1'); http_response_code(404); header_register_callback(fn () => header('X-Late: 1'));",
    ),
    ("status line", "header('HTTP/1.1 418 Left');"),
    (
        "content type",
        "header('Content-Type: text/left'); ini_set('default_charset', 'latin1'); ini_set('default_mimetype', 'text/left');",
    ),
    (
        "session",
        "session_name('LEFT'); session_id('left'); session_cache_limiter('public'); session_cache_expire(5); session_set_cookie_params(5, '/left'); session_start(); $_SESSION['left'] = 1;",
    ),
    (
        "session handler",
        "session_set_save_handler(new class extends SessionHandler { function write($i, $d): bool { return true; } }); session_start(); $_SESSION['left'] = 1;",
    ),
    (
        "session left open",
        "session_start(); $_SESSION['left'] = 1; $GLOBALS['keep'] = fn () => session_id();",
    ),
    ("working directory", "chdir('/usr/lib');"),
    (
        "removed working directory",
        "mkdir($d = sys_get_temp_dir() . '/left' . getmypid()); chdir($d); rmdir($d);",
    ),
    (
        "locale",
        "setlocale(LC_ALL, 'C.UTF-8', 'C.utf8', 'en_US.UTF-8'); setlocale(LC_CTYPE, 'C'); setlocale(LC_NUMERIC, 'de_DE.UTF-8', 'C.UTF-8');",
    ),
    (
        "environment",
        "putenv('LEFT=1'); putenv('HOME=/left'); putenv('USER'); putenv('TZ=Asia/Tokyo'); putenv('LC_ALL=C.UTF-8'); putenv('LEFT=2');",
    ),
    (
        "settings",
        "foreach (['memory_limit' => '64M', 'precision' => '5', 'display_errors' => '1', 'error_log' => '/dev/null', 'user_agent' => 'left', 'date.timezone' => 'Asia/Tokyo', 'default_charset' => 'latin1', 'include_path' => '/left', 'arg_separator.output' => ';', 'session.name' => 'LEFT', 'zlib.output_compression' => '1', 'open_basedir' => '/', 'error_prepend_string' => 'left', 'mbstring.language' => 'Japanese', 'pcre.jit' => '0', 'assert.active' => '0', 'auto_detect_line_endings' => '1'] as $k => $v) { @ini_set($k, $v); }",
    ),
    (
        "limits",
        "set_time_limit(5); ignore_user_abort(true); error_reporting(0); gc_disable(); ini_set('memory_limit', '-1');",
    ),
    ("umask", "umask(0777);"),
    (
        "open files",
        "static $f; $f = fopen(dirname(__DIR__) . '/left.lock', 'c'); flock($f, LOCK_EX); $GLOBALS['f'] = $f; $f->self ?? null;",
    ),
    (
        "persistent stream",
        "$s = @stream_socket_server('unix://' . dirname(__DIR__) . '/left' . microtime(true)); $GLOBALS['s'] = $s;",
    ),
    (
        "directory handles",
        "$d = opendir('/'); dir('/'); readdir();",
    ),
    ("time zone", "date_default_timezone_set('Asia/Tokyo');"),
    (
        "handlers",
        "set_error_handler(fn () => true); set_exception_handler(fn () => true); spl_autoload_register(fn () => null); register_shutdown_function(fn () => trigger_error('left')); register_tick_function(fn () => null);",
    ),
    (
        "stream wrappers",
        "class Left { } stream_wrapper_register('left', 'Left'); stream_wrapper_unregister('http'); stream_wrapper_unregister('php'); stream_filter_register('left', 'Left'); stream_context_set_default(['http' => ['method' => 'LEFT']]);",
    ),
    (
        "include path",
        "set_include_path('/left'); spl_autoload_extensions('.left');",
    ),
    (
        "definitions",
        "function left() {} class Left {} define('LEFT', 1); const LEFT2 = 2; class_alias('Left', 'Left2'); enum Left3 { case A; }",
    ),
    (
        "output",
        "ob_start(fn ($b) => strtoupper($b)); ob_start(); output_add_rewrite_var('left', '1'); ob_implicit_flush(); echo 'left';",
    ),
    (
        "unflushed output",
        "while (ob_get_level()) { ob_end_clean(); } echo 'left';",
    ),
    ("random", "mt_srand(5); srand(5);"),
    (
        "text",
        "mb_internal_encoding('SJIS'); mb_substitute_character(0x3f); mb_language('Japanese'); function_exists('mb_regex_encoding') && mb_regex_encoding('SJIS'); mb_detect_order(['SJIS']); mb_http_output('SJIS');",
    ),
    (
        "xml",
        "libxml_use_internal_errors(true); simplexml_load_string('<broken'); libxml_set_external_entity_loader(fn () => null); libxml_set_streams_context(stream_context_create());",
    ),
    (
        "errors",
        "@trigger_error('left'); error_log('left'); strlen(...);",
    ),
    (
        "memory",
        "$GLOBALS['x'] = str_repeat('x', 50000000); static $y; $y = $GLOBALS['x'] . 'y';",
    ),
    (
        "cycles",
        "for ($i = 0; $i < 20000; $i++) { $a = new stdClass; $a->a = $a; }",
    ),
    (
        "static and class values",
        "class Left { static $x = 0; static function f() { static $y = 0; return ++self::$x + ++$y; } } echo Left::f();",
    ),
    ("body not read", "echo 'ok';"),
    (
        "input stream kept",
        "$GLOBALS['in'] = fopen('php://input', 'r'); fread($GLOBALS['in'], 3);",
    ),
    (
        "upload kept open",
        "$GLOBALS['up'] = fopen($_FILES['f']['tmp_name'], 'r');",
    ),
    (
        "temporary files",
        "$GLOBALS['t'] = tmpfile(); fwrite($GLOBALS['t'], 'x'); $u = fopen('php://temp/maxmemory:1', 'w'); fwrite($u, 'xxxx');",
    ),
    (
        "finished early",
        "fastcgi_finish_request(); chdir('/'); putenv('LEFT=1'); echo 'lost'; header('X-Left: 1');",
    ),
    ("ignored abort", "ignore_user_abort(true); flush();"),
    (
        "sockets",
        "$s = stream_socket_server('tcp://127.0.0.1:0'); stream_set_blocking($s, false);",
    ),
    (
        "child process",
        "$GLOBALS['p'] = proc_open('true', [], $pipes); popen('true', 'r');",
    ),
    (
        "ini restored",
        "ini_set('precision', '5'); ini_restore('precision');",
    ),
    (
        "configuration at shutdown",
        "register_shutdown_function(function () { chdir('/'); putenv('LEFT=1'); ini_set('precision', '5'); setlocale(LC_ALL, 'C'); umask(0); });",
    ),
    (
        "everything in a destructor",
        "class Left { function __destruct() { chdir('/'); putenv('LEFT=1'); ini_set('precision', '5'); date_default_timezone_set('Asia/Tokyo'); } } $GLOBALS['l'] = new Left;",
    ),
];
