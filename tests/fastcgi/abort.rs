//! FCGI_ABORT_REQUEST at every stage.

use crate::support::client::ABORT_REQUEST;
use crate::support::request::record;
use crate::support::server::Server;
use crate::support::wait_until;

use super::{create, expect_waiting, wait};

server!(an_abort_while_the_request_is_sent_ends_it, |s| {
    s.php("a.php", "<?php echo 'answer';");
    let request = s.request("/a.php").post("text/plain", "0123456789").keep();
    let mut connection = s.connect();
    for bytes in [request.encode_begin(), request.encode_head()] {
        connection.send(&bytes);
        connection.send(&record(ABORT_REQUEST, 1, b""));
        let response = connection.response(1);
        assert_eq!((response.protocol_status, response.body.len()), (0, 0));
    }
    assert_eq!(connection.exchange(&s.request("/a.php")).text(), "answer");
});

server!(
    an_abort_of_a_request_without_keep_conn_closes_the_connection,
    |s| {
        let request = s.request("/a.php").post("text/plain", "0123456789");
        for bytes in [request.encode_begin(), request.encode_head()] {
            let mut connection = s.connect();
            connection.send(&bytes);
            connection.send(&record(ABORT_REQUEST, 1, b""));
            assert_eq!(connection.response(1).protocol_status, 0);
            connection.expect_close();
        }
    }
);

server!(an_abort_stops_a_script_at_its_next_output, |s| {
    let status = s.directory().join("status");
    let source = "<?php
        register_shutdown_function(function () { file_put_contents($_GET['file'], connection_status()); });
        for ($i = 0; $i < 20000; $i++) { echo 'x'; flush(); usleep(1000); }";
    s.php("endless.php", source);
    s.php("a.php", "<?php echo 'answer';");
    let mut connection = s.connect();
    connection.send(
        &s.request(&format!("/endless.php?file={}", status.display()))
            .keep()
            .encode(),
    );
    while connection.stdout_so_far(1).is_empty() {
        let record = connection.record();
        assert!(connection.collect(&record).is_none());
    }
    connection.send(&record(ABORT_REQUEST, 1, b""));
    connection.response(1);
    wait_until("the script ends", || {
        std::fs::read_to_string(&status).is_ok_and(|text| text == "1")
    });
    assert_eq!(connection.exchange(&s.request("/a.php")).text(), "answer");
});

server!(a_script_may_ignore_an_abort, |s| {
    let done = s.directory().join("done");
    let source = "<?php ignore_user_abort(true);
        for ($i = 0; $i < 20000 && !connection_aborted(); $i++) { echo 'x'; flush(); usleep(1000); }
        echo 'y'; flush();
        file_put_contents($_GET['done'] . '.new', 'aborted: ' . connection_aborted());
        rename($_GET['done'] . '.new', $_GET['done']);";
    s.php("ignore.php", source);
    let mut connection = s.connect();
    connection.send(
        &s.request(&format!("/ignore.php?done={}", done.display()))
            .keep()
            .encode(),
    );
    while connection.stdout_so_far(1).is_empty() {
        let record = connection.record();
        assert!(connection.collect(&record).is_none());
    }
    connection.send(&record(ABORT_REQUEST, 1, b""));
    wait_until("the script runs to its end", || done.exists());
    assert_eq!(std::fs::read_to_string(&done).unwrap(), "aborted: 1");
});

server!(
    an_abort_of_one_request_leaves_the_other_alone,
    Server::builder().workers(2),
    |s| {
        let (first, first_uri) = wait(&s, "first");
        let (second, second_uri) = wait(&s, "second");
        let mut connection = s.connect();
        connection.send(&s.request(&first_uri).with_id(1).keep().encode());
        connection.send(&s.request(&second_uri).with_id(2).keep().encode());
        expect_waiting(&first);
        expect_waiting(&second);
        connection.send(&record(ABORT_REQUEST, 1, b""));
        create(&second);
        loop {
            let (id, response) = connection.next_response();
            if id == 2 {
                assert_eq!(response.text(), "waited");
                break;
            }
        }
        create(&first);
    }
);

server!(an_aborted_request_in_the_queue_is_not_executed, |s| {
    let (file, uri) = wait(&s, "go");
    let trace = s.directory().join("trace");
    s.php(
        "trace.php",
        "<?php file_put_contents($_GET['file'], 'executed'); echo 'traced';",
    );
    let mut busy = s.connect();
    busy.send(&s.request(&uri).encode());
    expect_waiting(&file);
    let mut connection = s.connect();
    connection.send(
        &s.request(&format!("/trace.php?file={}", trace.display()))
            .keep()
            .encode(),
    );
    connection.send(&record(ABORT_REQUEST, 1, b""));
    create(&file);
    assert_eq!(busy.response(1).text(), "waited");
    assert_eq!(connection.response(1).text(), "");
    assert_eq!(s.get(&uri).text(), "waited");
    assert!(!trace.exists());
});
