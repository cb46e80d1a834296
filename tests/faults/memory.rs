//! Scripts that want more memory than there is.

use super::watch::{Cost, survives, times};
use crate::support::php;
use crate::support::server::Server;

/// What each does, and the scripts.
const BOMBS: &[(&str, &str)] = &[
    ("one string", "$x = str_repeat('x', 1 << 40);"),
    (
        "a string that doubles",
        "$x = 'x'; while (true) { $x .= $x; }",
    ),
    ("an array", "while (true) { $x[] = 1; }"),
    (
        "many small strings",
        "while (true) { $x[] = str_repeat('x', 100); }",
    ),
    ("objects", "while (true) { $x[] = new stdClass; }"),
    (
        "the output buffer",
        "ob_start(); while (true) { echo str_repeat('x', 10000); }",
    ),
    ("a fixed array", "$x = new SplFixedArray(1 << 30);"),
    (
        "a shutdown function",
        "register_shutdown_function(function () { while (true) { $x[] = str_repeat('x', 1000); } });",
    ),
];

server!(
    memory_bombs_end_at_the_memory_limit,
    Server::builder()
        .ini("memory_limit=32M")
        .ini("display_errors=1"),
    |s| {
        for (number, (_, source)) in BOMBS.iter().enumerate() {
            s.php(&format!("bomb{number}.php"), &format!("<?php {source}"));
        }
        survives(&s, "a memory bomb", Cost::Request, times(24), |n| {
            let number = n as usize % BOMBS.len();
            let response = s.get(&format!("/bomb{number}.php"));
            assert!(
                (response.text() + &response.stderr_text()).contains("Allowed memory size"),
                "{}: {response:?}",
                BOMBS[number].0
            );
        });
    }
);

#[test]
fn memory_bombs_without_a_limit_end_where_the_systems_memory_does() {
    // Address space, in KiB. The threads' stacks take some.
    let limit = if php::is_zts() {
        "-v 1600000"
    } else {
        "-v 900000"
    };
    let s = Server::builder()
        .ini("memory_limit=-1")
        .ini("display_errors=1")
        .limit(limit)
        .start();
    for (number, (name, source)) in BOMBS.iter().enumerate() {
        s.php(&format!("bomb{number}.php"), &format!("<?php {source}"));
        survives(&s, name, Cost::WorkerProcesses, times(2), |_| {
            // PHP's own end: "Out of memory" in the log, and exit code 1.
            match s
                .connect()
                .try_exchange(&s.request(&format!("/bomb{number}.php")))
            {
                Ok((_, response)) => {
                    let text = response.text() + &response.stderr_text();
                    assert!(
                        text.to_lowercase().contains("out of memory"),
                        "{name}: {response:?}"
                    );
                }
                Err(error) => {
                    assert_ne!(error.kind(), std::io::ErrorKind::TimedOut, "{name}");
                    eprintln!("{name}: the worker process died");
                }
            }
        });
    }
}
