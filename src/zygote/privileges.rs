//! What a worker process becomes before it runs PHP: user, groups, root directory, limits, environment.
//!
//! ```text
//! supervisor       Identity::resolve   names → numbers; environment; complaints about what is ignored
//!     │ Start
//! pool process     fork
//! worker process   become_worker       limits → chroot → chdir → priority → groups, user → dumpable → AppArmor → environment
//! ```
//!
//! The order is php-fpm's (`fpm_unix_init_child`), so that what worked for a pool works here: the priority and the root
//! directory need root's rights, and a directory that only the pool's user may enter cannot be the working directory
//! unless root may enter it too.
//!
//! # In a chroot
//!
//! What this program itself needs is open or loaded before: descriptors of logs, `/proc/self/attr` for AppArmor, the time
//! zone of log lines. As under php-fpm, everything that *scripts* need has to be there: files of the resolver
//! (`/etc/resolv.conf`, `/etc/nsswitch.conf`, `libnss_*.so`), certificates, `/dev/urandom` for old libraries, a shell for
//! `exec()`, sendmail for `mail()`, and `/usr/share/zoneinfo`, without which date() of Debian's PHP crashes (in php-fpm as
//! well). The web server sends `SCRIPT_FILENAME` and `DOCUMENT_ROOT` as paths *within* the chroot: php-fpm takes no prefix
//! off, and neither do we.

mod apparmor;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use nix::unistd::{Gid, Uid, setgid, setgroups, setuid};
use rustix::process::{
    DumpableBehavior, chdir, chroot, geteuid, set_dumpable_behavior, setpriority_process,
};
use serde::{Deserialize, Serialize};

use self::apparmor::Confinement;
use crate::config::{Name, PoolConfig};
use crate::errno::SystemError;
use crate::log;
use crate::supervisor::limits::set_limits;
use crate::users::{Lookup, User, UserError};

/// Who a pool's worker processes are to be, in numbers, and the environment that comes with it.
///
/// Groups are those that the user has when this is resolved; a change takes a reload to be seen.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    /// None leaves the user and its groups as they are.
    user: Option<UserId>,
    /// None leaves the group as it is.
    gid: Option<u32>,
    /// What is set on top of the environment, or in place of it: `env[]`, `USER` and `HOME`.
    environment: Vec<(OsString, OsString)>,
}

/// A user to become.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct UserId {
    uid: u32,
    /// As configured, for messages.
    name: String,
    groups: Vec<u32>,
}

/// Why nobody can be found to run scripts as.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IdentityError {
    /// A name that means nobody.
    #[error(transparent)]
    User(#[from] UserError),
    /// Root, without `--allow-to-run-as-root`.
    #[error("[pool {0}] please specify user and group other than root")]
    Root(String),
}

impl Identity {
    /// Looks up who a pool is to be, as php-fpm's `fpm_unix_conf_wp` and `fpm_env_conf_wp` do, and logs which directives
    /// cannot apply. `allow_root` is php-fpm's `-R`.
    ///
    /// Asks the user database, so it belongs in the supervisor.
    pub(crate) fn resolve(pool: &PoolConfig, allow_root: bool) -> Result<Self, IdentityError> {
        if geteuid().is_root() {
            Self::resolve_as_root(pool, allow_root)
        } else {
            report_ignored(pool);
            let uid = rustix::process::getuid().as_raw();
            let user = Lookup::of_pool(&pool.name).user_of(uid)?;
            Ok(Self {
                user: None,
                gid: None,
                environment: environment(pool, user.as_ref()),
            })
        }
    }

    fn resolve_as_root(pool: &PoolConfig, allow_root: bool) -> Result<Self, IdentityError> {
        let lookup = Lookup::of_pool(&pool.name);
        // 0 means "not set", as in php-fpm: an unknown number has no group, and then root's would stay.
        let (uid, user) = match &pool.user {
            Some(Name::Id(uid)) => (*uid, lookup.user_of(*uid)?),
            Some(Name::Name(name)) => {
                let user = lookup.user(name)?;
                (user.uid, Some(user))
            }
            None => (0, lookup.user_of(0)?),
        };
        let gid = match &pool.group {
            Some(Name::Id(gid)) => *gid,
            Some(Name::Name(name)) => lookup.group(name)?,
            None => user.as_ref().map_or(0, |user| user.gid),
        };
        if !allow_root && (uid == 0 || gid == 0) {
            return Err(IdentityError::Root(pool.name.clone()));
        }
        let environment = environment(pool, user.as_ref());
        let name = user.map_or_else(|| uid.to_string(), |user| user.name);
        let user = match uid {
            0 => None,
            _ => Some(UserId {
                uid,
                groups: lookup.groups_of(&name, gid)?,
                name,
            }),
        };
        Ok(Self {
            user,
            gid: Some(gid).filter(|&gid| gid != 0),
            environment,
        })
    }
}

/// What the pool's worker processes have in their environment beyond what they inherit.
fn environment(pool: &PoolConfig, user: Option<&User>) -> Vec<(OsString, OsString)> {
    let mut all: Vec<(OsString, OsString)> = Vec::new();
    for (name, value) in &pool.env {
        let value = match value.strip_prefix('$') {
            // Of the environment that the server was started in.
            Some(variable) => env::var_os(variable).unwrap_or_default(),
            None => value.into(),
        };
        all.push((name.into(), value));
    }
    if let Some(user) = user {
        for (name, value) in [
            ("USER", user.name.as_ref()),
            ("HOME", user.home.as_os_str()),
        ] {
            if !pool.env.iter().any(|(configured, _)| configured == name) {
                all.push((name.into(), value.to_owned()));
            }
        }
    }
    all
}

/// Only root can change these.
fn report_ignored(pool: &PoolConfig) {
    let directives = [
        ("user", pool.user.is_some()),
        ("group", pool.group.is_some()),
        ("chroot", pool.chroot.is_some()),
        ("process.priority", pool.priority.is_some()),
    ];
    for (directive, _) in directives.iter().filter(|(_, is_set)| *is_set) {
        log::notice(format_args!(
            "[pool {}] '{directive}' directive is ignored when FPM is not running as root",
            pool.name
        ));
    }
}

/// Why a worker process cannot become what it is to be; it must not run any script then.
#[derive(Debug, thiserror::Error)]
#[error("[pool {pool}] {step}")]
pub(crate) struct PrivilegeError {
    pool: String,
    step: Step,
}

/// What failed, in php-fpm's words.
#[derive(Debug, thiserror::Error)]
enum Step {
    #[error("failed to chroot({}): {source}", path.display())]
    Chroot { path: PathBuf, source: SystemError },
    #[error("failed to chdir({}): {source}", path.display())]
    Chdir { path: PathBuf, source: SystemError },
    #[error("Unable to set priority for this new process: {0}")]
    Priority(SystemError),
    #[error("failed to setgid({gid}): {source}")]
    SetGid { gid: u32, source: SystemError },
    #[error("failed to initgroups({user}, {gid}): {source}")]
    SetGroups {
        user: String,
        gid: u32,
        source: SystemError,
    },
    #[error("failed to setuid({uid}): {source}")]
    SetUid { uid: u32, source: SystemError },
    #[error(
        "setuid({0}) leaves the right to become root again: take CAP_SETUID out of the securebits and capabilities that \
         the server is started with"
    )]
    StillRoot(u32),
    #[error(transparent)]
    AppArmor(#[from] apparmor::AppArmorError),
}

/// Makes this process, just forked and with one thread, what `pool` and `identity` say. After an error it must end.
///
/// The signal for the parent's death is gone afterwards: changing the user clears it.
pub(crate) fn become_worker(identity: &Identity, pool: &PoolConfig) -> Result<(), PrivilegeError> {
    change(identity, pool).map_err(|step| PrivilegeError {
        pool: pool.name.clone(),
        step,
    })
}

fn change(identity: &Identity, pool: &PoolConfig) -> Result<(), Step> {
    let is_root = geteuid().is_root();
    for error in set_limits(&pool.rlimits) {
        log::error(format_args!("[pool {}] {error}", pool.name));
    }
    // Files that a chroot may not have.
    let confinement = pool
        .apparmor_hat
        .as_deref()
        .map(Confinement::of_this_process)
        .transpose()?;
    load_time_zone();
    let mut in_chroot = false;
    if let Some(path) = pool.chroot.as_deref().filter(|_| is_root) {
        chroot(path).map_err(|errno| Step::Chroot {
            path: path.to_owned(),
            source: errno.into(),
        })?;
        in_chroot = true;
    }
    match pool.chdir.as_deref() {
        Some(path) => change_directory(path)?,
        // Outside, the old working directory would be a way out of it.
        None if in_chroot => change_directory(Path::new("/"))?,
        None => {}
    }
    if is_root {
        if let Some(priority) = pool.priority {
            setpriority_process(None, priority).map_err(|errno| Step::Priority(errno.into()))?;
        }
        become_user(identity)?;
    }
    if pool.dumpable
        && let Err(errno) = set_dumpable_behavior(DumpableBehavior::Dumpable)
    {
        log::error(format_args!(
            "[pool {}] failed to prctl(PR_SET_DUMPABLE): {}",
            pool.name,
            SystemError::from(errno)
        ));
    }
    if let Some(confinement) = confinement {
        confinement.enter()?;
    }
    set_environment(identity, pool.clear_env);
    Ok(())
}

fn change_directory(path: &Path) -> Result<(), Step> {
    chdir(path).map_err(|errno| Step::Chdir {
        path: path.to_owned(),
        source: errno.into(),
    })
}

/// For good: afterwards nothing of root is left.
fn become_user(identity: &Identity) -> Result<(), Step> {
    // Through libc, which does so for all threads, in whatever process this is called.
    if let Some(gid) = identity.gid {
        setgid(Gid::from_raw(gid)).map_err(|errno| Step::SetGid {
            gid,
            source: SystemError(errno.into()),
        })?;
    }
    let Some(user) = &identity.user else {
        return Ok(());
    };
    let groups: Vec<Gid> = user.groups.iter().copied().map(Gid::from_raw).collect();
    setgroups(&groups).map_err(|errno| Step::SetGroups {
        user: user.name.clone(),
        gid: identity.gid.unwrap_or(0),
        source: SystemError(errno.into()),
    })?;
    setuid(Uid::from_raw(user.uid)).map_err(|errno| Step::SetUid {
        uid: user.uid,
        source: SystemError(errno.into()),
    })?;
    // Capabilities can outlive the change of user.
    if setuid(Uid::from_raw(0)).is_ok() {
        return Err(Step::StillRoot(user.uid));
    }
    Ok(())
}

/// Makes libc remember the time zone of log lines while /etc/localtime can be read.
fn load_time_zone() {
    let mut parts = std::mem::MaybeUninit::<libc::tm>::zeroed();
    // SAFETY: both pointers are to live values of the right types; the result is not used.
    unsafe { libc::localtime_r(&0, parts.as_mut_ptr()) };
}

/// The environment of a pool. For a process that has one thread.
pub(super) fn set_environment(identity: &Identity, clear: bool) {
    if clear {
        // SAFETY: the process has one thread, so nobody reads the environment meanwhile.
        unsafe { libc::clearenv() };
    }
    for (name, value) in &identity.environment {
        // SAFETY: as above.
        unsafe { env::set_var(name, value) };
    }
}
