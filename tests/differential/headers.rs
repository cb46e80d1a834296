//! Response heads: status lines, header order, cookies, caching, redirects.

use super::suite::Suite;

pub(crate) fn cases(suite: &mut Suite) {
    for (name, source) in CASES {
        suite.script(name, &format!("<?php {source}"));
    }
    for status in [
        100, 101, 103, 199, 200, 201, 204, 206, 299, 301, 304, 404, 418, 451, 499, 500, 503, 599,
        600, 999, 0, 20,
    ] {
        suite.script(
            &format!("code {status}"),
            &format!("<?php var_dump(http_response_code({status})); echo 'body';"),
        );
        suite.script(
            &format!("status line {status}"),
            &format!("<?php header('HTTP/1.1 {status} Own Words'); echo 'body';"),
        );
        suite.script(
            &format!("status header {status}"),
            &format!("<?php header('Status: {status} Own Words'); echo 'body';"),
        );
    }
    for code in [200, 204, 301, 304, 404] {
        let source = format!(
            "<?php http_response_code({code}); header('X-A: 1'); header('Content-Length: 4'); echo 'body';"
        );
        suite.script_with(&format!("HEAD with {code}"), &source, |request| {
            request.method("HEAD")
        });
    }
    for protocol in ["HTTP/1.0", "HTTP/2.0", ""] {
        suite.script_with(
            &format!("not found under {protocol:?}"),
            "<?php header($_SERVER['SERVER_PROTOCOL'] . ' 404 Gone Fishing');",
            |request| request.param("SERVER_PROTOCOL", protocol),
        );
        suite.script_with(
            &format!("redirect under {protocol:?}"),
            "<?php header('Location: /x');",
            |request| request.param("SERVER_PROTOCOL", protocol),
        );
    }
    for method in ["POST", "PUT", "HEAD"] {
        suite.script_with(
            &format!("redirect after {method}"),
            "<?php header('Location: /x'); echo 'body';",
            |request| request.method(method),
        );
    }
    suite.script_with(
        "output in a HEAD request",
        "<?php echo 'body'; ob_flush(); flush(); error_log('still here'); echo 'more';",
        |request| request.method("HEAD"),
    );
    let conditional = "<?php if (($_SERVER['HTTP_IF_NONE_MATCH'] ?? '') === '\"x\"') { http_response_code(304); exit; } header('ETag: \"x\"'); echo 'body';";
    suite.script_with("not modified", conditional, |request| {
        request.header("If-None-Match", "\"x\"")
    });
    suite.script_with("modified", conditional, |request| {
        request.header("If-None-Match", "\"y\"")
    });
    suite.script_with(
        "request headers",
        "<?php print_r(getallheaders()); var_dump(getallheaders() === apache_request_headers());",
        |request| {
            request
                .post("text/plain", "x")
                .header("X-A-B", "1")
                .header("x_c", "2")
                .header("Cookie", "a=1")
                .header("Content-Type", "odd")
                .header("X", "3")
                .param("HTTP_a1_B2", "4")
                .param("HTTP__D", "5")
                .header("Authorization", "Basic dXNlcjpwYXNz")
                .header("Proxy", "x")
        },
    );
    suite.script("header lists in a callback", "<?php header_register_callback(function () { header('X-Late: 1'); header_remove('X-Early'); echo 'from the callback'; }); header('X-Early: 1'); echo 'body'; print_r(headers_list());");
}

const CASES: &[(&str, &str)] = &[
    ("no header", "echo 'body';"),
    ("nothing at all", ""),
    ("one header", "header('X-A: 1'); echo 'body';"),
    (
        "order",
        "header('X-C: 1'); header('X-A: 2'); header('X-B: 3');",
    ),
    (
        "replaced in place",
        "header('X-A: 1'); header('X-B: 2'); header('X-A: 3');",
    ),
    (
        "replaced with other case",
        "header('X-A: 1'); header('x-a: 2');",
    ),
    ("twice", "header('X-A: 1', false); header('X-A: 2', false);"),
    (
        "twice then replaced",
        "header('X-A: 1', false); header('X-A: 2', false); header('X-A: 3');",
    ),
    (
        "removed",
        "header('X-A: 1'); header('X-B: 2'); header_remove('X-A');",
    ),
    (
        "removed in other case",
        "header('X-A: 1'); header_remove('x-a');",
    ),
    (
        "all removed",
        "header('X-A: 1'); header('Content-Type: text/plain'); header_remove(); echo 'body';",
    ),
    (
        "content type removed",
        "header_remove('Content-Type'); echo 'body';",
    ),
    (
        "content type removed after it was set",
        "header('Content-Type: text/plain'); header_remove('Content-Type'); echo 'body';",
    ),
    ("powered by removed", "header_remove('X-Powered-By');"),
    ("powered by replaced", "header('X-Powered-By: me');"),
    ("content type", "header('Content-Type: application/json');"),
    (
        "content type of text",
        "header('Content-Type: text/plain');",
    ),
    (
        "content type with charset",
        "header('Content-Type: text/plain; charset=latin1');",
    ),
    (
        "content type in capitals",
        "header('CONTENT-TYPE: TEXT/HTML');",
    ),
    (
        "content type twice",
        "header('Content-Type: text/plain'); header('Content-Type: text/css', false);",
    ),
    (
        "empty content type",
        "header('Content-Type:'); echo 'body';",
    ),
    (
        "empty content type with blank",
        "header('Content-Type: '); echo 'body';",
    ),
    (
        "no default charset",
        "ini_set('default_charset', ''); header('Content-Type: text/plain');",
    ),
    (
        "other default type",
        "ini_set('default_mimetype', 'text/plain'); ini_set('default_charset', 'latin1');",
    ),
    ("no default type", "ini_set('default_mimetype', '');"),
    (
        "content length",
        "header('Content-Length: 4'); echo 'body';",
    ),
    (
        "wrong content length",
        "header('Content-Length: 2'); echo 'body';",
    ),
    ("no colon", "header('nonsense'); echo 'body';"),
    ("only a colon", "header(': x'); echo 'body';"),
    ("space before the colon", "header('X-A : 1');"),
    ("spaces around", "header('  X-A:   1   ');"),
    ("empty value", "header('X-A:');"),
    ("empty header", "header('');"),
    ("line break", "header(\"X-A: 1\\r\\nX-B: 2\"); echo 'body';"),
    ("line feed", "header(\"X-A: 1\\nX-B: 2\"); echo 'body';"),
    ("folded", "header(\"X-A: 1\\r\\n 2\"); echo 'body';"),
    (
        "trailing line break",
        "header(\"X-A: 1\\r\\n\"); echo 'body';",
    ),
    ("zero byte", "header(\"X-A: 1\\0 2\"); echo 'body';"),
    ("bytes above 127", "header(\"X-A: \\xe9\\xff\");"),
    (
        "long header",
        "header('X-A: ' . str_repeat('x', 9000)); echo 'body';",
    ),
    (
        "very long header",
        "header('X-A: ' . str_repeat('x', 100000)); echo 'body';",
    ),
    (
        "many headers",
        "for ($i = 0; $i < 300; $i++) { header(\"X-$i: $i\"); } echo 'body';",
    ),
    ("redirect", "header('Location: /x');"),
    ("redirect with body", "header('Location: /x'); echo 'body';"),
    ("redirect with code", "header('Location: /x', true, 301);"),
    (
        "redirect after 201",
        "http_response_code(201); header('Location: /x');",
    ),
    (
        "redirect then 200",
        "header('Location: /x'); http_response_code(200);",
    ),
    (
        "redirect then removed",
        "header('Location: /x'); header_remove('Location');",
    ),
    (
        "absolute redirect",
        "header('Location: http://other.test/');",
    ),
    ("refresh", "header('Refresh: 5; url=/x');"),
    (
        "authenticate",
        "header('WWW-Authenticate: Basic realm=\"x\"'); echo 'body';",
    ),
    (
        "authenticate with code",
        "header('WWW-Authenticate: Basic realm=\"x\"'); http_response_code(403);",
    ),
    ("code in header()", "header('X-A: 1', true, 404);"),
    (
        "code and status line",
        "header('HTTP/1.1 404 Not Here'); http_response_code(500);",
    ),
    (
        "status line and code",
        "http_response_code(500); header('HTTP/1.1 404 Not Here');",
    ),
    (
        "status line last",
        "header('X-A: 1'); header('HTTP/1.0 402 Pay');",
    ),
    ("status line without reason", "header('HTTP/1.1 404');"),
    ("status line with blank reason", "header('HTTP/1.1 404 ');"),
    ("status line of nonsense", "header('HTTP/1.1 abc');"),
    (
        "status line in small letters",
        "header('http/1.1 404 small');",
    ),
    ("status line HTTP/2", "header('HTTP/2 404 Two');"),
    (
        "status line with line break",
        "header(\"HTTP/1.1 404 A\\r\\nX-B: 1\");",
    ),
    ("status header without reason", "header('Status: 404');"),
    (
        "status header and code",
        "header('Status: 404 Not Here'); http_response_code(500);",
    ),
    (
        "code and status header",
        "http_response_code(500); header('Status: 404 Not Here');",
    ),
    (
        "status header and status line",
        "header('Status: 404 One'); header('HTTP/1.1 500 Two');",
    ),
    (
        "status header in small letters",
        "header('status: 404 small');",
    ),
    (
        "status header twice",
        "header('Status: 404 One', false); header('Status: 500 Two', false);",
    ),
    (
        "response code read",
        "var_dump(http_response_code()); http_response_code(404); var_dump(http_response_code());",
    ),
    ("cookie", "setcookie('a', 'b');"),
    (
        "cookies",
        "setcookie('a', 'b'); setcookie('c', 'd', 1000000000, '/p', 'example.test', true, true); setcookie('a', 'e');",
    ),
    (
        "cookie options",
        "setcookie('a', 'b c;ä', ['expires' => 1000000000, 'samesite' => 'Lax', 'path' => '/']);",
    ),
    ("cookie deleted", "setcookie('a', '', 1);"),
    ("raw cookie", "setrawcookie('a', 'b%20c');"),
    (
        "invalid cookie",
        "try { setcookie('a b', 'c'); } catch (ValueError $e) { echo $e->getMessage(); }",
    ),
    (
        "cookie and header",
        "header('Set-Cookie: x=1'); setcookie('a', 'b'); header('Set-Cookie: y=2', false);",
    ),
    (
        "cookies removed",
        "setcookie('a', 'b'); setcookie('c', 'd'); header_remove('Set-Cookie');",
    ),
    (
        "list",
        "header('X-A: 1'); setcookie('a', 'b'); print_r(headers_list()); var_dump(headers_sent());",
    ),
    (
        "header after output",
        "echo 'body'; ob_end_flush(); flush(); header('X-Late: 1'); var_dump(headers_sent($f, $l), basename($f), $l);",
    ),
    (
        "code after output",
        "echo 'body'; @ob_end_flush(); flush(); var_dump(http_response_code(404), http_response_code());",
    ),
    (
        "remove after output",
        "header('X-A: 1'); echo 'body'; @ob_end_flush(); flush(); header_remove('X-A');",
    ),
    (
        "cookie after output",
        "echo 'body'; @ob_end_flush(); flush(); var_dump(setcookie('a', 'b'));",
    ),
    (
        "callback",
        "header_register_callback(function () { header('X-Late: 1'); }); echo 'body';",
    ),
    (
        "callback without output",
        "header_register_callback(function () { header('X-Late: 1'); http_response_code(404); });",
    ),
    (
        "two callbacks",
        "header_register_callback(fn () => header('X-1: 1')); header_register_callback(fn () => header('X-2: 2'));",
    ),
    (
        "callback that throws",
        "header_register_callback(function () { throw new Exception('late'); }); echo 'body';",
    ),
    (
        "callback that exits",
        "header_register_callback(function () { exit('early'); }); echo 'body';",
    ),
    (
        "callback and flush",
        "header_register_callback(function () { header('X-Late: 1'); }); flush(); echo 'body'; header('X-Later: 1');",
    ),
    (
        "headers in a shutdown function",
        "register_shutdown_function(function () { header('X-Late: 1'); http_response_code(404); }); echo 'body';",
    ),
    (
        "headers in a destructor",
        "class A { function __destruct() { header('X-Late: 1'); } } $a = new A; echo 'body';",
    ),
    (
        "headers in an output callback",
        "ob_start(function ($b) { header('X-Late: ' . strlen($b)); return $b; }); echo 'body';",
    ),
    (
        "caching",
        "header('Cache-Control: no-store'); header('Expires: 0'); header('Last-Modified: Sat, 01 Jan 2000 00:00:00 GMT');",
    ),
    (
        "transfer encoding",
        "header('Transfer-Encoding: chunked'); echo \"4\\r\\nbody\\r\\n0\\r\\n\\r\\n\";",
    ),
    (
        "compression",
        "ini_set('zlib.output_compression', '1'); echo str_repeat('x', 1000);",
    ),
    (
        "X-Accel",
        "header('X-Accel-Buffering: no'); header('X-Accel-Redirect: /x'); header('X-Sendfile: /y');",
    ),
];
