//! Supervisor, pool process and worker processes: what each one's death costs, and that nothing outlives them.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::client::Address;
use crate::support::php;
use crate::support::process::{Identity, Process, kill};
use crate::support::server::Server;
use crate::support::wait_until;

const SLEEP: &str = "<?php usleep((int) $_GET['ms'] * 1000); echo 'slept ', getmypid();";
const PID: &str = "<?php echo getmypid();";

/// The pool process: the only child of the supervisor, as long as one generation runs.
fn pool_pid(server: &mut Server) -> i32 {
    let workers = server.worker_pids();
    let descendants = server.process().descendants();
    let pool: Vec<i32> = descendants
        .iter()
        .map(|process| process.pid)
        .filter(|pid| !workers.contains(pid))
        .collect();
    assert_eq!(pool.len(), 1, "{descendants:?}");
    pool[0]
}

fn worker_processes(workers: u32) -> usize {
    if php::is_zts() { 1 } else { workers as usize }
}

fn expect_all_gone(all: &[Identity], server: &Server) {
    wait_until("every process is gone", || {
        !all.iter().any(Identity::is_running)
    });
    if let Address::Unix(path) = server.address() {
        assert!(!path.exists(), "the socket file is left");
    }
}

fn descriptors(pid: i32) -> Vec<String> {
    let mut found: Vec<String> = std::fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    found.sort();
    found
}

fn has_zombie(process: &Process) -> bool {
    // A zombie is a descendant that does not run.
    process
        .descendants()
        .iter()
        .any(|process| Identity::of(process.pid).is_some() && !process.is_running())
}

server!(
    dead_worker_process_is_reported_and_replaced,
    Server::builder().workers(2),
    |s| {
        s.php(
            "kill.php",
            "<?php posix_kill(getmypid(), (int) $_GET['signal']); sleep(1);",
        );
        s.php("pid.php", PID);
        for (count, (signal, name)) in [(11, "SIGSEGV"), (9, "SIGKILL"), (6, "SIGABRT")]
            .into_iter()
            .enumerate()
        {
            let _ = s
                .connect()
                .try_exchange(&s.request(&format!("/kill.php?signal={signal}")));
            s.expect_log(&format!("on signal {signal} ({name}"));
            s.log().expect_count("took with it: ", count + 1);
            assert_eq!(s.get("/pid.php").status, 200);
        }
        wait_until("all worker processes are back", || {
            s.worker_pids().len() == worker_processes(2)
        });
        assert!(!has_zombie(s.process()));
    }
);

// With many threads (ZTS), the signal comes while some of them are just starting.
server!(
    signal_is_reported_whatever_thread_it_comes_to,
    Server::builder().workers(48),
    |s| {
        s.php("abort.php", "<?php posix_kill(getmypid(), 6); sleep(1);");
        for count in 1..=20 {
            let _ = s.connect().try_exchange(&s.request("/abort.php"));
            s.log().expect_count("exited on signal", count);
        }
        assert_eq!(s.log().count("received signal 6; PHP was running:"), 20);
        assert_eq!(s.log().count("exited on signal 6 (SIGABRT"), 20);
    }
);

server!(
    descriptors_do_not_leak_with_worker_processes,
    Server::builder().workers(1),
    |s| {
        s.php("kill.php", "<?php posix_kill(getmypid(), 9); sleep(1);");
        s.php("pid.php", PID);
        assert_eq!(s.get("/pid.php").status, 200);
        let (supervisor, pool) = (s.pid(), pool_pid(&mut s));
        let before = (descriptors(supervisor), descriptors(pool));
        for _ in 0..20 {
            let _ = s.connect().try_exchange(&s.request("/kill.php"));
            assert_eq!(s.get("/pid.php").status, 200);
        }
        assert_eq!((descriptors(supervisor), descriptors(pool)), before);
    }
);

server!(worker_process_leaves_low_descriptors_to_scripts, |s| {
    let source = r#"<?php foreach (scandir('/proc/self/fd') as $n) {
        if ($n > 2) echo $n, ' ', @readlink("/proc/self/fd/$n"), "\n";
    }"#;
    s.php("descriptors.php", source);
    let ours = |line: &&str| {
        let (number, target) = line.split_once(' ').unwrap();
        // Files are PHP's own: the script, OPcache's lock. What the test itself was started with is inherited.
        let inherited = std::fs::read_link(format!("/proc/self/fd/{number}"));
        number.parse::<u32>().unwrap() < 1024
            && ["socket:", "pipe:", "anon_inode:", "/memfd:fe-php"]
                .iter()
                .any(|kind| target.starts_with(kind))
            && !inherited.is_ok_and(|inherited| inherited.as_os_str() == target)
    };
    let text = s.get("/descriptors.php").text();
    assert_eq!(
        text.lines().filter(ours).collect::<Vec<_>>(),
        [""; 0],
        "all: {text}"
    );
    assert!(
        text.lines().any(|line| line.starts_with("409")),
        "all: {text}"
    );
});

server!(sigterm_stops_at_once, Server::builder().workers(2), |s| {
    s.php("sleep.php", SLEEP);
    let all = s.process().descendants();
    let mut connection = s.connect();
    connection.send(&s.request("/sleep.php?ms=60000").encode());
    let start = Instant::now();
    s.signal(Signal::TERM);
    assert_eq!(s.wait_exit().code(), Some(0));
    assert!(start.elapsed() < Duration::from_secs(3));
    expect_all_gone(&all, &s);
    assert!(
        s.log().text().contains("Terminating ...") && s.log().text().contains("exiting, bye-bye!")
    );
});

server!(sigquit_finishes_running_requests, |s| {
    s.php("sleep.php", SLEEP);
    let all = s.process().descendants();
    let mut connection = s.connect();
    let request = s.request("/sleep.php?ms=1000");
    connection.send(&request.encode());
    std::thread::sleep(Duration::from_millis(200));
    s.signal(Signal::QUIT);
    assert!(
        connection
            .response(request.id())
            .text()
            .starts_with("slept")
    );
    assert_eq!(s.wait_exit().code(), Some(0));
    expect_all_gone(&all, &s);
});

server!(sigterm_after_sigquit_stops_at_once, |s| {
    s.php("sleep.php", SLEEP);
    let all = s.process().descendants();
    let mut connection = s.connect();
    connection.send(&s.request("/sleep.php?ms=60000").encode());
    std::thread::sleep(Duration::from_millis(200));
    s.signal(Signal::QUIT);
    s.expect_log("Finishing ...");
    s.signal(Signal::TERM);
    assert_eq!(s.wait_exit().code(), Some(0));
    expect_all_gone(&all, &s);
});

server!(
    all_die_with_a_killed_supervisor,
    Server::builder().workers(2),
    |s| {
        s.php("sleep.php", SLEEP);
        let mut connection = s.connect();
        connection.send(&s.request("/sleep.php?ms=60000").encode());
        std::thread::sleep(Duration::from_millis(200));
        let all = s.process().descendants();
        s.signal(Signal::KILL);
        s.wait_exit();
        expect_all_gone(&all, &s);
    }
);

server!(
    killed_pool_process_is_replaced,
    Server::builder().workers(2),
    |s| {
        s.php("pid.php", PID);
        s.php("sleep.php", SLEEP);
        let mut connection = s.connect();
        connection.send(&s.request("/sleep.php?ms=60000").encode());
        std::thread::sleep(Duration::from_millis(200));
        let old = s.process().descendants();
        kill(pool_pid(&mut s), Signal::KILL);
        connection.expect_close();
        assert_eq!(s.get("/pid.php").status, 200);
        s.expect_log("exited on signal 9 (SIGKILL)");
        s.expect_log("took with it: 1 running");
        wait_until("the old worker processes are gone", || {
            !old.iter().any(Identity::is_running)
        });
        assert!(!has_zombie(s.process()));
    }
);

server!(new_generation_takes_over_while_the_old_one_finishes, |s| {
    s.php("pid.php", PID);
    s.php("sleep.php", SLEEP);
    let mut connection = s.connect();
    let request = s.request("/sleep.php?ms=4000");
    connection.send(&request.encode());
    std::thread::sleep(Duration::from_millis(200));
    s.reload();
    assert_eq!(s.get("/pid.php").status, 200);
    assert!(
        connection
            .response(request.id())
            .text()
            .starts_with("slept")
    );
    wait_until("the old generation is gone", || {
        s.worker_pids().len() == worker_processes(1)
    });
});

server!(second_server_leaves_the_first_one_alone, |s| {
    s.php("pid.php", PID);
    let Address::Unix(path) = s.address() else {
        unreachable!("the default is a Unix socket")
    };
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_fe-php"))
        .args(["fpm", "--listen", path.to_str().unwrap()])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(78));
    assert!(
        String::from_utf8_lossy(&output.stderr)
            .contains("Another FPM instance seems to already listen")
    );
    assert_eq!(s.get("/pid.php").status, 200);
});
