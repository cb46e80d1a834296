//! Requests that take too long because of their clients: those are no reason to end a process.

use std::time::Duration;

use super::{terminate, timed_out};
use crate::support::client::{PARAMS, STDIN};
use crate::support::request::{record, stream};
use crate::support::wait_until;

server!(a_client_that_does_not_read_its_answer, terminate(1), |s| {
    s.php("pid.php", "<?php echo getmypid();");
    let before = s.get("/pid.php").text();
    s.php(
        "big.php",
        "<?php for ($i = 0; $i < 100; $i++) echo str_repeat('x', 1 << 20);",
    );
    let mut slow = s.connect();
    slow.send(&s.request("/big.php").encode());
    timed_out(&s, "big.php");
    // The next one waits for this worker only.
    assert_eq!(s.get("/pid.php").text(), before);
    assert_eq!(s.log().count("did not end"), 0, "{}", s.log().text());
    drop(slow);
});

server!(
    a_client_that_does_not_send_its_body,
    terminate(1).args(&["--body-buffer", "1K"]),
    |s| {
        s.php("pid.php", "<?php echo getmypid();");
        let before = s.get("/pid.php").text();
        let file = s.directory().join("ran");
        s.php(
            "post.php",
            &format!(
                "<?php touch('{}'); echo strlen($_POST['a']);",
                file.display()
            ),
        );
        let request = s
            .request("/post.php")
            .method("POST")
            .param("CONTENT_TYPE", "application/x-www-form-urlencoded")
            .param("CONTENT_LENGTH", "100000");
        let mut slow = s.connect();
        slow.send(&request.encode_begin());
        slow.send(&stream(PARAMS, 1, &request.encode_params()));
        slow.send(&record(STDIN, 1, &[b'a'; 5000]));
        slow.set_timeout(Duration::from_secs(20)).unwrap();
        let (_, response) = slow.next_response();
        assert_eq!(response.status, 504, "{response:?}");
        assert!(!file.exists(), "the script ran with half a body");
        wait_until("the log", || s.log().count("execution timed out") == 1);
        assert_eq!(s.get("/pid.php").text(), before);
        assert_eq!(s.log().count("did not end"), 0, "{}", s.log().text());
    }
);

server!(
    shutdown_functions_run_when_the_client_does_not_read,
    terminate(1),
    |s| {
        s.php(
            "big.php",
            "<?php register_shutdown_function(function () {\n\
             touch(__DIR__ . '/first');\n\
             touch(__DIR__ . '/second');\n\
             });\n\
             for ($i = 0; $i < 5000; $i++) echo str_repeat('x', 10000);",
        );
        let mut connection = s.connect();
        connection.send(&s.request("/big.php").encode());
        let there = |name: &str| s.root().join(name).exists();
        wait_until("the shutdown function has run to its end", || {
            there("first") && there("second")
        });
    }
);
