//! Connections that are open beside the load and have no request (`--idle`).

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::io::ioctl_fionbio;
use rustix::net::sockopt::{Timeout, set_socket_timeout};

use super::answer::{Answer, AnswerError};
use super::options::Plan;
use super::processes::Snapshot;
use super::progress::Progress;
use super::report::IdleReport;
use super::socket;

/// Open connections, and the server's figures without and with them.
#[derive(Debug)]
pub(super) struct IdleConnections {
    sockets: Vec<OwnedFd>,
    figures: Option<(Snapshot, Snapshot)>,
}

/// The server's descriptors are at rest when their number has not changed for so long ...
const AT_REST: Duration = Duration::from_millis(200);
/// ... or after this time.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

impl IdleConnections {
    /// Opens them, and waits until the server has accepted them where that can be seen (`--pid`).
    pub(super) fn open(plan: &Plan, progress: &mut Progress) -> Result<Self, String> {
        // The connections of the warm-up have just been closed.
        let before = plan.pid.map(at_rest).transpose()?;
        let mut sockets = Vec::with_capacity(plan.idle);
        for number in 0..plan.idle {
            let opened = socket::open_blocking(&plan.address, plan.timeout).and_then(|socket| {
                if plan.idle_used {
                    exchange(&socket, plan)?;
                }
                Ok(socket)
            });
            let count = plan.idle;
            let socket = opened.map_err(|error| {
                format!("only {number} of {count} idle connections can be opened: {error}")
            })?;
            sockets.push(socket);
            if number % 64 == 0 {
                progress.position(number as u64);
            }
        }
        let figures = match (plan.pid, before) {
            (Some(pid), Some(before)) => Some((before, at_rest(pid)?)),
            _ => None,
        };
        Ok(Self { sockets, figures })
    }

    /// Checks that all are still open, and closes them.
    #[allow(clippy::cast_precision_loss)] // bytes of memory
    pub(super) fn finish(self) -> IdleReport {
        let open = self
            .sockets
            .iter()
            .filter(|socket| socket::is_quiet(socket));
        let closed = self.sockets.len() - open.count();
        let growth = |value: fn(&Snapshot) -> Option<u64>| {
            let (before, with) = self.figures.as_ref()?;
            Some(value(with)? as f64 - value(before)? as f64)
        };
        let pss = growth(Snapshot::pss);
        let descriptors = growth(Snapshot::descriptors);
        IdleReport {
            connections: self.sockets.len() as u64,
            closed: closed as u64,
            server_descriptors: descriptors,
            pss_bytes_per_connection: pss.map(|pss| pss / self.sockets.len() as f64),
        }
    }
}

/// The server's figures once it has noticed what connections were opened and closed.
fn at_rest(pid: i32) -> Result<Snapshot, String> {
    let end = Instant::now() + LONGEST_WAIT;
    let mut now = Snapshot::take(pid)?;
    let mut since = Instant::now();
    while since.elapsed() < AT_REST && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(20));
        let next = Snapshot::take(pid)?;
        if next.descriptors() != now.descriptors() {
            since = Instant::now();
        }
        now = next;
    }
    Ok(now)
}

/// One request and its answer.
fn exchange(socket: &OwnedFd, plan: &Plan) -> Result<(), String> {
    let failed = |error: rustix::io::Errno| format!("its request failed: {error}");
    ioctl_fionbio(socket, false).map_err(failed)?;
    for direction in [Timeout::Recv, Timeout::Send] {
        set_socket_timeout(socket, direction, Some(plan.timeout)).map_err(failed)?;
    }
    let mut bytes = &plan.targets[0].bytes[..];
    while !bytes.is_empty() {
        match socket::write(socket, bytes).map_err(failed)? {
            0 => return Err("its request was not taken in time".to_owned()),
            length => bytes = &bytes[length..],
        }
    }
    let mut answer = Answer::default();
    let mut buffer = vec![0; 64 << 10];
    loop {
        let length = match socket::read(socket, &mut buffer).map_err(failed)? {
            None => return Err("its request was not answered in time".to_owned()),
            Some(0) => return Err("it was closed before the answer".to_owned()),
            Some(length) => length,
        };
        match answer.read(&buffer[..length]) {
            Ok(None) => {}
            Ok(Some(_)) => return ioctl_fionbio(socket, true).map_err(failed),
            Err(AnswerError::Refused(text)) => return Err(format!("its request got {text}")),
            Err(AnswerError::Malformed(text)) => return Err(format!("its request got {text}")),
        }
    }
}
