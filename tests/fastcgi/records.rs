//! Records split and joined at will, padding, keep-alive.

use std::cell::RefCell;
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use crate::support::client::{Address, Connection, PARAMS, Request, STDIN};
use crate::support::request::{padded_record, pair, record};
use crate::support::server::Server;

const ECHO: &str = "<?php echo $_SERVER['REQUEST_METHOD'], ' ', $_SERVER['X'] ?? '', ' ', file_get_contents('php://input');";

/// As few bytes as make a whole request with a body.
fn small(server: &Server) -> Request {
    server
        .request("/echo.php")
        .without_params()
        .param(
            "SCRIPT_FILENAME",
            server.root().join("echo.php").to_str().unwrap(),
        )
        .param("REQUEST_METHOD", "POST")
        .param("CONTENT_LENGTH", "4")
        .param("X", "1")
        .body("body")
        .keep()
}

/// Gives the server a chance to see what was sent so far by itself. Nothing depends on whether it takes the chance.
fn pause() {
    std::thread::sleep(Duration::from_micros(500));
}

server!(a_request_split_at_any_byte_is_answered, |s| {
    s.php("echo.php", ECHO);
    let bytes = small(&s).encode();
    let mut connection = s.connect();
    for split in 0..=bytes.len() {
        connection.send(&bytes[..split]);
        pause();
        connection.send(&bytes[split..]);
        assert_eq!(
            connection.response(1).text(),
            "POST 1 body",
            "split at {split} of {}",
            bytes.len()
        );
    }
});

server!(a_request_sent_byte_by_byte_is_answered, |s| {
    s.php("echo.php", ECHO);
    let mut connection = s.connect();
    for byte in small(&s).encode() {
        connection.send(&[byte]);
        pause();
    }
    assert_eq!(connection.response(1).text(), "POST 1 body");
});

server!(padding_of_any_length_is_skipped, |s| {
    s.php("echo.php", ECHO);
    let request = small(&s);
    let mut connection = s.connect();
    for padding in 0..=255 {
        let mut bytes = request.encode_begin();
        bytes.extend(padded_record(PARAMS, 1, &request.encode_params(), padding));
        bytes.extend(padded_record(PARAMS, 1, &[], padding));
        bytes.extend(padded_record(STDIN, 1, b"bo", padding));
        bytes.extend(padded_record(STDIN, 1, b"dy", 255 - padding));
        bytes.extend(padded_record(STDIN, 1, &[], padding));
        connection.send(&bytes);
        assert_eq!(
            connection.response(1).text(),
            "POST 1 body",
            "padding {padding}"
        );
    }
});

server!(params_may_be_cut_and_padded_anywhere, |s| {
    s.php(
        "all.php",
        "<?php echo json_encode([$_SERVER['LONG'], $_SERVER['SHORT']]);",
    );
    let plan = (
        "[ -~]{0,300}",
        "[ -~]{0,20}",
        prop::collection::vec(1..400_usize, 1..12),
        prop::collection::vec(any::<u8>(), 1..5),
        any::<bool>(),
    );
    let connection = RefCell::new(s.connect());
    let random = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(Config::with_cases(200), random);
    let result = runner.run(&plan, |(long, short, cuts, paddings, wide)| {
        let request = s.request("/all.php").keep();
        let request = request.param("LONG", &long).param("SHORT", &short);
        let mut content = Vec::new();
        for (name, value) in request.params() {
            if wide {
                wide_pair(&mut content, name, value);
            } else {
                pair(&mut content, name, value);
            }
        }
        let mut bytes = request.encode_begin();
        let (mut rest, mut cuts, mut paddings) =
            (&content[..], cuts.iter().cycle(), paddings.iter().cycle());
        while !rest.is_empty() {
            let (piece, later) = rest.split_at(rest.len().min(*cuts.next().unwrap()));
            bytes.extend(padded_record(PARAMS, 1, piece, *paddings.next().unwrap()));
            rest = later;
        }
        bytes.extend(record(PARAMS, 1, &[]));
        bytes.extend(record(STDIN, 1, &[]));
        let mut connection = connection.borrow_mut();
        connection.send(&bytes);
        let found: Vec<String> = serde_json::from_slice(&connection.response(1).body).unwrap();
        prop_assert_eq!(found, vec![long, short]);
        Ok(())
    });
    result.unwrap();
});

/// A pair with 4-byte lengths, which short ones may have too.
fn wide_pair(bytes: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    for length in [name.len(), value.len()] {
        bytes.extend((length as u32 | 0x8000_0000).to_be_bytes());
    }
    bytes.extend_from_slice(name);
    bytes.extend_from_slice(value);
}

server!(a_body_in_tiny_records_arrives_whole, |s| {
    s.php("echo.php", ECHO);
    let body: String = (0..5000)
        .map(|number| char::from(b'a' + (number % 26) as u8))
        .collect();
    let request = s.request("/echo.php").post("text/plain", &body);
    let mut bytes = request.encode_head();
    for byte in body.as_bytes() {
        bytes.extend(record(STDIN, 1, &[*byte]));
    }
    bytes.extend(record(STDIN, 1, &[]));
    let mut connection = s.connect();
    connection.send(&bytes);
    assert_eq!(connection.response(1).text(), format!("POST  {body}"));
});

server!(joined_requests_are_all_answered, |s| {
    s.php("echo.php", ECHO);
    let mut bytes = Vec::new();
    for id in 1..=10 {
        bytes.extend(small(&s).with_id(id).param("X", id.to_string()).encode());
    }
    let mut connection = s.connect();
    connection.send(&bytes);
    let mut ids: Vec<u16> = (1..=10)
        .map(|_| {
            let (id, response) = connection.next_response();
            assert_eq!(response.text(), format!("POST {id} body"));
            id
        })
        .collect();
    ids.sort_unstable();
    assert_eq!(ids, (1..=10).collect::<Vec<_>>());
});

server!(a_kept_connection_serves_a_hundred_requests, |s| {
    s.php("echo.php", ECHO);
    let mut connection = s.connect();
    for number in 0..100 {
        let request = small(&s)
            .param("X", number.to_string())
            .with_id(number % 5 + 1);
        assert_eq!(
            connection.exchange(&request).text(),
            format!("POST {number} body")
        );
    }
});

server!(
    tcp_serves_the_same,
    Server::builder().listen("127.0.0.1:0"),
    |s| {
        s.php("echo.php", ECHO);
        let mut connection = s.connect();
        for _ in 0..100 {
            assert_eq!(connection.exchange(&small(&s)).text(), "POST 1 body");
        }
    }
);

#[test]
fn several_listeners_serve_one_pool() {
    let directory = tempfile::tempdir().unwrap();
    let second = directory.path().join("second.sock");
    let s = Server::builder()
        .args(&[
            "--listen",
            second.to_str().unwrap(),
            "--listen",
            "127.0.0.1:0",
        ])
        .start();
    s.php("a.php", "<?php echo 'answer';");
    for address in [
        s.address().clone(),
        Address::Unix(second),
        s.tcp_address("127.0.0.1:"),
    ] {
        assert_eq!(
            Connection::open(&address)
                .exchange(&s.request("/a.php"))
                .text(),
            "answer",
            "at {address:?}"
        );
    }
}

server!(
    without_keep_conn_the_connection_closes_after_the_answer,
    |s| {
        s.php("echo.php", ECHO);
        let mut connection = s.connect();
        connection.exchange(&s.request("/echo.php"));
        connection.expect_close();
    }
);

server!(the_largest_request_id_is_answered, |s| {
    s.php("echo.php", ECHO);
    let response = s.send(&s.request("/echo.php").with_id(u16::MAX));
    assert_eq!(response.text(), "GET  ");
});

server!(reserved_bytes_do_not_matter, |s| {
    s.php("echo.php", ECHO);
    let mut bytes = small(&s).encode();
    bytes[7] = 0xFF; // reserved byte of the header
    bytes[11..16].fill(0xFF); // reserved bytes of FCGI_BEGIN_REQUEST
    let mut connection = s.connect();
    connection.send(&bytes);
    assert_eq!(connection.response(1).text(), "POST 1 body");
});
