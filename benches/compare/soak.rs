//! Many requests: does the server's memory grow, or the number of its descriptors?

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::contestants::{Contestant, FOUR_WORKERS};
use crate::options::Options;
use crate::processes::Snapshot;
use crate::scripts::Scripts;
use crate::support::php;

/// Growth of a worker that is allowed, in bytes.
const ALLOWED: i64 = 1 << 20;
/// How long the server may take to notice that connections are closed.
const SETTLE: Duration = Duration::from_secs(10);

/// Half of the requests are for hello, half POST 2 KB to a script that echoes them; the first tenth warms up.
pub(crate) fn run(options: &Options) -> Result<(), String> {
    let scripts = Scripts::write();
    let server = FOUR_WORKERS.fe_php(scripts.root(), None);
    let each = (options.requests / 2).max(100);
    let (warm_up, rest) = (each / 10, each - each / 10);
    let idle = Snapshot::take(server.pid)?;
    eprintln!("warming up with {} requests", 2 * warm_up);
    load(&server, &scripts, warm_up)?;
    let before = settled(&server, &idle)?;
    eprintln!("making {} requests", 2 * rest);
    let start = Instant::now();
    load(&server, &scripts, rest)?;
    let seconds = start.elapsed().as_secs_f64();
    let after = settled(&server, &before)?;
    report(&before, &after, 2 * rest, seconds)
}

/// Both loads at the same time, over four connections each.
fn load(server: &Contestant, scripts: &Scripts, each: u64) -> Result<(), String> {
    let start = |script: &str, arguments: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_fe-php"))
            .args(["bench", &server.address_text(), &scripts.file(script)])
            .args(["-c", "4", "-n", &each.to_string()])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("fe-php bench: {error}"))
    };
    let finish = |name: &str, child: Child| {
        let output = child
            .wait_with_output()
            .map_err(|error| format!("fe-php bench: {error}"))?;
        let text = String::from_utf8_lossy(&output.stdout);
        if output.status.success() {
            return Ok(());
        }
        Err(format!("{name}: {}\n{text}", output.status))
    };
    let hello = start("hello.php", &[])?;
    let echo = start(
        "echo.php",
        &["--body-size", "2K", "--content-type", "text/plain"],
    )?;
    // Both are waited for, whatever the first says.
    let (hello, echo) = (finish("hello", hello), finish("echo", echo));
    hello.and(echo)
}

/// The figures, as soon as the server has no more descriptors than before or after a while.
fn settled(server: &Contestant, before: &Snapshot) -> Result<Snapshot, String> {
    let end = Instant::now() + SETTLE;
    loop {
        let now = Snapshot::take(server.pid)?;
        if now.descriptors() <= before.descriptors() || Instant::now() > end {
            return Ok(now);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn report(before: &Snapshot, after: &Snapshot, requests: u64, seconds: f64) -> Result<(), String> {
    let signed = |value: Option<u64>| i64::try_from(value.unwrap_or(0)).unwrap_or(i64::MAX);
    // All threads of a ZTS build are in one process.
    let workers_of_one = if php::is_zts() {
        i64::from(FOUR_WORKERS.workers)
    } else {
        1
    };
    let mut wrong = Vec::new();
    #[allow(clippy::cast_precision_loss)]
    let rate = requests as f64 / seconds;
    println!("{requests} requests after warming up, {rate:.0} per second\n");
    println!("| process | PSS KB before | after | growth | descriptors before | after | command |");
    println!("|--------:|--------------:|------:|-------:|-------------------:|------:|---------|");
    for (identity, now) in &after.processes {
        let Some(then) = before.processes.get(identity) else {
            wrong.push(format!("process {} is new", identity.pid));
            continue;
        };
        let growth = signed(now.pss) - signed(then.pss);
        let descriptors = signed(now.descriptors) - signed(then.descriptors);
        println!(
            "| {} | {} | {} | {} | {} | {} | {} |",
            identity.pid,
            signed(then.pss) >> 10,
            signed(now.pss) >> 10,
            growth >> 10,
            signed(then.descriptors),
            signed(now.descriptors),
            now.command
        );
        if now.pss.is_none() || now.descriptors.is_none() {
            wrong.push(format!(
                "the memory of process {} cannot be read",
                identity.pid
            ));
        }
        if growth > ALLOWED * workers_of_one {
            wrong.push(format!(
                "process {} grew by {} KB",
                identity.pid,
                growth >> 10
            ));
        }
        if descriptors > 0 {
            wrong.push(format!(
                "process {} has {descriptors} descriptors more",
                identity.pid
            ));
        }
    }
    for identity in before.processes.keys() {
        if !after.processes.contains_key(identity) {
            wrong.push(format!("process {} has ended", identity.pid));
        }
    }
    println!();
    if wrong.is_empty() {
        println!("nothing grew by more than {} KB a worker", ALLOWED >> 10);
        Ok(())
    } else {
        Err(wrong.join("; "))
    }
}
