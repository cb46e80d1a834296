//! Several requests at once on one connection.

use crate::support::client::{PARAMS, REQUEST_COMPLETE, STDIN};
use crate::support::request::record;
use crate::support::server::Server;

use super::{create, wait};

server!(
    the_fast_request_overtakes_the_slow_one,
    Server::builder().workers(2),
    |s| {
        s.php("fast.php", "<?php echo 'fast';");
        let (file, uri) = wait(&s, "go");
        let mut connection = s.connect();
        connection.send(&s.request(&uri).with_id(1).keep().encode());
        connection.send(&s.request("/fast.php").with_id(2).keep().encode());
        assert_eq!(connection.response(2).text(), "fast");
        create(&file);
        assert_eq!(connection.response(1).text(), "waited");
        assert_eq!(
            connection
                .exchange(&s.request("/fast.php").with_id(2))
                .text(),
            "fast"
        );
    }
);

server!(
    requests_may_come_record_by_record_in_turns,
    Server::builder().workers(2),
    |s| {
        s.php(
            "echo.php",
            "<?php echo $_SERVER['X'], file_get_contents('php://input');",
        );
        let requests: Vec<_> = (1..=8)
            .map(|id| {
                s.request("/echo.php")
                    .post("text/plain", format!("body {id}"))
                    .param("X", format!("x{id} "))
                    .with_id(id)
                    .keep()
            })
            .collect();
        let mut connection = s.connect();
        for request in &requests {
            connection.send(&request.encode_begin());
        }
        let params: Vec<_> = requests
            .iter()
            .map(|request| request.encode_params())
            .collect();
        for piece in 0..20 {
            for (request, params) in requests.iter().zip(&params) {
                let size = params.len().div_ceil(20);
                let (start, end) = (
                    (piece * size).min(params.len()),
                    ((piece + 1) * size).min(params.len()),
                );
                if start < end {
                    connection.send(&record(PARAMS, request.id(), &params[start..end]));
                }
            }
        }
        for request in &requests {
            connection.send(&record(PARAMS, request.id(), b""));
        }
        for request in requests.iter().rev() {
            connection.send(&record(
                STDIN,
                request.id(),
                format!("body {}", request.id()).as_bytes(),
            ));
            connection.send(&record(STDIN, request.id(), b""));
        }
        for _ in &requests {
            let (id, response) = connection.next_response();
            assert_eq!(response.text(), format!("x{id} body {id}"));
        }
    }
);

server!(
    many_requests_on_one_connection_all_run,
    Server::builder().workers(4),
    |s| {
        s.php("size.php", "<?php echo str_repeat($_GET['c'], 100000);");
        let mut connection = s.connect();
        let letter = |id: u16| char::from(b'a' + (id % 26) as u8);
        for id in 1..=40 {
            connection.send(
                &s.request(&format!("/size.php?c={}", letter(id)))
                    .with_id(id)
                    .keep()
                    .encode(),
            );
        }
        for _ in 1..=40 {
            let (id, response) = connection.next_response();
            assert_eq!(response.protocol_status, REQUEST_COMPLETE);
            assert!(
                response.body.len() == 100_000
                    && response.body.iter().all(|&byte| byte == letter(id) as u8),
                "{id}"
            );
        }
    }
);

server!(
    an_id_can_be_used_again_at_once,
    Server::builder().workers(2),
    |s| {
        s.php("n.php", "<?php echo $_GET['n'];");
        let (file, uri) = wait(&s, "go");
        let mut connection = s.connect();
        connection.send(&s.request(&uri).with_id(1).keep().encode());
        for number in 0..50 {
            let request = s.request(&format!("/n.php?n={number}")).with_id(2).keep();
            assert_eq!(connection.exchange(&request).text(), number.to_string());
        }
        create(&file);
        assert_eq!(connection.response(1).text(), "waited");
    }
);

server!(
    a_slow_sender_does_not_hold_up_others_on_its_connection,
    |s| {
        s.php(
            "a.php",
            "<?php echo $_GET['n'], file_get_contents('php://input');",
        );
        let slow = s
            .request("/a.php?n=slow")
            .post("text/plain", "body")
            .with_id(1)
            .keep();
        let mut connection = s.connect();
        connection.send(&slow.encode_head());
        let fast = s.request("/a.php?n=fast").with_id(2).keep();
        assert_eq!(connection.exchange(&fast).text(), "fast");
        connection.send(&record(STDIN, 1, b"body"));
        connection.send(&record(STDIN, 1, b""));
        assert_eq!(connection.response(1).text(), "slowbody");
    }
);

server!(
    a_request_without_keep_conn_does_not_cut_off_another,
    Server::builder().workers(2),
    |s| {
        s.php("fast.php", "<?php echo 'fast';");
        let (file, uri) = wait(&s, "go");
        let mut connection = s.connect();
        connection.send(&s.request(&uri).with_id(1).keep().encode());
        connection.send(&s.request("/fast.php").with_id(2).encode());
        assert_eq!(connection.response(2).text(), "fast");
        create(&file);
        assert_eq!(connection.response(1).text(), "waited");
        connection.expect_close();
    }
);
