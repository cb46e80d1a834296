//! What all generations of a pool share, and what all pools do.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair, sockopt};

use crate::config::PoolConfig;
use crate::descriptor::high_fd;
use crate::log;
use crate::scoreboard::ProcessCount;
use crate::supervisor::SupervisorError;

/// `process.max`, and what it is about.
pub(in crate::supervisor) struct ProcessLimit {
    pub(super) max: u32,
    pub(super) count: ProcessCount,
    pub(super) descriptor: OwnedFd,
}

impl ProcessLimit {
    /// For so many pools; none without a limit.
    pub(in crate::supervisor) fn new(max: u32, pools: usize) -> io::Result<Option<Arc<Self>>> {
        if max == 0 {
            return Ok(None);
        }
        let (count, descriptor) = ProcessCount::create(pools)?;
        Ok(Some(Arc::new(Self {
            max,
            count,
            descriptor: high_fd(descriptor),
        })))
    }
}

/// Files that a pool's worker processes write to.
#[derive(Default)]
pub(super) struct Logs {
    pub(super) access: Option<OwnedFd>,
    pub(super) slow: Option<OwnedFd>,
}

pub(super) fn open_logs(config: &PoolConfig) -> Result<Logs, SupervisorError> {
    let access = config.access_log.as_deref().map(log::open_access_log);
    let limits = &config.time_limits;
    let slow = limits
        .slowlog_file
        .as_deref()
        .filter(|_| limits.slowlog.is_some())
        .map(log::open_slow_log);
    Ok(Logs {
        access: access.transpose()?,
        slow: slow.transpose()?,
    })
}

/// Room in the scoreboard for worker processes.
pub(super) fn capacity(processes: u32) -> u32 {
    // A reload adds one to those that there are, even if one of them has only started.
    (MAX_GENERATIONS + 1) * processes + SPARE_SLOTS
}

/// PHP workers of each of `processes` worker processes.
pub(super) fn threads(config: &PoolConfig, processes: u32) -> u32 {
    (config.max_children / processes.max(1)).max(1)
}

/// The socket by which worker processes pass connections to each other, with room for many of them.
pub(super) fn handover_socket() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let (send, receive) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    // The second is possible without privileges, but only as far as net.core.wmem_max.
    sockopt::set_socket_send_buffer_size_force(&send, HANDOVER_BUFFER)
        .or_else(|_| sockopt::set_socket_send_buffer_size(&send, HANDOVER_BUFFER))?;
    Ok((high_fd(send), high_fd(receive)))
}

/// For worker processes that have died and are not reaped yet when their successors start.
const SPARE_SLOTS: u32 = 8;

/// Bytes of connections on their way.
const HANDOVER_BUFFER: usize = 8 << 20;

/// One that serves, one that starts, and two that still finish long requests: more would take too much memory and too
/// many database connections. Further replacements wait.
pub(super) const MAX_GENERATIONS: u32 = 4;
