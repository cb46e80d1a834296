//! Output buffering, flushing, big and binary bodies.

use super::suite::Suite;

pub(crate) fn cases(suite: &mut Suite) {
    for (name, source) in CASES {
        suite.script(name, &format!("<?php {source}"));
    }
    for size in [
        1, 4095, 4096, 4097, 8191, 8192, 8193, 16_384, 65_527, 65_528, 65_529, 65_535, 65_536,
        65_537, 1_000_000, 20_000_000,
    ] {
        suite.script(&format!("{size} bytes at once"), &format!("<?php echo str_repeat('0123456789', intdiv({size}, 10)), substr('0123456789', 0, {size} % 10);"));
    }
    suite.script(
        "a million bytes in pieces",
        "<?php for ($i = 0; $i < 100000; $i++) { echo '0123456789'; }",
    );
    suite.script(
        "gzip asked for",
        "<?php ob_start('ob_gzhandler'); echo str_repeat('x', 1000);",
    );
    suite.script_with(
        "gzip accepted",
        "<?php ob_start('ob_gzhandler'); echo str_repeat('x', 1000);",
        |request| request.header("Accept-Encoding", "gzip, deflate"),
    );
    suite.script_with(
        "compression by PHP",
        "<?php ini_set('zlib.output_compression', '1'); echo str_repeat('x', 100000);",
        |request| request.header("Accept-Encoding", "gzip"),
    );
    suite.file(
        "big.bin",
        (0..300_000_u32)
            .map(|number| (number * 7 % 251) as u8)
            .collect::<Vec<u8>>(),
    );
}

const CASES: &[(&str, &str)] = &[
    ("levels", "var_dump(ob_get_level(), ob_get_status(true));"),
    (
        "nested buffers",
        "ob_start(); echo 'a'; ob_start(); echo 'b'; $b = ob_get_clean(); echo 'c'; $a = ob_get_clean(); echo strrev($a), $b;",
    ),
    (
        "buffers left open",
        "ob_start(); echo 'a'; ob_start(fn ($s) => strtoupper($s)); echo 'b'; ob_start(); echo 'c';",
    ),
    (
        "callback",
        "ob_start(fn ($buffer, $phase) => \"[$phase:$buffer]\"); echo 'a'; ob_flush(); echo 'b'; ob_clean(); echo 'c';",
    ),
    (
        "callback with chunks",
        "ob_start(fn ($buffer, $phase) => \"[$phase:$buffer]\", 4); foreach (str_split('abcdefghij', 3) as $s) { echo $s; }",
    ),
    (
        "callback that fails",
        "ob_start(fn ($buffer) => false); echo 'a';",
    ),
    (
        "callback that throws",
        "ob_start(function ($buffer) { throw new Exception('in the callback'); }); echo 'a'; ob_end_flush(); echo 'b';",
    ),
    (
        "callback that prints",
        "ob_start(function ($buffer) { echo 'lost'; return $buffer; }); echo 'a';",
    ),
    (
        "callback that starts a buffer",
        "ob_start(function ($buffer) { ob_start(); return $buffer; }); echo 'a'; ob_end_flush();",
    ),
    (
        "callback that is missing",
        "var_dump(ob_start('no_such_function')); echo 'a';",
    ),
    (
        "unremovable buffer",
        "ob_start(null, 0, 0); echo 'a'; var_dump(ob_end_clean()); echo 'b';",
    ),
    (
        "clean all",
        "echo 'a'; while (ob_get_level()) { ob_end_clean(); } echo 'b'; var_dump(ob_get_contents());",
    ),
    (
        "implicit flush",
        "ob_implicit_flush(); echo 'a'; ob_implicit_flush(false); echo 'b';",
    ),
    (
        "flush",
        "echo 'a'; flush(); echo 'b'; ob_flush(); flush(); echo 'c';",
    ),
    (
        "flush before output",
        "flush(); header('X-A: 1'); echo 'a';",
    ),
    ("flush of nothing", "flush(); flush();"),
    ("binary", "for ($i = 0; $i < 256; $i++) { echo chr($i); }"),
    ("broken UTF-8", "echo \"\\xc3\\x28 \\xff\\xfe \\xe2\\x82\";"),
    ("empty lines", "echo \"\\r\\n\\r\\n\\n\\n\";"),
    (
        "looks like headers",
        "echo \"Status: 404 Not Found\\r\\nX-A: 1\\r\\n\\r\\nbody\";",
    ),
    (
        "print and printf",
        "print 'a'; printf('%05.1f', 1.5); echo 1, 2.5, true, null; vprintf('%s', ['x']); fprintf(fopen('php://output', 'w'), 'y');",
    ),
    (
        "output stream",
        "$f = fopen('php://output', 'w'); fwrite($f, 'a'); ob_start(); fwrite($f, 'b'); $b = ob_get_clean(); fwrite($f, \"[$b]\"); fclose($f); echo 'c';",
    ),
    (
        "standard output",
        "$f = fopen('php://stdout', 'w'); var_dump(is_resource($f)); echo 'body';",
    ),
    ("readfile", "readfile('big.bin');"),
    (
        "fpassthru",
        "$f = fopen('big.bin', 'r'); fseek($f, 1000); fpassthru($f);",
    ),
    (
        "stream copy",
        "stream_copy_to_stream(fopen('big.bin', 'r'), fopen('php://output', 'w'));",
    ),
    (
        "readfile without buffers",
        "while (ob_get_level()) { ob_end_clean(); } readfile('big.bin');",
    ),
    (
        "rewrite variables",
        "output_add_rewrite_var('a', 'b'); echo '<a href=\"x.php\">x</a><form></form>';",
    ),
    ("highlight", "highlight_string('<?php echo 1;');"),
    (
        "inline",
        "?>text <?php if (true): ?>yes<?php endif ?>\n end <?= 'short' ?>\n<?php",
    ),
    ("output after 204", "http_response_code(204); echo 'body';"),
    ("output after 304", "http_response_code(304); echo 'body';"),
    (
        "connection functions",
        "var_dump(connection_status(), connection_aborted(), ignore_user_abort()); ignore_user_abort(true); var_dump(ignore_user_abort());",
    ),
    (
        "generator",
        "function g() { for ($i = 0; $i < 3; $i++) { echo $i; yield $i; } } foreach (g() as $x) { echo \"<$x>\"; }",
    ),
    (
        "fiber",
        "$f = new Fiber(function () { echo 'a'; Fiber::suspend(); echo 'b'; }); $f->start(); echo '-'; $f->resume();",
    ),
    (
        "dump functions",
        "var_dump([1, 'a' => null]); print_r([1.5]); var_export(true);",
    ),
    ("phpcredits", "phpcredits(CREDITS_GROUP);"),
];
