//! What every front end has to bring through to PHP and back, step by step.

use std::fs;
use std::io::Cursor;
use std::thread;

use serde_json::{Value, json};

use super::frontend::Frontend;
use super::http::{Site, Upload, read_exactly};
use crate::support::server::Server;

/// Both ends of a test, ready for the steps.
#[derive(Debug)]
pub(crate) struct Pair {
    frontend: Frontend, // before the server: stopped first
    server: Server,
}

/// A Unix socket for [`Pair::start`].
pub(crate) const UNIX: Option<&str> = None;

/// A TCP socket for [`Pair::start`].
pub(crate) const TCP: Option<&str> = Some("127.0.0.1:0");

/// Answers with everything that came, as JSON.
const REPORT: &str = r#"<?php
$upload = $_FILES['file'] ?? null;
if ($upload) $upload['crc32'] = crc32(file_get_contents($upload['tmp_name']));
$body = file_get_contents('php://input');
header('Content-Type: application/json');
echo json_encode(['server' => $_SERVER, 'get' => $_GET, 'post' => $_POST, 'cookie' => $_COOKIE, 'upload' => $upload,
    'body' => ['size' => strlen($body), 'crc32' => crc32($body)]]);
"#;

/// One event at once, the other one when the client has shown that it has got the first.
const EVENTS: &str = r#"<?php
header('Content-Type: text/event-stream');
header('X-Accel-Buffering: no'); // nginx's
echo "data: one\n\n";
flush();
for ($i = 0; $i < 1000 && !file_exists('received'); $i++) {
    usleep(10000);
    clearstatcache();
}
echo "data: two\n\n";
"#;

const MEGABYTE: usize = 1024 * 1024;

/// Waits until as many others wait as are expected, and tells how many there are.
const MEETING: &str = r#"<?php
touch("guest-$_GET[number]");
for ($i = 0; $i < 1000 && count(glob('guest-*')) < $_GET['expected']; $i++) usleep(10000);
echo count(glob('guest-*'));
"#;

/// How many requests fe-php runs at the same time.
pub(crate) const WORKERS: u32 = 4;

impl Pair {
    /// Starts fe-php at `listen`, and the front end.
    pub(crate) fn start(listen: Option<&str>, start: fn(&Server) -> Frontend) -> Self {
        let mut builder = Server::builder()
            .workers(WORKERS)
            .ini("upload_max_filesize=8M")
            .ini("post_max_size=8M");
        if let Some(address) = listen {
            builder = builder.listen(address);
        }
        let server = builder.start();
        server.php("index.php", REPORT);
        server.php("events.php", EVENTS);
        server.php("meeting.php", MEETING);
        server.php(
            "hello.php",
            "<?php echo 'Hello ', $_GET['name'] ?? 'world';",
        );
        server.php("redirect.php", "<?php header('Location: /hello.php');");
        server.php(
            "cookies.php",
            "<?php setcookie('one', '1'); setcookie('two', 'a b'); echo 'set';",
        );
        server.php(
            "teapot.php",
            "<?php http_response_code(418); echo 'short and stout';",
        );
        server.php(
            "binary.php",
            "<?php header('Content-Type: application/octet-stream'); readfile('binary');",
        );
        fs::write(server.root().join("binary"), content(MEGABYTE)).unwrap();
        server.php(
            "slow.php",
            "<?php usleep(5000); echo 'slow ', $_GET['number'];",
        );
        let frontend = start(&server);
        Self { frontend, server }
    }

    /// What the front end serves.
    pub(crate) fn site(&self) -> &Site {
        self.frontend.site()
    }

    /// All steps that any front end can do.
    pub(crate) fn smoke(&self) {
        let site = self.site();
        hello(site);
        query_string(site);
        form(site);
        upload(site);
        path_info(site);
        missing_script(site);
        status(site);
        redirect(site);
        head(site);
        cookies(site);
        binary(site);
        authorization(site);
        variables(site);
        self.events("/events.php");
        parallel(site);
        self.check_logs();
    }

    /// A body of unknown length to `path`, where the script that reports lies.
    pub(crate) fn chunked_body(&self, path: &str) {
        let content = content(3 * MEGABYTE + 7);
        let request = self.site().request("POST", path);
        let report = request
            .send_chunked("application/octet-stream", &mut Cursor::new(&content))
            .json();
        assert_eq!(
            report["body"],
            json!({ "size": content.len(), "crc32": crc32(&content) }),
            "{report}"
        );
        let request = self.site().request("POST", path);
        let form = &mut Cursor::new("name=value&list[]=1");
        let report = request
            .send_chunked("application/x-www-form-urlencoded", form)
            .json();
        assert_eq!(
            report["post"],
            json!({ "name": "value", "list": ["1"] }),
            "{report}"
        );
        self.check_logs();
    }

    /// Server-sent events from `path`, where that script lies, arrive when they are sent.
    pub(crate) fn events(&self, path: &str) {
        let mut stream = self.site().request("GET", path).open();
        assert_eq!(read_exactly(&mut stream, 11).unwrap(), "data: one\n\n");
        fs::write(self.server.root().join("received"), "").unwrap();
        assert_eq!(read_exactly(&mut stream, 11).unwrap(), "data: two\n\n");
        self.check_logs();
    }

    /// Scripts of `guests` requests wait for each other.
    pub(crate) fn meeting(&self, guests: u32) {
        hello(self.site());
        thread::scope(|scope| {
            for number in 0..guests {
                let path = format!("/meeting.php?number={number}&expected={guests}");
                scope.spawn(move || assert_eq!(self.site().get(&path).text(), guests.to_string()));
            }
        });
        self.check_logs();
    }

    /// Nothing is in the logs but the one script that is missing.
    fn check_logs(&self) {
        let log = self.server.log().text();
        assert!(!log.contains("PHP ") && !log.contains("exited"), "{log}");
        let log = self.frontend.log().text();
        let bad = [
            "[error]",
            "[crit]",
            "[alert]",
            "ERROR",
            "(mod_fastcgi.c",
            "(gw_backend.c",
        ];
        let is_bad = |line: &&str| {
            bad.iter().any(|text| line.contains(text)) && !line.contains("Primary script")
        };
        let bad: Vec<&str> = log.lines().filter(is_bad).collect();
        assert!(bad.is_empty(), "{}", bad.join("\n"));
    }
}

/// Calls a script from many clients at the same time; each must get its own answer.
fn parallel(site: &Site) {
    thread::scope(|scope| {
        for number in 0..200 {
            scope.spawn(move || {
                // A connection of its own: a busy Apache closes those that are kept alive.
                let site = Site::new(site.base_url().to_owned());
                let answer = site.get(&format!("/slow.php?number={number}"));
                assert_eq!(
                    (answer.status, answer.text()),
                    (200, format!("slow {number}")),
                    "{answer:?}"
                );
            });
        }
    });
}

fn hello(site: &Site) {
    let answer = site.get("/hello.php");
    assert_eq!(
        (answer.status, answer.text().as_str()),
        (200, "Hello world"),
        "{answer:?}"
    );
    assert!(
        answer.header("Content-Type").starts_with("text/html"),
        "{answer:?}"
    );
}

fn query_string(site: &Site) {
    let report = site
        .get("/index.php?a=b%20c&list%5B%5D=1&list%5B%5D=2&empty")
        .json();
    assert_eq!(
        report["get"],
        json!({ "a": "b c", "list": ["1", "2"], "empty": "" })
    );
    assert_eq!(
        report["server"]["QUERY_STRING"],
        "a=b%20c&list%5B%5D=1&list%5B%5D=2&empty"
    );
}

fn form(site: &Site) {
    let report = site
        .request("POST", "/index.php?in=query")
        .send_form(&[("name", "ä & b"), ("map[key]", "1")])
        .json();
    assert_eq!(
        report["post"],
        json!({ "name": "ä & b", "map": { "key": "1" } })
    );
    assert_eq!(report["get"], json!({ "in": "query" }));
    assert_eq!(report["server"]["REQUEST_METHOD"], "POST");
}

fn upload(site: &Site) {
    let content = content(2 * MEGABYTE);
    let upload = Upload {
        field: "file",
        filename: "two megabytes.bin",
        content: &content,
    };
    let report = site
        .request("POST", "/index.php")
        .send_multipart(&[("title", "big")], upload)
        .json();
    assert_eq!(report["post"], json!({ "title": "big" }));
    let file = &report["upload"];
    assert_eq!(
        (&file["name"], &file["error"]),
        (&json!("two megabytes.bin"), &json!(0)),
        "{report}"
    );
    assert_eq!(
        (&file["size"], &file["crc32"]),
        (&json!(content.len()), &json!(crc32(&content)))
    );
}

fn path_info(site: &Site) {
    let server = &site.get("/index.php/a/b?c=d").json()["server"];
    expect(server, "PATH_INFO", "/a/b");
    expect(server, "SCRIPT_NAME", "/index.php");
    expect(server, "PHP_SELF", "/index.php/a/b");
    expect(server, "REQUEST_URI", "/index.php/a/b?c=d");
}

fn missing_script(site: &Site) {
    let answer = site.get("/missing.php");
    assert_eq!(answer.status, 404, "{answer:?}");
}

fn status(site: &Site) {
    let answer = site.get("/teapot.php");
    assert_eq!(
        (answer.status, answer.text().as_str()),
        (418, "short and stout"),
        "{answer:?}"
    );
}

fn redirect(site: &Site) {
    let answer = site.get("/redirect.php");
    let location = answer.header("Location");
    let location = location.strip_prefix(site.base_url()).unwrap_or(location);
    assert_eq!((answer.status, location), (302, "/hello.php"), "{answer:?}");
}

fn head(site: &Site) {
    for _ in 0..2 {
        let answer = site.request("HEAD", "/hello.php").send();
        assert_eq!((answer.status, answer.body.len()), (200, 0), "{answer:?}");
        hello(site); // what follows on the same connection is not mixed up
    }
}

fn cookies(site: &Site) {
    let report = site
        .request("GET", "/index.php")
        .header("Cookie", "a=1; b=x%20y")
        .send()
        .json();
    assert_eq!(report["cookie"], json!({ "a": "1", "b": "x y" }));
    let answer = site.get("/cookies.php");
    assert_eq!(
        answer.all_headers("Set-Cookie"),
        ["one=1", "two=a%20b"],
        "{answer:?}"
    );
}

fn binary(site: &Site) {
    let answer = site.get("/binary.php");
    assert_eq!((answer.status, answer.body.len()), (200, MEGABYTE));
    assert!(answer.body == content(MEGABYTE));
}

fn authorization(site: &Site) {
    let server = &site
        .request("GET", "/index.php")
        .header("Authorization", "Basic dXNlcjpwYXNz")
        .send()
        .json()["server"];
    expect(server, "PHP_AUTH_USER", "user");
    expect(server, "PHP_AUTH_PW", "pass");
    let server = &site
        .request("GET", "/index.php")
        .header("Authorization", "Bearer abc")
        .send()
        .json()["server"];
    expect(server, "HTTP_AUTHORIZATION", "Bearer abc");
}

fn variables(site: &Site) {
    let server = &site
        .request("GET", "/index.php?q=1")
        .header("X-Own-Header", "own")
        .send()
        .json()["server"];
    let host = site.base_url().trim_start_matches("http://");
    expect(server, "SCRIPT_NAME", "/index.php");
    expect(server, "PHP_SELF", "/index.php");
    expect(server, "REQUEST_URI", "/index.php?q=1");
    expect(server, "REQUEST_METHOD", "GET");
    expect(server, "SERVER_PROTOCOL", "HTTP/1.1");
    expect(server, "GATEWAY_INTERFACE", "CGI/1.1");
    expect(server, "REMOTE_ADDR", "127.0.0.1");
    expect(server, "HTTP_HOST", host);
    expect(server, "HTTP_X_OWN_HEADER", "own");
    let root = server["DOCUMENT_ROOT"].as_str().unwrap();
    expect(server, "SCRIPT_FILENAME", &format!("{root}/index.php"));
    assert!(
        matches!(server["HTTPS"].as_str(), None | Some("" | "off")),
        "{server}"
    );
    assert!(
        server["PATH_INFO"].as_str().unwrap_or_default().is_empty(),
        "{server}"
    );
    assert!(
        server["REMOTE_PORT"]
            .as_str()
            .is_none_or(|port| port.parse::<u16>().is_ok()),
        "{server}"
    );
}

fn expect(server: &Value, name: &str, value: &str) {
    assert_eq!(server[name], value, "{name} in {server}");
}

/// Bytes in which every value occurs, and no block is like the one before.
fn content(size: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let next = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..size).map(next).collect()
}

/// As PHP's function of that name.
fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32| {
        if crc & 1 == 1 {
            (crc >> 1) ^ 0xEDB8_8320
        } else {
            crc >> 1
        }
    };
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| step(crc))
    })
}
