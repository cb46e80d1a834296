//! Errors of every level, wherever they go: output, error stream, log, status.

use super::suite::Suite;

pub(crate) fn cases(suite: &mut Suite) {
    suite.file("broken.php", "<?php function { }");
    suite.file("brace.php", "<?php if (1) {\n\necho 1;");
    for (name, source) in CASES {
        suite.script(name, &format!("<?php {source}"));
    }
    let broken = suite.get("/broken.php");
    suite.case("script with parse error", broken);
    let brace = suite.get("/brace.php");
    suite.case("script with a missing brace", brace);
    for value in ["0", "1", "stderr", "stdout", "off", "on"] {
        let source =
            format!("<?php ini_set('display_errors', '{value}'); echo $undefined; missing();");
        suite.script(&format!("display_errors {value}"), &source);
    }
    for (log, html) in [("0", "0"), ("0", "1"), ("1", "0"), ("1", "1")] {
        let source = format!(
            "<?php ini_set('log_errors', '{log}'); ini_set('html_errors', '{html}'); echo $undefined; throw new Exception(\"<b>\\n2nd line\");"
        );
        suite.script(&format!("log_errors {log}, html_errors {html}"), &source);
    }
    for level in [
        "E_USER_ERROR",
        "E_USER_WARNING",
        "E_USER_NOTICE",
        "E_USER_DEPRECATED",
    ] {
        suite.script(
            &format!("triggered {level}"),
            &format!("<?php trigger_error('<own> message', {level}); echo 'after';"),
        );
    }
}

const CASES: &[(&str, &str)] = &[
    ("notice", "echo $undefined; echo 'after';"),
    (
        "warning",
        "echo [] . ''; include 'missing.php'; echo 'after';",
    ),
    ("deprecated", "echo strlen(null), 'after';"),
    ("two warnings", "echo $a; echo $b; echo 'after';"),
    (
        "warning repeated",
        "for ($i = 0; $i < 3; $i++) { echo $x; }",
    ),
    (
        "ignore repeated",
        "ini_set('ignore_repeated_errors', '1'); for ($i = 0; $i < 3; $i++) { echo $x; }",
    ),
    (
        "silenced",
        "echo @$undefined; echo 'after'; print_r(error_get_last());",
    ),
    ("silenced and fatal", "@missing();"),
    (
        "error cleared",
        "@trigger_error('x'); error_clear_last(); var_dump(error_get_last());",
    ),
    (
        "error reporting off",
        "error_reporting(0); echo $x; missing();",
    ),
    ("fatal", "echo 'before'; missing(); echo 'after';"),
    ("fatal after flush", "echo 'before'; flush(); missing();"),
    (
        "fatal after much output",
        "echo str_repeat('x', 100000); missing();",
    ),
    ("fatal in a buffer", "ob_start(); echo 'before'; missing();"),
    (
        "fatal in a callback",
        "ob_start(fn ($b) => \"[$b]\"); echo 'before'; missing();",
    ),
    ("fatal with code set", "http_response_code(404); missing();"),
    (
        "fatal with type set",
        "header('Content-Type: text/plain'); missing();",
    ),
    (
        "require of a missing file",
        "echo 'before'; require 'missing.php';",
    ),
    ("exception", "throw new RuntimeException('own message', 5);"),
    (
        "exception with previous",
        "throw new LogicException('outer', 1, new RuntimeException('inner'));",
    ),
    (
        "exception with arguments",
        "function f($x) { throw new Exception('x'); } f(str_repeat('long', 20));",
    ),
    (
        "exception that is caught",
        "try { missing(); } catch (Error $e) { echo get_class($e), ': ', $e->getMessage(), ' ', $e->getLine(); }",
    ),
    (
        "exception with HTML",
        "throw new Exception('<script>alert(1)</script> & more');",
    ),
    (
        "exception with bytes",
        "throw new Exception(\"\\xff\\x00binary\");",
    ),
    (
        "long message",
        "trigger_error(str_repeat('0123456789', 500), E_USER_WARNING); echo 'after';",
    ),
    (
        "message of many lines",
        "trigger_error(\"one\\ntwo\\r\\nthree\\n\", E_USER_WARNING); echo 'after';",
    ),
    ("type error", "strlen([]);"),
    ("division by zero", "echo 1 % 0;"),
    ("value error", "array_fill(0, -1, 0);"),
    ("match error", "echo match (5) { 1 => 'a' };"),
    (
        "assertion",
        "ini_set('zend.assertions', '1'); assert(false); echo 'after';",
    ),
    (
        "parse error in an include",
        "echo 'before'; include 'broken.php'; echo 'after';",
    ),
    (
        "parse error in eval",
        "try { eval('this is not'); } catch (ParseError $e) { echo $e->getMessage(); }",
    ),
    (
        "compile error",
        "abstract class A { abstract function f(); } class B extends A {}",
    ),
    ("double declaration", "function strlen() {}"),
    (
        "memory limit",
        "ini_set('memory_limit', '8M'); echo 'before'; $x = str_repeat('x', 20000000);",
    ),
    (
        "memory limit in a shutdown function",
        "ini_set('memory_limit', '8M'); register_shutdown_function(function () { echo 'shutdown'; }); $x = str_repeat('x', 20000000);",
    ),
    (
        "time limit",
        "set_time_limit(1); echo 'before'; while (true);",
    ),
    (
        "time limit in a shutdown function",
        "set_time_limit(1); register_shutdown_function(function () { echo 'shutdown'; }); while (true);",
    ),
    (
        "endless recursion",
        "ini_set('memory_limit', '16M'); function f($n) { return f($n + 1) + 1; } f(1);",
    ),
    (
        "error handler",
        "set_error_handler(function (...$a) { echo \"handled: $a[1] \"; return true; }); echo $x; echo 'after';",
    ),
    (
        "error handler that declines",
        "set_error_handler(fn () => false); echo $x; echo 'after';",
    ),
    (
        "error handler that throws",
        "set_error_handler(function ($n, $m) { throw new ErrorException($m, 0, $n); }); echo $x; echo 'after';",
    ),
    (
        "exception handler",
        "set_exception_handler(function ($e) { echo 'handled: ', $e->getMessage(); }); throw new Exception('x'); echo 'after';",
    ),
    (
        "exception handler that throws",
        "set_exception_handler(function ($e) { throw new Exception('second'); }); throw new Exception('first');",
    ),
    (
        "error in a destructor",
        "class A { function __destruct() { throw new Exception('in the destructor'); } } $a = new A; echo 'before';",
    ),
    (
        "error in a shutdown function",
        "register_shutdown_function(function () { echo 'shutdown'; missing(); }); echo 'before';",
    ),
    (
        "error in two shutdown functions",
        "register_shutdown_function(fn () => missing()); register_shutdown_function(function () { echo 'second'; });",
    ),
    (
        "last error in a shutdown function",
        "register_shutdown_function(function () { print_r(error_get_last()); }); missing();",
    ),
    (
        "prepended and appended",
        "ini_set('error_prepend_string', '<p>'); ini_set('error_append_string', '</p>'); echo $x;",
    ),
    ("error_log", "error_log('own line'); echo 'body';"),
    (
        "error_log twice",
        "error_log('first'); error_log('second'); echo 'body';",
    ),
    (
        "error_log of many lines",
        "error_log(\"one\\ntwo\"); echo 'body';",
    ),
    ("error_log of nothing", "error_log(''); echo 'body';"),
    (
        "error_log of bytes",
        "error_log(\"\\xff\\x01\\x00 after zero\"); echo 'body';",
    ),
    (
        "error_log of a long line",
        "error_log(str_repeat('0123456789', 2000)); echo 'body';",
    ),
    (
        "error_log of the SAPI",
        "error_log('sapi line', 4); echo 'body';",
    ),
    (
        "error_log to a file",
        "error_log(\"to file\\n\", 3, $f = tempnam(sys_get_temp_dir(), 'log')); readfile($f); unlink($f);",
    ),
    (
        "error_log setting",
        "ini_set('error_log', $f = tempnam(sys_get_temp_dir(), 'log')); error_log('x'); echo $y; echo preg_replace('/^\\[.*?\\]/m', '[time]', file_get_contents($f)); unlink($f);",
    ),
    (
        "error_log before output",
        "error_log('x'); header('X-A: 1'); echo 'body';",
    ),
    (
        "error_log after flush",
        "echo 'body'; flush(); error_log('x'); echo 'more';",
    ),
    (
        "error stream",
        "fwrite(fopen('php://stderr', 'w'), 'x'); echo 'body';",
    ),
    ("syslog", "openlog('x', 0, LOG_USER); echo 'body';"),
    (
        "html_errors link",
        "ini_set('docref_root', '/manual/'); ini_set('docref_ext', '.html'); fopen('/missing/file', 'r');",
    ),
    (
        "failed fopen",
        "var_dump(fopen('/missing/file', 'r'), file_get_contents('/missing'));",
    ),
    (
        "backtrace",
        "function a() { b(); } function b() { debug_print_backtrace(); print_r(array_column(debug_backtrace(), 'function')); } a();",
    ),
    (
        "warning before headers",
        "echo $x; header('X-A: 1'); session_id('x'); session_start(); setcookie('a', 'b');",
    ),
    ("disabled class constant", "echo A::B;"),
    ("undefined method", "(new stdClass)->missing();"),
    (
        "uncaught in generator",
        "function g() { yield 1; throw new Exception('g'); } foreach (g() as $x) { echo $x; }",
    ),
    (
        "uncaught in fiber",
        "(new Fiber(function () { missing(); }))->start();",
    ),
    (
        "readonly",
        "final class P { public function __construct(public readonly int $x) {} } $p = new P(1); $p->x = 2;",
    ),
    ("array to string", "echo 'a' . [];"),
    ("undefined key", "$a = []; echo $a['x'], $a[1], 'abc'[5];"),
    ("unserialize", "var_dump(unserialize('nonsense'));"),
];
