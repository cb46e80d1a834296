//! The ends of scripts: exit, shutdown functions, destructors, fastcgi_finish_request, working directories.

use super::suite::Suite;

pub(crate) fn cases(suite: &mut Suite) {
    suite.file("exits.php", "<?php echo 'included'; exit(3);");
    suite.file("returns.php", "<?php return 'returned';");
    for (name, source) in CASES {
        suite.script(name, &format!("<?php {source}"));
    }
    for code in [0, 1, 5, 254, 255, 256, -1, 70_000] {
        suite.script(
            &format!("exit code {code}"),
            &format!("<?php echo 'body'; exit({code});"),
        );
    }
}

const CASES: &[(&str, &str)] = &[
    ("exit", "echo 'before'; exit; echo 'after';"),
    ("exit string", "echo 'before'; exit('words');"),
    ("exit empty string", "exit('');"),
    ("exit in a function", "function f() { exit('in f'); } f();"),
    (
        "exit in a buffer",
        "ob_start(fn ($b) => \"[$b]\"); echo 'before'; exit('words');",
    ),
    (
        "exit in an include",
        "echo 'before'; include 'exits.php'; echo 'after';",
    ),
    (
        "return from the script",
        "echo 'before'; return 5; echo 'after';",
    ),
    ("return of an include", "echo include 'returns.php';"),
    (
        "exit in a shutdown function",
        "register_shutdown_function(function () { echo 'one'; exit(7); }); register_shutdown_function(function () { echo 'two'; }); echo 'body';",
    ),
    (
        "exit in finally",
        "try { exit('in try'); } finally { echo 'finally'; }",
    ),
    (
        "exit in a destructor",
        "class A { function __destruct() { echo 'd'; exit(9); } } $a = new A; echo 'body';",
    ),
    (
        "exit with objects",
        "class A { function __destruct() { echo 'destroyed'; } } $a = new A; exit('words ');",
    ),
    (
        "exit in a generator",
        "function g() { try { yield 1; exit('in g'); } finally { echo 'finally'; } } foreach (g() as $x) { echo $x; }",
    ),
    (
        "exit in a fiber",
        "(new Fiber(function () { exit('in fiber'); }))->start(); echo 'after';",
    ),
    (
        "exit in a callback",
        "array_map(function ($x) { exit(\"at $x\"); }, [1, 2]);",
    ),
    (
        "exit in an error handler",
        "set_error_handler(function () { exit('handled'); }); echo $x;",
    ),
    (
        "exit after exception",
        "set_exception_handler(function () { exit(4); }); throw new Exception('x');",
    ),
    (
        "shutdown functions",
        "register_shutdown_function(function (...$a) { echo 'one', implode($a); register_shutdown_function(function () { echo 'nested'; }); }, 'x', 'y'); register_shutdown_function(function () { echo 'two'; }); echo 'body';",
    ),
    (
        "order of the end",
        "class A { function __destruct() { echo 'destructor '; } } $a = new A; ob_start(function ($b) { return $b . 'buffer '; }); register_shutdown_function(function () { echo 'shutdown '; }); echo 'body ';",
    ),
    (
        "output in a destructor",
        "class A { function __destruct() { echo 'destructor'; } } $a = new A; echo 'body';",
    ),
    (
        "output in a static destructor",
        "class A { static $s; function __destruct() { echo 'static'; } } A::$s = new A; echo 'body';",
    ),
    (
        "header in shutdown after output",
        "register_shutdown_function(function () { header('X-Late: 1'); var_dump(headers_sent()); }); echo 'body'; flush();",
    ),
    (
        "working directory",
        "echo getcwd(); chdir('/'); echo getcwd(); chdir('tmp'); echo getcwd();",
    ),
    (
        "working directory at shutdown",
        "register_shutdown_function(function () { echo getcwd(), '|', basename(realpath('.')), '|', var_export(file_exists('returns.php'), true); });",
    ),
    (
        "changed directory at shutdown",
        "chdir('/usr'); register_shutdown_function(function () { echo getcwd(); });",
    ),
    (
        "working directory in a destructor",
        "class A { function __destruct() { echo getcwd(); } } $a = new A;",
    ),
    (
        "working directory in an output callback",
        "ob_start(fn ($b) => $b . getcwd());",
    ),
    (
        "include at shutdown",
        "register_shutdown_function(function () { var_dump(@include 'returns.php', @include __DIR__ . '/returns.php', @file_get_contents('returns.php')); });",
    ),
    (
        "finish request",
        "echo 'body'; var_dump(fastcgi_finish_request()); echo 'lost'; error_log('still running');",
    ),
    (
        "finish request twice",
        "echo 'body'; fastcgi_finish_request(); var_dump(fastcgi_finish_request());",
    ),
    (
        "finish request without output",
        "fastcgi_finish_request(); echo 'lost'; header('X-Late: 1');",
    ),
    (
        "finish request with headers",
        "header('X-A: 1'); http_response_code(404); echo 'body'; fastcgi_finish_request();",
    ),
    (
        "finish request in buffers",
        "ob_start(fn ($b) => \"[$b]\"); echo 'a'; ob_start(); echo 'b'; fastcgi_finish_request(); echo 'lost';",
    ),
    (
        "finish request and fatal",
        "echo 'body'; fastcgi_finish_request(); missing();",
    ),
    (
        "finish request and exit",
        "echo 'body'; fastcgi_finish_request(); exit(5);",
    ),
    (
        "finish request in shutdown",
        "register_shutdown_function(function () { echo 'shutdown'; fastcgi_finish_request(); echo 'lost'; }); echo 'body';",
    ),
    (
        "finish request then shutdown",
        "register_shutdown_function(function () { echo 'lost'; }); echo 'body'; fastcgi_finish_request();",
    ),
    (
        "finish request and status",
        "echo 'body'; fastcgi_finish_request(); register_shutdown_function(function () { error_log(var_export([connection_status(), connection_aborted(), headers_sent()], true)); });",
    ),
    (
        "finish request after flush",
        "echo 'a'; flush(); echo 'b'; fastcgi_finish_request(); echo 'lost'; flush();",
    ),
    (
        "finish request and session",
        "session_id('abc'); session_start(); $_SESSION['a'] = 1; echo 'body'; fastcgi_finish_request(); $_SESSION['a'] = 2;",
    ),
    (
        "garbage cycles",
        "class A { public $x; function __destruct() { echo 'd'; } } $a = new A; $a->x = $a; unset($a); var_dump(gc_collect_cycles()); $b = new A; $b->x = $b;",
    ),
    (
        "tick functions",
        "declare(ticks=1); register_tick_function(function () { echo '.'; }); $a = 1; $b = 2;",
    ),
    (
        "time limit reset",
        "var_dump(set_time_limit(0), ini_get('max_execution_time')); set_time_limit(5); var_dump(ini_get('max_execution_time'));",
    ),
    (
        "user abort",
        "var_dump(ignore_user_abort(true), ignore_user_abort(), connection_status()); register_shutdown_function(function () { var_dump(connection_status()); });",
    ),
];
