//! Users and groups, looked up by name.
//!
//! A lookup may load libraries, open sockets and read files (NSS). So it is done in the supervisor, before anything is
//! forked and as long as `/etc` is the system's own, never in a worker process.

use std::ffi::CString;
use std::io;
use std::path::PathBuf;

use nix::unistd::{Gid, Group, Uid, getgrouplist};

use crate::errno::SystemError;

/// An entry of the user database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct User {
    /// `www-data`
    pub(crate) name: String,
    /// Its number.
    pub(crate) uid: u32,
    /// Its group.
    pub(crate) gid: u32,
    /// Its home directory.
    pub(crate) home: PathBuf,
}

/// Why a name means nobody.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UserError {
    /// No such user.
    #[error("[pool {pool}] cannot get uid for user '{name}'{reason}")]
    NoUser {
        /// The pool whose configuration has it.
        pool: String,
        /// The user's name.
        name: String,
        /// What php-fpm adds in some places.
        reason: &'static str,
    },
    /// No such group.
    #[error("[pool {pool}] cannot get gid for group '{name}'{reason}")]
    NoGroup {
        /// The pool whose configuration has it.
        pool: String,
        /// The group's name.
        name: String,
        /// As above.
        reason: &'static str,
    },
    /// The database does not answer.
    #[error("[pool {pool}] cannot look up '{name}': {source}")]
    Lookup {
        /// The pool whose configuration has it.
        pool: String,
        /// The name.
        name: String,
        /// What went wrong.
        source: SystemError,
    },
}

/// Looks up names of one pool's configuration.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lookup<'a> {
    pool: &'a str,
    /// Whether they are of the pool's listening socket.
    of_socket: bool,
}

impl<'a> Lookup<'a> {
    /// For `user` and `group`.
    pub(crate) fn of_pool(pool: &'a str) -> Self {
        Self {
            pool,
            of_socket: false,
        }
    }

    /// For `listen.owner` and the like.
    pub(crate) fn of_socket(pool: &'a str) -> Self {
        Self {
            pool,
            of_socket: true,
        }
    }

    /// The user of this name.
    pub(crate) fn user(self, name: &str) -> Result<User, UserError> {
        let found = nix::unistd::User::from_name(name).map_err(|errno| self.failed(name, errno))?;
        let (pool, name) = (self.pool.to_owned(), name.to_owned());
        match found {
            Some(user) => Ok(user.into()),
            None => Err(UserError::NoUser {
                pool,
                name,
                reason: self.reason(": no such user"),
            }),
        }
    }

    /// The number of the group of this name.
    pub(crate) fn group(self, name: &str) -> Result<u32, UserError> {
        let found = Group::from_name(name).map_err(|errno| self.failed(name, errno))?;
        let (pool, name) = (self.pool.to_owned(), name.to_owned());
        match found {
            Some(group) => Ok(group.gid.as_raw()),
            None => Err(UserError::NoGroup {
                pool,
                name,
                reason: self.reason(": no such group"),
            }),
        }
    }

    /// The user with this number, if it has an entry.
    pub(crate) fn user_of(self, uid: u32) -> Result<Option<User>, UserError> {
        let found = nix::unistd::User::from_uid(Uid::from_raw(uid))
            .map_err(|errno| self.failed(&uid.to_string(), errno))?;
        Ok(found.map(User::from))
    }

    /// All groups of a user, `gid` among them; of an unknown user, `gid` alone.
    pub(crate) fn groups_of(self, user: &str, gid: u32) -> Result<Vec<u32>, UserError> {
        let failed = |errno| self.failed(user, errno);
        let name = CString::new(user).map_err(|_| failed(nix::errno::Errno::EINVAL))?;
        let groups = getgrouplist(&name, Gid::from_raw(gid)).map_err(failed)?;
        Ok(groups.into_iter().map(Gid::as_raw).collect())
    }

    /// php-fpm reports names of a socket, and only those, as failed system calls.
    fn reason(self, text: &'static str) -> &'static str {
        if self.of_socket { text } else { "" }
    }

    fn failed(self, name: &str, errno: nix::errno::Errno) -> UserError {
        UserError::Lookup {
            pool: self.pool.to_owned(),
            name: name.to_owned(),
            source: SystemError(io::Error::from(errno)),
        }
    }
}

impl From<nix::unistd::User> for User {
    fn from(user: nix::unistd::User) -> Self {
        Self {
            name: user.name,
            uid: user.uid.as_raw(),
            gid: user.gid.as_raw(),
            home: user.dir,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn names_that_exist_are_found() {
        assert_eq!(Lookup::of_pool("www").user("root").unwrap().uid, 0);
        assert_eq!(Lookup::of_socket("www").group("root").unwrap(), 0);
    }

    #[test]
    fn a_name_that_does_not_exist_is_reported_in_php_fpms_words() {
        let (pool, socket) = (Lookup::of_pool("www"), Lookup::of_socket("www"));
        let user = pool.user("aaaaaa").unwrap_err().to_string();
        assert_eq!(user, "[pool www] cannot get uid for user 'aaaaaa'");
        let group = pool.group("aaaaaa").unwrap_err().to_string();
        assert_eq!(group, "[pool www] cannot get gid for group 'aaaaaa'");
        let owner = socket.user("aaaaaa").unwrap_err().to_string();
        assert!(owner.starts_with("[pool www] cannot get uid for user 'aaaaaa': "));
    }

    #[test]
    fn an_unknown_user_has_no_further_groups() {
        let groups = Lookup::of_pool("www").groups_of("54321", 54_322);
        assert_eq!(groups.unwrap(), [54_322]);
    }
}
