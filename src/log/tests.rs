//! What concerns a whole process, its standard error above all, in a process of its own.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use super::*;
use crate::config::LogTarget;

/// The life of a supervisor as far as logs go, in the directory that the variable names. Not a test by itself: the one below
/// runs it.
#[test]
#[ignore = "run by another test, in a process of its own"]
fn life() {
    let directory = std::env::var_os(DIRECTORY).expect("run by the other test");
    let path = Path::new(&directory).join("log");
    let config = GlobalConfig {
        error_log: LogTarget::File(path.clone()),
        daemonize: false,
        ..GlobalConfig::default()
    };
    init(&config).expect("opens");
    notice(format_args!("starting"));
    debug(format_args!("not logged"));
    launched().expect("tied");
    notice(format_args!("running"));
    say("a library");
    let access = open_access_log(Path::new("/dev/stderr")).expect("opens");
    fs::rename(&path, path.with_extension("1")).expect("renamed");
    let passed = reopen().expect("a descriptor");
    assert!(std::os::fd::AsRawFd::as_raw_fd(&passed) > 2);
    say("the library again");
    rustix::io::write(&access, b"an access\n").expect("written");
    restore_standard_error().expect("restored");
    say("executed anew");
    to_null().expect("opened");
    say("nobody");
    let pipes = Pipes::new().expect("pipes");
    let stderr = pipes.into_child().expect("tied");
    // The reading ends have gone with the pipes.
    let written = rustix::io::write(rustix::stdio::stderr(), b"x");
    drop(stderr);
    // The test harness has more to say on standard output.
    to_null().expect("opened");
    restore_standard_error().expect("restored");
    assert_eq!(written, Err(rustix::io::Errno::PIPE));
}

fn say(text: &str) {
    let line = format!("{text} wrote to descriptor 2\n");
    rustix::io::write(rustix::stdio::stderr(), line.as_bytes()).expect("written");
}

const DIRECTORY: &str = "FE_PHP_TEST_DIRECTORY";

#[test]
fn standard_error_is_the_log_while_the_server_runs() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = |name: &str| directory.path().join(name);
    let stderr = fs::File::options()
        .append(true)
        .create(true)
        .open(path("stderr"));
    let status = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "log::tests::life", "--ignored", "--nocapture"])
        .env(DIRECTORY, directory.path())
        .stdout(Stdio::null())
        .stderr(stderr.expect("created"))
        .status()
        .expect("started");
    // Lines without their time.
    let lines = |name| {
        let text = fs::read_to_string(path(name)).expect("a file");
        let lines = text.lines().map(|line| {
            line.split_once("] ")
                .map_or(line, |(_, rest)| rest)
                .to_owned()
        });
        lines.collect::<Vec<_>>()
    };
    assert!(status.success(), "{:?}", lines("stderr"));
    assert_eq!(
        lines("log.1"),
        [
            "NOTICE: starting",
            "NOTICE: running",
            "a library wrote to descriptor 2"
        ]
    );
    assert_eq!(
        lines("log"),
        [
            "NOTICE: error log file re-opened",
            "the library again wrote to descriptor 2"
        ]
    );
    assert_eq!(
        lines("stderr"),
        [
            "NOTICE: starting",
            "an access",
            "executed anew wrote to descriptor 2"
        ]
    );
}
