//! Clients that vanish at any stage, by a close or a reset; see also `fastcgi/clients.rs`.

use super::watch::{Cost, survives, times};
use crate::fastcgi::{create, expect_waiting, wait};
use crate::support::client::{Connection, STDIN};
use crate::support::request::record;
use crate::support::server::{Builder, Server};

/// What a client does before it vanishes.
type Act = fn(&Server, &mut Connection);

/// How far a client gets.
const STAGES: &[(&str, Act)] = &[
    ("after connect", |_, _| {}),
    ("in a record's header", |s, c| c.send(&head(s)[..5])),
    ("after FCGI_BEGIN_REQUEST", |s, c| c.send(&head(s)[..16])),
    ("in the params", |s, c| c.send(&head(s)[..100])),
    ("before the end of the params", |s, c| {
        let head = head(s);
        c.send(&head[..head.len() - 8]);
    }),
    ("after the params", |s, c| c.send(&head(s))),
    ("in a record of the body", |s, c| {
        c.send(&head(s));
        c.send(&record(STDIN, 1, &[b'x'; 20_000])[..9_000]);
    }),
    ("in a body that is streamed", |s, c| {
        let put = s.request("/count.php").method("PUT");
        c.send(&put.param("CONTENT_LENGTH", "50000000").encode_head());
        for _ in 0..40 {
            c.send(&record(STDIN, 1, &[b'x'; 60_000]));
        }
    }),
    ("before the answer", |s, c| {
        c.send(&s.request("/right.php?n=1").keep().encode());
    }),
    ("half-closed, before the answer", |s, c| {
        c.send(&s.request("/right.php?n=1").keep().encode());
        c.shutdown_write();
    }),
    ("half-closed, in the params", |s, c| {
        c.send(&head(s)[..100]);
        c.shutdown_write();
    }),
    ("at the beginning of 50 MB", |s, c| {
        c.send(&s.request("/big.php").keep().encode());
        c.record();
    }),
    ("in the middle of 50 MB", |s, c| {
        c.send(&s.request("/big.php").keep().encode());
        while c.stdout_so_far(1).len() < 25_000_000 {
            let record = c.record();
            assert!(c.collect(&record).is_none());
        }
    }),
    ("half-closed, in the middle of 50 MB", |s, c| {
        c.send(&s.request("/big.php").keep().encode());
        c.record();
        c.shutdown_write();
    }),
    ("with two requests under way", |s, c| {
        c.send(&s.request("/right.php?n=1").with_id(1).keep().encode());
        c.send(&s.request("/right.php?n=2").with_id(2).keep().encode());
    }),
];

/// A request with a body up to the end of its params.
fn head(s: &Server) -> Vec<u8> {
    let post = s.request("/right.php?n=1").keep();
    post.post("text/plain", [b'x'; 20_000]).encode_head()
}

fn builder() -> Builder {
    Server::builder()
        .workers(2)
        .ini("post_max_size=0")
        .ini("memory_limit=64M")
}

fn vanish_at_every_stage(s: &Server) {
    s.php(
        "count.php",
        "<?php echo strlen(file_get_contents('php://input'));",
    );
    s.php(
        "big.php",
        "<?php for ($i = 0; $i < 5000; $i++) { echo str_repeat('x', 10000); }",
    );
    for (stage, act) in STAGES {
        survives(
            s,
            &format!("a client that vanished {stage}"),
            Cost::Request,
            times(4),
            |n| {
                let mut connection = s.connect();
                act(s, &mut connection);
                if n % 2 == 0 {
                    connection.reset();
                } else {
                    drop(connection);
                }
            },
        );
    }
    assert_eq!(s.log().count("panic"), 0, "{}", s.log().text());
}

server!(
    clients_may_vanish_from_a_unix_socket_at_every_stage,
    builder(),
    |s| {
        vanish_at_every_stage(&s);
    }
);

server!(
    clients_may_vanish_from_a_tcp_socket_at_every_stage,
    builder().listen("127.0.0.1:0"),
    |s| {
        vanish_at_every_stage(&s);
    }
);

server!(
    clients_may_vanish_while_their_script_waits,
    builder().listen("127.0.0.1:0"),
    |s| {
        survives(
            &s,
            "clients that vanished from a script",
            Cost::Request,
            times(10),
            |n| {
                let (file, uri) = wait(&s, &format!("go{n}"));
                let mut connection = s.connect();
                connection.send(&s.request(&uri).keep().encode());
                expect_waiting(&file);
                connection.reset();
                create(&file);
            },
        );
    }
);
