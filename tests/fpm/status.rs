//! Status, ping and OPcache of a configured server, from outside and from its scripts.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::support::client::{Address, Connection};
use crate::support::configured::Configured;
use crate::support::wait_until;

const SLEEP: &str = "<?php usleep((int) $_GET['ms'] * 1000); echo 'slept';";

/// A status page as JSON; `pool` names the socket.
pub(crate) fn json(server: &Configured, pool: &str, path: &str) -> Value {
    let separator = if path.contains('?') { '&' } else { '?' };
    let response = server.get(pool, &format!("{path}{separator}json"));
    assert_eq!(response.status, 200, "{response:?}");
    serde_json::from_slice(&response.body).unwrap_or_else(|error| panic!("{error}: {response:?}"))
}

/// A pool with its status at a socket of its own.
fn pool(name: &str, lines: &str) -> String {
    let lines = format!(
        "pm.status_path = /status\npm.status_listen = {{dir}}/{name}.status.sock\nping.path = /ping\n{lines}"
    );
    Configured::pool(name, &lines)
}

/// Requests that are running, each on a connection of its own.
fn running(server: &Configured, pool: &str, uris: &[&str]) -> Vec<Connection> {
    let connections = uris.iter().map(|uri| {
        let mut connection = server.connect(pool);
        connection.send(&server.request(uri).encode());
        connection
    });
    connections.collect()
}

#[test]
fn the_status_is_answered_while_all_workers_are_busy() {
    let server = Configured::builder(&pool("www", "pm = static\npm.max_children = 2\n")).start();
    server.php("sleep.php", SLEEP);
    let mut busy = running(
        &server,
        "www",
        &["/sleep.php?ms=3000&n=1", "/sleep.php?ms=3000&n=2"],
    );
    wait_until("both run", || {
        json(&server, "www.status", "/status")["active processes"] == 2
    });
    let mut waiting = running(&server, "www", &["/sleep.php?ms=1&n=3"]);
    wait_until("one waits", || {
        json(&server, "www.status", "/status")["listen queue"] == 1
    });
    let full = json(&server, "www.status", "/status?full");
    let processes = full["processes"].as_array().unwrap();
    assert_eq!(processes.len(), 2, "{full}");
    let mut uris = BTreeSet::new();
    for process in processes {
        assert_eq!(process["state"], "Running", "{full}");
        assert_eq!(process["request method"], "GET", "{full}");
        assert_eq!(
            process["script"].as_str().unwrap(),
            server.files().root().join("sleep.php").to_str().unwrap()
        );
        assert!(process["request duration"].as_u64().unwrap() > 0, "{full}");
        uris.insert(process["request uri"].as_str().unwrap().to_owned());
    }
    let expected = ["/sleep.php?ms=3000&n=1", "/sleep.php?ms=3000&n=2"].map(str::to_owned);
    assert_eq!(uris, BTreeSet::from(expected));
    assert_eq!(server.get("www.status", "/ping").text(), "pong");
    for connection in busy.iter_mut().chain(&mut waiting) {
        assert_eq!(connection.response(1).text(), "slept");
    }
    wait_until("all are idle", || {
        let status = json(&server, "www.status", "/status");
        status["idle processes"] == 2 && status["listen queue"] == 0
    });
    // Nothing else is served there.
    assert_eq!(server.get("www.status", "/sleep.php?ms=1").status, 404);
}

#[test]
fn the_request_for_the_status_is_an_active_process_of_its_pool() {
    let server = Configured::builder(&pool("www", "pm = static\npm.max_children = 2\n")).start();
    let status = json(&server, "www", "/status");
    assert_eq!(status["active processes"], 1, "{status}");
    assert_eq!(status["idle processes"], 1, "{status}");
    assert_eq!(status["pool"], "www");
    assert_eq!(status["process manager"], "static");
    let ping = server.get("www", "/ping");
    assert_eq!((ping.status, ping.text().as_str()), (200, "pong"));
}

#[test]
fn a_script_gets_the_status_of_its_own_pool() {
    let pools = [
        pool("one", "pm = static\npm.max_children = 2\n"),
        pool("two", "pm = static\npm.max_children = 3\n"),
    ];
    let server = Configured::builder(&pools.concat()).start();
    server.php("status.php", "<?php echo json_encode(fpm_get_status());");
    for (name, processes) in [("one", 2), ("two", 3)] {
        let fetch = || -> Value {
            serde_json::from_slice(&server.get(name, "/status.php?q").body).unwrap()
        };
        // A PHP thread enters itself when it first runs, a moment after its pool has begun to serve.
        // And the request before this one may be about to end.
        let mut status = Value::Null;
        wait_until("all workers are listed, and one is active", || {
            status = fetch();
            status["procs"].as_array().unwrap().len() == processes
                && status["active-processes"] == 1
        });
        assert_eq!(status["pool"], name, "{status}");
        assert_eq!(status["total-processes"], processes, "{status}");
        let procs = status["procs"].as_array().unwrap();
        let running: Vec<&Value> = procs
            .iter()
            .filter(|process| process["state"] == "Running")
            .collect();
        assert_eq!(running.len(), 1, "{status}");
        assert_eq!(running[0]["request-uri"], "/status.php", "{status}");
        assert_eq!(running[0]["query-string"], "q", "{status}");
        let text = status.to_string();
        let other = if name == "one" { "two" } else { "one" };
        assert!(!text.contains(&format!("\"{other}\"")), "{text}");
    }
}

/// What php-fpm's pools, which share one, cannot do.
#[test]
fn pools_do_not_see_what_others_have_in_opcache_and_apcu() {
    let pools = ["one", "two"].map(|name| pool(name, "pm = static\npm.max_children = 1\n"));
    let server = Configured::builder(&pools.concat())
        .ini("opcache.file_update_protection=0")
        .ini("opcache.revalidate_freq=0")
        .start();
    server.php("secret.php", "<?php echo 'secret';");
    server.php(
        "cached.php",
        "<?php foreach (array_keys(opcache_get_status()['scripts'] ?? []) as $name) echo basename($name), ' ';
         if (function_exists('apcu_fetch')) echo json_encode(apcu_fetch('key'));",
    );
    server.php(
        "store.php",
        "<?php if (function_exists('apcu_store')) echo json_encode(apcu_store('key', 'value'));",
    );
    assert_eq!(server.get("one", "/secret.php").text(), "secret");
    let has_apcu = server.get("one", "/store.php").text() == "true";
    let one = server.get("one", "/cached.php").text();
    assert!(one.contains("secret.php"), "{one}");
    assert_eq!(has_apcu, one.ends_with("\"value\""), "{one}");
    let two = server.get("two", "/cached.php").text();
    assert!(
        !two.contains("secret.php") && !two.contains("value"),
        "{two}"
    );
}

/// As cachetool does it: a script outside the document root, sent straight to the pool's socket.
#[test]
fn a_script_sent_to_the_socket_resets_the_pools_caches() {
    let lines = "pm = static\npm.max_children = 2\n";
    let server = Configured::builder(&pool("www", lines))
        .ini("opcache.file_update_protection=0")
        .ini("opcache.validate_timestamps=0")
        .start();
    server.php("page.php", "<?php echo 'old';");
    assert_eq!(server.get("www", "/page.php").text(), "old");
    server.php("page.php", "<?php echo 'new';");
    assert_eq!(
        server.get("www", "/page.php").text(),
        "old",
        "timestamps are not looked at"
    );
    let script = server.files().path("cachetool-1234.php");
    let source = "<?php $apcu = !function_exists('apcu_store') || (apcu_store('k', 1) && apcu_clear_cache() && !apcu_exists('k'));
                  echo serialize([opcache_reset(), $apcu]);";
    std::fs::write(&script, source).unwrap();
    let request = server
        .request("/")
        .param("SCRIPT_FILENAME", script.to_str().unwrap())
        .param("SCRIPT_NAME", "/cachetool-1234.php")
        .post("application/x-www-form-urlencoded", "");
    let answer = server.send("www", &request);
    assert_eq!(answer.text(), "a:2:{i:0;b:1;i:1;b:1;}", "{answer:?}");
    // On ZTS the pool gets another process for that, a moment later.
    wait_until("the new page", || {
        server.get("www", "/page.php").text() == "new"
    });
}

/// They are read once a second: at the end of a script, which must not notice even if it has no memory left.
#[test]
fn opcaches_figures_are_read_in_requests_and_disturb_none() {
    let server = Configured::builder(&pool("www", "pm = static\npm.max_children = 1\n"))
        .ini("session.auto_start=1")
        .ini("session.save_path={dir}/sessions")
        .ini("opcache.file_update_protection=0")
        .ini("display_errors=1")
        .ini("html_errors=0")
        .start();
    let sessions = server.files().path("sessions");
    fs::create_dir(&sessions).unwrap();
    server.php("right.php", "<?php $_SESSION['n'] = 1; echo 'right';");
    server.php(
        "hungry.php",
        "<?php ini_set('memory_limit', '4M'); while (true) { $list[] = str_repeat('x', 100); }",
    );
    for (script, expected) in [
        ("/right.php", "right"),
        (
            "/hungry.php",
            "Allowed memory size of 4194304 bytes exhausted",
        ),
    ] {
        let request = server.request(script).header("Cookie", "PHPSESSID=one");
        let answer = server.send("www", &request).text();
        assert!(answer.contains(expected), "{answer}");
        let mut figures = Vec::new();
        wait_until("three readings", || {
            assert_eq!(server.send("www", &request).text(), answer);
            let page = scrape(&server, "www.status", "/status?openmetrics");
            let hits = page
                .lines()
                .find(|line| line.starts_with("phpfpm_opcache_hits_total "));
            figures.extend(hits.map(str::to_owned));
            figures.dedup();
            figures.len() >= 3
        });
    }
    let names: Vec<_> = fs::read_dir(&sessions)
        .unwrap()
        .flatten()
        .map(|entry| entry.file_name())
        .collect();
    assert_eq!(names, ["sess_one"]);
}

/// As a Prometheus server asks for it.
fn scrape(server: &Configured, socket: &str, uri: &str) -> String {
    let accept =
        "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
    let answer = server.send(socket, &server.request(uri).header("Accept", accept));
    assert_eq!(
        answer.header("Content-Type"),
        Some("application/openmetrics-text; version=1.0.0; charset=utf-8")
    );
    answer.text()
}

#[test]
fn prometheus_strict_parser_reads_the_openmetrics_page() {
    let server = Configured::builder(&pool("www", "pm = static\npm.max_children = 2\n")).start();
    server.php("sleep.php", SLEEP);
    for _ in 0..3 {
        server.get("www", "/sleep.php?ms=1");
    }
    for (socket, uri) in [
        ("www", "/status?openmetrics"),
        ("www", "/status?openmetrics&full"),
        ("www.status", "/status?openmetrics"),
    ] {
        let text = scrape(&server, socket, uri);
        let families = parse(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        for family in ["phpfpm_request_duration_seconds", "phpfpm_idle_processes"] {
            assert!(families.contains(family), "{families}\n{text}");
        }
    }
}

/// The names of the families that Debian's python3-prometheus-client finds; `scripts/install-deps.sh test` installs it.
fn parse(text: &str) -> Result<String, String> {
    let program = "import sys\nfrom prometheus_client.openmetrics.parser import text_string_to_metric_families as parse\n\
                   for family in parse(sys.stdin.read()): print(family.name)\n";
    let mut child = Command::new("/usr/bin/python3")
        .args(["-c", program])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("Debian's python3");
    let mut input = child.stdin.take().unwrap();
    input.write_all(text.as_bytes()).unwrap();
    drop(input);
    let output = child.wait_with_output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() {
        Ok(text(&output.stdout))
    } else {
        Err(text(&output.stderr))
    }
}

#[test]
fn the_address_for_the_status_has_the_pools_allowed_clients() {
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let lines = |allowed: &str| {
        format!(
            "[www]\nlisten = {{dir}}/www.sock\n{{user}}\npm = static\npm.max_children = 1\npm.status_path = /status\n\
             pm.status_listen = 127.0.0.1:{port}\nlisten.allowed_clients = {allowed}\n"
        )
    };
    let address = Address::Tcp(format!("127.0.0.1:{port}"));
    let server = Configured::builder(&lines("127.0.0.2")).start();
    Connection::open(&address).expect_close();
    server
        .log()
        .expect("IP address '127.0.0.1' has been dropped");
    server.files().configure(&lines("127.0.0.2,127.0.0.1"));
    server.reload();
    let answer = Connection::open(&address).exchange(&server.request("/status"));
    assert_eq!(answer.status, 200);
}
