//! Clients that read slowly, close half, or vanish at any stage.

use std::time::Duration;

use crate::support::client::{Connection, Request, STDIN};
use crate::support::request::record;
use crate::support::server::Server;
use crate::support::wait_until;

use super::{create, wait};

server!(
    a_slow_reader_gets_everything_and_holds_up_nobody,
    Server::builder().workers(2),
    |s| {
        s.php(
            "big.php",
            "<?php for ($i = 0; $i < 500; $i++) { echo str_repeat(chr(65 + $i % 26), 10000); }",
        );
        s.php("a.php", "<?php echo 'answer';");
        let mut slow = s.connect();
        slow.send(&s.request("/big.php").encode());
        for _ in 0..50 {
            let record = slow.record();
            assert!(slow.collect(&record).is_none());
            assert_eq!(s.get("/a.php").text(), "answer");
        }
        let body = slow.response(1).body;
        assert!(
            body.len() == 5_000_000
                && body.chunks(10_000).enumerate().all(|(index, chunk)| chunk
                    .iter()
                    .all(|&byte| byte == b'A' + (index % 26) as u8))
        );
    }
);

server!(
    a_reader_that_never_reads_costs_one_worker_at_most,
    Server::builder().workers(2),
    |s| {
        s.php("big.php", "<?php echo str_repeat('x', 5000000);");
        s.php("a.php", "<?php echo 'answer';");
        let mut deaf = s.connect();
        deaf.send(&s.request("/big.php").encode());
        assert!(deaf.is_readable_within(Duration::from_secs(10)));
        for _ in 0..20 {
            assert_eq!(s.get("/a.php").text(), "answer");
        }
    }
);

server!(
    a_page_within_the_output_buffer_frees_the_worker_at_once,
    |s| {
        s.php("page.php", "<?php echo str_repeat('x', 200000);");
        s.php("a.php", "<?php echo 'answer';");
        let mut deaf = s.connect();
        deaf.send(&s.request("/page.php").encode());
        assert!(deaf.is_readable_within(Duration::from_secs(10)));
        assert_eq!(s.get("/a.php").text(), "answer");
        assert_eq!(deaf.response(1).body.len(), 200_000);
    }
);

server!(a_half_closed_client_gets_its_answer, |s| {
    let (file, uri) = wait(&s, "go");
    let mut connection = s.connect();
    connection.send(&s.request(&uri).encode());
    connection.shutdown_write();
    create(&file);
    assert_eq!(connection.response(1).text(), "waited");
    connection.expect_close();
});

server!(a_half_closed_idle_connection_is_closed, |s| {
    s.php("a.php", "<?php echo 'answer';");
    let mut connection = s.connect();
    connection.exchange(&s.request("/a.php").keep());
    connection.shutdown_write();
    connection.expect_close();
});

/// A client that does something and vanishes: right answers follow, from the same worker processes.
fn vanishing(s: &Server, name: &str, act: impl Fn(&mut Connection, &Request)) {
    s.php("a.php", "<?php echo 'answer';");
    s.php("echo.php", "<?php echo file_get_contents('php://input');");
    let workers = s.worker_pids();
    for _ in 0..10 {
        let mut connection = s.connect();
        act(
            &mut connection,
            &s.request("/echo.php")
                .post("text/plain", vec![b'x'; 5000])
                .keep(),
        );
        drop(connection);
        assert_eq!(
            s.get("/a.php").text(),
            "answer",
            "after a client that vanished {name}"
        );
    }
    assert_eq!(
        s.worker_pids(),
        workers,
        "after clients that vanished {name}"
    );
    assert_eq!(s.log().count("panic"), 0, "{}", s.log().text());
}

server!(a_client_may_vanish_before_its_request_is_complete, |s| {
    vanishing(&s, "at once", |_, _| {});
    vanishing(&s, "in a header", |connection, request| {
        connection.send(&request.encode()[..5]);
    });
    vanishing(&s, "after FCGI_BEGIN_REQUEST", |connection, request| {
        connection.send(&request.encode_begin());
    });
    vanishing(&s, "in the params", |connection, request| {
        connection.send(&request.encode_head()[..60]);
    });
    vanishing(&s, "before the body", |connection, request| {
        connection.send(&request.encode_head());
    });
    vanishing(&s, "in the body", |connection, request| {
        connection.send(&request.encode_head());
        connection.send(&record(STDIN, 1, &[b'x'; 1000]));
    });
    vanishing(&s, "before the end of the body", |connection, request| {
        let bytes = request.encode();
        connection.send(&bytes[..bytes.len() - 8]);
    });
});

server!(a_client_may_vanish_while_it_is_answered, |s| {
    vanishing(&s, "after the request", |connection, request| {
        connection.send(&request.encode());
    });
    vanishing(&s, "when the answer began", |connection, request| {
        connection.send(&request.encode());
        connection.is_readable_within(Duration::from_secs(10));
    });
    vanishing(&s, "after the answer", |connection, request| {
        drop(connection.exchange(request));
    });
    vanishing(&s, "between two requests", |connection, request| {
        connection.exchange(request);
        connection.send(&request.encode()[..100]);
    });
});

server!(
    a_client_may_vanish_during_a_long_body,
    Server::builder().ini("post_max_size=0"),
    |s| {
        vanishing(&s, "in a streamed body", |connection, request| {
            let request = request.clone().param("CONTENT_LENGTH", "10000000");
            connection.send(&request.encode_head());
            for _ in 0..60 {
                let _ = connection.try_send(&record(STDIN, 1, &[b'x'; 50_000]));
            }
        });
    }
);

server!(
    a_client_may_vanish_during_a_long_answer,
    Server::builder().ini("memory_limit=64M"),
    |s| {
        s.php(
            "big.php",
            "<?php for ($i = 0; $i < 1000; $i++) { echo str_repeat('x', 10000); }",
        );
        vanishing(&s, "in a long answer", |connection, _| {
            connection.send(&s.request("/big.php").encode());
            connection.record();
        });
    }
);

server!(a_script_whose_client_vanished_runs_to_its_end, |s| {
    let (go, _) = wait(&s, "go");
    let done = s.directory().join("done");
    s.php("order.php", "<?php touch($_GET['go'] . '.started'); while (!file_exists($_GET['go'])) { usleep(1000); clearstatcache(); } echo 'thank you'; file_put_contents($_GET['done'], 'ordered');");
    let mut connection = s.connect();
    connection.send(
        &s.request(&format!(
            "/order.php?go={}&done={}",
            go.display(),
            done.display()
        ))
        .encode(),
    );
    wait_until("the script runs", || {
        go.with_file_name("go.started").exists()
    });
    drop(connection);
    create(&go);
    wait_until("the script ends", || {
        std::fs::read_to_string(&done).is_ok_and(|text| text == "ordered")
    });
});

server!(a_script_that_prints_to_nobody_is_stopped, |s| {
    let status = s.directory().join("status");
    let source = "<?php register_shutdown_function(function () { file_put_contents($_GET['file'], connection_status()); });
        for ($i = 0; $i < 20000; $i++) { echo 'x'; flush(); usleep(1000); }";
    s.php("endless.php", source);
    let mut connection = s.connect();
    connection.send(
        &s.request(&format!("/endless.php?file={}", status.display()))
            .encode(),
    );
    connection.record();
    drop(connection);
    wait_until("the script ends", || {
        std::fs::read_to_string(&status).is_ok_and(|text| text == "1")
    });
});

server!(no_descriptor_is_left_of_a_thousand_connections, |s| {
    s.php("a.php", "<?php echo 'answer';");
    let count = |s: &Server| -> usize {
        let pids = s.worker_pids();
        pids.iter()
            .map(|pid| {
                std::fs::read_dir(format!("/proc/{pid}/fd"))
                    .unwrap()
                    .count()
            })
            .sum()
    };
    s.get("/a.php");
    let before = count(&s);
    for number in 0..1000 {
        let mut connection = s.connect();
        match number % 4 {
            0 => drop(connection.exchange(&s.request("/a.php"))),
            1 => drop(connection.exchange(&s.request("/a.php").keep())),
            2 => connection.send(&s.request("/a.php").encode_head()),
            _ => {}
        }
    }
    wait_until("the descriptors are closed", || {
        s.get("/a.php");
        count(&s) <= before
    });
});
