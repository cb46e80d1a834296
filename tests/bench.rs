//! `fe-php bench` against a real `fe-php fpm`.

use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Duration;

use rustix::net::listen;

use serde_json::Value;

use crate::support::client::Address;
use crate::support::server::Server;

const HELLO: &str = "<?php echo 'hello';";
const SLEEP: &str = "<?php usleep(50000); echo 'slept';";

/// `fe-php bench` with `arguments`.
fn bench(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_fe-php"))
        .arg("bench")
        .args(arguments)
        .output()
        .unwrap()
}

/// The load on a script of the server: the report, and the exit status.
fn load(server: &Server, script: &str, arguments: &[&str]) -> (Value, Option<i32>) {
    let address = match server.address() {
        Address::Unix(path) => path.to_str().unwrap().to_owned(),
        Address::Tcp(address) => address.clone(),
    };
    let script = path(server, script);
    let mut all = vec![address.as_str(), &script, "--json"];
    all.extend(arguments);
    let output = bench(&all);
    let text = String::from_utf8_lossy(&output.stdout);
    let report = serde_json::from_str(&text).unwrap_or_else(|error| {
        let errors = String::from_utf8_lossy(&output.stderr);
        panic!("{error}: {text}{errors}")
    });
    (report, output.status.code())
}

fn path(server: &Server, script: &str) -> String {
    server.root().join(script).to_str().unwrap().to_owned()
}

/// All requests were answered rightly, and there were as many as asked for.
fn expect_right(report: &Value, status: Option<i32>, requests: u64) {
    assert_eq!(status, Some(0), "{report:#}");
    assert_eq!(report["requests"], requests, "{report:#}");
    assert_eq!(report["errors"]["total"], 0, "{report:#}");
    assert_eq!(report["errors"]["kinds"], serde_json::json!({}));
    assert!(report["requests_per_second"].as_f64().unwrap() > 0.0);
}

fn number(value: &Value) -> f64 {
    value
        .as_f64()
        .unwrap_or_else(|| panic!("{value} is no number"))
}

server!(
    kept_alive_connections_are_used_again,
    Server::builder().workers(2),
    |s| {
        s.php("a.php", HELLO);
        let (report, status) = load(&s, "a.php", &["-c", "4", "-n", "500", "--warm-up", "50"]);
        expect_right(&report, status, 500);
        assert_eq!(report["keep_alive"], true);
        assert_eq!(report["connections"], 4);
        assert_eq!(report["reconnects"], 0);
        assert_eq!(report["scripts"][0]["answers"], 500);
        let latency = &report["latency_us"];
        let names = ["min", "p50", "p90", "p95", "p99", "p99_9", "max"];
        let values: Vec<f64> = names.iter().map(|name| number(&latency[name])).collect();
        assert!(values[0] > 0.0 && values.is_sorted(), "{latency}");
        assert!((values[0]..=values[6]).contains(&number(&latency["mean"])));
    }
);

server!(
    a_connection_is_opened_for_each_request,
    Server::builder().listen("127.0.0.1:0").workers(2),
    |s| {
        s.php("a.php", HELLO);
        let (report, status) = load(&s, "a.php", &["-n", "300", "--no-keep-alive"]);
        expect_right(&report, status, 300);
        assert_eq!(report["keep_alive"], false);
    }
);

server!(a_duration_ends_the_load, |s| {
    s.php("a.php", HELLO);
    let (report, status) = load(&s, "a.php", &["-d", "0.3"]);
    assert_eq!(status, Some(0), "{report:#}");
    assert!(report["requests"].as_u64().unwrap() > 10, "{report:#}");
    assert!(number(&report["seconds"]) > 0.29, "{report:#}");
});

server!(
    waiting_for_a_connection_counts_at_a_fixed_rate,
    Server::builder().workers(1),
    |s| {
        s.php("sleep.php", SLEEP);
        // Twenty are due within 20 ms, but each takes 50 ms on the only connection.
        let arguments = ["-c", "1", "-n", "20", "--rate", "1000"];
        let (report, status) = load(&s, "sleep.php", &arguments);
        expect_right(&report, status, 20);
        assert!(
            number(&report["latency_us"]["max"]) > 900_000.0,
            "{report:#}"
        );
        assert!(
            number(&report["latency_us"]["p50"]) > 400_000.0,
            "{report:#}"
        );
    }
);

server!(a_rate_is_not_exceeded, |s| {
    s.php("a.php", HELLO);
    let (report, status) = load(&s, "a.php", &["-c", "8", "-d", "0.5", "--rate", "100"]);
    expect_right(&report, status, 50);
    assert!(number(&report["seconds"]) >= 0.48, "{report:#}");
});

server!(
    mixed_scripts_have_rows_of_their_own,
    Server::builder().workers(2),
    |s| {
        s.php("a.php", HELLO);
        s.php("sleep.php", SLEEP);
        let mix = format!("10:{}", path(&s, "sleep.php"));
        let (report, status) = load(&s, "a.php", &["-n", "100", "--mix", &mix]);
        expect_right(&report, status, 100);
        let scripts = &report["scripts"];
        assert_eq!(scripts[0]["answers"], 90);
        assert_eq!(scripts[1]["answers"], 10);
        assert_eq!(scripts[1]["every"], 10);
        assert!(number(&scripts[1]["latency_us"]["min"]) >= 50_000.0);
        assert!(number(&scripts[0]["latency_us"]["min"]) < 50_000.0);
        let longest = |value: &Value| number(&value["latency_us"]["max"]);
        assert!(longest(&scripts[1]) >= 50_000.0, "{report:#}");
        assert_eq!(
            longest(&report),
            longest(&scripts[0]).max(longest(&scripts[1]))
        );
    }
);

server!(
    requests_that_later_ones_overtake_are_counted,
    Server::builder().workers(2),
    |s| {
        s.php("a.php", HELLO);
        s.php("sleep.php", "<?php sleep(1); echo 'slept';");
        // One of two connections has a request for a second, the other one all later requests meanwhile.
        let mix = format!("50:{}", path(&s, "sleep.php"));
        let arguments = ["-c", "2", "-n", "90", "--mix", &mix, "--overtaken", "39"];
        let (report, status) = load(&s, "a.php", &arguments);
        expect_right(&report, status, 90);
        let expected = serde_json::json!({"more_than": 39, "requests": 1, "most": 40});
        assert_eq!(report["scripts"][1]["overtaken"], expected, "{report:#}");
        assert_eq!(report["overtaken"]["more_than"], 39);
        assert!(number(&report["overtaken"]["requests"]) >= 1.0);
        assert!(number(&report["overtaken"]["most"]) >= 40.0);

        let arguments = ["-c", "2", "-n", "90", "--mix", &mix, "--overtaken", "40"];
        let (report, status) = load(&s, "a.php", &arguments);
        expect_right(&report, status, 90);
        let expected = serde_json::json!({"more_than": 40, "requests": 0, "most": 40});
        assert_eq!(report["scripts"][1]["overtaken"], expected, "{report:#}");
    }
);

server!(
    one_connection_at_a_time_overtakes_none,
    Server::builder().workers(2),
    |s| {
        s.php("a.php", HELLO);
        for more in [&[][..], &["--no-keep-alive"]] {
            let mut arguments = vec!["-c", "1", "-n", "200"];
            arguments.extend(more);
            let (report, status) = load(&s, "a.php", &arguments);
            expect_right(&report, status, 200);
            let expected = serde_json::json!({"more_than": 1, "requests": 0, "most": 0});
            assert_eq!(report["overtaken"], expected);
        }
        // Failed requests are not in the order.
        let arguments = ["-n", "50", "--expect-status", "404", "--overtaken", "0"];
        let (report, status) = load(&s, "a.php", &arguments);
        assert_eq!(status, Some(1));
        assert_eq!(report["overtaken"]["most"], 0, "{report:#}");
    }
);

server!(a_body_arrives_whole, |s| {
    let source = "<?php echo $_SERVER['REQUEST_METHOD'] === ($_GET['m'] ?? 'POST') \
                  ? strlen(file_get_contents('php://input')) . $_SERVER['CONTENT_TYPE'] : 'no';";
    s.php("echo.php", source);
    let length = |report: &Value| number(&report["received_bytes"]) / number(&report["requests"]);
    let arguments = ["-n", "20", "--body-size", "300K", "--content-type", "a/b"];
    let (generated, status) = load(&s, "echo.php", &arguments);
    expect_right(&generated, status, 20);
    assert!(number(&generated["sent_bytes"]) > 20.0 * 300.0 * 1024.0);
    let file = s.directory().join("body");
    std::fs::write(&file, vec![b'y'; 300 << 10]).unwrap();
    let arguments = [
        "-n",
        "20",
        "--body-file",
        file.to_str().unwrap(),
        "--content-type",
        "a/b",
    ];
    let (from_file, status) = load(&s, "echo.php", &arguments);
    expect_right(&from_file, status, 20);
    assert!((length(&generated) - length(&from_file)).abs() < 0.5);

    // The script tells the variables apart: another one gives an answer of another length.
    let (other, status) = load(
        &s,
        "echo.php",
        &["-n", "1", "--query", "m=PUT", "--method", "PUT"],
    );
    expect_right(&other, status, 1);
    assert!(length(&other) < length(&generated));
    let check = "<?php echo $_SERVER['HTTP_COOKIE'] === 'a=b' ? '' : http_response_code(500);";
    s.php("cookie.php", check);
    let (report, status) = load(&s, "cookie.php", &["-n", "1", "--param", "HTTP_COOKIE=a=b"]);
    expect_right(&report, status, 1);
});

server!(
    idle_connections_stay_open,
    Server::builder().workers(2),
    |s| {
        s.php("a.php", HELLO);
        let pid = s.pid().to_string();
        for used in [&[][..], &["--idle-used"]] {
            let mut arguments = vec![
                "-n",
                "100",
                "--warm-up",
                "20",
                "--idle",
                "200",
                "--pid",
                &pid,
            ];
            arguments.extend(used);
            let (report, status) = load(&s, "a.php", &arguments);
            expect_right(&report, status, 100);
            let idle = &report["idle"];
            assert_eq!(idle["connections"], 200);
            assert_eq!(idle["closed"], 0);
            // Those of the warm-up may still have been open when they were counted without the idle ones.
            assert!(number(&idle["server_descriptors"]) >= 190.0, "{report:#}");
            assert!(
                number(&idle["pss_bytes_per_connection"]) < 1e6,
                "{report:#}"
            );
        }
    }
);

server!(closed_idle_connections_are_counted, |s| {
    s.php("kill.php", "<?php posix_kill(getmypid(), 9); sleep(1);");
    let pid = s.pid().to_string();
    let arguments = ["-c", "1", "-n", "1", "--idle", "5", "--pid", &pid];
    let (report, status) = load(&s, "kill.php", &arguments);
    assert_eq!(status, Some(1), "{report:#}");
    assert_eq!(report["idle"]["closed"], 5, "{report:#}");
    assert_eq!(report["server"]["ended_processes"], 1, "{report:#}");
});

server!(
    the_servers_figures_are_plausible,
    Server::builder().workers(2),
    |s| {
        s.php(
            "busy.php",
            "<?php $e = hrtime(true) + 2e6; while (hrtime(true) < $e); echo 'done';",
        );
        let pid = s.pid().to_string();
        let (report, status) = load(&s, "busy.php", &["-n", "100", "-c", "2", "--pid", &pid]);
        expect_right(&report, status, 100);
        let server = &report["server"];
        // Two milliseconds of wall time each; a shared machine may give the process less CPU than that.
        let cpu = number(&server["cpu_us_per_request"]);
        assert!((200.0..20_000.0).contains(&cpu), "{report:#}");
        let processes = server["processes"].as_array().unwrap();
        assert_eq!(processes.len(), s.process().descendants().len() + 1);
        assert!(number(&server["threads"]) >= processes.len() as f64);
        assert!(number(&server["pss_bytes_after"]) > 1e6);
        assert!(number(&server["descriptors_after"]) > 10.0);
        assert_eq!(server["ended_processes"], 0);
        let sum: f64 = processes
            .iter()
            .map(|process| number(&process["cpu_us"]))
            .sum();
        assert!((sum - number(&server["cpu_us"])).abs() < 1.0, "{report:#}");
        assert!(processes.iter().any(|process| process["pid"] == s.pid()));
    }
);

server!(the_load_on_a_missing_script_fails, |s| {
    let (report, status) = load(&s, "missing.php", &["-n", "20"]);
    assert_eq!(status, Some(1), "{report:#}");
    assert_eq!(report["errors"]["kinds"]["status"], 20, "{report:#}");
    let first = report["errors"]["first"]["status"].as_str().unwrap();
    assert_eq!(first, "404 \"File not found. \"");
    let (report, status) = load(&s, "missing.php", &["-n", "20", "--expect-status", "404"]);
    expect_right(&report, status, 20);
});

server!(bodies_of_different_lengths_are_an_error, |s| {
    let file = s.directory().join("count");
    let source = format!(
        "<?php file_put_contents('{0}', 'x', FILE_APPEND); echo str_repeat('x', filesize('{0}'));",
        file.display()
    );
    s.php("grow.php", &source);
    let (report, status) = load(&s, "grow.php", &["-n", "5", "-c", "1"]);
    assert_eq!(status, Some(1), "{report:#}");
    assert_eq!(report["errors"]["kinds"]["length"], 4, "{report:#}");
    let (report, status) = load(&s, "grow.php", &["-n", "5", "-c", "1", "--any-length"]);
    expect_right(&report, status, 5);
});

server!(
    a_killed_worker_process_and_a_timeout_are_told_apart,
    Server::builder().workers(1),
    |s| {
        s.php("kill.php", "<?php posix_kill(getmypid(), 9); sleep(1);");
        let (report, status) = load(&s, "kill.php", &["-n", "2", "-c", "1"]);
        assert_eq!(status, Some(1), "{report:#}");
        assert_eq!(report["errors"]["kinds"]["closed"], 2, "{report:#}");
        s.php("slow.php", "<?php sleep(2); echo 'late';");
        let (report, status) = load(&s, "slow.php", &["-n", "1", "-c", "1", "--timeout", "0.2"]);
        assert_eq!(status, Some(1), "{report:#}");
        assert_eq!(report["errors"]["kinds"]["timeout"], 1, "{report:#}");
    }
);

server!(the_report_is_readable, |s| {
    s.php("a.php", HELLO);
    let Address::Unix(socket) = s.address() else {
        unreachable!("the default is a Unix socket")
    };
    let pid = s.pid().to_string();
    let script = path(&s, "a.php");
    let address = format!("unix:{}", socket.display());
    let output = bench(&[&address, &script, "-n", "50", "--pid", &pid]);
    let text = String::from_utf8(output.stdout).unwrap();
    for part in [
        "50 requests in ",
        " per second",
        "p99.9",
        "max",
        "overtaken  ",
        " by more than 4 later requests (most: ",
        "errors     0",
        "CPU ",
        "PSS ",
    ] {
        assert!(text.contains(part), "no {part:?} in\n{text}");
    }
    assert_eq!(
        String::from_utf8_lossy(&output.stderr),
        "",
        "no terminal, no progress"
    );
    let output = bench(&[&address, &script, "-n", "1", "--pid", "2147483647"]);
    assert_eq!(output.status.code(), Some(2));
});

#[test]
fn nothing_to_connect_to_is_told_apart_from_errors() {
    let directory = tempfile::tempdir().unwrap();
    let socket: PathBuf = directory.path().join("nobody.sock");
    let output = bench(&[socket.to_str().unwrap(), "/a.php", "-n", "1"]);
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(
        text.contains("nobody.sock") && text.contains("is the server running?"),
        "{text}"
    );
    for wrong in [
        &["nonsense", "/a.php"][..],
        &["/x.sock", "relative.php"],
        &["/x.sock", "/a.php", "-n", "1", "-d", "1"],
        &["/x.sock", "/a.php", "--mix", "1:/b.php"],
        &["/x.sock", "/a.php", "--document-root", "/b"],
        &["/x.sock", "/a.php", "--overtaken", "-1"],
        &["/x.sock", "/a.php", "--body-file", "/nonexistent"],
    ] {
        let output = bench(wrong);
        assert_eq!(output.status.code(), Some(2), "{wrong:?}: {output:?}");
        assert!(!output.stderr.is_empty());
    }
}

#[test]
fn a_full_backlog_is_waited_for() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("slow.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    listen(&listener, 0).unwrap(); // one connection waits, and no more
    let server = std::thread::spawn(move || {
        // The one that looks whether anybody is there, which says nothing, and four requests.
        for _ in 0..5 {
            std::thread::sleep(Duration::from_millis(100));
            let (mut stream, _) = listener.accept().unwrap();
            if stream.read(&mut [0; 4096]).unwrap() > 0 {
                let mut answer = b"\x01\x06\0\x01\0\x10\0\0X: y\r\n\r\ncontent".to_vec();
                answer[5] = u8::try_from(answer.len() - 8).unwrap();
                answer.extend(b"\x01\x03\0\x01\0\x08\0\0\0\0\0\0\0\0\0\0");
                stream.write_all(&answer).unwrap();
            }
        }
    });
    let address = socket.to_str().unwrap();
    let arguments = [address, "/a.php", "-n", "4", "--no-keep-alive", "--json"];
    let output = bench(&arguments);
    let report = serde_json::from_slice(&output.stdout).unwrap();
    expect_right(&report, output.status.code(), 4);
    server.join().unwrap();
}

#[test]
fn too_few_descriptors_are_told_beforehand() {
    let program = env!("CARGO_BIN_EXE_fe-php");
    let script = format!("ulimit -n 100; exec {program} bench /nobody.sock /a.php -c 200");
    let output = Command::new("sh").args(["-c", &script]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(
        text.contains("need 216 descriptors, but the hard limit is 100"),
        "{text}"
    );
}
