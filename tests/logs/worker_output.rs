//! `catch_workers_output` and `decorate_workers_output`.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use super::both;
use crate::support::client::Request;
use crate::support::configured::{Configured, Files};
use crate::support::fpm::Fpm;
use crate::support::{DEADLINE, holds_within};

/// What scripts write, and to which stream.
const SCRIPTS: &[(&str, &str)] = &[
    ("lines", r#"fwrite($err, "one\ntwo\n\nthree");"#),
    (
        "pieces",
        r#"fwrite($err, "a - "); usleep(1000); fwrite($err, "b - "); fwrite($err, "c");"#,
    ),
    ("long", r#"fwrite($err, str_repeat("x", 5000) . "\n");"#),
    ("exact", r#"fwrite($err, str_repeat("x", 1023) . "\n");"#),
    (
        "flush",
        r#"fwrite($err, str_repeat("y", 1018) . "\0fscf\0rest");"#,
    ),
    (
        "nearly",
        r#"fwrite($err, str_repeat("y", 1021) . "\0fabc");"#,
    ),
    ("quotes", r#"fwrite($err, "say \"hello\" \t tab\n");"#),
    ("stdout", r#"fwrite(fopen('php://stdout', 'w'), "out\n");"#),
    (
        "php",
        r#"error_log("a message"); error_log(str_repeat("m", 2000));"#,
    ),
];

/// The log lines that tell what worker processes said, without time and process number.
fn said(root: &Path, server: &Fpm) -> Vec<String> {
    for (name, _) in SCRIPTS {
        let uri = format!("/{name}.php");
        server.connect().exchange(&Request::get(root, &uri));
        // Order between streams and requests is not the subject: wait until this one's are there.
        let last = format!("end of {name}");
        server
            .connect()
            .exchange(&Request::get(root, &format!("/end.php?{name}")));
        holds_within(DEADLINE, || server.log().text().contains(&last));
    }
    let text = server.log().text();
    let lines = text.lines().map(|line| {
        let line = line
            .split_once("] WARNING: ")
            .map_or(line, |(_, rest)| rest);
        match line.split_once(" child ") {
            Some((pool, rest)) => {
                let rest = rest.trim_start_matches(|character: char| character.is_ascii_digit());
                format!("{pool} child{rest}")
            }
            None => line.to_owned(),
        }
    });
    lines.filter(|line| !line.contains("] NOTICE: ")).collect()
}

fn compare(pool: &str) {
    let root = tempfile::tempdir().unwrap();
    for (name, source) in SCRIPTS {
        let path = root.path().join(format!("{name}.php"));
        fs::write(
            path,
            format!("<?php $err = fopen('php://stderr', 'w'); {source}"),
        )
        .unwrap();
    }
    let end =
        "<?php file_put_contents('php://stderr', 'end of ' . $_SERVER['QUERY_STRING'] . \"\\n\");";
    fs::write(root.path().join("end.php"), end).unwrap();
    let [stock, ours] = both(pool, root.path());
    let [expected, found] = [stock, ours].map(|server| said(root.path(), &server));
    assert_eq!(found, expected);
}

#[test]
fn decorated_lines_are_equal() {
    compare("catch_workers_output = yes\n");
}

#[test]
fn plain_lines_are_equal() {
    compare("catch_workers_output = yes\ndecorate_workers_output = no\n");
}

/// OPcache says on standard error why it calls exit() while PHP starts.
#[test]
fn what_ends_php_while_it_starts_is_logged() {
    for decorated in [true, false] {
        let lines = format!(
            "pm = static\npm.max_children = 1\ncatch_workers_output = yes\ndecorate_workers_output = {}\n",
            u8::from(decorated)
        );
        // More than OPcache has.
        let files = Files::new(&["opcache.interned_strings_buffer=4000".to_owned()]);
        files.configure(&Configured::pool("www", &lines));
        let output = Configured::builder("")
            .command(&files)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert!(!output.status.success(), "{output:?}");
        let log = String::from_utf8_lossy(&output.stderr);
        let reason = log.find("Insufficient shared memory for interned strings");
        let end = log.find("before it was ready");
        assert!(reason.is_some() && reason < end, "{log}");
        assert_eq!(log.contains("said into stderr: "), decorated, "{log}");
    }
}
