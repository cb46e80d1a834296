//! Unix sockets: their files, stale ones, live ones.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use socket2::{Domain, SockAddr, Socket};

use super::permissions::SocketPermissions;
use super::{SocketError, new_socket};

/// A Unix socket in the file system, recognizable as ours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl SocketFile {
    /// What is at `path` now.
    pub(super) fn new(path: PathBuf) -> io::Result<Self> {
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

/// Binds at `path`, which is absolute, and listens.
pub(super) fn bind_unix(
    path: &Path,
    permissions: &SocketPermissions<'_>,
    backlog: i32,
) -> Result<(Socket, SocketFile), SocketError> {
    let length = path.as_os_str().len();
    if length > LONGEST || path.as_os_str().as_bytes().contains(&0) {
        return Err(SocketError::Path {
            path: path.to_owned(),
            length,
        });
    }
    let failed = |source: io::Error| SocketError::Bind {
        address: path.display().to_string(),
        source: source.into(),
    };
    let address = SockAddr::unix(path).map_err(failed)?;
    remove_stale(path, &address)?;
    let socket = new_socket(Domain::UNIX).map_err(failed)?;
    socket.bind(&address).map_err(failed)?;
    let listening = permissions.apply(path).and_then(|stat| {
        socket
            .listen(backlog)
            .map_err(|source| SocketError::Listen {
                address: path.display().to_string(),
                source: source.into(),
            })?;
        Ok(stat)
    });
    match listening {
        Ok(stat) => {
            let file = SocketFile {
                path: path.to_owned(),
                device: stat.st_dev,
                inode: stat.st_ino,
            };
            Ok((socket, file))
        }
        Err(error) => {
            // It is of no use to anybody.
            if let Ok(file) = SocketFile::new(path.to_owned()) {
                file.remove();
            }
            Err(error)
        }
    }
}

/// Removes a socket that nobody listens at any more.
fn remove_stale(path: &Path, address: &SockAddr) -> Result<(), SocketError> {
    let failed = |source: io::Error| SocketError::Bind {
        address: path.display().to_string(),
        source: source.into(),
    };
    let metadata = match path.symlink_metadata() {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    let is_link = metadata.file_type().is_symlink();
    if !is_link && !metadata.file_type().is_socket() {
        return Err(SocketError::NotASocket(path.to_owned()));
    }
    // Nonblocking: a server whose backlog is full answers EAGAIN rather than let us wait.
    match new_socket(Domain::UNIX).map_err(failed)?.connect(address) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).map_err(failed)
        }
        // A link that leads nowhere, or to a file that is no socket: the link goes, not what it leads to.
        Err(error) if error.kind() == io::ErrorKind::NotFound && is_link => {
            std::fs::remove_file(path).map_err(failed)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(failed(error)),
        _ => Err(SocketError::InUse(path.to_owned())),
    }
}

/// Bytes of `sun_path` but for the one that ends it.
pub(super) const LONGEST: usize = 107;
