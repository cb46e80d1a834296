//! What the command line says, checked, in the form that processes hand each other.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Everything a pool needs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct PoolConfig {
    /// The pool's name, as in log lines: `www`.
    pub(crate) name: String,
    /// Addresses to listen at, one or more.
    pub(crate) listen: Vec<ListenAddress>,
    /// Number of PHP workers: worker processes on NTS, PHP threads of one worker process on ZTS.
    pub(crate) workers: u32,
    /// PHP's own settings.
    pub(crate) ini: IniConfig,
    /// Leaves `pcntl_*` and `chroot` on where Debian's php-fpm has none.
    pub(crate) pcntl: bool,
    /// Limits on what clients may ask for.
    pub(crate) limits: Limits,
}

/// One address to listen at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ListenAddress {
    /// A TCP socket.
    Tcp(SocketAddr),
    /// A Unix stream socket.
    Unix(PathBuf),
}

/// Which php.ini is read, and what is put on top of it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct IniConfig {
    /// `-c`: a php.ini file, or the directory that holds one.
    pub(crate) path: Option<PathBuf>,
    /// `-n`: no php.ini at all.
    pub(crate) no_ini: bool,
    /// `-d name=value`, in order; they win over php.ini.
    pub(crate) defines: Vec<(String, String)>,
}

/// Limits on clients; each has a command line option of the same name.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Limits {
    /// Bytes of FCGI_PARAMS content in one request.
    pub(crate) params_size: usize,
    /// Number of name-value pairs in one request.
    pub(crate) params_count: usize,
    /// A body up to this many bytes is complete in memory before a worker is taken; a bigger one is streamed.
    pub(crate) body_buffer: usize,
    /// Open connections of the pool.
    pub(crate) connections: u32,
    /// Requests of the pool that wait for a worker; one more is answered FCGI_OVERLOADED.
    pub(crate) queue: u32,
    /// Requests that may be open at once on one connection.
    pub(crate) requests_per_connection: u32,
    /// Time from the first byte of a request to the end of its params (and of a body that is held in memory).
    pub(crate) request_header_timeout: Duration,
    /// Response bytes that may wait for a slow client before the script has to wait too.
    pub(crate) output_buffer: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            params_size: 1 << 20,
            params_count: 10_000,
            body_buffer: 1 << 20,
            connections: 20_000,
            queue: 4096,
            requests_per_connection: 128,
            request_header_timeout: Duration::from_secs(60),
            output_buffer: 256 << 10,
        }
    }
}
