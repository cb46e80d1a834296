//! Tells the service manager how it goes: systemd's sd_notify protocol, in which each message is a datagram to the socket
//! that `NOTIFY_SOCKET` names.
//!
//! ```text
//! READY=1 ─► every systemd_interval: READY=1, STATUS=Processes active: … ─► STOPPING=1
//!    ▲                     │ SIGUSR2
//!    └── it serves ── RELOADING=1
//!                     (also if the new configuration is refused)
//! ```
//!
//! If the unit has `WatchdogSec=`, each message at an interval says WATCHDOG=1 too, also while the program starts, reloads
//! or finishes. The texts are php-fpm's.
//!
//! The crate sd-notify has neither sockets in the abstract namespace nor sending that cannot block: a service manager that
//! hangs must not stop the supervisor.

use std::env;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

use rustix::process::getpid;
use rustix::time::{ClockId, clock_gettime};

use crate::log;
use crate::scoreboard::Snapshot;

/// What the service manager tells its services by. Whoever else speaks to it in our name, from a script, would be believed.
pub(super) const VARIABLES: [&str; 3] = ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"];

/// The connection to the service manager, if there is one.
#[derive(Debug)]
pub(super) struct Notifier {
    address: Option<SocketAddr>,
    interval: Option<Duration>,
    watchdog: bool,
    next: Option<Instant>,
    /// Requests so far and when they were counted, for the traffic.
    counted: Option<(u64, Instant)>,
}

impl Notifier {
    /// One as the environment says, with a message each `interval`; none for no such messages.
    pub(super) fn new(interval: Option<Duration>) -> Self {
        let address = env::var_os("NOTIFY_SOCKET").and_then(|path| {
            address(&path)
                .inspect_err(|error| {
                    log::warning(format_args!(
                        "NOTIFY_SOCKET={} cannot be used: {error}",
                        path.display()
                    ));
                })
                .ok()
        });
        let watchdog = address.as_ref().and_then(|_| watchdog_interval());
        let interval = match (interval, watchdog) {
            (Some(interval), Some(watchdog)) => Some(interval.min(watchdog)),
            (interval, watchdog) => interval.or(watchdog),
        };
        let interval = interval.filter(|_| address.is_some());
        Self {
            address,
            interval,
            watchdog: watchdog.is_some(),
            next: interval.map(|interval| Instant::now() + interval),
            counted: None,
        }
    }

    /// When [`tell`](Self::tell) is due.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.next
    }

    /// Requests can come. `requests` have been finished so far.
    pub(super) fn ready(&mut self, requests: u64) {
        if self.address.is_none() {
            return;
        }
        self.counted = Some((requests, Instant::now()));
        self.send_or_warn(
            "start",
            &format!(
                "READY=1\nSTATUS=Ready to handle connections\nMAINPID={}",
                getpid()
            ),
        );
        match self.interval {
            Some(interval) => log::notice(format_args!(
                "systemd monitor interval set to {}ms",
                interval.as_millis()
            )),
            None => log::notice(format_args!("systemd monitor disabled")),
        }
    }

    /// A reload begins. It ends with [`ready`](Self::ready), said by the program that takes over, or with
    /// [`reload_failed`](Self::reload_failed).
    pub(super) fn reloading(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        let microseconds = now.tv_sec * 1_000_000 + now.tv_nsec / 1000;
        self.send_or_warn(
            "reload",
            &format!("RELOADING=1\nMONOTONIC_USEC={microseconds}\nSTATUS=Reloading"),
        );
    }

    /// The reload that was begun comes to nothing; the old configuration serves on.
    pub(super) fn reload_failed(&self) {
        self.send_or_warn(
            "reload",
            "READY=1\nSTATUS=Reload failed, see the log; the old configuration serves on",
        );
    }

    /// It ends, at once or when requests are finished.
    pub(super) fn stopping(&self) {
        self.send_or_warn("stop", "STOPPING=1\nSTATUS=Stopping");
    }

    /// What is to be said each interval. While it does not serve, or reloads, it is not `ready`: that would end the
    /// service manager's wait.
    pub(super) fn tell(&mut self, ready: bool, pools: impl Iterator<Item = Snapshot>) {
        let Some(interval) = self.interval else {
            return;
        };
        let now = Instant::now();
        self.next = Some(now + interval);
        let mut message = String::new();
        if self.watchdog {
            message.push_str("WATCHDOG=1\n");
        }
        if ready {
            message.push_str("READY=1\n");
        }
        message.push_str(&self.status(&Totals::of(pools), now));
        if let Err(error) = self.send(&message) {
            log::notice(format_args!("failed to notify status to systemd: {error}"));
        }
    }

    fn status(&mut self, totals: &Totals, now: Instant) -> String {
        let (before, since) = self.counted.unwrap_or((totals.requests, now));
        self.counted = Some((totals.requests, now));
        let seconds = now.duration_since(since).as_secs_f64();
        // A counter of requests stays far below 2^52.
        #[allow(clippy::cast_precision_loss)]
        let new = totals.requests.saturating_sub(before) as f64;
        let traffic = if seconds > 0.0 { new / seconds } else { 0.0 };
        format!(
            "STATUS=Processes active: {}, idle: {}, Requests: {}, slow: {}, Traffic: {traffic:.2}req/sec",
            totals.active, totals.idle, totals.requests, totals.slow
        )
    }

    fn send_or_warn(&self, what: &str, message: &str) {
        if let Err(error) = self.send(message) {
            log::warning(format_args!("failed to notify {what} to systemd: {error}"));
        }
    }

    /// Says nothing if there is nobody to say it to.
    fn send(&self, message: &str) -> io::Result<()> {
        let Some(address) = &self.address else {
            return Ok(());
        };
        // Made for each message: the service manager may be executed anew too, and nothing is left open over a reload.
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        socket.send_to_addr(message.as_bytes(), address)?;
        Ok(())
    }
}

/// Sums over all pools.
#[derive(Debug, Default, PartialEq, Eq)]
struct Totals {
    active: u64,
    idle: u64,
    requests: u64,
    slow: u64,
}

impl Totals {
    fn of(pools: impl Iterator<Item = Snapshot>) -> Self {
        pools.fold(Self::default(), |sum, pool| Self {
            active: sum.active + u64::from(pool.running),
            idle: sum.idle + u64::from(pool.idle),
            requests: sum.requests + pool.requests,
            slow: sum.slow + pool.slow_requests,
        })
    }
}

/// A path, or a name in the abstract namespace behind `@`.
fn address(name: &OsStr) -> io::Result<SocketAddr> {
    match name.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
        [b'/', ..] => SocketAddr::from_pathname(name),
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "it is neither a path nor begins with @",
        )),
    }
}

/// Half the time in which the watchdog wants to hear from us; none if it does not watch us.
fn watchdog_interval() -> Option<Duration> {
    watchdog(
        env::var_os("WATCHDOG_USEC"),
        env::var_os("WATCHDOG_PID"),
        getpid().as_raw_nonzero().get(),
    )
}

fn watchdog(time: Option<OsString>, watched: Option<OsString>, ours: i32) -> Option<Duration> {
    if watched.is_some_and(|pid| pid != *ours.to_string()) {
        return None;
    }
    let time: u64 = time?.to_str()?.parse().ok()?;
    (time > 0).then(|| Duration::from_micros(time / 2))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn watchdog_is_told_twice_in_its_time() {
        let some = |text: &str| Some(OsString::from(text));
        let half = Some(Duration::from_millis(1500));
        assert_eq!(watchdog(some("3000000"), None, 7), half);
        assert_eq!(watchdog(some("3000000"), some("7"), 7), half);
        assert_eq!(watchdog(some("3000000"), some("8"), 7), None);
        assert_eq!(watchdog(some("0"), None, 7), None);
        assert_eq!(watchdog(some("soon"), None, 7), None);
        assert_eq!(watchdog(None, some("7"), 7), None);
    }

    #[test]
    fn address_is_a_path_or_an_abstract_name() {
        let path = address(OsStr::new("/run/systemd/notify")).unwrap();
        assert_eq!(
            path.as_pathname(),
            Some(std::path::Path::new("/run/systemd/notify"))
        );
        let name = address(OsStr::new("@notify")).unwrap();
        assert_eq!(name.as_abstract_name(), Some(b"notify".as_slice()));
        assert!(address(OsStr::new("vsock:2:1234")).is_err());
        assert!(address(OsStr::new("")).is_err());
    }

    #[test]
    fn status_has_the_requests_of_each_second_since_the_last_one() {
        let mut notifier = Notifier {
            address: None,
            interval: None,
            watchdog: false,
            next: None,
            counted: None,
        };
        let mut totals = Totals {
            active: 1,
            idle: 4,
            requests: 100,
            slow: 2,
        };
        let start = Instant::now();
        assert_eq!(
            notifier.status(&totals, start),
            "STATUS=Processes active: 1, idle: 4, Requests: 100, slow: 2, Traffic: 0.00req/sec"
        );
        totals.requests = 125;
        assert_eq!(
            notifier.status(&totals, start + Duration::from_secs(10)),
            "STATUS=Processes active: 1, idle: 4, Requests: 125, slow: 2, Traffic: 2.50req/sec"
        );
    }
}
