//! Management records, roles, and input that makes no sense.

use std::io::{ErrorKind, Write};
use std::time::Duration;

use crate::support::DEADLINE;
use crate::support::client::{
    ABORT_REQUEST, BEGIN_REQUEST, END_REQUEST, GET_VALUES, GET_VALUES_RESULT, PARAMS, Record,
    STDIN, STDOUT, UNKNOWN_ROLE, UNKNOWN_TYPE,
};
use crate::support::request::{pair, pairs, record};
use crate::support::server::Server;

use super::{create, wait};

fn get_values(names: &[&str]) -> Vec<u8> {
    let mut content = Vec::new();
    for name in names {
        pair(&mut content, name.as_bytes(), b"");
    }
    record(GET_VALUES, 0, &content)
}

fn values(record: &Record) -> Vec<(String, String)> {
    assert_eq!((record.kind, record.id), (GET_VALUES_RESULT, 0));
    pairs(&record.content)
}

server!(
    get_values_tells_the_limits,
    Server::builder().args(&["--max-connections", "77"]),
    |s| {
        let mut connection = s.connect();
        connection.send(&get_values(&[
            "FCGI_MAX_CONNS",
            "FCGI_MAX_REQS",
            "FCGI_MPXS_CONNS",
        ]));
        let found = values(&connection.record());
        let value = |name: &str| {
            found
                .iter()
                .find(|(found, _)| found == name)
                .map(|(_, value)| value.as_str())
        };
        assert_eq!(value("FCGI_MAX_CONNS"), Some("77"));
        assert_eq!(value("FCGI_MPXS_CONNS"), Some("1"));
        let requests: u32 = value("FCGI_MAX_REQS").unwrap().parse().unwrap();
        assert!(requests >= 1, "{requests}");
    }
);

server!(get_values_leaves_out_what_it_does_not_know, |s| {
    let mut connection = s.connect();
    connection.send(&get_values(&["NONSENSE", "FCGI_MPXS_CONNS", ""]));
    assert_eq!(
        values(&connection.record()),
        [("FCGI_MPXS_CONNS".to_owned(), "1".to_owned())]
    );
    connection.send(&get_values(&[]));
    assert_eq!(values(&connection.record()), []);
});

server!(get_values_may_come_in_the_middle_of_a_request, |s| {
    s.php("a.php", "<?php echo 'answer';");
    let request = s.request("/a.php");
    let mut connection = s.connect();
    connection.send(&request.encode_begin());
    connection.send(&get_values(&["FCGI_MPXS_CONNS"]));
    values(&connection.record());
    connection.send(&request.encode()[request.encode_begin().len()..]);
    assert_eq!(connection.response(1).text(), "answer");
});

server!(a_peer_that_reads_no_answers_is_read_no_further, |s| {
    const MUCH: usize = 16 << 20;
    let one = get_values(&["FCGI_MAX_CONNS", "FCGI_MAX_REQS", "FCGI_MPXS_CONNS"]);
    let block = one.repeat(1000);
    let mut connection = s.connect();
    connection.set_timeout(Duration::from_secs(1)).unwrap();
    let mut writer = connection.try_clone_writer();
    let mut sent = 0;
    while sent < MUCH {
        match writer.write(&block[sent % block.len()..]) {
            Ok(count) => sent += count,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                break;
            }
        }
    }
    assert!(sent < MUCH, "{sent} bytes were taken");
    // When it reads after all, it gets every answer.
    connection.set_timeout(DEADLINE).unwrap();
    let rest = &block[sent % block.len()..];
    let asked = (sent + rest.len()) / one.len();
    std::thread::scope(|scope| {
        scope.spawn(|| writer.write_all(rest).unwrap());
        for _ in 0..asked {
            assert_eq!(values(&connection.record()).len(), 3);
        }
    });
    s.php("a.php", "<?php echo 'answer';");
    assert_eq!(connection.exchange(&s.request("/a.php")).text(), "answer");
});

server!(an_unknown_management_record_is_named_as_unknown, |s| {
    let mut connection = s.connect();
    for kind in [12, 99, 255] {
        connection.send(&record(kind, 0, b"whatever"));
        let answer = connection.record();
        assert_eq!(
            (answer.kind, answer.id, answer.content.len()),
            (UNKNOWN_TYPE, 0, 8)
        );
        assert_eq!(answer.content[0], kind);
    }
    s.php("a.php", "<?php echo 'answer';");
    assert_eq!(connection.exchange(&s.request("/a.php")).text(), "answer");
});

server!(an_unknown_role_is_refused_and_the_connection_goes_on, |s| {
    s.php("a.php", "<?php echo 'answer';");
    let mut connection = s.connect();
    for role in [0, 4, 99, 65_535] {
        connection.send(&s.request("/a.php").role(role).keep().encode());
        let response = connection.response(1);
        assert_eq!(
            (response.protocol_status, response.body.len()),
            (UNKNOWN_ROLE, 0),
            "role {role}"
        );
    }
    assert_eq!(connection.exchange(&s.request("/a.php")).text(), "answer");
});

server!(an_unknown_role_without_keep_conn_closes, |s| {
    let mut connection = s.connect();
    connection.send(&s.request("/a.php").role(99).encode());
    assert_eq!(connection.response(1).protocol_status, UNKNOWN_ROLE);
    connection.expect_close();
});

server!(records_of_a_request_that_is_not_open_are_ignored, |s| {
    s.php("a.php", "<?php echo 'answer';");
    let mut connection = s.connect();
    for kind in [ABORT_REQUEST, PARAMS, STDIN] {
        connection.send(&record(kind, 7, b""));
    }
    assert_eq!(
        connection.exchange(&s.request("/a.php").keep()).text(),
        "answer"
    );
    connection.send(&record(ABORT_REQUEST, 1, b"")); // comes late: the request has been answered
    assert_eq!(connection.exchange(&s.request("/a.php")).text(), "answer");
});

server!(
    malformed_input_harms_only_its_own_connection,
    Server::builder().workers(2),
    |s| {
        s.php("a.php", "<?php echo 'answer';");
        let (file, uri) = wait(&s, "go");
        let mut innocent = s.connect();
        innocent.send(&s.request(&uri).keep().encode());
        let request = s.request("/a.php");
        let begin = request.encode_begin();
        let head = request.encode_head();
        let joined = |parts: &[&[u8]]| parts.concat();
        let cases: Vec<(&str, Vec<u8>)> = vec![
            (
                "HTTP",
                b"GET / HTTP/1.1\r\nHost: example.test\r\n\r\n".to_vec(),
            ),
            (
                "TLS",
                b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
            ),
            ("zeros", vec![0; 64]),
            ("all bits", vec![0xFF; 64]),
            ("version 2", {
                let mut bytes = request.encode();
                bytes[0] = 2;
                bytes
            }),
            ("wrong version later", joined(&[&begin, &[9; 16]])),
            (
                "begin with id 0",
                record(BEGIN_REQUEST, 0, &[0, 1, 0, 0, 0, 0, 0, 0]),
            ),
            ("short begin", record(BEGIN_REQUEST, 1, &[0, 1, 0])),
            ("empty begin", record(BEGIN_REQUEST, 1, &[])),
            ("long begin", record(BEGIN_REQUEST, 1, &[0; 64])),
            ("begin twice", joined(&[&begin, &begin])),
            ("begin again while open", joined(&[&head, &begin])),
            (
                "value runs past the end",
                joined(&[
                    &begin,
                    &record(PARAMS, 1, b"\x01\x7fab"),
                    &record(PARAMS, 1, b""),
                ]),
            ),
            (
                "huge value",
                joined(&[
                    &begin,
                    &record(PARAMS, 1, b"\x01\xff\xff\xff\xffab"),
                    &record(PARAMS, 1, b""),
                ]),
            ),
            (
                "cut length",
                joined(&[
                    &begin,
                    &record(PARAMS, 1, b"\x01\x80"),
                    &record(PARAMS, 1, b""),
                ]),
            ),
            (
                "params go on",
                joined(&[&head, &record(PARAMS, 1, b"\x01\x01ab")]),
            ),
            (
                "body before the params",
                joined(&[&begin, &record(STDIN, 1, b"body")]),
            ),
            (
                "output from the client",
                joined(&[&begin, &record(STDOUT, 1, b"x")]),
            ),
            (
                "end from the client",
                joined(&[&begin, &record(END_REQUEST, 1, &[0; 8])]),
            ),
            ("malformed values", record(GET_VALUES, 0, b"\x7f\x7fx")),
        ];
        for (name, bytes) in cases {
            let mut connection = s.connect();
            let _ = connection.try_send(&bytes);
            // Whatever it answers, it neither hangs nor executes the script.
            loop {
                match connection.try_record() {
                    Ok(Some(record)) => assert_ne!(record.kind, STDOUT, "{name}: {record:?}"),
                    Ok(None) => break,
                    Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => break,
                    Err(error) => {
                        panic!("{name}: neither an answer nor the end of the connection: {error}")
                    }
                }
            }
            assert_eq!(s.get("/a.php").text(), "answer", "after {name}");
        }
        create(&file);
        assert_eq!(innocent.response(1).text(), "waited");
        assert_eq!(innocent.exchange(&s.request("/a.php")).text(), "answer");
        assert_eq!(s.log().count("panic"), 0, "{}", s.log().text());
    }
);

server!(
    random_bytes_crash_nothing,
    Server::builder().workers(2),
    |s| {
        s.php("a.php", "<?php echo 'answer';");
        let before = s.worker_pids();
        let valid = s
            .request("/a.php")
            .post("text/plain", "0123456789")
            .encode();
        let mut state = 88_172_645_463_325_252_u64; // xorshift: the same bytes in each run
        let mut random = move |below: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state % below as u64) as usize
        };
        for _ in 0..500 {
            let mut bytes = valid.clone();
            for _ in 0..=random(4) {
                let at = random(bytes.len());
                bytes[at] = random(256) as u8;
            }
            bytes.truncate(random(bytes.len()) + 1);
            let mut connection = s.connect();
            let _ = connection.try_send(&bytes);
        }
        assert_eq!(s.get("/a.php").text(), "answer");
        assert_eq!(s.worker_pids(), before);
        assert_eq!(s.log().count("panic"), 0, "{}", s.log().text());
    }
);
