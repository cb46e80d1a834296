//! `fe-php bench`: a load generator for FastCGI servers.
//!
//! # Lifecycle
//!
//! ```text
//! options.rs   command line → Plan                       1. warm-up, not counted
//! socket.rs    connections without blocking              2. --idle connections are opened
//! request.rs   a script → the bytes of its request       3. --pid: the server's figures before
//! answer.rs    bytes → an answer's status and length     4. the load
//! load.rs      the loop that makes requests              5. --pid: its figures after
//! order.rs     how many requests overtake another one    6. are the idle connections still open?
//! stats.rs     counts, errors, latencies
//! processes.rs a server's processes, from /proc
//! report.rs    the figures as text or JSON
//! ```
//!
//! It is one thread with one epoll instance, since it shares the machine with the server it measures: requests are
//! made up beforehand and cost one `send` and mostly one `recv`. `load.rs` knows no FastCGI: a protocol is what
//! `request.rs` writes and `answer.rs` reads.

mod answer;
mod idle;
mod load;
mod options;
mod order;
mod processes;
mod progress;
mod report;
mod request;
mod socket;
mod stats;

use std::io::Write;
use std::num::NonZeroU64;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use signal_hook::consts::SIGINT;

pub(crate) use options::{EXAMPLES, Options};

use idle::IdleConnections;
use load::{Load, Phase};
use options::Plan;
use processes::Snapshot;
use progress::Progress;
use report::{Report, ServerReport};
use stats::Stats;

/// Measures; the exit code is 1 after errors of the server, 2 when nothing could be measured.
pub(crate) fn main(options: Options) -> ExitCode {
    let json = options.json;
    let report = options.into_plan().and_then(|plan| measure(&plan));
    match report {
        Ok(report) => {
            let text = if json { report.json() } else { report.text() };
            // A reader that went away (`| head`) has what it wanted.
            let _ = std::io::stdout().write_all(text.as_bytes());
            ExitCode::from(u8::from(report.has_errors()))
        }
        Err(error) => {
            eprintln!("fe-php bench: {error}");
            ExitCode::from(2)
        }
    }
}

fn measure(plan: &Plan) -> Result<Report, String> {
    raise_descriptor_limit(plan)?;
    // Requests are due at times that a timer must meet. Not fatal: the kernel then adds up to 50 µs.
    let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
    let interrupted = Arc::new(AtomicBool::new(false));
    // The second Ctrl-C ends at once.
    let flag = Arc::clone(&interrupted);
    signal_hook::flag::register_conditional_shutdown(SIGINT, 130, flag)
        .and_then(|_| signal_hook::flag::register(SIGINT, Arc::clone(&interrupted)))
        .map_err(|error| format!("cannot handle SIGINT: {error}"))?;

    socket::check(&plan.address, plan.timeout)?;
    let mut progress = Progress::new(plan);
    let mut load = Load::new(plan, &interrupted)?;
    if plan.warm_up > 0 {
        progress.phase("warming up", Some(plan.warm_up));
        let phase = Phase {
            requests: Some(plan.warm_up),
            duration: None,
            rate: None,
        };
        load.run(&phase, &mut Stats::new(plan), &mut progress)?;
    }
    let mut idle = None;
    if plan.idle > 0 {
        // The idle ones come first: a server that gives each connection a worker has none left then.
        load.close_all();
        progress.phase("opening idle connections", Some(plan.idle as u64));
        idle = Some(IdleConnections::open(plan, &mut progress)?);
    }

    let before = plan.pid.map(Snapshot::take).transpose()?;
    let mut stats = Stats::new(plan);
    progress.phase("measuring", plan.total());
    let start = Instant::now();
    load.run(&plan.phase(), &mut stats, &mut progress)?;
    let elapsed = stats.elapsed(start);
    let server = match (plan.pid, &before) {
        (Some(pid), Some(before)) => {
            // What a server does after an answer belongs to the request.
            std::thread::sleep(Duration::from_millis(5) + plan.settle);
            let after = Snapshot::take(pid)?;
            Some(ServerReport::new(before, &after, stats.answered()))
        }
        _ => None,
    };
    let idle = idle.map(IdleConnections::finish);
    progress.clear();
    Ok(Report::new(plan, &stats, elapsed, idle, server))
}

/// Raises the soft limit of open files to the hard one.
fn raise_descriptor_limit(plan: &Plan) -> Result<(), String> {
    /// Standard streams, epoll, /proc files, and a connection that is being replaced.
    const SPARE: usize = 16;

    let limit = getrlimit(Resource::Nofile);
    let needed = plan.connections + plan.idle + SPARE;
    if let Some(maximum) = limit.maximum
        && needed as u64 > maximum
    {
        return Err(format!(
            "{} connections need {needed} descriptors, but the hard limit is {maximum}: raise it (`ulimit -Hn {needed}` \
             as root, or LimitNOFILE= in systemd), or ask for fewer connections",
            plan.connections + plan.idle
        ));
    }
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    setrlimit(Resource::Nofile, raised)
        .map_err(|error| format!("cannot raise the limit of open files: {error}"))
}
