//! Listening sockets: bound once by the supervisor, inherited by everybody else.

mod inet;
mod inherited;
mod permissions;
mod unix;

use std::ffi::OsString;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::net::sockopt::set_tcp_nodelay;
use socket2::{Domain, Socket, Type};

pub(crate) use self::inherited::{Copies, Export, Inherited};
pub(crate) use self::unix::SocketFile;

use self::inet::{InetAddress, bind_tcp};
use self::permissions::SocketPermissions;
use self::unix::bind_unix;
use crate::config::{ListenAddress, PoolConfig, SocketOptions};
use crate::descriptor::high_fd;
use crate::errno::SystemError;
use crate::log;
use crate::users::UserError;

/// Listening sockets of a pool. When the last pool that has a socket drops it, the file of a Unix one is removed.
#[derive(Debug)]
pub(crate) struct ListeningSockets {
    sockets: Vec<Arc<ListeningSocket>>,
}

/// One listening socket.
#[derive(Debug)]
struct ListeningSocket {
    fd: OwnedFd,
    /// Where it really listens: port 0 has become a number, and a name an address.
    address: ListenAddress,
    /// None for TCP, and for what systemd has made.
    file: Option<SocketFile>,
    /// The file goes with it. One that was inherited is of others too until all is settled.
    owns_file: AtomicBool,
    /// systemd has made it.
    activated: bool,
}

/// The sockets of one pool.
#[derive(Debug)]
pub(crate) struct PoolSockets {
    /// `listen`
    pub(crate) listen: ListeningSockets,
    /// `pm.status_listen`
    pub(crate) status: Option<ListeningSockets>,
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
    /// A path that no socket can have.
    #[error(
        "unable to bind listening socket for address '{path}': the path of a socket has at most {max} bytes, none of them \
         NUL; this one has {length}", max = unix::LONGEST
    )]
    Path {
        /// The path.
        path: PathBuf,
        /// Its length.
        length: usize,
    },
    /// Not a port.
    #[error("invalid port value '{0}'")]
    Port(String),
    /// A host that has no address.
    #[error("getaddrinfo: {0}")]
    Lookup(String),
    /// An owner, group or member of an access list that does not exist.
    #[error(transparent)]
    User(#[from] UserError),
    /// `socket()`, `bind()` or what belongs to it.
    #[error("unable to bind listening socket for address '{address}': {source}")]
    Bind {
        /// The address, as configured.
        address: String,
        /// The system's answer.
        source: SystemError,
    },
    /// `listen()`.
    #[error("failed to listen to address '{address}': {source}")]
    Listen {
        /// The address, as configured.
        address: String,
        /// The system's answer.
        source: SystemError,
    },
    /// `listen.owner`, `listen.group`
    #[error("[pool {pool}] failed to chown() the socket '{}': {source}", path.display())]
    ChangeOwner {
        /// The pool.
        pool: String,
        /// The socket's file.
        path: PathBuf,
        /// The system's answer.
        source: SystemError,
    },
    /// `listen.mode`
    #[error("[pool {pool}] failed to chmod() the socket '{}': {source}", path.display())]
    ChangeMode {
        /// The pool.
        pool: String,
        /// The socket's file.
        path: PathBuf,
        /// The system's answer.
        source: SystemError,
    },
    /// `listen.acl_users`, `listen.acl_groups`
    #[error("[pool {pool}] failed to write the ACL of the socket '{}': {source}", path.display())]
    AccessList {
        /// The pool.
        pool: String,
        /// The socket's file.
        path: PathBuf,
        /// The system's answer.
        source: SystemError,
    },
}

impl SocketError {
    fn is_in_use(&self) -> bool {
        match self {
            Self::InUse(_) => true,
            Self::Bind { source, .. } | Self::Listen { source, .. } => {
                source.0.kind() == io::ErrorKind::AddrInUse
            }
            _ => false,
        }
    }
}

/// Binds what all pools listen at, or nothing. Pools that come to the same address share its socket, as under php-fpm;
/// sockets that are there already are used. Those that nobody wants come back: [`settle`](PoolSockets::settle) and
/// [`close_unused`](Inherited::close_unused) are to be called once nothing can fail any more.
pub(crate) fn bind_pools(
    pools: &[PoolConfig],
    inherited: Inherited,
) -> Result<(Vec<PoolSockets>, Inherited), SocketError> {
    let mut binder = Binder::new(inherited);
    let mut bound = Vec::with_capacity(pools.len());
    for pool in pools {
        let listen = binder.bind(&pool.name, &pool.listen, &pool.socket)?;
        let status =
            pool.status.listen.as_ref().map(|address| {
                binder.bind(&pool.name, std::slice::from_ref(address), &pool.socket)
            });
        bound.push(PoolSockets {
            listen,
            status: status.transpose()?,
        });
    }
    Ok((bound, binder.inherited))
}

impl PoolSockets {
    /// The files of sockets that were inherited go with them from now on.
    pub(crate) fn settle(&self) {
        let all = std::iter::once(&self.listen).chain(&self.status);
        for socket in all.flat_map(|sockets| &sockets.sockets) {
            socket.owns_file.store(true, Ordering::Relaxed);
        }
    }
}

impl ListeningSockets {
    /// Binds all that one pool listens at, or nothing.
    #[cfg(test)]
    pub(crate) fn bind(pool: &PoolConfig) -> Result<Self, SocketError> {
        Binder::new(Inherited::none()).bind(&pool.name, &pool.listen, &pool.socket)
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
        if let Some(file) = self.file.as_ref().filter(|_| *self.owns_file.get_mut()) {
            file.remove();
        }
    }
}

/// Knows what is bound already.
struct Binder {
    known: Vec<Arc<ListeningSocket>>,
    inherited: Inherited,
    /// How long somebody else may listen where we are to.
    patience: Instant,
}

impl Binder {
    fn new(inherited: Inherited) -> Self {
        Self {
            known: Vec::new(),
            inherited,
            patience: Instant::now() + OTHERS_END,
        }
    }

    fn bind(
        &mut self,
        pool: &str,
        addresses: &[ListenAddress],
        options: &SocketOptions,
    ) -> Result<ListeningSockets, SocketError> {
        match addresses.len() {
            0 => return Err(SocketError::None),
            1..=MAX_LISTENERS => {}
            count => return Err(SocketError::TooMany(count)),
        }
        warn_of_somaxconn(pool, options.backlog);
        let mut sockets: Vec<Arc<ListeningSocket>> = Vec::with_capacity(addresses.len());
        for address in addresses {
            let socket = match address {
                ListenAddress::Tcp(address) => {
                    self.inet(*address, &address.to_string(), options.backlog)
                }
                ListenAddress::Inet(text) => InetAddress::parse(text)?
                    .try_each(|address| self.inet(address, text, options.backlog)),
                ListenAddress::Unix(path) => self.unix(pool, path, options),
            }?;
            if !sockets.iter().any(|other| Arc::ptr_eq(other, &socket)) {
                sockets.push(socket);
            }
        }
        Ok(ListeningSockets { sockets })
    }

    /// `name` is the address as configured.
    fn inet(
        &mut self,
        address: SocketAddr,
        name: &str,
        backlog: i32,
    ) -> Result<Arc<ListeningSocket>, SocketError> {
        if let Some(socket) = self.existing(ListenAddress::Tcp(address), backlog) {
            return Ok(socket);
        }
        let (socket, real) = self.outwait(|| bind_tcp(address, name, backlog))?;
        Ok(self.keep(ListeningSocket {
            fd: high_fd(socket.into()),
            address: ListenAddress::Tcp(real),
            file: None,
            owns_file: AtomicBool::new(true),
            activated: false,
        }))
    }

    fn unix(
        &mut self,
        pool: &str,
        path: &Path,
        options: &SocketOptions,
    ) -> Result<Arc<ListeningSocket>, SocketError> {
        let permissions = SocketPermissions::resolve(pool, options)?;
        // The pool process may have to remove the file from another directory.
        let path = std::path::absolute(path).map_err(|source| SocketError::Bind {
            address: path.display().to_string(),
            source: source.into(),
        })?;
        if let Some(socket) = self.existing(ListenAddress::Unix(path.clone()), options.backlog) {
            return Ok(socket);
        }
        let (socket, file) = self.outwait(|| bind_unix(&path, &permissions, options.backlog))?;
        Ok(self.keep(ListeningSocket {
            fd: high_fd(socket.into()),
            address: ListenAddress::Unix(path),
            file: Some(file),
            owns_file: AtomicBool::new(true),
            activated: false,
        }))
    }

    /// Tries again for a moment if somebody listens there: a server whose supervisor was killed goes without delay, but not at
    /// once.
    fn outwait<T>(&self, bind: impl Fn() -> Result<T, SocketError>) -> Result<T, SocketError> {
        loop {
            match bind() {
                Err(error) if error.is_in_use() && Instant::now() < self.patience => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                result => return result,
            }
        }
    }

    /// A socket at this address that another pool has, or that was inherited.
    fn existing(&mut self, address: ListenAddress, backlog: i32) -> Option<Arc<ListeningSocket>> {
        let key = key_of(&address);
        let known = self
            .known
            .iter()
            .find(|socket| key_of(&socket.address) == key);
        if let Some(socket) = known {
            return Some(Arc::clone(socket));
        }
        let found = self.inherited.take(&key)?;
        let file = match &address {
            ListenAddress::Unix(path) if !found.activated => SocketFile::new(path.clone()).ok(),
            _ => None,
        };
        if !matches!(address, ListenAddress::Unix(_)) {
            // Whoever made it may not know what a page of 50 KB takes without.
            let _ = set_tcp_nodelay(&found.fd, true);
        }
        if !found.activated {
            // listen.backlog may be another one now; php-fpm takes a restart to see that.
            let _ = rustix::net::listen(&found.fd, backlog);
        }
        Some(self.keep(ListeningSocket {
            fd: found.fd,
            address,
            file,
            owns_file: AtomicBool::new(false),
            activated: found.activated,
        }))
    }

    fn keep(&mut self, socket: ListeningSocket) -> Arc<ListeningSocket> {
        let socket = Arc::new(socket);
        self.known.push(Arc::clone(&socket));
        socket
    }
}

/// An address as php-fpm writes it in `FPM_SOCKETS`: IPv6 without brackets.
fn key_of(address: &ListenAddress) -> OsString {
    match address {
        ListenAddress::Tcp(address) => format!("{}:{}", address.ip(), address.port()).into(),
        ListenAddress::Inet(text) => text.into(),
        ListenAddress::Unix(path) => path.as_os_str().to_owned(),
    }
}

/// The kernel takes less without a word.
fn warn_of_somaxconn(pool: &str, backlog: i32) {
    // Of the default, nobody has asked for so much.
    if backlog == SocketOptions::default().backlog {
        return;
    }
    let limit = std::fs::read_to_string("/proc/sys/net/core/somaxconn");
    let limit: Option<i32> = limit.ok().and_then(|limit| limit.trim().parse().ok());
    if let Some(limit) = limit.filter(|&limit| limit < backlog) {
        log::warning(format_args!(
            "[pool {pool}] listen.backlog = {backlog} is cut down to {limit} by net.core.somaxconn: raise it with sysctl"
        ));
    }
}

/// Nonblocking and close-on-exec.
fn new_socket(domain: Domain) -> io::Result<Socket> {
    Socket::new(domain, Type::STREAM.nonblocking().cloexec(), None)
}

impl std::fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Inet(text) => text.fmt(f),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}

/// For how long a server that is ending may still be in the way.
const OTHERS_END: Duration = Duration::from_millis(500);

/// Leaves room for the other descriptors of `Start`.
const MAX_LISTENERS: usize = super::messages::MAX_DESCRIPTORS - 3;

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, TcpListener, TcpStream};
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::MetadataExt;
    use std::os::unix::net::{UnixListener, UnixStream};
    use std::process::Command;

    use super::*;

    fn pool(addresses: &[ListenAddress]) -> PoolConfig {
        PoolConfig::new("www".to_owned(), addresses.to_vec(), 1)
    }

    fn bind(addresses: &[ListenAddress]) -> Result<Vec<ListenAddress>, SocketError> {
        ListeningSockets::bind(&pool(addresses)).map(|bound| bound.addresses().cloned().collect())
    }

    fn any_port(ip: &str) -> ListenAddress {
        ListenAddress::Tcp(SocketAddr::new(ip.parse().expect("an address"), 0))
    }

    #[test]
    fn port_zero_becomes_a_real_one() {
        let bound = ListeningSockets::bind(&pool(&[any_port("127.0.0.1"), any_port("::1")]))
            .expect("free ports");
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
            ListeningSockets::bind(&pool(&[ListenAddress::Unix(path.clone())])).expect("free name");
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
        let elsewhere = directory.path().join("elsewhere");
        std::os::unix::fs::symlink(&elsewhere, &path).expect("free name");
        assert!(bind(&address).is_ok(), "a link to nowhere is replaced");
        assert!(!elsewhere.exists());
        std::fs::write(&path, "precious").expect("writable");
        assert!(matches!(bind(&address), Err(SocketError::NotASocket(_))));
        assert!(path.exists());
    }

    #[test]
    fn who_listens_there_and_is_about_to_end_is_waited_for() {
        let directory = tempfile::tempdir().expect("tempdir");
        let path = directory.path().join("a.sock");
        let unix = UnixListener::bind(&path).expect("free name");
        let tcp = TcpListener::bind("127.0.0.1:0").expect("free port");
        let address = ListenAddress::Tcp(tcp.local_addr().expect("bound"));
        let ends = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(100));
            drop((unix, tcp));
        });
        assert!(bind(&[ListenAddress::Unix(path), address]).is_ok());
        ends.join().expect("it has ended");
    }

    #[test]
    fn file_of_somebody_else_is_left_alone() {
        let directory = tempfile::tempdir().expect("tempdir");
        let path = directory.path().join("a.sock");
        let bound =
            ListeningSockets::bind(&pool(&[ListenAddress::Unix(path.clone())])).expect("free name");
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

    #[test]
    fn pools_that_come_to_the_same_address_share_its_socket() {
        let directory = tempfile::tempdir().expect("tempdir");
        let path = directory.path().join("a.sock");
        let address = ListenAddress::Unix(path.clone());
        let mut pools = vec![pool(&[address.clone(), address.clone()]), pool(&[address])];
        let port = free_port();
        pools[0].status.listen = Some(ListenAddress::Inet(format!("127.0.0.1:{port}")));
        pools[1].status.listen = Some(ListenAddress::Tcp(SocketAddr::from(([127, 0, 0, 1], port))));
        let (mut bound, _) = bind_pools(&pools, Inherited::none()).expect("free names");
        let numbers = |sockets: &ListeningSockets| -> Vec<i32> {
            sockets.descriptors().map(|fd| fd.as_raw_fd()).collect()
        };
        let status = |pool: &PoolSockets| numbers(pool.status.as_ref().expect("configured"));
        assert_eq!(numbers(&bound[0].listen).len(), 1);
        assert_eq!(numbers(&bound[0].listen), numbers(&bound[1].listen));
        assert_eq!(status(&bound[0]), status(&bound[1]));
        bound.remove(0);
        UnixStream::connect(&path).expect("the other pool listens still");
        drop(bound);
        assert!(!path.exists());
    }

    #[test]
    fn a_path_that_is_too_long_is_refused_with_its_length() {
        let path = PathBuf::from(format!("/tmp/{}", "x".repeat(103)));
        let error = bind(&[ListenAddress::Unix(path)]).expect_err("108 bytes");
        let text = error.to_string();
        assert!(
            text.contains("at most 107 bytes") && text.ends_with("this one has 108"),
            "{text}"
        );
    }

    #[test]
    fn an_address_in_use_is_reported_in_php_fpms_words() {
        let other = TcpListener::bind("127.0.0.1:0").expect("free port");
        let address = other.local_addr().expect("bound").to_string();
        let error = bind(&[ListenAddress::Inet(address.clone())]).expect_err("in use");
        assert_eq!(
            error.to_string(),
            format!(
                "unable to bind listening socket for address '{address}': Address already in use (98)"
            )
        );
    }

    #[test]
    fn an_owner_that_does_not_exist_leaves_no_file_behind() {
        let directory = tempfile::tempdir().expect("tempdir");
        let path = directory.path().join("a.sock");
        let mut pool = pool(&[ListenAddress::Unix(path.clone())]);
        pool.socket.owner = Some(crate::config::Name::Name("aaaaaa".to_owned()));
        let error = ListeningSockets::bind(&pool).expect_err("no such user");
        assert!(matches!(error, SocketError::User(_)));
        assert!(!path.exists());
    }

    #[test]
    fn an_inherited_socket_is_used_and_an_unused_one_goes_away() {
        let directory = tempfile::tempdir().expect("tempdir");
        let path = directory.path().join("a.sock");
        let inherit = |activated| {
            let listener = UnixListener::bind(&path).expect("free name");
            Inherited::with(listener.into(), path.to_str().expect("UTF-8"), activated)
        };
        let pools = [pool(&[ListenAddress::Unix(path.clone())])];
        let others = [pool(&[any_port("127.0.0.1")])];

        drop(bind_pools(&pools, inherit(false)).expect("it is there"));
        assert!(path.exists(), "nothing is settled");
        std::fs::remove_file(&path).expect("ours to remove");
        let settle = |pools: &[PoolConfig], inherited| {
            let (bound, unused) = bind_pools(pools, inherited).expect("free names");
            bound.iter().for_each(PoolSockets::settle);
            unused.close_unused();
            bound
        };
        drop(settle(&pools, inherit(false)));
        assert!(!path.exists(), "it has become ours");
        drop(settle(&others, inherit(false)));
        assert!(!path.exists(), "nobody wants it");

        let bound = settle(&pools, inherit(true));
        UnixStream::connect(&path).expect("it listens");
        assert!(bound[0].listen.files().is_empty());
        drop(bound);
        assert!(path.exists(), "systemd's own");
        std::fs::remove_file(&path).expect("ours to remove");
        drop(settle(&others, inherit(true)));
        assert!(path.exists(), "systemd's own");
    }

    #[test]
    fn another_program_inherits_them_by_exec_until_the_export_is_dropped() {
        let directory = tempfile::tempdir().expect("tempdir");
        let path = directory.path().join("a.sock");
        let bound =
            ListeningSockets::bind(&pool(&[ListenAddress::Unix(path.clone()), any_port("::1")]))
                .expect("free names");
        let numbers: Vec<i32> = bound.descriptors().map(|fd| fd.as_raw_fd()).collect();
        let port = match bound.addresses().nth(1) {
            Some(ListenAddress::Tcp(address)) => address.port(),
            other => panic!("{other:?}"),
        };
        let look = |command: &mut Command| {
            command.args([
                "-c",
                "echo \"$FPM_SOCKETS\"; for fd; do [ -S /proc/self/fd/$fd ] && echo open; done; true",
                "sh",
            ]);
            let output = command
                .args(numbers.iter().map(ToString::to_string))
                .output();
            String::from_utf8(output.expect("sh runs").stdout).expect("UTF-8")
        };
        let export = Export::new([&bound]).expect("open");
        let mut command = Command::new("sh");
        export.apply(&mut command);
        let (first, second) = (numbers[0], numbers[1]);
        assert_eq!(
            look(&mut command),
            format!(
                "{}={first},::1:{port}={second}\nopen\nopen\n",
                path.display()
            )
        );
        drop(export);
        assert_eq!(look(&mut Command::new("sh")), "\n");
    }

    fn free_port() -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").expect("free port");
        listener.local_addr().expect("bound").port()
    }
}
