//! Bodies in both directions: of unknown length, streamed, and larger than memory should hold.

use std::io::Write;
use std::time::{Duration, Instant};

use crate::support::client::{Connection, END_REQUEST, Request, STDIN, STDOUT};
use crate::support::request::record;
use crate::support::server::{Builder, Server};

use super::{create, wait};

const MD5: &str = "<?php
$context = hash_init('md5');
$size = 0;
$input = fopen('php://input', 'r');
while (($data = fread($input, 1 << 20)) !== '' && $data !== false) {
    hash_update($context, $data);
    $size += strlen($data);
}
echo $size, ' ', hash_final($context);";

fn big() -> Builder {
    Server::builder()
        .ini("post_max_size=0")
        .ini("max_execution_time=0")
        .ini("memory_limit=64M")
        .ini("output_buffering=4096")
}

server!(a_body_of_unknown_length_is_read_to_its_end, |s| {
    s.php("echo.php", "<?php echo file_get_contents('php://input');");
    for size in [0, 1, 100, 70_000, 3_000_000] {
        let body: Vec<u8> = (0..size).map(|number: u32| (number % 251) as u8).collect();
        let request = s
            .request("/echo.php")
            .method("POST")
            .without("CONTENT_LENGTH")
            .param("CONTENT_TYPE", "text/plain");
        let response = s.send(&request.body(&body));
        assert!(
            response.body == body,
            "{size}: {} bytes came back",
            response.body.len()
        );
    }
});

server!(a_form_of_unknown_length_is_parsed, |s| {
    s.php("form.php", "<?php echo $_POST['a'], $_POST['b'];");
    let request = s
        .request("/form.php")
        .form("a=1&b=2")
        .without("CONTENT_LENGTH");
    assert_eq!(s.send(&request).text(), "12");
});

server!(a_body_shorter_than_announced_ends_where_it_ends, |s| {
    s.php(
        "echo.php",
        "<?php echo strlen(file_get_contents('php://input'));",
    );
    let request = s
        .request("/echo.php")
        .post("text/plain", "0123456789")
        .param("CONTENT_LENGTH", "50");
    assert_eq!(s.send(&request).text(), "10");
});

server!(a_long_body_reaches_the_script_while_it_is_sent, |s| {
    let source =
        "<?php ini_set('zlib.output_compression', '0'); while (ob_get_level()) { ob_end_clean(); }
        $input = fopen('php://input', 'r'); echo strlen(fread($input, 1000)), '.'; flush();
        echo strlen(stream_get_contents($input));";
    s.php("stream.php", source);
    let piece = [b'x'; 40_000];
    // PHP itself reads the body of a POST before the script starts, but not that of a PUT.
    let request = s
        .request("/stream.php")
        .post("text/plain", "")
        .method("PUT")
        .param("CONTENT_LENGTH", "8000000")
        .keep();
    let mut connection = s.connect();
    connection.send(&request.encode_head());
    for _ in 0..100 {
        connection.send(&record(STDIN, 1, &piece));
    }
    while connection.stdout_so_far(1).is_empty() {
        let record = connection.record();
        assert!(
            connection.collect(&record).is_none(),
            "the script has ended before its body"
        );
    }
    for _ in 0..100 {
        connection.send(&record(STDIN, 1, &piece));
    }
    connection.send(&record(STDIN, 1, b""));
    assert_eq!(connection.response(1).text(), "1000.7999000");
});

server!(an_event_arrives_while_the_script_still_runs, |s| {
    let (file, _) = wait(&s, "go");
    let source = "<?php header('Content-Type: text/event-stream'); while (ob_get_level()) { ob_end_flush(); }
        for ($i = 1; $i <= 3; $i++) {
            echo \"data: $i\\n\\n\"; flush();
            while (!file_exists($_GET['file'] . $i)) { usleep(1000); clearstatcache(); }
        }";
    s.php("events.php", source);
    let mut connection = s.connect();
    connection.send(
        &s.request(&format!("/events.php?file={}", file.display()))
            .encode(),
    );
    for number in 1..=3 {
        let event = format!("data: {number}\n\n");
        while !connection.stdout_so_far(1).ends_with(event.as_bytes()) {
            let record = connection.record();
            assert!(
                connection.collect(&record).is_none(),
                "ended before event {number}"
            );
        }
        create(&file.with_file_name(format!("go{number}")));
    }
    assert_eq!(
        connection.response(1).text(),
        "data: 1\n\ndata: 2\n\ndata: 3\n\n"
    );
});

server!(output_leaves_soon_without_a_flush, |s| {
    let (file, _) = wait(&s, "go");
    let source = "<?php while (ob_get_level()) { ob_end_clean(); } echo str_repeat('x', 20000);
        while (!file_exists($_GET['file'])) { usleep(1000); clearstatcache(); } echo 'end';";
    s.php("progress.php", source);
    let mut connection = s.connect();
    connection.send(
        &s.request(&format!("/progress.php?file={}", file.display()))
            .encode(),
    );
    while !connection.stdout_so_far(1).ends_with(b"x") {
        let record = connection.record();
        assert!(connection.collect(&record).is_none());
    }
    create(&file);
    assert_eq!(connection.response(1).body.len(), 20_003);
});

server!(twenty_megabytes_go_up_unchanged, big(), |s| {
    s.php("md5.php", MD5);
    let body: Vec<u8> = (0..20_000_000_u32)
        .map(|number| (number.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    let local = s.php("local.php", "<?php echo md5_file($_GET['f']);");
    let file = local.with_file_name("body");
    std::fs::write(&file, &body).unwrap();
    let expected = s.get(&format!("/local.php?f={}", file.display())).text();
    let response = s.send(
        &s.request("/md5.php")
            .post("application/octet-stream", &body),
    );
    assert_eq!(response.text(), format!("20000000 {expected}"));
});

server!(twenty_megabytes_come_down_unchanged, big(), |s| {
    s.php("down.php", "<?php $h = hash_init('md5'); for ($i = 0; $i < 2000; $i++) { $d = random_bytes(10000); hash_update($h, $d); echo $d; } echo hash_final($h);");
    s.php("md5.php", MD5);
    let response = s.get("/down.php");
    let (body, sum) = response.body.split_at(20_000_000);
    let check = s.send(&s.request("/md5.php").post("application/octet-stream", body));
    assert_eq!(
        check.text(),
        format!("20000000 {}", String::from_utf8_lossy(sum))
    );
});

server!(an_unread_body_does_not_spoil_the_connection, big(), |s| {
    s.php("deaf.php", "<?php echo 'not read';");
    s.php("a.php", "<?php echo 'answer';");
    let mut connection = s.connect();
    for size in [100, 5_000_000] {
        let request = s
            .request("/deaf.php")
            .post("application/octet-stream", vec![b'x'; size])
            .keep();
        assert_eq!(connection.exchange(&request).text(), "not read");
        assert_eq!(
            connection.exchange(&s.request("/a.php").keep()).text(),
            "answer"
        );
    }
});

/// A little more than a 32-bit length can say.
const HUGE: u64 = (4 << 30) + 12_345;

server!(more_than_four_gigabytes_come_down, big(), |s| {
    s.php("huge.php", "<?php $piece = str_repeat('0123456789abcdef', 4096); for ($left = (int)$_GET['n']; $left > 0; $left -= strlen($piece)) { echo $left < strlen($piece) ? substr($piece, 0, $left) : $piece; }");
    let start = Instant::now();
    let mut connection = s.connect();
    connection.send(&s.request(&format!("/huge.php?n={HUGE}")).encode());
    let size = count_output(&mut connection);
    assert_eq!(size, HUGE);
    eprintln!("{HUGE} bytes in {:?}", start.elapsed());
});

server!(more_than_four_gigabytes_go_up, big(), |s| {
    // PHP itself writes what it reads from php://input to a temporary file: half a minute and 4 GiB of disk.
    if std::env::var_os("FE_PHP_BIG").is_none() {
        eprintln!("skipped: FE_PHP_BIG=1 uploads 4 GiB");
        return;
    }
    let source = "<?php $f = fopen('php://input', 'r'); $n = 0; while (($d = fread($f, 65536)) !== '' && $d !== false) { $n += strlen($d); } echo $n;";
    s.php("count.php", source);
    let start = Instant::now();
    let request = s
        .request("/count.php")
        .post("application/octet-stream", "")
        .method("PUT");
    let request = request.param("CONTENT_LENGTH", HUGE.to_string());
    let mut connection = s.connect();
    let mut writer = connection.try_clone_writer();
    let head = Request::encode_head(&request);
    let sender = std::thread::spawn(move || {
        let piece = record(STDIN, 1, &[b'x'; 0xFFF8]);
        writer.write_all(&head).unwrap();
        let mut left = HUGE;
        while left >= 0xFFF8 {
            writer.write_all(&piece).unwrap();
            left -= 0xFFF8;
        }
        writer
            .write_all(&record(
                STDIN,
                1,
                &vec![b'x'; usize::try_from(left).unwrap()],
            ))
            .unwrap();
        writer.write_all(&record(STDIN, 1, b"")).unwrap();
    });
    connection.set_timeout(Duration::from_secs(300)).unwrap();
    assert_eq!(connection.response(1).text(), HUGE.to_string());
    sender.join().unwrap();
    eprintln!("{HUGE} bytes in {:?}", start.elapsed());
});

/// The number of bytes in the body of the next answer, which is not kept.
fn count_output(connection: &mut Connection) -> u64 {
    let mut head = Vec::new();
    let mut size = 0;
    let mut in_body = false;
    loop {
        let record = connection.record();
        match record.kind {
            STDOUT if in_body => size += record.content.len() as u64,
            STDOUT => {
                head.extend(record.content);
                if let Some(end) = head.windows(4).position(|window| window == b"\r\n\r\n") {
                    size = (head.len() - end - 4) as u64;
                    in_body = true;
                }
            }
            END_REQUEST => return size,
            kind => panic!("record of type {kind}"),
        }
    }
}

server!(
    bodies_in_memory_and_in_files_are_the_same,
    Server::builder().ini("post_max_size=8M"),
    |s| {
        s.php(
            "raw.php",
            "<?php $body = file_get_contents('php://input'); $stream = fopen('php://input', 'r'); fseek($stream, 10);
            echo strlen($body), ' ', md5($body), ' ', md5(fread($stream, 100)), ' ', md5(stream_get_contents($stream)),
                ' ', count($_POST), ' ', md5(serialize($_POST));",
        );
        // PHP's own limit for memory, ours, and sizes around them.
        for size in [
            16_383, 16_384, 16_385, 65_536, 100_000, 1_048_575, 1_048_576, 1_048_577,
        ] {
            let body: String = (0..)
                .map(|n| format!("&f{n}=v{n}"))
                .scan(0, |length, field| {
                    *length += field.len();
                    (*length <= size).then_some(field)
                })
                .collect();
            let body = &format!("{body}{}", "x".repeat(size - body.len()))[1..];
            let mut answers = Vec::new();
            for memory_limit in ["128M", "2M"] {
                for kind in ["application/json", "application/x-www-form-urlencoded"] {
                    let request = s
                        .request("/raw.php")
                        .param(
                            "PHP_VALUE",
                            format!("memory_limit={memory_limit}\nmax_input_vars=1000000"),
                        )
                        .post(kind, body);
                    // With 2 MB of memory nothing but the first sizes can be read by the script.
                    if memory_limit == "128M" || size < 70_000 && kind == "application/json" {
                        answers.push((kind, s.send(&request).text()));
                    }
                }
            }
            for (kind, answer) in &answers {
                assert!(
                    answer.starts_with(&format!("{} ", body.len())),
                    "{size} {kind}: {answer}"
                );
                let first = &answers.iter().find(|(other, _)| other == kind).unwrap().1;
                assert_eq!(answer, first, "{size} {kind}");
            }
        }
    }
);

server!(a_body_shorter_than_declared_is_what_has_come, |s| {
    s.php(
        "raw.php",
        "<?php echo strlen(file_get_contents('php://input')), ' ', count($_POST);",
    );
    let request = s
        .request("/raw.php")
        .form(vec![b'a'; 50_000])
        .param("CONTENT_LENGTH", "60000");
    assert_eq!(s.send(&request).text(), "50000 1");
});
