//! Who may connect to a Unix socket: `listen.owner`, `listen.group`, `listen.mode`, `listen.acl_*`.

use std::fs::Permissions;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Stat, Uid, XattrFlags, chownat, fstat, open, setxattr,
};

use super::SocketError;
use crate::config::{Name, SocketOptions};
use crate::errno::SystemError;
use crate::log;
use crate::users::{Lookup, UserError};

/// Permissions, with names looked up.
#[derive(Debug)]
pub(super) struct SocketPermissions<'a> {
    pool: &'a str,
    mode: u32,
    access: Access,
}

#[derive(Debug, PartialEq, Eq)]
enum Access {
    /// None leaves the owner or group as it is.
    Owner { uid: Option<u32>, gid: Option<u32> },
    /// Users and groups that may connect besides owner and group.
    List { users: Vec<u32>, groups: Vec<u32> },
}

impl<'a> SocketPermissions<'a> {
    /// As php-fpm's `fpm_unix_resolve_socket_permissions`.
    pub(super) fn resolve(pool: &'a str, options: &SocketOptions) -> Result<Self, UserError> {
        let lookup = Lookup::of_socket(pool);
        let access = if options.acl_users.is_empty() && options.acl_groups.is_empty() {
            let (mut uid, mut gid) = (None, None);
            match &options.owner {
                Some(Name::Id(id)) => uid = Some(*id),
                Some(Name::Name(name)) => {
                    let user = lookup.user(name)?;
                    (uid, gid) = (Some(user.uid), Some(user.gid));
                }
                None => {}
            }
            match &options.group {
                Some(Name::Id(id)) => gid = Some(*id),
                Some(Name::Name(name)) => gid = Some(lookup.group(name)?),
                None => {}
            }
            Access::Owner { uid, gid }
        } else {
            let users = options.acl_users.iter().map(|name| lookup.user(name));
            let groups = options.acl_groups.iter().map(|name| lookup.group(name));
            let access = Access::List {
                users: users
                    .map(|user| user.map(|user| user.uid))
                    .collect::<Result<_, _>>()?,
                groups: groups.collect::<Result<_, _>>()?,
            };
            report_ignored(pool, "listen.owner", options.owner.as_ref());
            report_ignored(pool, "listen.group", options.group.as_ref());
            access
        };
        Ok(Self {
            pool,
            mode: options.mode,
            access,
        })
    }

    /// Gives them to the file of a socket that does not listen yet: until it does, nobody can connect, so no umask and
    /// no order of the steps lets anybody in too early. Answers what file that is.
    ///
    /// Through a handle on the socket itself: whoever may write in its directory could put a link to some other file in
    /// its place, which would change hands then.
    pub(super) fn apply(&self, path: &Path) -> Result<Stat, SocketError> {
        let handle = Handle::open(path).map_err(|errno| SocketError::Bind {
            address: path.display().to_string(),
            source: errno.into(),
        })?;
        match &self.access {
            Access::Owner { uid, gid } => {
                handle
                    .chown(*uid, *gid)
                    .map_err(|source| SocketError::ChangeOwner {
                        pool: self.pool.to_owned(),
                        path: path.to_owned(),
                        source,
                    })?;
                // After the owner, whose change may clear bits.
                handle
                    .chmod(self.mode)
                    .map_err(|source| self.mode_failed(path, source))?;
            }
            Access::List { users, groups } => {
                handle
                    .chmod(self.mode)
                    .map_err(|source| self.mode_failed(path, source))?;
                handle
                    .set_acl(&encode_acl(self.mode, users, groups))
                    .map_err(|source| SocketError::AccessList {
                        pool: self.pool.to_owned(),
                        path: path.to_owned(),
                        source,
                    })?;
            }
        }
        Ok(handle.stat)
    }

    fn mode_failed(&self, path: &Path, source: SystemError) -> SocketError {
        SocketError::ChangeMode {
            pool: self.pool.to_owned(),
            path: path.to_owned(),
            source,
        }
    }
}

fn report_ignored(pool: &str, directive: &str, name: Option<&Name>) {
    if let Some(name) = name {
        let name = match name {
            Name::Name(name) => name.clone(),
            Name::Id(id) => id.to_string(),
        };
        log::warning(format_args!(
            "[pool {pool}] ACL set, {directive} = '{name}' is ignored"
        ));
    }
}

/// The file of a socket, whatever its name comes to mean.
struct Handle {
    file: OwnedFd,
    stat: Stat,
}

impl Handle {
    fn open(path: &Path) -> rustix::io::Result<Self> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = open(path, flags, Mode::empty())?;
        let stat = fstat(&file)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Socket {
            // Somebody has been quick.
            return Err(rustix::io::Errno::NOTSOCK);
        }
        Ok(Self { file, stat })
    }

    fn chown(&self, uid: Option<u32>, gid: Option<u32>) -> Result<(), SystemError> {
        if uid.is_none() && gid.is_none() {
            return Ok(());
        }
        let (uid, gid) = (uid.map(Uid::from_raw), gid.map(Gid::from_raw));
        Ok(chownat(&self.file, "", uid, gid, AtFlags::EMPTY_PATH)?)
    }

    fn chmod(&self, mode: u32) -> Result<(), SystemError> {
        Ok(std::fs::set_permissions(
            self.name(),
            Permissions::from_mode(mode),
        )?)
    }

    fn set_acl(&self, acl: &[u8]) -> Result<(), SystemError> {
        Ok(setxattr(
            self.name(),
            "system.posix_acl_access",
            acl,
            XattrFlags::empty(),
        )?)
    }

    /// For system calls that take no such descriptor.
    fn name(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.file.as_raw_fd()).into()
    }
}

/// An access list as the kernel takes it (`posix_acl_xattr.h`): version 2, then entries of tag, permissions and number,
/// in the order of the tags and the numbers. Each user and group listed may read and write.
fn encode_acl(mode: u32, users: &[u32], groups: &[u32]) -> Vec<u8> {
    const READ_WRITE: u16 = 6;
    const UNDEFINED: u32 = u32::MAX;
    let bits = |shift: u32| u16::try_from(mode >> shift & 7).unwrap_or(0);
    let sorted = |ids: &[u32]| {
        let mut ids = ids.to_vec();
        ids.sort_unstable();
        ids.dedup();
        ids
    };
    // USER_OBJ, USER, GROUP_OBJ, GROUP, MASK, OTHER
    let mut entries = vec![(0x01u16, bits(6), UNDEFINED)];
    entries.extend(sorted(users).iter().map(|id| (0x02, READ_WRITE, *id)));
    entries.push((0x04, bits(3), UNDEFINED));
    entries.extend(sorted(groups).iter().map(|id| (0x08, READ_WRITE, *id)));
    // What acl_calc_mask() makes of it: all that anybody but the owner and others has.
    entries.push((0x10, bits(3) | READ_WRITE, UNDEFINED));
    entries.push((0x20, bits(0), UNDEFINED));

    let mut bytes = 2u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(permissions.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::MetadataExt;
    use std::os::unix::net::UnixListener;

    use super::*;

    fn name(text: &str) -> Name {
        Name::Name(text.to_owned())
    }

    fn apply(options: &SocketOptions) -> (tempfile::TempDir, PathBuf, Result<Stat, SocketError>) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.sock");
        UnixListener::bind(&path).unwrap();
        let result = SocketPermissions::resolve("www", options)
            .unwrap()
            .apply(&path);
        (directory, path, result)
    }

    #[test]
    fn an_owner_by_name_brings_its_group_and_a_number_does_not() {
        let resolve = |owner: Name, group: Option<Name>| {
            let options = SocketOptions {
                owner: Some(owner),
                group,
                ..SocketOptions::default()
            };
            SocketPermissions::resolve("www", &options).unwrap().access
        };
        let user = Lookup::of_pool("www").user("www-data").unwrap();
        let owner = |uid, gid| Access::Owner {
            uid: Some(uid),
            gid,
        };
        assert_eq!(
            resolve(name("www-data"), None),
            owner(user.uid, Some(user.gid))
        );
        assert_eq!(
            resolve(name("www-data"), Some(name("root"))),
            owner(user.uid, Some(0))
        );
        assert_eq!(resolve(Name::Id(33), None), owner(33, None));
        assert_eq!(
            resolve(Name::Id(33), Some(Name::Id(34))),
            owner(33, Some(34))
        );
    }

    #[test]
    fn owner_group_and_mode_are_set() {
        let is_root = rustix::process::geteuid().is_root();
        let (_directory, path, result) = apply(&SocketOptions {
            owner: is_root.then_some(Name::Id(54_321)),
            group: is_root.then_some(Name::Id(54_322)),
            mode: 0o602,
            ..SocketOptions::default()
        });
        let (stat, metadata) = (result.unwrap(), path.metadata().unwrap());
        assert_eq!((stat.st_dev, stat.st_ino), (metadata.dev(), metadata.ino()));
        assert_eq!(metadata.mode() & 0o7777, 0o602);
        if is_root {
            assert_eq!((metadata.uid(), metadata.gid()), (54_321, 54_322));
        }
    }

    #[test]
    fn a_link_in_the_sockets_place_is_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let (path, link) = (directory.path().join("a"), directory.path().join("b"));
        UnixListener::bind(&path).unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        let before = path.metadata().unwrap().mode();
        let options = SocketOptions::default();
        let permissions = SocketPermissions::resolve("www", &options).unwrap();
        assert!(permissions.apply(&link).is_err());
        std::fs::remove_file(&link).unwrap();
        std::fs::write(&link, "").unwrap();
        assert!(permissions.apply(&link).is_err());
        assert_eq!(path.metadata().unwrap().mode(), before);
    }

    #[test]
    fn an_access_list_is_read_back_as_written() {
        let options = SocketOptions {
            acl_users: vec!["www-data".to_owned(), "daemon".to_owned()],
            acl_groups: vec!["www-data".to_owned()],
            mode: 0o600,
            // Ignored, with a warning.
            owner: Some(Name::Id(54_321)),
            ..SocketOptions::default()
        };
        let (_directory, path, result) = apply(&options);
        match result {
            Ok(_) => {}
            Err(SocketError::AccessList { source, .. })
                if source.0.raw_os_error() == Some(libc::EOPNOTSUPP) =>
            {
                eprintln!("not tested: no access lists in this file system");
                return;
            }
            Err(error) => panic!("{error}"),
        }
        let mut bytes = [0; 256];
        let length =
            rustix::fs::getxattr(&path, "system.posix_acl_access", &mut bytes[..]).unwrap();
        let user = |name| Lookup::of_pool("www").user(name).unwrap().uid;
        let group = Lookup::of_pool("www").group("www-data").unwrap();
        let expected = encode_acl(0o600, &[user("daemon"), user("www-data")], &[group]);
        assert_eq!(bytes[..length], expected);
        // The group's bits show the mask, as under php-fpm.
        assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o660);
        assert_ne!(path.metadata().unwrap().uid(), 54_321);
    }

    #[test]
    fn an_unknown_name_is_reported() {
        let options = SocketOptions {
            acl_groups: vec!["aaaaaa".to_owned()],
            ..SocketOptions::default()
        };
        let error = SocketPermissions::resolve("www", &options).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("[pool www] cannot get gid for group 'aaaaaa'")
        );
    }
}
