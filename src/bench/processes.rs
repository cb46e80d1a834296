//! What a server uses: the figures of a process and all its descendants, from /proc and their CPU clocks.
//!
//! CPU time comes from each process's own CPU clock (`clock_getcpuclockid`), which counts nanoseconds and keeps the
//! time of threads that have ended; /proc/PID/stat counts hundredths of a second, and /proc/PID/schedstat is one
//! thread's. A process that ended between two snapshots has no clock any more: its time is what its parent's count of
//! children that were waited for has grown by, in hundredths of a second.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use nix::time::clock_getcpuclockid;
use nix::unistd::Pid;

/// The processes of a server at one moment.
#[derive(Debug)]
pub(super) struct Snapshot {
    pub(super) processes: BTreeMap<Identity, Figures>,
}

/// A process; its number alone may be another one's later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Identity {
    pub(super) pid: i32,
    started: u64,
}

/// What one process uses.
#[derive(Debug, Clone)]
pub(super) struct Figures {
    pub(super) command: String,
    pub(super) cpu: Duration,
    /// CPU time of children that it has waited for.
    ended_children: Duration,
    /// Its proportional share of memory; `None` for another user's process.
    pub(super) pss: Option<u64>,
    pub(super) threads: u64,
    /// `None` for another user's process.
    pub(super) descriptors: Option<u64>,
}

/// CPU time between two snapshots.
#[derive(Debug)]
pub(super) struct CpuUse {
    pub(super) total: Duration,
    /// Processes of the first snapshot that have ended, and processes that are new in the second.
    pub(super) ended: usize,
    pub(super) new: usize,
}

impl Snapshot {
    /// The figures now.
    pub(super) fn take(pid: i32) -> Result<Self, String> {
        let processes: BTreeMap<Identity, Figures> = tree(pid)
            .into_iter()
            .filter_map(|stat| Some((stat.identity, Figures::read(&stat)?)))
            .collect();
        if processes.keys().all(|identity| identity.pid != pid) {
            return Err(format!(
                "--pid {pid}: there is no such process (fe-php's is the one that was started, php-fpm's the master)"
            ));
        }
        Ok(Self { processes })
    }

    /// The sum over all processes.
    pub(super) fn pss(&self) -> Option<u64> {
        self.processes.values().map(|figures| figures.pss).sum()
    }

    /// The sum over all processes.
    pub(super) fn descriptors(&self) -> Option<u64> {
        self.processes
            .values()
            .map(|figures| figures.descriptors)
            .sum()
    }

    /// The sum over all processes.
    pub(super) fn threads(&self) -> u64 {
        self.processes.values().map(|figures| figures.threads).sum()
    }

    /// CPU time used since `before`.
    pub(super) fn cpu_since(&self, before: &Self) -> CpuUse {
        let mut total = Duration::ZERO;
        let mut ended_children = Duration::ZERO;
        let mut new = 0;
        for (identity, now) in &self.processes {
            let before = before.processes.get(identity);
            new += usize::from(before.is_none());
            total += now.cpu - before.map_or(Duration::ZERO, |before| before.cpu.min(now.cpu));
            ended_children += now
                .ended_children
                .saturating_sub(before.map_or(Duration::ZERO, |before| before.ended_children));
        }
        let ended: Vec<&Figures> = before
            .processes
            .iter()
            .filter(|(identity, _)| !self.processes.contains_key(identity))
            .map(|(_, figures)| figures)
            .collect();
        let counted: Duration = ended.iter().map(|figures| figures.cpu).sum();
        CpuUse {
            total: total + ended_children.saturating_sub(counted),
            ended: ended.len(),
            new,
        }
    }
}

impl Figures {
    /// `None` when the process has ended meanwhile.
    fn read(stat: &Stat) -> Option<Self> {
        let directory = PathBuf::from(format!("/proc/{}", stat.identity.pid));
        let clock = clock_getcpuclockid(Pid::from_raw(stat.identity.pid)).ok()?;
        let cpu = Duration::from(clock.now().ok()?);
        let command = fs::read(directory.join("cmdline")).ok()?;
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        let descriptors = fs::read_dir(directory.join("fd"))
            .ok()
            .map(|entries| entries.count() as u64);
        Some(Self {
            command: command.trim().to_owned(),
            cpu,
            ended_children: stat.ended_children,
            pss: pss(&directory),
            threads: stat.threads,
            descriptors,
        })
    }
}

fn pss(directory: &std::path::Path) -> Option<u64> {
    let text = fs::read_to_string(directory.join("smaps_rollup")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    let kilobytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kilobytes << 10)
}

/// What /proc/PID/stat says.
#[derive(Debug, Clone)]
struct Stat {
    identity: Identity,
    parent: i32,
    ended_children: Duration,
    threads: u64,
}

impl Stat {
    fn of(pid: i32) -> Option<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        Self::parse(pid, &text, rustix::param::clock_ticks_per_second())
    }

    fn parse(pid: i32, text: &str, ticks_per_second: u64) -> Option<Self> {
        // The name in parentheses may hold anything; after it come the fields from the third on.
        let fields: Vec<&str> = text[text.rfind(')')? + 1..]
            .split_ascii_whitespace()
            .collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        let ticks = field(16)? + field(17)?;
        Some(Self {
            identity: Identity {
                pid,
                started: field(22)?,
            },
            parent: i32::try_from(field(4)?).ok()?,
            ended_children: Duration::from_millis(ticks * 1000 / ticks_per_second.max(1)),
            threads: field(20)?,
        })
    }
}

/// The process and all below it.
fn tree(root: i32) -> Vec<Stat> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let pids = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let all: Vec<Stat> = pids.filter_map(Stat::of).collect();
    let mut found: Vec<Stat> = all
        .iter()
        .filter(|stat| stat.identity.pid == root)
        .cloned()
        .collect();
    let mut next = 0;
    while let Some(parent) = found.get(next).map(|stat| stat.identity.pid) {
        found.extend(all.iter().filter(|stat| stat.parent == parent).cloned());
        next += 1;
    }
    found
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn stat_is_read_behind_any_name() {
        let text = "7 (a) b (c)) S 3 7 7 0 -1 0 0 0 0 0 11 12 150 50 20 0 5 0 4242 0 0";
        let stat = Stat::parse(7, text, 100).unwrap();
        assert_eq!(stat.parent, 3);
        assert_eq!(stat.threads, 5);
        assert_eq!(stat.identity.started, 4242);
        assert_eq!(stat.ended_children, Duration::from_secs(2));
    }

    #[test]
    fn this_process_is_found_with_its_figures() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let before = Snapshot::take(pid).unwrap();
        let mut sum = 0_u64;
        for number in 0..1_000_000 {
            sum = std::hint::black_box(sum ^ number);
        }
        let after = Snapshot::take(pid).unwrap();
        assert!(after.pss().unwrap() > 100_000 && after.threads() >= 1);
        assert!(after.descriptors().unwrap() >= 3);
        assert!(after.cpu_since(&before).total > Duration::ZERO);
        Snapshot::take(i32::MAX).unwrap_err();
    }

    #[test]
    fn the_time_of_a_process_that_ended_is_found_with_its_parent() {
        let figures = |cpu, ended_children| Figures {
            command: String::new(),
            cpu: Duration::from_millis(cpu),
            ended_children: Duration::from_millis(ended_children),
            pss: None,
            threads: 1,
            descriptors: None,
        };
        let identity = |pid| Identity { pid, started: 1 };
        let before = Snapshot {
            processes: BTreeMap::from([
                (identity(1), figures(100, 0)),
                (identity(2), figures(400, 0)),
            ]),
        };
        let after = Snapshot {
            processes: BTreeMap::from([
                (identity(1), figures(110, 450)),
                (identity(3), figures(30, 0)),
            ]),
        };
        let used = after.cpu_since(&before);
        assert_eq!(used.total, Duration::from_millis(10 + 50 + 30));
        assert_eq!((used.ended, used.new), (1, 1));
    }
}
