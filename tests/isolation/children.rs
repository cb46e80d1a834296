//! A child of a script's `pcntl_fork` is the script's own affair: it answers no request, holds no connection open, and ends.

use std::path::Path;
use std::time::Duration;

use crate::support::server::{Builder, Server};
use crate::support::wait_until;

/// Debian's libphp has its pcntl functions switched off otherwise.
fn builder() -> Builder {
    Server::builder()
        .args(&["--pcntl"])
        .ini("output_buffering=4096")
}

/// Forks; the child runs `child`, the parent waits for it and prints how it ended.
fn script(child: &str) -> String {
    format!(
        "<?php
        echo 'before ';
        $pid = pcntl_fork();
        if ($pid === 0) {{
            {child}
        }} else {{
            pcntl_waitpid($pid, $status);
            echo pcntl_wifsignaled($status) ? 'signal ' . pcntl_wtermsig($status) : 'exit ' . pcntl_wexitstatus($status);
        }}"
    )
}

/// What a child does, and how it ends as its parent sees it.
const CHILDREN: &[(&str, &str, &str)] = &[
    ("exits", "exit(3);", "exit 3"),
    ("runs to the end", "", "exit 0"),
    ("prints", "echo 'child'; flush();", "exit 0"),
    ("prints much", "echo str_repeat('x', 1 << 20);", "exit 0"),
    (
        "sets headers",
        "header('X-Child: 1'); http_response_code(500); flush();",
        "exit 0",
    ),
    ("finishes", "var_dump(fastcgi_finish_request());", "exit 0"),
    ("logs", "error_log('child'); echo $undefined;", "exit 0"),
    ("reads", "file_get_contents('php://input');", "exit 0"),
    ("fails", "missing();", "exit 255"),
    (
        "is out of memory",
        "ini_set('memory_limit', '8M'); str_repeat('x', 100000000);",
        "exit 255",
    ),
    (
        "dies",
        "posix_kill(getmypid(), SIGKILL); sleep(5);",
        "signal 9",
    ),
    ("becomes a program", "pcntl_exec('/bin/true');", "exit 0"),
    (
        "has a child too",
        "if ($pid = pcntl_fork()) { pcntl_waitpid($pid, $s); exit(pcntl_wexitstatus($s) + 1); } exit(4);",
        "exit 5",
    ),
    (
        "has shutdown functions",
        "register_shutdown_function(function () { echo 'child'; exit(6); });",
        "exit 6",
    ),
];

#[test]
fn a_forked_child_neither_answers_nor_breaks_the_connection() {
    let s = builder().start();
    s.php(
        "pid.php",
        "<?php echo getmypid(), file_get_contents('php://input');",
    );
    let workers = s.worker_pids();
    let mut connection = s.connect();
    let pid = connection.exchange(&s.request("/pid.php").keep()).text();
    for (name, child, end) in CHILDREN {
        s.php("fork.php", &script(child));
        let request = s.request("/fork.php").form("a=1").keep();
        let response = connection.exchange(&request);
        assert_eq!(
            response.text(),
            format!("before {end}"),
            "a child that {name}: {response:?}"
        );
        assert_eq!(response.status, 200, "a child that {name}: {response:?}");
        assert_eq!(response.stderr_text(), "", "a child that {name}");
        assert_eq!(response.header("X-Child"), None, "a child that {name}");
        let next = connection.exchange(&s.request("/pid.php").form(" and body").keep());
        assert_eq!(
            next.text(),
            format!("{pid} and body"),
            "after a child that {name}"
        );
        assert_eq!(s.worker_pids(), workers, "a child that {name} is left");
    }
}

server!(
    a_forked_child_may_outlive_its_request,
    builder().workers(2),
    |s| {
        s.php(
            "fork.php",
            "<?php
            $pid = pcntl_fork();
            if ($pid === 0) {
                while (!file_exists($_GET['file'])) { usleep(1000); clearstatcache(); }
                echo 'late';
                file_put_contents($_GET['file'] . '.done', getmypid());
                exit;
            }
            echo $pid;",
        );
        s.php("pid.php", "<?php echo getmypid();");
        let file = s.directory().join("go");
        let uri = format!("/fork.php?file={}", file.display());
        let mut connection = s.connect();
        let child: i32 = connection
            .exchange(&s.request(&uri))
            .text()
            .parse()
            .unwrap();
        connection.expect_close(); // the child does not hold it open
        let mut kept = s.connect();
        for _ in 0..20 {
            kept.exchange(&s.request("/pid.php").keep());
        }
        assert!(is_there(child), "the child is gone before it was told to");
        std::fs::write(&file, "").unwrap();
        wait_until("the child is done", || file.with_extension("done").exists());
        assert!(
            !kept.is_readable_within(Duration::from_millis(50)),
            "the child has written to a connection"
        );
        // Nobody but the script may reap it; what the server must not do is let it run.
        wait_until("the child has ended", || !runs(child));
        assert_ne!(s.get("/pid.php").text(), "");
    }
);

// The helper thread has locks now and then, and is not there in a child to give them back. (Some of two thousand met it so.)
server!(
    forked_children_end_whatever_other_threads_do,
    builder(),
    |s| {
        s.php(
            "fork.php",
            "<?php
            set_time_limit(0);
            function reap(&$children) {
                while (($pid = pcntl_waitpid(-1, $status, WNOHANG)) > 0) { unset($children[$pid]); }
            }
            $children = [];
            $end = microtime(true) + 5;
            for ($forks = 0; $forks < 3000 && microtime(true) < $end; $forks++) {
                echo str_repeat('x', 4000);
                $pid = pcntl_fork();
                if ($pid === 0) { exit; }
                if ($pid > 0) { $children[$pid] = true; }
                reap($children);
            }
            $end = microtime(true) + 10;
            while ($children && microtime(true) < $end) { usleep(1000); reap($children); }
            foreach ($children as $pid => $_) { posix_kill($pid, SIGKILL); pcntl_waitpid($pid, $status); }
            echo ' left ', count($children);",
        );
        let text = s.get("/fork.php").text();
        assert!(text.ends_with(" left 0"), "{}", &text[text.len() - 10..]);
    }
);

fn is_there(pid: i32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

fn runs(pid: i32) -> bool {
    crate::support::process::Identity::of(pid).is_some_and(|process| process.is_running())
}
