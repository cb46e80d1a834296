//! Reloads that cannot take place, or not for all pools: the old configuration serves on, and the log says why.

use std::fs;
use std::os::unix::net::UnixListener;
use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use super::reload::{PID, start};
use crate::support::configured::{Configured, Files};
use crate::support::php;
use crate::support::server::READY;
use crate::support::wait_until;

#[test]
fn broken_configuration_leaves_the_old_one_serving_and_is_explained() {
    let good = Configured::pool("www", "pm = static\npm.max_children = 2");
    let server = Configured::builder(&good).start();
    server.php("pid.php", PID);
    let mut kept = server.connect("www");
    let request = server.request("/pid.php").keep();
    let before = kept.exchange(&request).text();
    let workers = server.worker_pids();
    for (line, complaint) in [
        ("pm.max_childen = 3", "unknown entry 'pm.max_childen'"),
        ("pm.max_children = many", "is not a valid number"),
        (
            "pm.max_children = 0",
            "pm.max_children must be a positive value",
        ),
        ("user = nobody-of-that-name", "cannot get uid for user"),
    ] {
        server.files().configure(&format!("{good}{line}\n"));
        let refused = server.log().count("the old one goes on serving");
        server.signal(Signal::USR2);
        server
            .log()
            .expect_count("the old one goes on serving", refused + 1);
        let said = server.log().expect(complaint);
        // What is wrong with the values of a pool as a whole has no line, in php-fpm either.
        if line.starts_with("pm.max_childen") || line.ends_with("many") {
            let text = fs::read_to_string(server.files().config()).unwrap();
            let number = text.lines().position(|found| found == line).unwrap() + 1;
            let place = format!("[{}:{number}]", server.files().config().display());
            assert!(said.contains(&place), "{place} in {said}");
        }
        assert_eq!(kept.exchange(&request).text(), before, "{line}");
        assert_eq!(server.get("www", "/pid.php").status, 200, "{line}");
        assert_eq!(server.worker_pids(), workers, "{line}");
    }
    // PHP's own start-up is part of the check.
    server.files().configure(&good);
    let ini = server.files().ini().directory.join("php.ini");
    let php_ini = fs::read_to_string(&ini).unwrap();
    fs::write(
        &ini,
        "opcache.preload=/no/such/preload.php\nopcache.preload_user=root\n",
    )
    .unwrap();
    let refused = server.log().count("the old one goes on serving");
    server.signal(Signal::USR2);
    server
        .log()
        .expect_count("the old one goes on serving", refused + 1);
    server.log().expect("/no/such/preload.php");
    assert_eq!(kept.exchange(&request).text(), before);
    fs::write(&ini, php_ini).unwrap();
    server.reload();
    assert_ne!(server.worker_pids(), workers);
    assert_eq!(kept.exchange(&request).status, 200);
}

#[test]
fn a_reload_that_comes_while_a_broken_configuration_is_checked_is_obeyed() {
    let pool = Configured::pool("www", "pm = static\npm.max_children = 1");
    let (server, _) = start(&pool);
    let (began, goes_on) = (server.files().path("began"), server.files().path("goes-on"));
    let preload = server.php(
        "preload.php",
        &format!(
            "<?php touch('{}'); for ($i = 0; $i < 1000 && !file_exists('{}'); $i++) usleep(10000);\n\
             throw new Exception('not preloaded');",
            began.display(),
            goes_on.display()
        ),
    );
    let ini = server.files().ini().directory.join("php.ini");
    let good = fs::read_to_string(&ini).unwrap();
    let preloads = format!(
        "{good}\nopcache.enable=1\nopcache.preload={}\nopcache.preload_user=root\n",
        preload.display()
    );
    fs::write(&ini, preloads).unwrap();
    server.signal(Signal::USR2);
    wait_until("the check", || began.exists());
    fs::write(&ini, good).unwrap();
    server.signal(Signal::USR2);
    // Until it has come: the supervisor does nothing else.
    thread::sleep(Duration::from_millis(100));
    fs::write(&goes_on, "").unwrap();
    server.log().expect("the old one goes on serving");
    server.log().expect_count(READY, 2);
    assert_eq!(server.get("www", "/pid.php").status, 200);
}

/// What no check can find out beforehand: sockets, files and limits.
#[test]
fn a_configuration_that_cannot_be_served_leaves_the_old_one_serving() {
    let good = Configured::pool("www", "pm = static\npm.max_children = 2");
    let server = Configured::builder(&good).start();
    server.php("pid.php", PID);
    let other = UnixListener::bind(server.files().path("used.sock")).unwrap();
    let mut kept = server.connect("www");
    let request = server.request("/pid.php").keep();
    let before = kept.exchange(&request).text();
    let workers = server.worker_pids();
    let pool = |address: &str| {
        format!("[b]\nlisten = {address}\n{{user}}\npm = static\npm.max_children = 1\n")
    };
    let after = |lines: &str| format!("{lines}{good}");
    let preload = "php_admin_value[opcache.preload] = /no/such/preload.php\n\
                   php_admin_value[opcache.preload_user] = root\n";
    for (config, complaint) in [
        (
            after(&pool("{dir}/missing/b.sock")),
            "No such file or directory",
        ),
        (
            after(&pool("{dir}/used.sock")),
            "Another FPM instance seems to already listen on",
        ),
        (
            after("pid = /proc/no-such-directory/pid\n"),
            "Unable to create the PID file",
        ),
        (after("rlimit_files = 99999999999\n"), "rlimit_files"),
        (
            format!("{good}access.log = /proc/no-such-directory/access.log\n"),
            "/proc/no-such-directory/access.log",
        ),
        (
            after(&format!("{}{preload}", pool("{dir}/b.sock"))),
            "/no/such/preload.php",
        ),
    ] {
        let said = "the old one goes on serving";
        let refused = server.log().count(said);
        server.files().configure(&config);
        server.signal(Signal::USR2);
        server.log().expect_count(said, refused + 1);
        server.log().expect(complaint);
        assert_eq!(kept.exchange(&request).text(), before, "{complaint}");
        assert_eq!(
            server.get("www", "/pid.php").status,
            200,
            "{complaint}: {}",
            server.log().text()
        );
        wait_until("the old workers, and no others", || {
            server.worker_pids() == workers
        });
    }
    drop(other);
    server.files().configure(&good);
    let ready = server.log().count(READY);
    server.signal(Signal::USR2);
    server.log().expect_count(READY, ready + 1);
    wait_until("new workers", || {
        server
            .worker_pids()
            .iter()
            .all(|pid| !workers.contains(pid))
    });
    assert_eq!(kept.exchange(&request).status, 200);
    assert!(server.files().path("www.sock").exists());
}

/// A preload script that works once, in the check, and not for the pool process.
fn preload_once(server: &Configured) -> String {
    let counter = server.files().path("preloaded");
    let source = format!(
        "<?php if (file_exists('{0}')) throw new Exception('not again'); touch('{0}');",
        counter.display()
    );
    let script = server.php("preload.php", &source);
    format!(
        "php_admin_value[opcache.enable] = 1\nphp_admin_value[opcache.preload] = {}\n\
         php_admin_value[opcache.preload_user] = root\n",
        script.display()
    )
}

#[test]
fn pools_that_do_not_start_after_a_reload_are_tried_again_and_hold_up_nobody() {
    let lines = "pm = static\npm.max_children = 1\ncatch_workers_output = yes\n";
    let (one, two) = (
        Configured::pool("one", lines),
        Configured::pool("two", lines),
    );
    let (server, _) = start(&[one.as_str(), two.as_str()].concat());
    server.php(
        "say.php",
        "<?php fwrite(fopen('php://stderr', 'w'), str_repeat('x', 200) . \"\\n\"); echo getmypid();",
    );
    let before = server.get("two", "/say.php").text();
    // The pool has a generation that serves: it goes on.
    let preload = preload_once(&server);
    server.files().configure(&format!("{one}{two}{preload}"));
    let ready = server.log().count(READY);
    server.signal(Signal::USR2);
    server.log().expect("the new pool process did not start");
    server.log().expect_count(READY, ready + 1);
    assert_eq!(server.get("two", "/say.php").text(), before);
    // What workers say is read, more than a pipe holds.
    for _ in 0..600 {
        assert_eq!(server.get("one", "/say.php").status, 200);
    }
    // And reloads are obeyed.
    server
        .files()
        .configure(&[one.as_str(), two.as_str()].concat());
    server.reload();
    assert_ne!(server.get("two", "/say.php").text(), before);
    // A pool that is new is tried again.
    fs::remove_file(server.files().path("preloaded")).unwrap();
    let three = Configured::pool("three", lines);
    server
        .files()
        .configure(&format!("{one}{two}{three}{preload}"));
    server.reload();
    server
        .log()
        .expect("[pool three] the next pool process starts in 1 second(s)");
    assert_eq!(server.get("one", "/pid.php").status, 200);
    fs::remove_file(server.files().path("preloaded")).unwrap();
    // Who has connected meanwhile has waited.
    assert_eq!(server.get("three", "/pid.php").status, 200);
}

#[test]
fn a_check_that_hangs_ends_with_the_server() {
    let (mut server, _) = start(&Configured::pool("www", "pm = static\npm.max_children = 1"));
    let source = format!(
        "<?php touch('{}'); while (true) usleep(10000);",
        server.files().path("began").display()
    );
    let preload = server.php("preload.php", &source);
    let ini = server.files().ini().directory.join("php.ini");
    let text = format!(
        "{}\nopcache.enable=1\nopcache.preload={}\nopcache.preload_user=root\n",
        fs::read_to_string(&ini).unwrap(),
        preload.display()
    );
    fs::write(&ini, text).unwrap();
    server.signal(Signal::USR2);
    wait_until("the check", || server.files().path("began").exists());
    let all = server.descendants();
    server.signal(Signal::TERM);
    server.wait_exit();
    wait_until("nobody is left", || {
        !all.iter().any(|process| process.is_running())
    });
}

/// On ZTS an OPcache that wants to restart waits for a successor. One that does not start is not the last.
#[test]
fn a_successor_that_does_not_start_is_asked_for_again() {
    if !php::is_zts() {
        return;
    }
    let files = Files::new(&[]);
    let source = format!(
        "<?php if (file_exists('{0}')) throw new Exception('not again'); touch('{0}');",
        files.path("preloaded").display()
    );
    let preload = files.php("preload.php", &source);
    let config = Configured::pool(
        "www",
        &format!(
            "pm = static\npm.max_children = 2\nphp_admin_value[opcache.enable] = 1\n\
             php_admin_value[opcache.preload] = {}\nphp_admin_value[opcache.preload_user] = root",
            preload.display()
        ),
    );
    files.configure(&config);
    let server = Configured::builder("").start_in(files);
    server.php("reset.php", "<?php var_dump(opcache_reset());");
    server.php("pid.php", PID);
    let before = server.get("www", "/pid.php").text();
    server.get("www", "/reset.php");
    // Which is looked at once a second, by requests.
    wait_until("the first attempt", || {
        assert_eq!(server.get("www", "/pid.php").status, 200);
        server.log().count("the new pool process did not start") == 1
    });
    fs::remove_file(server.files().path("preloaded")).unwrap();
    wait_until("the second", || {
        server.get("www", "/pid.php").text() != before
    });
}
