//! Slow clients: readers of 50 MB, and senders of 50 MB.

use std::time::Duration;

use super::watch::{Cost, Watch, times};
use crate::support::client::{Connection, STDIN};
use crate::support::request::record;
use crate::support::server::{Builder, Server};

const SIZE: usize = 50_000_000;

const BIG: &str =
    "<?php for ($i = 0; $i < 5000; $i++) { echo str_repeat(chr(65 + $i % 26), 10000); }";

const COUNT: &str = "<?php $f = fopen('php://input', 'r'); $n = 0;
while (($d = fread($f, 65536)) !== '' && $d !== false) { $n += strlen($d); } echo $n;";

fn builder() -> Builder {
    Server::builder()
        .ini("memory_limit=64M")
        .ini("post_max_size=0")
        .ini("max_execution_time=0")
        .ini("output_buffering=0")
}

fn is_right(body: &[u8]) -> bool {
    body.len() == SIZE
        && body
            .chunks(10_000)
            .enumerate()
            .all(|(index, chunk)| chunk.iter().all(|&byte| byte == b'A' + (index % 26) as u8))
}

/// Readers that have begun with 50 MB each and then stop.
fn slow_readers(s: &Server, count: usize) -> Vec<Connection> {
    let mut slow: Vec<Connection> = (0..count).map(|_| s.connect()).collect();
    for connection in &mut slow {
        connection.send(&s.request("/big.php").keep().encode());
    }
    for connection in &mut slow {
        let record = connection.record();
        assert!(connection.collect(&record).is_none());
    }
    slow
}

fn read_slowly(s: &Server) {
    s.php("big.php", BIG);
    let mut watch = Watch::start(s);
    let memory = watch.memory();
    for _ in 0..times(1) {
        let mut slow = slow_readers(s, 4);
        for _ in 0..20 {
            watch.answers("a slow reader's start", Cost::Request);
        }
        // Of each: what may wait (256 KiB), what is being made (64 KiB), and what the two cost in passing.
        watch.has_grown_by_at_most("slow readers' start", memory, 4 * 2048 + 4096);
        for connection in &mut slow {
            while connection.stdout_so_far(1).len() < SIZE / 10 {
                let record = connection.record();
                assert!(connection.collect(&record).is_none());
                if connection.stdout_so_far(1).len() % 7 == 0 {
                    watch.answers("a slow reader's progress", Cost::Request);
                }
            }
        }
        for connection in &mut slow {
            assert!(is_right(&connection.response(1).body));
        }
        watch.answers("slow readers", Cost::Request);
    }
    slow_readers(s, 4); // these never read on, and leave
    watch.answers("readers that left", Cost::Request);
    watch.has_not_grown("slow readers", memory);
    // The kept connections are all that is left.
    watch.settled("slow readers");
}

server!(
    slow_readers_of_fifty_megabytes_take_a_worker_each_and_no_memory,
    builder().workers(6),
    |s| {
        read_slowly(&s);
    }
);

server!(
    slow_readers_over_tcp_take_a_worker_each_and_no_memory,
    builder().workers(6).listen("127.0.0.1:0"),
    |s| {
        read_slowly(&s);
    }
);

/// Starts to send 50 MB and stops after `sent` bytes.
fn slow_sender(s: &Server, sent: usize) -> Connection {
    let mut connection = s.connect();
    let put = s.request("/count.php").method("PUT").keep();
    connection.send(&put.param("CONTENT_LENGTH", SIZE.to_string()).encode_head());
    send_body(&mut connection, sent);
    connection
}

fn send_body(connection: &mut Connection, size: usize) {
    let piece = record(STDIN, 1, &[b'x'; 50_000]);
    for _ in 0..size / 50_000 {
        connection.send(&piece);
    }
}

fn end_body(connection: &mut Connection) {
    connection.send(&record(STDIN, 1, b""));
    assert_eq!(connection.response(1).text(), SIZE.to_string());
}

server!(
    a_slow_sender_of_fifty_megabytes_takes_one_worker_and_no_memory,
    builder().workers(2),
    |s| {
        s.php("count.php", COUNT);
        let mut watch = Watch::start(&s);
        let memory = watch.memory();
        for _ in 0..times(2) {
            let mut slow = slow_sender(&s, 10_000_000);
            for _ in 0..4 {
                watch.answers("a slow sender's start", Cost::Request);
                send_body(&mut slow, 10_000_000);
            }
            end_body(&mut slow);
        }
        watch.answers("a slow sender", Cost::Request);
        watch.settled("a slow sender");
        watch.has_not_grown("a slow sender", memory);
    }
);

server!(
    slow_senders_of_bodies_above_body_buffer_may_take_every_worker,
    builder().workers(2),
    |s| {
        s.php("count.php", COUNT);
        let mut watch = Watch::start(&s);
        let mut slow = [slow_sender(&s, 5_000_000), slow_sender(&s, 5_000_000)];
        let mut waiting = s.connect();
        waiting.send(&s.request("/right.php?n=1").encode());
        assert!(
            !waiting.is_readable_within(Duration::from_millis(200)),
            "answered by a worker that reads a body?"
        );
        for connection in &mut slow {
            send_body(connection, SIZE - 5_000_000);
            end_body(connection);
        }
        assert_eq!(waiting.response(1).text(), "right 1 ");
        drop((slow, waiting));
        watch.answers("slow senders", Cost::Request);
        watch.settled("slow senders");
    }
);

server!(
    slow_senders_of_bodies_within_body_buffer_take_no_worker,
    builder().workers(2).args(&["--body-buffer", "64M"]),
    |s| {
        s.php("count.php", COUNT);
        let mut watch = Watch::start(&s);
        let memory = watch.memory();
        // Three: more than workers, and no more than may be held at once.
        let mut slow: Vec<Connection> = (0..3).map(|_| slow_sender(&s, 5_000_000)).collect();
        for _ in 0..4 {
            watch.answers("slow senders' start", Cost::Request);
            for connection in &mut slow {
                send_body(connection, 10_000_000);
            }
        }
        for connection in &mut slow {
            send_body(connection, 5_000_000);
            end_body(connection);
        }
        drop(slow);
        watch.answers("slow senders", Cost::Request);
        watch.settled("slow senders");
        watch.has_not_grown("slow senders", memory);
    }
);
