//! A connection is not a worker: idle and half-read connections occupy none.

use crate::support::client::Connection;
use crate::support::server::Server;

use super::{create, expect_waiting, wait};

server!(idle_kept_connections_occupy_no_worker, |s| {
    s.php("a.php", "<?php echo 'answer';");
    let mut connections: Vec<Connection> = (0..64).map(|_| s.connect()).collect();
    for connection in &mut connections {
        assert_eq!(
            connection.exchange(&s.request("/a.php").keep()).text(),
            "answer"
        );
    }
    assert_eq!(s.get("/a.php").text(), "answer");
    for connection in connections.iter_mut().rev() {
        assert_eq!(
            connection.exchange(&s.request("/a.php").keep()).text(),
            "answer"
        );
    }
});

server!(
    connections_without_a_byte_occupy_no_worker,
    Server::builder().workers(2),
    |s| {
        s.php("a.php", "<?php echo 'answer';");
        let _silent: Vec<Connection> = (0..64).map(|_| s.connect()).collect();
        assert_eq!(s.get("/a.php").text(), "answer");
    }
);

server!(
    half_sent_requests_occupy_no_worker,
    Server::builder().workers(2),
    |s| {
        s.php("a.php", "<?php echo file_get_contents('php://input');");
        let bytes = s
            .request("/a.php")
            .post("text/plain", "the body")
            .keep()
            .encode();
        let mut connections: Vec<Connection> = (0..64).map(|_| s.connect()).collect();
        for (index, connection) in connections.iter_mut().enumerate() {
            connection.send(&bytes[..bytes.len() * index / 64]);
        }
        assert_eq!(s.get("/a.php").text(), "");
        for (index, connection) in connections.iter_mut().enumerate() {
            connection.send(&bytes[bytes.len() * index / 64..]);
            assert_eq!(connection.response(1).text(), "the body");
        }
    }
);

server!(
    a_kept_connection_does_not_wait_while_a_worker_is_idle,
    Server::builder().workers(2),
    |s| {
        s.php("a.php", "<?php echo 'answer';");
        let (file, uri) = wait(&s, "go");
        // Connections that both workers know, so that some belong to the one that is made busy.
        let mut connections: Vec<Connection> = (0..16).map(|_| s.connect()).collect();
        for connection in &mut connections {
            assert_eq!(
                connection.exchange(&s.request("/a.php").keep()).text(),
                "answer"
            );
        }
        let mut busy = s.connect();
        busy.send(&s.request(&uri).encode());
        for _ in 0..5 {
            for connection in &mut connections {
                assert_eq!(
                    connection.exchange(&s.request("/a.php").keep()).text(),
                    "answer"
                );
            }
        }
        create(&file);
        assert_eq!(busy.response(1).text(), "waited");
    }
);

server!(
    no_connection_waits_for_a_busy_worker_while_another_is_idle,
    Server::builder().workers(4),
    |s| {
        s.php(
            "a.php",
            "<?php echo 'answer ', $_GET['n'], ' ', file_get_contents('php://input');",
        );
        let mut connections: Vec<Connection> = (0..64).map(|_| s.connect()).collect();
        for connection in &mut connections {
            connection.send(&s.request("/a.php?n=0").keep().encode());
        }
        for connection in &mut connections {
            assert_eq!(connection.response(1).text(), "answer 0 ");
        }
        for round in 1..=3 {
            // Three scripts hang, on connections that were open and idle like the others.
            let (others, busy) = connections.split_at_mut(61);
            let mut files = Vec::new();
            for (number, connection) in busy.iter_mut().enumerate() {
                let (file, uri) = wait(&s, &format!("go-{round}-{number}"));
                connection.send(&s.request(&uri).keep().encode());
                expect_waiting(&file);
                files.push(file);
            }
            // Whoever owns each of the others: all at once, then one by one, then on connections that are new.
            let body = "x".repeat(round * 10_000);
            for connection in &mut *others {
                let request = s.request("/a.php?n=1").form(&body).keep();
                connection.send(&request.encode());
            }
            for connection in &mut *others {
                assert_eq!(connection.response(1).text(), format!("answer 1 {body}"));
            }
            for connection in &mut *others {
                let request = s.request("/a.php?n=2").keep();
                assert_eq!(connection.exchange(&request).text(), "answer 2 ");
            }
            for _ in 0..20 {
                assert_eq!(s.get("/a.php?n=3").text(), "answer 3 ");
            }
            for connection in &mut *busy {
                assert!(
                    !connection.has_input(),
                    "a script was to hang, and has answered"
                );
            }
            for (file, connection) in files.iter().zip(&mut *busy) {
                create(file);
                assert_eq!(connection.response(1).text(), "waited");
            }
            connections.rotate_left(7);
        }
    }
);

server!(
    four_workers_run_four_requests_at_once,
    Server::builder().workers(4),
    |s| {
        // Each script waits until all four run.
        let source = "<?php touch($_GET['d'] . '/running' . $_GET['n']); $end = microtime(true) + 15;
        while (count(glob($_GET['d'] . '/running*')) < 4 && microtime(true) < $end) { usleep(1000); }
        echo count(glob($_GET['d'] . '/running*'));";
        s.php("together.php", source);
        let uri = |number: u32| format!("/together.php?n={number}&d={}", s.directory().display());
        let mut connections: Vec<Connection> = (0..4).map(|_| s.connect()).collect();
        for (number, connection) in (0..).zip(&mut connections) {
            connection.send(&s.request(&uri(number)).encode());
        }
        for connection in &mut connections {
            assert_eq!(connection.response(1).text(), "4");
        }
    }
);

server!(waiting_requests_are_answered_in_turn, |s| {
    let (file, uri) = wait(&s, "go");
    let order = s.directory().join("order");
    s.php(
        "order.php",
        "<?php file_put_contents($_GET['f'], $_GET['n'], FILE_APPEND); echo $_GET['n'];",
    );
    let mut busy = s.connect();
    busy.send(&s.request(&uri).encode());
    let mut connections: Vec<Connection> = (0..8).map(|_| s.connect()).collect();
    for (number, connection) in connections.iter_mut().enumerate() {
        connection.send(
            &s.request(&format!("/order.php?n={number}&f={}", order.display()))
                .encode(),
        );
    }
    create(&file);
    assert_eq!(busy.response(1).text(), "waited");
    for (number, connection) in connections.iter_mut().enumerate() {
        assert_eq!(connection.response(1).text(), number.to_string());
    }
});
