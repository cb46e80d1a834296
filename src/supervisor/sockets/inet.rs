//! TCP addresses as php-fpm.conf has them, and TCP sockets.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};

use rustix::net::sockopt::set_tcp_nodelay;
use socket2::{Domain, SockAddr};

use super::{SocketError, new_socket};
use crate::log;

/// `host:port`, `[address]:port` or `port`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct InetAddress<'a> {
    /// None for all addresses.
    host: Option<&'a str>,
    port: u16,
}

impl<'a> InetAddress<'a> {
    pub(super) fn parse(text: &'a str) -> Result<Self, SocketError> {
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) => (Some(host), port),
            None => (None, text),
        };
        let number = port.parse().ok().filter(|&port| port != 0);
        let Some(number) = number else {
            return Err(SocketError::Port(port.to_owned()));
        };
        let without_brackets = |host: &'a str| {
            host.strip_prefix('[')
                .and_then(|host| host.strip_suffix(']'))
                .unwrap_or(host)
        };
        Ok(Self {
            host: host.map(without_brackets).filter(|host| !host.is_empty()),
            port: number,
        })
    }

    /// Tries what it may mean, one after the other, until `open` succeeds, as php-fpm does.
    pub(super) fn try_each<T>(
        self,
        mut open: impl FnMut(SocketAddr) -> Result<T, SocketError>,
    ) -> Result<T, SocketError> {
        let Some(host) = self.host else {
            // The first takes IPv4 too, unless the system has no IPv6 or keeps the two apart.
            return open(SocketAddr::new(
                IpAddr::V6(Ipv6Addr::UNSPECIFIED),
                self.port,
            ))
            .or_else(|_| {
                log::notice(format_args!(
                    "Failed implicitly binding to ::, retrying with 0.0.0.0"
                ));
                open(SocketAddr::new(
                    IpAddr::V4(Ipv4Addr::UNSPECIFIED),
                    self.port,
                ))
            });
        };
        let found = (host, self.port).to_socket_addrs();
        let found = found.map_err(|error| SocketError::Lookup(lookup_failure(&error)))?;
        let mut opened: Option<T> = None;
        let mut failed = None;
        for address in found {
            let ip = address.ip();
            if opened.is_some() {
                log::warning(format_args!(
                    "Found multiple addresses for {host}, {ip} ignored"
                ));
                continue;
            }
            match open(address) {
                Ok(socket) => {
                    log::debug(format_args!(
                        "Found address for {host}, socket opened on {ip}"
                    ));
                    opened = Some(socket);
                }
                Err(error) => {
                    // The last one is the caller's to report.
                    if let Some(earlier) = failed.replace(error) {
                        log::error(format_args!("{earlier}"));
                    }
                }
            }
        }
        match (opened, failed) {
            (Some(socket), failed) => {
                if let Some(error) = failed {
                    log::error(format_args!("{error}"));
                }
                Ok(socket)
            }
            (None, Some(error)) => Err(error),
            (None, None) => Err(SocketError::Lookup("no address".to_owned())),
        }
    }
}

/// What getaddrinfo() says, without what std puts in front of it.
fn lookup_failure(error: &std::io::Error) -> String {
    let text = error.to_string();
    match text.strip_prefix("failed to lookup address information: ") {
        Some(reason) => reason.to_owned(),
        None => text,
    }
}

/// Binds and listens; `name` is the address in error messages. Answers where it really listens, too: port 0 has become a
/// number.
pub(super) fn bind_tcp(
    address: SocketAddr,
    name: &str,
    backlog: i32,
) -> Result<(socket2::Socket, SocketAddr), SocketError> {
    let failed = |source: std::io::Error| SocketError::Bind {
        address: name.to_owned(),
        source: source.into(),
    };
    let socket = new_socket(Domain::for_address(address)).map_err(failed)?;
    socket.set_reuse_address(true).map_err(failed)?;
    // Accepted sockets inherit it, which saves a system call for each.
    set_tcp_nodelay(&socket, true).map_err(|errno| failed(errno.into()))?;
    socket.bind(&SockAddr::from(address)).map_err(failed)?;
    socket
        .listen(backlog)
        .map_err(|source| SocketError::Listen {
            address: name.to_owned(),
            source: source.into(),
        })?;
    let real = socket.local_addr().map_err(failed)?.as_socket();
    Ok((socket, real.unwrap_or(address)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> (Option<&str>, u16) {
        let address = InetAddress::parse(text).unwrap();
        (address.host, address.port)
    }

    fn tried(text: &str, works: fn(SocketAddr) -> bool) -> (bool, Vec<String>) {
        let mut seen = Vec::new();
        let result = InetAddress::parse(text).unwrap().try_each(|address| {
            seen.push(address.to_string());
            match works(address) {
                true => Ok(()),
                false => Err(SocketError::Port("x".to_owned())),
            }
        });
        (result.is_ok(), seen)
    }

    #[test]
    fn hosts_and_ports_are_taken_apart() {
        assert_eq!(parsed("127.0.0.1:9000"), (Some("127.0.0.1"), 9000));
        assert_eq!(parsed("[::1]:9000"), (Some("::1"), 9000));
        assert_eq!(parsed("::1:9000"), (Some("::1"), 9000));
        assert_eq!(parsed("[::]:9000"), (Some("::"), 9000));
        assert_eq!(parsed("localhost:1"), (Some("localhost"), 1));
        assert_eq!(parsed("65535"), (None, 65535));
        assert_eq!(parsed(":9000"), (None, 9000));
    }

    #[test]
    fn impossible_ports_are_reported_in_php_fpms_words() {
        for (text, port) in [
            ("127.0.0.1:69002", "69002"),
            ("0", "0"),
            ("65536", "65536"),
            ("a:-1", "-1"),
            ("a:", ""),
            ("a:http", "http"),
        ] {
            let error = InetAddress::parse(text).unwrap_err().to_string();
            assert_eq!(error, format!("invalid port value '{port}'"));
        }
    }

    #[test]
    fn a_port_alone_means_every_address_ipv6_first() {
        assert_eq!(
            tried("9000", |_| true),
            (true, vec!["[::]:9000".to_owned()])
        );
        let both = vec!["[::]:9000".to_owned(), "0.0.0.0:9000".to_owned()];
        assert_eq!(
            tried("9000", |address| address.is_ipv4()),
            (true, both.clone())
        );
        assert_eq!(tried("9000", |_| false), (false, both));
    }

    #[test]
    fn a_name_is_looked_up_and_one_of_its_addresses_is_enough() {
        let (works, seen) = tried("localhost:9000", |_| true);
        assert!(works && seen.len() == 1, "{seen:?}");
        assert!(!tried("localhost:9000", |_| false).0);
        let error = InetAddress::parse("no-such-host.invalid:9000")
            .unwrap()
            .try_each(|_| Ok(()))
            .unwrap_err();
        assert!(error.to_string().starts_with("getaddrinfo: "), "{error}");
    }
}
