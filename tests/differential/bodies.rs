//! Request bodies: lengths that are right, wrong or missing, and the ways to read them.

use super::suite::Suite;
use crate::support::client::Request;

pub(crate) fn cases(suite: &mut Suite) {
    types(suite);
    lengths(suite);
    readers(suite);
    sizes(suite);
}

fn dump(suite: &mut Suite, name: &str, change: impl FnOnce(Request) -> Request) {
    let request = change(suite.get("/dump.php"));
    suite.case(name, request);
}

fn types(suite: &mut Suite) {
    let types = [
        "application/x-www-form-urlencoded",
        "application/x-www-form-urlencoded; charset=UTF-8",
        "APPLICATION/X-WWW-FORM-URLENCODED",
        "application/x-www-form-urlencoded;charset=latin1",
        "application/x-www-form-urlencoded, text/plain",
        " application/x-www-form-urlencoded",
        "application/json",
        "text/plain",
        "multipart/form-data",
        "multipart/mixed; boundary=x",
        "nonsense",
        ";",
        "",
    ];
    for content_type in types {
        dump(suite, &format!("type {content_type:?}"), |request| {
            request.post(content_type, "a=1&b=%C3%A9")
        });
    }
    dump(suite, "no type", |request| {
        request.form("a=1").without("CONTENT_TYPE")
    });
    dump(suite, "type with a zero byte", |request| {
        request
            .form("a=1")
            .param("CONTENT_TYPE", b"application/json\0x")
    });
    dump(suite, "form in a PUT", |request| {
        request.form("a=1").method("PUT")
    });
    dump(suite, "JSON in a PATCH", |request| {
        request
            .post("application/json", "{\"a\":[1,2]}")
            .method("PATCH")
    });
    dump(suite, "body in a GET", |request| {
        request.form("a=1").method("GET")
    });
    dump(suite, "body in a DELETE", |request| {
        request.post("text/plain", "gone").method("DELETE")
    });
    dump(suite, "binary body", |request| {
        request.post("application/octet-stream", (0..=255).collect::<Vec<u8>>())
    });
    dump(suite, "binary form", |request| {
        request.form(b"a=\xff\x00\xfe&b=1")
    });
}

fn lengths(suite: &mut Suite) {
    for length in [
        "0",
        "3",
        "7",
        "+7",
        " 7",
        "7 ",
        "007",
        "0x7",
        "7abc",
        "abc",
        "-1",
        "-7",
        "99999999999999999999",
        "",
    ] {
        let request = suite
            .get("/dump.php")
            .form("abc=def")
            .param("CONTENT_LENGTH", length);
        suite.half_closed_case(&format!("length {length:?} of 7"), request);
    }
    for length in ["20", "100000", "300000"] {
        let request = suite
            .get("/dump.php")
            .form("a=1&b=2")
            .param("CONTENT_LENGTH", length);
        suite.half_closed_case(&format!("length {length} larger than the body"), request);
        let request = suite
            .get("/dump.php")
            .post("text/plain", "a=1&b=2")
            .param("CONTENT_LENGTH", length);
        suite.half_closed_case(&format!("length {length} larger than the text"), request);
    }
    dump(suite, "no length", |request| {
        request.form("a=1&b=2").without("CONTENT_LENGTH")
    });
    dump(suite, "no length of a big body", |request| {
        request.form(vec![b'x'; 70_000]).without("CONTENT_LENGTH")
    });
    dump(suite, "empty body", |request| request.form(""));
    dump(suite, "two lengths", |request| {
        request.form("a=1&b=2").another_param("CONTENT_LENGTH", "3")
    });
}

fn readers(suite: &mut Suite) {
    let readers = [
        (
            "input twice",
            "echo file_get_contents('php://input'), '|', file_get_contents('php://input');",
        ),
        (
            "input in pieces",
            "$f = fopen('php://input', 'r'); while (!feof($f)) { echo '[', fread($f, 3), ']'; }",
        ),
        (
            "input by two handles",
            "$f = fopen('php://input', 'r'); $g = fopen('php://input', 'r'); echo fread($f, 4), '|', fread($g, 2), '|', fread($f, 2), '|', stream_get_contents($g);",
        ),
        (
            "input with seek",
            "$f = fopen('php://input', 'r'); fread($f, 5); var_dump(fseek($f, 1), ftell($f)); echo stream_get_contents($f); var_dump(fseek($f, -2, SEEK_END)); echo fread($f, 9); print_r(stream_get_meta_data($f));",
        ),
        (
            "input with stat",
            "$f = fopen('php://input', 'r'); var_dump(fstat($f) !== false, feof($f), stream_get_line($f, 100, '&'));",
        ),
        (
            "input opened for writing",
            "$f = fopen('php://input', 'w'); var_dump(fwrite($f, 'x'), fread($f, 3));",
        ),
        (
            "input by copy",
            "echo stream_copy_to_stream(fopen('php://input', 'r'), $t = fopen('php://temp', 'w+')); rewind($t); echo stream_get_contents($t);",
        ),
        ("input by file()", "var_dump(file('php://input'));"),
        (
            "input through a filter",
            "echo file_get_contents('php://filter/read=string.toupper|convert.base64-encode/resource=php://input');",
        ),
        ("input by include", "var_dump(@include 'php://input');"),
        (
            "input in a shutdown function",
            "register_shutdown_function(function () { echo file_get_contents('php://input'); });",
        ),
        ("input not read", "echo 'unread';"),
        (
            "standard input",
            "var_dump(file_get_contents('php://stdin'));",
        ),
        (
            "constants of the CLI",
            "var_dump(defined('STDIN'), defined('STDOUT'), defined('STDERR'));",
        ),
        ("post only", "var_dump($_POST, $_REQUEST, count($_FILES));"),
        (
            "request_parse_body",
            "if (function_exists('request_parse_body')) { try { var_dump(request_parse_body()); } catch (Throwable $e) { echo get_class($e), $e->getMessage(); } }",
        ),
    ];
    for (name, source) in readers {
        let source = format!("<?php {source}");
        suite.script_with(&format!("{name}, form"), &source, |request| {
            request.form("abc=def&x[]=1")
        });
        suite.script_with(&format!("{name}, text"), &source, |request| {
            request.post("text/plain", "0123456789").method("PUT")
        });
        suite.script(&format!("{name}, nothing"), &source);
    }
}

fn sizes(suite: &mut Suite) {
    for size in [
        8191, 8192, 16_384, 16_385, 65_528, 65_535, 65_536, 131_072, 262_144,
    ] {
        let form = |byte: &str| format!("a={}", byte.repeat(size - 2));
        dump(suite, &format!("form of {size} bytes"), |request| {
            request.form(form("x"))
        });
        dump(suite, &format!("text of {size} bytes"), |request| {
            request.post("text/plain", form("y"))
        });
    }
    dump(suite, "form above post_max_size", |request| {
        request.form(vec![b'a'; 300_000])
    });
    dump(suite, "text above post_max_size", |request| {
        request.post("text/plain", vec![b'a'; 300_000])
    });
}
