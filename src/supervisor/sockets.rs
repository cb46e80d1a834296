//! Listening sockets: bound once by the supervisor, inherited by everybody else.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use socket2::{Domain, SockAddr, Socket, Type};

use crate::config::ListenAddress;
use crate::descriptor::high_fd;

/// All listening sockets of a pool. Dropping them removes the files of the Unix ones.
#[derive(Debug)]
pub(crate) struct ListeningSockets {
    sockets: Vec<ListeningSocket>,
}

/// One listening socket.
#[derive(Debug)]
struct ListeningSocket {
    fd: OwnedFd,
    /// Where it really listens: port 0 has become a number.
    address: ListenAddress,
    file: Option<SocketFile>,
}

/// A Unix socket in the file system, recognizable as ours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

/// Why an address cannot be listened at.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SocketError {
    /// Nothing to listen at.
    #[error("no listen address has been defined")]
    None,
    /// More addresses than one message between processes carries.
    #[error("{0} listen addresses; at most {MAX_LISTENERS} are possible")]
    TooMany(usize),
    /// A server is there already.
    #[error("Another FPM instance seems to already listen on {0}")]
    InUse(PathBuf),
    /// Something else than a socket has this name, and we do not delete it.
    #[error(
        "unable to bind listening socket for address '{0}': the file exists and is not a socket"
    )]
    NotASocket(PathBuf),
    /// `socket()`, `bind()` or what belongs to it.
    #[error("unable to bind listening socket for address '{address}': {source}")]
    Bind {
        /// The address.
        address: String,
        /// The system's answer.
        source: io::Error,
    },
    /// `listen()`.
    #[error("failed to listen to address '{address}': {source}")]
    Listen {
        /// The address.
        address: String,
        /// The system's answer.
        source: io::Error,
    },
}

impl ListeningSockets {
    /// Binds all of `addresses`, or none.
    pub(crate) fn bind(addresses: &[ListenAddress]) -> Result<Self, SocketError> {
        match addresses.len() {
            0 => return Err(SocketError::None),
            1..=MAX_LISTENERS => {}
            count => return Err(SocketError::TooMany(count)),
        }
        let mut bound = Self {
            sockets: Vec::with_capacity(addresses.len()),
        };
        for address in addresses {
            bound.sockets.push(match address {
                ListenAddress::Tcp(address) => bind_tcp((*address).into())?,
                ListenAddress::Unix(path) => bind_unix(path)?,
            });
        }
        Ok(bound)
    }

    /// Where they listen.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = &ListenAddress> {
        self.sockets.iter().map(|socket| &socket.address)
    }

    /// Their descriptors.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.sockets.iter().map(|socket| socket.fd.as_fd())
    }

    /// The files of the Unix ones.
    pub(crate) fn files(&self) -> Vec<SocketFile> {
        self.sockets
            .iter()
            .filter_map(|socket| socket.file.clone())
            .collect()
    }
}

impl Drop for ListeningSocket {
    fn drop(&mut self) {
        if let Some(file) = &self.file {
            file.remove();
        }
    }
}

impl SocketFile {
    fn new(path: PathBuf) -> io::Result<Self> {
        let metadata = path.symlink_metadata()?;
        Ok(Self {
            path,
            device: metadata.dev(),
            inode: metadata.ino(),
        })
    }

    /// Removes the file, unless somebody has put another one in its place.
    pub(crate) fn remove(&self) {
        let same = |metadata: std::fs::Metadata| {
            metadata.dev() == self.device && metadata.ino() == self.inode
        };
        if self.path.symlink_metadata().is_ok_and(same) {
            // Whoever keeps us from removing it has a reason.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn bind_tcp(address: SockAddr) -> Result<ListeningSocket, SocketError> {
    let name = name(&address);
    let failed = |source| SocketError::Bind {
        address: name.clone(),
        source,
    };
    let socket = new_socket(address.domain()).map_err(failed)?;
    socket.set_reuse_address(true).map_err(failed)?;
    // Accepted sockets inherit it, which saves a system call for each.
    socket.set_tcp_nodelay(true).map_err(failed)?;
    socket.bind(&address).map_err(failed)?;
    socket
        .listen(BACKLOG)
        .map_err(|source| SocketError::Listen {
            address: name.clone(),
            source,
        })?;
    let real = socket.local_addr().map_err(failed)?.as_socket();
    let real = real
        .or_else(|| address.as_socket())
        .ok_or_else(|| failed(io::ErrorKind::Unsupported.into()))?;
    Ok(ListeningSocket {
        fd: high_fd(socket.into()),
        address: ListenAddress::Tcp(real),
        file: None,
    })
}

fn bind_unix(path: &Path) -> Result<ListeningSocket, SocketError> {
    let failed = |source| SocketError::Bind {
        address: path.display().to_string(),
        source,
    };
    // The pool process may have to remove the file from another directory.
    let path = std::path::absolute(path).map_err(failed)?;
    let address = SockAddr::unix(&path).map_err(failed)?;
    remove_stale(&path, &address)?;
    let socket = new_socket(Domain::UNIX).map_err(failed)?;
    socket.bind(&address).map_err(failed)?;
    let bound = ListeningSocket {
        fd: high_fd(socket.into()),
        address: ListenAddress::Unix(path.clone()),
        file: Some(SocketFile::new(path.clone()).map_err(failed)?),
    };
    // Nobody can connect before listen(), so there is no moment at which the umask counts.
    let mode = std::fs::Permissions::from_mode(MODE);
    std::fs::set_permissions(&path, mode).map_err(failed)?;
    rustix::net::listen(&bound.fd, BACKLOG).map_err(|errno| SocketError::Listen {
        address: path.display().to_string(),
        source: errno.into(),
    })?;
    Ok(bound)
}

/// Removes a socket that nobody listens at any more.
fn remove_stale(path: &Path, address: &SockAddr) -> Result<(), SocketError> {
    let failed = |source| SocketError::Bind {
        address: path.display().to_string(),
        source,
    };
    let metadata = match path.symlink_metadata() {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    if !metadata.file_type().is_socket() {
        return Err(SocketError::NotASocket(path.to_owned()));
    }
    // Nonblocking: a server whose backlog is full answers EAGAIN rather than let us wait.
    match new_socket(Domain::UNIX).map_err(failed)?.connect(address) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).map_err(failed)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(failed(error)),
        _ => Err(SocketError::InUse(path.to_owned())),
    }
}

/// Nonblocking and close-on-exec.
fn new_socket(domain: Domain) -> io::Result<Socket> {
    Socket::new(domain, Type::STREAM.nonblocking().cloexec(), None)
}

fn name(address: &SockAddr) -> String {
    address
        .as_socket()
        .map_or_else(|| format!("{address:?}"), |address| address.to_string())
}

impl std::fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}

/// php-fpm's `listen.backlog`; the kernel cuts it down to net.core.somaxconn.
const BACKLOG: i32 = 511;

/// php-fpm's `listen.mode`.
const MODE: u32 = 0o660;

/// Leaves room for the other descriptors of `Start`.
const MAX_LISTENERS: usize = super::messages::MAX_DESCRIPTORS - 3;

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, TcpStream};
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    fn bind(addresses: &[ListenAddress]) -> Result<Vec<ListenAddress>, SocketError> {
        ListeningSockets::bind(addresses).map(|bound| bound.addresses().cloned().collect())
    }

    fn any_port(ip: &str) -> ListenAddress {
        ListenAddress::Tcp(SocketAddr::new(ip.parse().expect("an address"), 0))
    }

    #[test]
    fn port_zero_becomes_a_real_one() {
        let bound =
            ListeningSockets::bind(&[any_port("127.0.0.1"), any_port("::1")]).expect("free ports");
        for (address, fd) in bound.addresses().zip(bound.descriptors()) {
            let ListenAddress::Tcp(address) = address else {
                panic!("{address:?} is not TCP")
            };
            assert_ne!(address.port(), 0);
            TcpStream::connect(address).expect("it listens");
            let accepted = rustix::net::accept(fd).expect("the connection is there");
            assert!(rustix::net::sockopt::tcp_nodelay(&accepted).expect("TCP"));
        }
    }

    #[test]
    fn unix_socket_has_php_fpms_mode_and_goes_away() {
        let directory = tempfile::tempdir().expect("tempdir");
        let path = directory.path().join("a.sock");
        let bound =
            ListeningSockets::bind(&[ListenAddress::Unix(path.clone())]).expect("free name");
        assert_eq!(path.metadata().expect("exists").mode() & 0o777, 0o660);
        UnixStream::connect(&path).expect("it listens");
        drop(bound);
        assert!(!path.exists());
    }

    #[test]
    fn stale_socket_is_replaced_and_a_live_one_is_not() {
        let directory = tempfile::tempdir().expect("tempdir");
        let path = directory.path().join("a.sock");
        let address = [ListenAddress::Unix(path.clone())];
        let other = UnixListener::bind(&path).expect("free name");
        assert!(matches!(bind(&address), Err(SocketError::InUse(_))));
        assert!(path.exists());
        drop(other);
        assert!(bind(&address).is_ok());
        std::fs::write(&path, "precious").expect("writable");
        assert!(matches!(bind(&address), Err(SocketError::NotASocket(_))));
        assert!(path.exists());
    }

    #[test]
    fn file_of_somebody_else_is_left_alone() {
        let directory = tempfile::tempdir().expect("tempdir");
        let path = directory.path().join("a.sock");
        let bound =
            ListeningSockets::bind(&[ListenAddress::Unix(path.clone())]).expect("free name");
        let other = directory.path().join("b.sock");
        let _listener = UnixListener::bind(&other).expect("free name");
        std::fs::rename(&other, &path).expect("same directory");
        drop(bound);
        assert!(path.exists());
    }

    #[test]
    fn all_or_none() {
        let directory = tempfile::tempdir().expect("tempdir");
        let path = directory.path().join("a.sock");
        let missing = directory.path().join("missing/b.sock");
        let result = bind(&[
            ListenAddress::Unix(path.clone()),
            ListenAddress::Unix(missing),
        ]);
        assert!(matches!(result, Err(SocketError::Bind { .. })));
        assert!(!path.exists());
        assert!(matches!(bind(&[]), Err(SocketError::None)));
    }
}
