//! Requests of one session run one after the other, requests of others beside them.

use std::time::Duration;

use crate::support::client::Request;
use crate::support::server::{Builder, Server};
use crate::support::wait_until;

const HOLD: &str = "<?php
session_start();
touch($_GET['file'] . '.started');
while (!file_exists($_GET['file'])) { usleep(1000); clearstatcache(); }
$_SESSION['from'] = 'first';
echo 'held';";

const READ: &str = "<?php session_start(); echo $_SESSION['from'] ?? 'nobody';";

fn builder() -> Builder {
    Server::builder().ini("session.save_path={directory}")
}

fn in_session(request: Request, id: &str) -> Request {
    request.header("Cookie", format!("PHPSESSID={id}"))
}

server!(
    two_requests_of_a_session_wait_for_each_other,
    builder().workers(3),
    |s| {
        s.php("hold.php", HOLD);
        s.php("read.php", READ);
        let file = s.directory().join("go");
        let mut first = s.connect();
        first.send(
            &in_session(
                s.request(&format!("/hold.php?file={}", file.display())),
                "one",
            )
            .encode(),
        );
        let started = s.directory().join("go.started");
        wait_until("the first request holds its session", || started.exists());

        let mut second = s.connect();
        second.send(&in_session(s.request("/read.php"), "one").encode());
        assert!(
            !second.is_readable_within(Duration::from_millis(200)),
            "the second request did not wait"
        );
        let other = s.send(&in_session(s.request("/read.php"), "other"));
        assert_eq!(
            other.text(),
            "nobody",
            "a request of another session does not wait"
        );

        std::fs::write(&file, "").unwrap();
        assert_eq!(first.response(1).text(), "held");
        assert_eq!(
            second.response(1).text(),
            "first",
            "the second request sees what the first one has stored"
        );
    }
);

server!(
    a_counter_in_a_session_misses_no_request,
    builder().workers(4),
    |s| {
        s.php("count.php", "<?php session_start(); $n = $_SESSION['n'] ?? 0; usleep(500); $_SESSION['n'] = $n + 1; echo $n + 1;");
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let mut connection = s.connect();
                    for _ in 0..25 {
                        connection.exchange(&in_session(s.request("/count.php"), "counter").keep());
                    }
                });
            }
        });
        assert_eq!(
            s.send(&in_session(s.request("/count.php"), "counter"))
                .text(),
            "201"
        );
    }
);
