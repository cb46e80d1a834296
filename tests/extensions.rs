//! Debian's own extensions load and work: what is compiled for php-fpm runs here.

use crate::support::php;
use crate::support::server::Server;

/// Runs `code` in a server with `extension` (a line of php.ini); only where PHP is Debian's.
fn check(ini: &[&str], code: &str, expected: &str) {
    if !php::is_packaged() {
        return; // those builds have no other extensions than their own
    }
    let builder = ini
        .iter()
        .fold(Server::builder(), |builder, line| builder.ini(line));
    let s = builder.start();
    s.php("use.php", &format!("<?php {code}"));
    for _ in 0..2 {
        let response = s.get("/use.php");
        assert_eq!(response.text(), expected, "{}", response.stderr_text());
    }
}

#[test]
fn xdebug_loads_and_works() {
    check(
        &["zend_extension=xdebug.so", "xdebug.mode=develop"],
        "function f() { return xdebug_call_function(); } \
         echo json_encode(extension_loaded('xdebug')), xdebug_info('mode')[0], f();",
        "truedevelop{main}",
    );
}

#[test]
fn igbinary_loads_and_works() {
    check(
        &[],
        "echo json_encode(igbinary_unserialize(igbinary_serialize(['a' => 1])));",
        r#"{"a":1}"#,
    );
}

#[test]
fn redis_loads_and_works() {
    check(
        &[],
        "try { (new Redis)->connect('127.0.0.1', 1, 0.5); } catch (RedisException $e) { echo $e->getMessage(); }",
        "Connection refused",
    );
}

#[test]
fn imagick_loads_and_works() {
    check(
        &[],
        "$i = new Imagick; $i->newImage(3, 2, 'red', 'png'); echo $i->getImageWidth(), 'x', $i->getImageHeight(), ' ', \
         bin2hex(substr($i->getImageBlob(), 1, 3));",
        "3x2 504e47",
    );
}

#[test]
fn apcu_loads_and_works() {
    check(
        &["apc.enabled=1"],
        "apcu_store('k', [1, 2]); echo json_encode(apcu_fetch('k'));",
        "[1,2]",
    );
}
