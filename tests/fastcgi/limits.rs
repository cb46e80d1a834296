//! Limits: each cuts off only the client that exceeds it, and says so in the log.

use std::time::{Duration, Instant};

use crate::support::client::{Connection, OVERLOADED, Response};
use crate::support::server::Server;
use crate::support::wait_until;

use super::{create, wait};

/// The answer, or `None` if the connection was closed instead.
fn answer_or_close(connection: &mut Connection) -> Option<Response> {
    match connection.try_next_response() {
        Ok((_, response)) => Some(response),
        Err(error) if error.kind() == std::io::ErrorKind::TimedOut => {
            panic!("neither answer nor close")
        }
        Err(_) => None,
    }
}

server!(
    params_above_the_size_limit_are_refused,
    Server::builder().args(&["--params-size", "4096"]),
    |s| {
        s.php("a.php", "<?php echo strlen($_SERVER['LONG'] ?? '');");
        let mut connection = s.connect();
        let _ = connection.try_send(&s.request("/a.php").param("LONG", "x".repeat(5000)).encode());
        assert!(answer_or_close(&mut connection).is_none_or(|response| response.text() != "5000"));
        s.expect_log("limit.params_size (--params-size)");
        assert_eq!(
            s.send(&s.request("/a.php").param("LONG", "x".repeat(2000)))
                .text(),
            "2000"
        );
    }
);

server!(
    too_many_params_are_refused,
    Server::builder().args(&["--params-count", "50"]),
    |s| {
        s.php("a.php", "<?php echo 'answer';");
        let request = (0..60).fold(s.request("/a.php"), |request, number| {
            request.param(&format!("P{number}"), "x")
        });
        let mut connection = s.connect();
        let _ = connection.try_send(&request.encode());
        assert!(
            answer_or_close(&mut connection).is_none_or(|response| response.text() != "answer")
        );
        s.expect_log("limit.params_count (--params-count)");
        assert_eq!(s.get("/a.php").text(), "answer");
    }
);

server!(
    a_full_queue_answers_overloaded,
    Server::builder().args(&["--queue", "2"]),
    |s| {
        let (file, uri) = wait(&s, "go");
        let mut connections: Vec<Connection> = Vec::new();
        let mut overloaded = 0;
        // One runs, two wait; of any more, each is refused at once.
        for _ in 0..3 {
            let mut connection = s.connect();
            connection.send(&s.request(&uri).keep().encode());
            assert!(
                !connection.is_readable_within(Duration::from_millis(50)),
                "refused too early"
            );
            connections.push(connection);
        }
        for _ in 0..5 {
            let mut connection = s.connect();
            connection.send(&s.request(&uri).keep().encode());
            let response = connection.response(1);
            assert_eq!(
                (response.protocol_status, response.body.len()),
                (OVERLOADED, 0)
            );
            overloaded += 1;
        }
        assert_eq!(overloaded, 5);
        s.expect_log("--queue");
        create(&file);
        for connection in &mut connections {
            assert_eq!(connection.response(1).text(), "waited");
        }
        assert_eq!(s.get(&uri).text(), "waited");
    }
);

server!(
    an_overloaded_connection_can_try_again,
    Server::builder().args(&["--queue", "1"]),
    |s| {
        let (file, uri) = wait(&s, "go");
        let mut connection = s.connect();
        let mut refused = Vec::new();
        for id in 1..=6 {
            connection.send(&s.request(&uri).with_id(id).keep().encode());
        }
        for _ in 0..4 {
            let (id, response) = connection.next_response();
            assert_eq!(response.protocol_status, OVERLOADED);
            refused.push(id);
        }
        create(&file);
        for _ in 0..2 {
            let (id, response) = connection.next_response();
            assert!(!refused.contains(&id));
            assert_eq!(response.text(), "waited");
        }
        assert_eq!(
            connection.exchange(&s.request(&uri).keep()).text(),
            "waited"
        );
    }
);

server!(
    too_many_requests_on_one_connection_are_overload,
    Server::builder()
        .workers(2)
        .args(&["--requests-per-connection", "3"]),
    |s| {
        let (file, uri) = wait(&s, "go");
        let mut connection = s.connect();
        for id in 1..=4 {
            connection.send(&s.request(&uri).with_id(id).keep().encode());
        }
        assert_eq!(connection.response(4).protocol_status, OVERLOADED);
        create(&file);
        for _ in 0..3 {
            assert_eq!(connection.next_response().1.text(), "waited");
        }
        assert_eq!(
            connection.exchange(&s.request(&uri).with_id(4)).text(),
            "waited"
        );
    }
);

server!(
    a_client_that_stalls_in_its_params_is_cut_off,
    Server::builder().args(&["--request-header-timeout", "1"]),
    |s| {
        s.php("a.php", "<?php echo 'answer';");
        let bytes = s.request("/a.php").encode_head();
        let mut kept = s.connect();
        kept.exchange(&s.request("/a.php").keep());
        for length in [1, 12, 20, bytes.len() - 1] {
            let mut connection = s.connect();
            connection.send(&bytes[..length]);
            let start = Instant::now();
            connection.expect_close();
            assert!(
                start.elapsed() > Duration::from_millis(800),
                "{length} bytes: cut off after {:?}",
                start.elapsed()
            );
        }
        s.expect_log("limit.request_header_timeout (--request-header-timeout");
        assert_eq!(
            kept.exchange(&s.request("/a.php")).text(),
            "answer",
            "an idle connection is not stalled"
        );
    }
);

server!(
    a_request_after_a_long_silence_has_all_its_time,
    Server::builder().args(&["--request-header-timeout", "1"]),
    |s| {
        s.php(
            "a.php",
            "<?php echo strlen(file_get_contents('php://input'));",
        );
        let post = s.request("/a.php").post("text/plain", vec![b'x'; 200_000]);
        let bytes = post.encode();
        for cut in [10, 60_000, bytes.len() - 10] {
            std::thread::sleep(Duration::from_millis(1500));
            let mut connection = s.connect();
            connection.send(&bytes[..cut]);
            std::thread::sleep(Duration::from_millis(300));
            connection.send(&bytes[cut..]);
            assert_eq!(connection.response(1).text(), "200000", "{cut}");
        }
    }
);

server!(
    a_client_that_trickles_its_params_is_cut_off,
    Server::builder().args(&["--request-header-timeout", "1"]),
    |s| {
        let mut connection = s.connect();
        let mut bytes = s.request("/a.php").encode_head().into_iter();
        wait_until("the connection closes", || {
            let sent = bytes
                .next()
                .is_some_and(|byte| connection.try_send(&[byte]).is_ok());
            !sent || connection.is_readable_within(Duration::from_millis(50))
        });
        s.expect_log("limit.request_header_timeout (--request-header-timeout");
        assert!(bytes.len() > 0, "all bytes were taken");
    }
);

server!(
    connections_above_the_limit_wait,
    Server::builder().args(&["--max-connections", "10"]),
    |s| {
        s.php("a.php", "<?php echo 'answer';");
        let mut connections: Vec<Connection> = (0..10).map(|_| s.connect()).collect();
        for connection in &mut connections {
            assert_eq!(
                connection.exchange(&s.request("/a.php").keep()).text(),
                "answer"
            );
        }
        let mut late = s.connect();
        late.send(&s.request("/a.php").encode());
        s.expect_log("limit.connections (--max-connections)");
        assert!(
            !late.is_readable_within(Duration::from_millis(100)),
            "an eleventh connection was served"
        );
        connections.pop();
        assert_eq!(late.response(1).text(), "answer");
    }
);
