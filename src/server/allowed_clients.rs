//! `listen.allowed_clients`: who may connect over TCP.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;

use rustix::net::getpeername;

use crate::log::Level;

/// The addresses in `listen.allowed_clients`.
///
/// As in php-fpm, an entry that is no address is reported and allows nobody, even if it is the only one; an IPv4 address
/// also allows a client of an IPv6 socket that has it mapped (`::ffff:192.0.2.1`). Other than in php-fpm, all 16 bytes of
/// an IPv6 address count: php-fpm compares 12, so that `2001:db8::1` lets in all of `2001:db8::/96`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AllowedClients {
    /// None allows all.
    addresses: Option<Vec<IpAddr>>,
}

/// Something wrong in the directive, for the log at level ERROR.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AllowedClientsError {
    /// Not an address: host names and networks are not understood.
    #[error("Wrong IP address '{0}' in listen.allowed_clients")]
    WrongAddress(String),
    /// Nobody will be able to connect.
    #[error("There are no allowed addresses")]
    None,
}

impl AllowedClients {
    /// What the directive means, and what is wrong with it.
    pub(crate) fn parse(directive: Option<&str>) -> (Self, Vec<AllowedClientsError>) {
        let Some(directive) = directive else {
            return (Self { addresses: None }, Vec::new());
        };
        let (mut addresses, mut errors) = (Vec::new(), Vec::new());
        for entry in directive.split(',') {
            match entry.parse::<IpAddr>() {
                Ok(address) => addresses.push(address),
                Err(_) => errors.push(AllowedClientsError::WrongAddress(entry.to_owned())),
            }
        }
        if addresses.is_empty() {
            errors.push(AllowedClientsError::None);
        }
        let addresses = Some(addresses);
        (Self { addresses }, errors)
    }

    /// The same in a worker process of a pool, where php-fpm reports what is wrong.
    pub(crate) fn of_pool(directive: Option<&str>) -> Self {
        let (clients, errors) = Self::parse(directive);
        for error in errors {
            super::say(Level::Error, &error);
        }
        clients
    }

    /// Whether the client of an accepted connection may stay; if not, says so in the log, and the connection is to be closed.
    pub(crate) fn admits(&self, socket: impl AsFd) -> bool {
        if self.addresses.is_none() {
            return true;
        }
        let Ok(peer) = getpeername(socket) else {
            // It has gone already.
            return false;
        };
        let Some(Ok(peer)) = peer.map(SocketAddr::try_from) else {
            // Of a Unix socket.
            return true;
        };
        let is_allowed = self.allows(peer.ip());
        if !is_allowed {
            super::say(
                Level::Error,
                &format_args!(
                    "Connection disallowed: IP address '{}' has been dropped.",
                    peer.ip().to_canonical()
                ),
            );
        }
        is_allowed
    }

    /// Whether a client with this address may connect.
    pub(crate) fn allows(&self, client: IpAddr) -> bool {
        let Some(addresses) = &self.addresses else {
            return true;
        };
        let mapped = match client {
            IpAddr::V6(client) => client.to_ipv4_mapped().map(IpAddr::V4),
            IpAddr::V4(_) => None,
        };
        addresses
            .iter()
            .any(|allowed| *allowed == client || Some(*allowed) == mapped)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::net::UnixStream;

    use super::*;

    fn allows(directive: &str, client: &str) -> bool {
        AllowedClients::parse(Some(directive))
            .0
            .allows(client.parse().unwrap())
    }

    fn errors(directive: &str) -> Vec<String> {
        let (_, errors) = AllowedClients::parse(Some(directive));
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn without_the_directive_all_are_allowed() {
        let (clients, errors) = AllowedClients::parse(None);
        assert!(clients.allows("192.0.2.1".parse().unwrap()));
        assert!(errors.is_empty());
    }

    #[test]
    fn exactly_the_addresses_listed_are_allowed() {
        let list = "127.0.0.1,::1,2001:db8::1";
        for client in ["127.0.0.1", "::1", "2001:db8::1"] {
            assert!(allows(list, client), "{client}");
        }
        // The last two only differ in the last four bytes.
        for client in ["127.0.0.2", "::2", "2001:db8::2", "2001:db8::7f00:1"] {
            assert!(!allows(list, client), "{client}");
        }
        assert!(errors(list).is_empty());
    }

    #[test]
    fn an_ipv4_address_allows_its_mapped_form() {
        assert!(allows("192.0.2.1", "::ffff:192.0.2.1"));
        assert!(!allows("192.0.2.1", "::ffff:192.0.2.2"));
        // Not mapped, only alike.
        assert!(!allows("192.0.2.1", "::192.0.2.1"));
        assert!(!allows("192.0.2.1", "2001:db8::192.0.2.1"));
        // As under php-fpm: a client of an IPv4 socket has no IPv6 address.
        assert!(!allows("::ffff:192.0.2.1", "192.0.2.1"));
    }

    #[test]
    fn what_is_no_address_is_reported_and_allows_nobody() {
        assert_eq!(
            errors("xxx"),
            [
                "Wrong IP address 'xxx' in listen.allowed_clients",
                "There are no allowed addresses"
            ]
        );
        assert_eq!(errors("127.0.0.1,127.0.0.0/8").len(), 1);
        // inet_pton(), which php-fpm asks, takes no blanks and no short forms either.
        assert_eq!(
            errors("127.0.0.1, ::1"),
            ["Wrong IP address ' ::1' in listen.allowed_clients"]
        );
        assert_eq!(errors("127.1").len(), 2);
        assert_eq!(errors("").len(), 2);
        assert!(!allows("xxx", "127.0.0.1") && !allows("", "127.0.0.1"));
    }

    #[test]
    fn a_peer_is_judged_by_its_address_and_a_unix_socket_has_none() {
        let (only_other, _) = AllowedClients::parse(Some("192.0.2.1"));
        let (local, _) = AllowedClients::parse(Some("127.0.0.1"));
        let listener = TcpListener::bind("[::]:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let _client = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        assert!(local.admits(&accepted) && !only_other.admits(&accepted));
        let (end, _other) = UnixStream::pair().unwrap();
        assert!(only_other.admits(&end));
    }
}
