//! Scripts that call themselves without end, or make PHP do so. What needs PHP's own stack ends at `memory_limit`. What needs
//! the machine's stack ends in a crash, as under php-fpm: of one worker process, with a report; in an error where PHP measures
//! its stack (8.3 and later), or where a thread's big one lasts until `memory_limit`.

use super::watch::{Cost, survives, times};
use crate::support::client::Response;
use crate::support::server::{Builder, Server};

/// What each does, and the scripts.
const ON_PHPS_STACK: &[(&str, &str)] = &[
    ("a function", "function f($x) { return f($x + 1); } f(1);"),
    (
        "a method",
        "class A { function __call($name, $x) { return $this->{$name . 'a'}(...$x); } } (new A)->a();",
    ),
    (
        "a closure that is kept",
        "$f = function () use (&$f) { $f(); }; $f();",
    ),
    (
        "an include",
        "if (!function_exists('g')) { function g() { include __FILE__; } } g();",
    ),
    (
        "a generator",
        "function g() { yield from g(); } foreach (g() as $x) {}",
    ),
];

/// Likewise, for those in which PHP's own C functions call themselves.
const ON_THE_MACHINES_STACK: &[(&str, &str)] = &[
    (
        "__toString",
        "class A { function __toString(): string { return '' . $this; } } echo new A;",
    ),
    (
        "a destructor",
        "class A { function __destruct() { new A; } } new A; gc_collect_cycles();",
    ),
    (
        "array_map",
        "function f($x) { return array_map('f', [$x]); } f(1);",
    ),
    (
        "usort",
        "function f($x, $y) { $a = [1, 2]; usort($a, 'f'); return 0; } f(1, 2);",
    ),
    (
        "an autoloader",
        "$n = 0; spl_autoload_register(function ($class) use (&$n) { $n++; class_exists(\"C$n\"); }); new A;",
    ),
    (
        "an error handler",
        "function f() { $x = new A; return $x(); } class A { function __get($n) { return $this->{$n . 'a'}; } \
         function __invoke() { return call_user_func($this); } } f();",
    ),
    (
        "JsonSerializable",
        "class A implements JsonSerializable { function jsonSerialize(): mixed { return new A; } } json_encode(new A);",
    ),
    (
        "__serialize",
        "class A { function __serialize(): array { return [new A]; } } serialize(new A);",
    ),
    (
        "var_export of a deep structure",
        "for ($a = [], $i = 0; $i < 300000; $i++) { $a = [$a]; } var_export($a, true);",
    ),
    (
        "serialize of a deep structure",
        "for ($a = [], $i = 0; $i < 300000; $i++) { $a = [$a]; } strlen(serialize($a));",
    ),
    (
        "the end of a deep structure",
        "for ($a = [], $i = 0; $i < 300000; $i++) { $a = [$a]; } unset($a);",
    ),
    (
        "the comparison of deep structures",
        "for ($a = [], $b = [], $i = 0; $i < 150000; $i++) { $a = [$a]; $b = [$b]; } var_dump($a == $b);",
    ),
];

fn builder() -> Builder {
    Server::builder()
        .ini("memory_limit=128M")
        .ini("display_errors=1")
        .ini("html_errors=0")
        .ini("max_execution_time=60")
        .ini("opcache.revalidate_freq=0")
        .ini("opcache.file_update_protection=0")
}

fn script(source: &str) -> String {
    format!("<?php\n{source}\necho 'the end';")
}

/// PHP's ways to end a script that went too deep.
fn says_why(response: &Response) -> bool {
    let text = response.text() + &response.stderr_text();
    [
        "Allowed memory size",
        "Maximum call stack size",
        "Infinite recursion",
    ]
    .iter()
    .any(|reason| text.contains(reason))
}

#[test]
fn recursion_on_phps_stack_ends_in_an_error() {
    let s = builder().start();
    for (number, (name, source)) in ON_PHPS_STACK.iter().enumerate() {
        let script_name = format!("deep{number}.php");
        s.php(&script_name, &script(source));
        survives(&s, name, Cost::Request, times(2), |_| {
            let response = s.get(&format!("/{script_name}"));
            assert!(says_why(&response), "{name}: {response:?}");
        });
    }
}

#[test]
fn recursion_on_the_machines_stack_costs_a_worker_process_at_most() {
    let s = builder().start();
    for (number, (name, source)) in ON_THE_MACHINES_STACK.iter().enumerate() {
        let script_name = format!("deep{number}.php");
        s.php(&script_name, &script(source));
        survives(&s, name, Cost::WorkerProcesses, times(2), |_| {
            let crashes = s.log().count("took with it: 1 running");
            match s
                .connect()
                .try_exchange(&s.request(&format!("/{script_name}")))
            {
                Ok((_, response)) => {
                    let whole = response.text().ends_with("the end");
                    assert!(whole || says_why(&response), "{name}: {response:?}");
                    eprintln!(
                        "{name}: {}",
                        if whole {
                            "ends well"
                        } else {
                            "ends in an error"
                        }
                    );
                }
                Err(error) => {
                    assert_ne!(error.kind(), std::io::ErrorKind::TimedOut, "{name}");
                    s.log().expect_count("took with it: 1 running", crashes + 1);
                    eprintln!("{name}: the worker process died");
                }
            }
        });
    }
}
