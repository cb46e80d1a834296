//! Multipart forms and the files in them.

use super::suite::Suite;

pub(crate) fn cases(suite: &mut Suite) {
    suite.file("upload.php", SCRIPT);
    let file = |name: &str, content: &str| {
        part(
            &format!("form-data; name=\"{name}\"; filename=\"a.txt\""),
            content,
        )
    };
    let field = |name: &str, content: &str| part(&format!("form-data; name=\"{name}\""), content);
    let forms = [
        ("one field", field("a", "1")),
        ("one file", file("f", "hello")),
        ("field and file", field("a", "1") + &file("f", "hello")),
        ("file before field", file("f", "hello") + &field("a", "1")),
        ("two files", file("f", "1") + &file("g", "2")),
        ("same name twice", file("f", "1") + &file("f", "2")),
        ("array of files", file("f[]", "1") + &file("f[]", "2")),
        ("array with keys", file("f[a]", "1") + &file("f[b][c]", "2")),
        (
            "array of fields",
            field("a[]", "1") + &field("a[]", "2") + &field("a[x][y]", "3"),
        ),
        ("empty file", file("f", "")),
        (
            "no file chosen",
            part("form-data; name=\"f\"; filename=\"\"", ""),
        ),
        (
            "content without a name",
            part("form-data; filename=\"x\"", "x"),
        ),
        ("file of exactly the limit", file("f", &"x".repeat(65_536))),
        (
            "file above the limit",
            file("f", &"x".repeat(65_537)) + &field("a", "after"),
        ),
        (
            "two big files",
            file("f", &"x".repeat(60_000)) + &file("g", &"y".repeat(60_000)),
        ),
        (
            "more than post_max_size",
            file("f", &"x".repeat(60_000)).repeat(5),
        ),
        (
            "limit in the form",
            field("MAX_FILE_SIZE", "4") + &file("f", "12345") + &file("g", "1234"),
        ),
        (
            "thirty files",
            (0..30)
                .map(|number| file(&format!("f{number}"), "x"))
                .collect(),
        ),
        (
            "path in the name",
            part("form-data; name=\"f\"; filename=\"C:\\dir\\a.txt\"", "x"),
        ),
        (
            "slashes in the name",
            part("form-data; name=\"f\"; filename=\"../../etc/passwd\"", "x"),
        ),
        (
            "relative directory",
            part("form-data; name=\"f\"; filename=\"dir/sub/a.txt\"", "x"),
        ),
        (
            "quotes in the name",
            part("form-data; name=\"f\"; filename=\"a\\\"b.txt\"", "x"),
        ),
        (
            "name without quotes",
            part("form-data; name=f; filename=a.txt", "x"),
        ),
        (
            "name in single quotes",
            part("form-data; name='f'; filename='a.txt'", "x"),
        ),
        (
            "name in UTF-8",
            part("form-data; name=\"f\"; filename=\"ä€.txt\"", "x"),
        ),
        (
            "extended name",
            part("form-data; name=\"f\"; filename*=UTF-8''%e2%82%ac.txt", "x"),
        ),
        (
            "file with type",
            part(
                "form-data; name=\"f\"; filename=\"a.png\"\r\nContent-Type: image/png",
                "\u{89}PNG",
            ),
        ),
        (
            "file with encoding",
            part(
                "form-data; name=\"f\"; filename=\"a\"\r\nContent-Transfer-Encoding: base64",
                "eA==",
            ),
        ),
        (
            "field with type",
            part(
                "form-data; name=\"a\"\r\nContent-Type: application/json",
                "{}",
            ),
        ),
        (
            "names with dots and spaces",
            field("a.b", "1") + &field("c d", "2") + &file("e.f", "x"),
        ),
        (
            "odd brackets",
            field("a[", "1")
                + &field("b]", "2")
                + &file("f[", "x")
                + &file("g]", "x")
                + &file("[h]", "x"),
        ),
        (
            "line ends in a file",
            file("f", "a\r\nb\r\n--not\r\n--\r\n"),
        ),
        (
            "lines that resemble the boundary",
            file("f", "\r\n--bound\r\n-boundary\r\n"),
        ),
        ("not a form", part("attachment; filename=\"x\"", "x")),
        (
            "no disposition",
            "--boundary\r\nContent-Type: text/plain\r\n\r\nx\r\n".to_owned(),
        ),
        ("no headers", "--boundary\r\n\r\nx\r\n".to_owned()),
        (
            "long header",
            part(
                &format!(
                    "form-data; name=\"f\"; x=\"{}\"; filename=\"a\"",
                    "x".repeat(9000)
                ),
                "x",
            ),
        ),
        (
            "many fields",
            (0..1100)
                .map(|number| field(&format!("v{number}"), "x"))
                .collect(),
        ),
        ("nothing", String::new()),
    ];
    for (name, parts) in forms {
        let request = suite.get("/upload.php").post(
            "multipart/form-data; boundary=boundary",
            parts + "--boundary--\r\n",
        );
        suite.case(name, request);
    }

    let usual = file("f", "hello") + "--boundary--\r\n";
    let types = [
        (
            "quoted boundary",
            "multipart/form-data; boundary=\"boundary\"",
        ),
        (
            "boundary with charset",
            "multipart/form-data; charset=utf-8; boundary=boundary",
        ),
        (
            "boundary then charset",
            "multipart/form-data; boundary=boundary; charset=utf-8",
        ),
        ("capital boundary", "multipart/form-data; BOUNDARY=boundary"),
        ("other boundary", "multipart/form-data; boundary=other"),
        ("missing boundary", "multipart/form-data"),
        ("empty boundary", "multipart/form-data; boundary="),
        (
            "unfinished quote",
            "multipart/form-data; boundary=\"boundary",
        ),
        ("capital type", "Multipart/Form-Data; boundary=boundary"),
        (
            "long boundary",
            &format!("multipart/form-data; boundary={}", "b".repeat(6000)),
        ),
    ];
    for (name, content_type) in types {
        let request = suite.get("/upload.php").post(content_type, &usual);
        suite.case(name, request);
    }
    for (name, body) in [
        ("no final boundary", file("f", "hello")),
        ("cut in the file", usual[..usual.len() - 20].to_owned()),
        ("cut in the header", usual[..30].to_owned()),
        ("text before", format!("preamble\r\n{usual}")),
        ("text after", format!("{usual}epilogue")),
        ("bare line feeds", usual.replace("\r\n", "\n")),
    ] {
        let request = suite
            .get("/upload.php")
            .post("multipart/form-data; boundary=boundary", &body);
        suite.case(name, request);
    }
    let short = suite
        .get("/upload.php")
        .post("multipart/form-data; boundary=boundary", &usual);
    suite.half_closed_case(
        "length below the body",
        short.param("CONTENT_LENGTH", "100"),
    );
    let input = "<?php var_dump(strlen(file_get_contents('php://input')), count($_FILES));";
    suite.script_with("input of a multipart form", input, |request| {
        request.post("multipart/form-data; boundary=boundary", &usual)
    });
    suite.script_with("moved", MOVE, |request| {
        request.post("multipart/form-data; boundary=boundary", &usual)
    });
}

fn part(disposition: &str, content: &str) -> String {
    format!("--boundary\r\nContent-Disposition: {disposition}\r\n\r\n{content}\r\n")
}

const SCRIPT: &str = r"<?php
$files = $_FILES;
array_walk_recursive($files, function (&$value, $key) {
    if (is_string($value) && is_uploaded_file($value)) {
        $value = 'uploaded: ' . filesize($value) . ' ' . md5_file($value) . ' ' . decoct(fileperms($value));
    }
});
var_dump($_POST === [] ? [] : array_slice($_POST, 0, 5), count($_POST), $files, strlen(file_get_contents('php://input')));
";

const MOVE: &str = r"<?php
$from = $_FILES['f']['tmp_name'];
$to = tempnam(sys_get_temp_dir(), 'moved');
var_dump(move_uploaded_file($from, $to), file_get_contents($to), file_exists($from), is_uploaded_file($to), unlink($to));
var_dump(move_uploaded_file(__FILE__, $to));
";
