//! Reload (SIGUSR2) and stop of a configured server: nothing is lost, and what has changed takes effect.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use super::load::{Figures, Load, SCRIPT};
use super::status::json;
use crate::support::client::Address;
use crate::support::configured::{Builder, Configured, Program};
use crate::support::php;
use crate::support::process::kill;
use crate::support::server::READY;
use crate::support::{holds_within, wait_until};

pub(super) const PID: &str = "<?php echo getmypid();";

/// Two pools, one at each kind of address, whose workers are recycled all the time.
fn busy_pools(port: u16) -> String {
    let lines = "pm = static\npm.max_children = 12\npm.max_requests = 4";
    let unix = Configured::pool("unix", lines);
    format!("{unix}[tcp]\nlisten = 127.0.0.1:{port}\n{{user}}\n{lines}\n")
}

/// A port that nobody listens at.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// 32 clients while the server is reloaded `reloads` times; and on, until `recycled` worker processes have been replaced.
fn reload_under_load(
    program: Program,
    global: &str,
    reloads: usize,
    recycled: usize,
) -> (Figures, String) {
    let port = free_port();
    let server = Configured::builder(&format!("{global}\n{}", busy_pools(port)))
        .program(program)
        .start();
    server.php("load.php", SCRIPT);
    let addresses = [
        server.address("unix"),
        Address::Tcp(format!("127.0.0.1:{port}")),
    ];
    let figures = Load::run(32, &addresses, &server.files().root(), |load| {
        for _ in 0..reloads {
            server.reload();
            thread::sleep(Duration::from_millis(150));
        }
        holds_within(Duration::from_secs(120), || load.processes() >= recycled);
    });
    (figures, server.log().text())
}

#[test]
fn no_request_fails_through_reloads_and_recycled_workers() {
    let (stock, _) = reload_under_load(Program::Stock, "", 5, 0);
    stock.show("php-fpm, 5 reloads");
    let (patient, _) = reload_under_load(Program::Stock, "process_control_timeout = 10", 5, 0);
    patient.show("php-fpm, 5 reloads with process_control_timeout = 10");
    // A ZTS pool is recycled as a whole, at most every two seconds.
    let recycled = if php::is_zts() {
        2 * 22
    } else {
        24 + 20 * 24 + 200
    };
    let (ours, log) = reload_under_load(Program::FePhp, "", 20, recycled);
    ours.show("fe-php, 20 reloads");
    assert!(
        ours.failures.is_empty(),
        "{} requests failed: {:#?}\n{log}",
        ours.failures.len(),
        &ours.failures[..ours.failures.len().min(20)]
    );
    assert!(ours.processes >= recycled, "{} processes", ours.processes);
    assert!(ours.kept > 200 && ours.answered > 500);
}

/// A request runs in each of more generations than there may be at once: the next reload waits rather than end the oldest.
#[test]
fn a_reload_waits_for_the_requests_of_earlier_generations() {
    let server =
        Configured::builder(&Configured::pool("www", "pm = static\npm.max_children = 2")).start();
    let source = "<?php touch(__DIR__ . '/' . $_GET['n']); usleep(2_500_000); echo 'whole';";
    server.php("slow.php", source);
    let mut connections = Vec::new();
    for number in 0..6 {
        let mut connection = server.connect("www");
        connection.send(&server.request(&format!("/slow.php?n={number}")).encode());
        connections.push(connection);
        let begun = server.files().root().join(number.to_string());
        wait_until("the request runs", || begun.exists());
        server.reload();
    }
    for mut connection in connections {
        assert_eq!(connection.response(1).text(), "whole");
    }
    server.log().expect("a reload waits for workers");
}

/// 32 clients, and SIGQUIT in the middle: what was sent before is answered.
#[test]
fn requests_that_were_sent_before_sigquit_are_answered() {
    // Some run, some wait for a worker, some have not been read.
    let lines = "pm = static\npm.max_children = 8";
    let mut server = Configured::builder(&Configured::pool("www", lines)).start();
    server.php("load.php", SCRIPT);
    server.php("pid.php", PID);
    let requests: Vec<_> = (0..32)
        .map(|number| {
            let time = 1 + number * 499_000 / 31;
            let request = server.request(&format!("/load.php?id={number}&us={time}"));
            if number % 2 == 0 {
                request.keep()
            } else {
                request
            }
        })
        .collect();
    // Kept-alive connections have been used before.
    let mut connections: Vec<_> = requests.iter().map(|_| server.connect("www")).collect();
    for connection in &mut connections {
        connection.exchange(&server.request("/pid.php").keep());
    }
    for (connection, request) in connections.iter_mut().zip(&requests) {
        connection.send(&request.encode());
    }
    server.signal(Signal::QUIT);
    for (number, connection) in connections.iter_mut().enumerate() {
        let response = connection.response(1);
        assert_eq!(response.status, 200, "{response:?}");
        let start = format!("{number} 0 ");
        assert!(response.text().starts_with(&start), "{response:?}");
        connection.expect_close();
    }
    assert!(server.wait_exit().success());
    server.log().expect("exiting, bye-bye!");
}

#[test]
fn clients_of_a_stopping_server_lose_nothing_that_runs() {
    let lines = "pm = static\npm.max_children = 32";
    let mut server = Configured::builder(&Configured::pool("www", lines)).start();
    server.php("load.php", SCRIPT);
    let address = server.address("www");
    let figures = Load::run(32, &[address], &server.files().root(), |load| {
        wait_until("load", || load.answered() > 100);
        assert_eq!(load.failed(), 0);
        server.signal(Signal::QUIT);
        server.wait_exit();
    });
    figures.show("fe-php, SIGQUIT under load");
    // What comes later finds nobody there. FastCGI cannot announce a close: a kept-alive connection may end just when its
    // client sends the next request.
    let allowed = |failure: &&String| {
        failure.contains("could not connect") || failure.contains("(kept alive)")
    };
    let lost: Vec<&String> = figures
        .failures
        .iter()
        .filter(|failure| !allowed(failure))
        .collect();
    assert!(lost.is_empty(), "{lost:#?}\n{}", server.log().text());
}

/// Puts a copy of `from` in place of `to`, as a package manager does.
fn install(from: &Path, to: &Path) {
    let new = to.with_extension("new");
    fs::copy(from, &new).unwrap();
    fs::rename(&new, to).unwrap();
}

fn inode(path: &Path) -> Option<u64> {
    fs::metadata(path).ok().map(|metadata| metadata.ino())
}

#[test]
fn reload_picks_up_an_upgraded_program_in_the_same_process() {
    let ours = PathBuf::from(env!("CARGO_BIN_EXE_fe-php"));
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("fe-php");
    install(&ours, &program);
    let pool = Configured::pool("www", "pm = static\npm.max_children = 2");
    let server = Configured::builder(&pool).executable(&program).start();
    server.php("pid.php", PID);
    let request = server.request("/pid.php").keep();
    let mut kept = server.connect("www");
    kept.exchange(&request);
    let executed = |pid: i32| inode(Path::new(&format!("/proc/{pid}/exe")));
    let old = inode(&program).unwrap();
    assert_eq!(executed(server.pid()), Some(old));
    install(&ours, &program);
    let new = inode(&program).unwrap();
    assert_ne!(new, old);
    server.reload();
    assert_eq!(executed(server.pid()), Some(new), "the supervisor");
    wait_until("the old generation is gone", || {
        let workers = server.worker_pids();
        !workers.is_empty() && workers.iter().all(|&pid| executed(pid) == Some(new))
    });
    assert_eq!(kept.exchange(&request).status, 200);
    assert_eq!(server.get("www", "/pid.php").status, 200);
}

pub(super) fn start(config: &str) -> (Configured, Builder) {
    let builder = Configured::builder(config);
    let server = builder.clone().start();
    server.php("pid.php", PID);
    server.php(
        "sleep.php",
        "<?php usleep((int) $_GET['ms'] * 1000); echo 'slept';",
    );
    (server, builder)
}

#[test]
fn reload_adds_and_removes_pools() {
    let pool = |name| Configured::pool(name, "pm = static\npm.max_children = 1");
    let (server, _) = start(&[pool("one"), pool("two")].concat());
    let (one, two, three) = (
        server.address("one"),
        server.address("two"),
        server.address("three"),
    );
    let exists = |address: &Address| matches!(address, Address::Unix(path) if path.exists());
    assert!(exists(&one) && exists(&two) && !exists(&three));
    // A request of the pool that goes.
    let mut running = server.connect("two");
    running.send(&server.request("/sleep.php?ms=1500").encode());
    // Until it runs.
    thread::sleep(Duration::from_millis(100));
    server
        .files()
        .configure(&[pool("one"), pool("three")].concat());
    server.reload();
    assert_eq!(server.get("one", "/pid.php").status, 200);
    assert_eq!(server.get("three", "/pid.php").status, 200);
    assert_eq!(running.response(1).text(), "slept");
    assert!(!exists(&two), "the socket of the pool that is gone");
    wait_until("the processes of the pool that is gone", || {
        server.worker_pids().len() == 2
    });
}

#[test]
fn reload_raises_max_children() {
    let pool = |children: u32| {
        Configured::pool("www", &format!("pm = static\npm.max_children = {children}"))
    };
    let (server, _) = start(&pool(1));
    let request = server.request("/pid.php").keep();
    let mut kept = server.connect("www");
    kept.exchange(&request);
    server.files().configure(&pool(5));
    server.reload();
    let mut at_once: Vec<_> = (0..5).map(|_| server.connect("www")).collect();
    for connection in &mut at_once {
        connection.send(&server.request("/sleep.php?ms=400").encode());
    }
    for connection in &mut at_once {
        assert_eq!(connection.response(1).text(), "slept");
    }
    let processes = if php::is_zts() { 1 } else { 5 };
    wait_until("as many worker processes", || {
        server.worker_pids().len() == processes
    });
    assert_eq!(kept.exchange(&request).status, 200);
    server.files().configure(&pool(2));
    server.reload();
    wait_until("fewer worker processes", || {
        server.worker_pids().len() == if php::is_zts() { 1 } else { 2 }
    });
    assert_eq!(kept.exchange(&request).status, 200);
}

/// A changed size takes a new scoreboard: what waits on its way from the old processes to the new ones is counted in the old one.
#[test]
fn requests_that_wait_through_a_change_of_size_are_counted_once() {
    let pool = |children: u32| {
        let lines = "pm.status_path = /status\npm.status_listen = {dir}/status.sock\npm = static\n";
        Configured::pool("www", &format!("{lines}pm.max_children = {children}"))
    };
    let server = Configured::builder(&pool(1)).start();
    server.php(
        "wait.php",
        "<?php for ($end = microtime(true) + 15; !file_exists($_GET['for']) && microtime(true) < $end; usleep(2000)) {
             clearstatcache();
         }
         echo 'waited';",
    );
    let send = |file: &str| {
        let mut connection = server.connect("www");
        connection.send(&server.request(&format!("/wait.php?for={file}")).encode());
        connection
    };
    let expect = |name: &str, number: u64| {
        wait_until(&format!("{name} to be {number}"), || {
            json(&server, "status", "/status")[name] == number
        });
    };
    let mut first: Vec<_> = (0..6).map(|_| send("first")).collect();
    expect("listen queue", 5);
    server.files().configure(&pool(2));
    server.reload();
    fs::write(server.files().path("www/first"), "").unwrap();
    for connection in &mut first {
        assert_eq!(connection.response(1).text(), "waited");
    }
    expect("listen queue", 0);
    let mut second: Vec<_> = (0..2).map(|_| send("second")).collect();
    expect("active processes", 2);
    second.push(send("second"));
    expect("listen queue", 1);
    fs::write(server.files().path("www/second"), "").unwrap();
    for connection in &mut second {
        assert_eq!(connection.response(1).text(), "waited");
    }
    expect("listen queue", 0);
}

#[test]
fn reload_changes_the_listening_address_and_keeps_connections() {
    let pool = |socket: &str| {
        format!(
            "[www]\nlisten = {{dir}}/{socket}.sock\n{{user}}\npm = static\npm.max_children = 1\n"
        )
    };
    let (server, _) = start(&pool("before"));
    let request = server.request("/pid.php").keep();
    let mut kept = server.connect("before");
    kept.exchange(&request);
    server.files().configure(&pool("after"));
    server.reload();
    assert_eq!(server.get("after", "/pid.php").status, 200);
    assert_eq!(kept.exchange(&request).status, 200);
    wait_until("the old socket file is gone", || {
        !server.files().path("before.sock").exists()
    });
}

#[test]
fn a_reload_during_a_reload_is_made_up_for() {
    let pool = Configured::pool("www", "pm = static\npm.max_children = 1");
    let (server, _) = start(&pool);
    for _ in 0..5 {
        server.signal(Signal::USR2);
        thread::sleep(Duration::from_millis(20));
    }
    server.log().expect_count(READY, 2);
    assert_eq!(server.get("www", "/pid.php").status, 200);
    // The last signal may have come after the configuration was read: it is obeyed too.
    let changed = Configured::pool("www", "pm = static\npm.max_children = 1\nenv[MARK] = new");
    server.php("mark.php", "<?php echo getenv('MARK');");
    server.files().configure(&changed);
    server.signal(Signal::USR2);
    wait_until("the last configuration", || {
        server.get("www", "/mark.php").text() == "new"
    });
}

#[test]
fn ondemand_pool_whose_older_generation_outlives_the_newest_is_started_anew() {
    let pool = Configured::pool(
        "www",
        "pm = ondemand\npm.max_children = 2\npm.process_idle_timeout = 1s\npm.status_path = /status",
    );
    let (server, _) = start(&pool);
    server.php(
        "long.php",
        "<?php touch(__DIR__ . '/began'); while (!file_exists(__DIR__ . '/end')) { usleep(10000); clearstatcache(); } echo 'whole';",
    );
    let mut long = server.connect("www");
    long.send(&server.request("/long.php").encode());
    wait_until("it runs", || server.files().root().join("began").exists());
    server.reload();
    assert_eq!(server.get("www", "/pid.php").status, 200);
    let old = server.worker_pids();
    // The new generation goes, unused, before the old one ends.
    wait_until("the new generation is gone", || {
        server.descendants().len() == 2 && !old.is_empty()
    });
    assert_eq!(server.get("www", "/pid.php").status, 200);
    wait_until("it is gone again", || server.descendants().len() == 2);
    fs::write(server.files().root().join("end"), "").unwrap();
    assert_eq!(long.response(1).text(), "whole");
    wait_until("nobody is left", || server.descendants().is_empty());
    assert_eq!(server.get("www", "/pid.php").status, 200);
}

#[test]
fn process_control_timeout_holds_for_workers_of_two_reloads_before() {
    let config = format!(
        "process_control_timeout = 3s\n{}",
        Configured::pool("www", "pm = static\npm.max_children = 1")
    );
    let (server, _) = start(&config);
    server.php(
        "endless.php",
        "<?php touch(__DIR__ . '/began'); while (true) usleep(10000);",
    );
    let mut endless = server.connect("www");
    endless.send(&server.request("/endless.php").encode());
    wait_until("it runs", || server.files().root().join("began").exists());
    server.reload();
    server.reload();
    server
        .log()
        .expect("has not finished within process_control_timeout, it is ended");
}

#[test]
fn a_log_is_reopened_by_workers_that_are_starting() {
    let config = Configured::pool(
        "www",
        "pm = static\npm.max_children = 1\naccess.log = {dir}/access.log\naccess.format = \"%r\"",
    );
    let (server, _) = start(&config);
    let access_log = server.files().path("access.log");
    // Not in the check, which is the first.
    let source = format!(
        "<?php if (!file_exists('{0}/first')) {{ touch('{0}/first'); return; }} touch('{0}/second'); \
         while (!file_exists('{0}/go')) {{ usleep(10000); clearstatcache(); }}",
        server.files().directory().display()
    );
    let preload = server.php("preload.php", &source);
    let lines = format!(
        "php_admin_value[opcache.enable] = 1\nphp_admin_value[opcache.preload] = {}\n\
         php_admin_value[opcache.preload_user] = root\n",
        preload.display()
    );
    server.files().configure(&format!("{config}{lines}"));
    server.signal(Signal::USR2);
    wait_until("the new generation starts", || {
        server.files().path("second").exists()
    });
    fs::rename(&access_log, server.files().path("access.log.1")).unwrap();
    server.signal(Signal::USR1);
    server.log().expect("access log file re-opened");
    fs::write(server.files().path("go"), "").unwrap();
    server.log().expect_count(READY, 2);
    server.get("www", "/pid.php?after");
    wait_until("a line in the new file", || {
        fs::read_to_string(&access_log).is_ok_and(|text| text.contains("/pid.php"))
    });
}

/// Its new generation has no worker when those of the old one, which were idle, go.
#[test]
fn an_ondemand_pool_answers_at_once_after_a_reload() {
    let pool = Configured::pool("www", "pm = ondemand\npm.max_children = 4");
    let (server, _) = start(&pool);
    for _ in 0..8 {
        thread::scope(|scope| {
            let clients: Vec<_> = (0..2)
                .map(|_| {
                    scope.spawn(|| {
                        for _ in 0..20 {
                            assert_eq!(server.get("www", "/pid.php").status, 200);
                            thread::sleep(Duration::from_millis(5));
                        }
                    })
                })
                .collect();
            server.reload();
            clients
                .into_iter()
                .for_each(|client| client.join().unwrap());
        });
        assert_eq!(server.get("www", "/pid.php").status, 200);
    }
}

/// A request that has begun to come when the server is told to finish is served, however long the rest takes.
#[test]
fn requests_that_are_being_received_at_sigquit_are_answered() {
    let pool = Configured::pool("www", "pm = static\npm.max_children = 2");
    let (mut server, _) = start(&pool);
    server.php(
        "post.php",
        "<?php echo strlen(file_get_contents('php://input'));",
    );
    let post = |length| {
        server
            .request("/post.php")
            .post("text/plain", vec![b'x'; length])
    };
    let mut clients: Vec<_> = [5_000, 300_000, 3_000_000]
        .into_iter()
        .map(|length| {
            let bytes = post(length).encode();
            let mut connection = server.connect("www");
            connection.send(&bytes[..bytes.len() / 2]);
            (length, bytes, connection)
        })
        .collect();
    // Half of the params.
    let bytes = server.request("/pid.php").encode();
    let mut half = server.connect("www");
    half.send(&bytes[..bytes.len() / 2]);
    thread::sleep(Duration::from_millis(200));
    server.signal(Signal::QUIT);
    thread::sleep(Duration::from_millis(1500));
    half.send(&bytes[bytes.len() / 2..]);
    assert_eq!(half.response(1).status, 200);
    for (_, bytes, connection) in &mut clients {
        connection.send(&bytes[bytes.len() / 2..]);
    }
    for (length, _, connection) in &mut clients {
        assert_eq!(connection.response(1).text(), length.to_string());
    }
    drop((clients, half));
    server.wait_exit();
}

/// An administrator's signal: the supervisor's own means that a successor serves.
#[test]
fn a_pool_process_that_gets_sigquit_is_replaced_without_a_pause() {
    let pool = Configured::pool("www", "pm = static\npm.max_children = 2");
    let (server, _) = start(&pool);
    let workers = server.worker_pids();
    let pool_process = server
        .descendants()
        .iter()
        .find(|process| !workers.contains(&process.pid))
        .unwrap()
        .pid;
    let mut long = server.connect("www");
    long.send(&server.request("/sleep.php?ms=3000").encode());
    let mut kept = server.connect("www");
    let request = server.request("/pid.php").keep();
    kept.exchange(&request);
    kill(pool_process, Signal::QUIT);
    server.log().expect("wants a successor: SIGQUIT");
    wait_until("the successor serves", || {
        let pid = kept.exchange(&request).text();
        !workers.contains(&pid.parse().unwrap())
    });
    assert!(!long.has_input(), "the successor waited for the request");
    assert_eq!(long.response(1).text(), "slept");
}
