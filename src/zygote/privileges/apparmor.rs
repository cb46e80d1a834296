//! `apparmor_hat`: a worker process changes to a profile below its own, as php-fpm does through libapparmor.

use std::fs::File;
use std::io::{Read, Write};

use crate::errno::SystemError;

/// A profile to change to. Changing takes a file of `/proc`, which is opened here: a chroot need not have it.
#[derive(Debug)]
pub(super) struct Confinement {
    attribute: File,
    current: String,
    hat: String,
}

/// Why the profile is not what the configuration says.
#[derive(Debug, thiserror::Error)]
pub(super) enum AppArmorError {
    /// AppArmor is off, or the file cannot be used.
    #[error(
        "failed to query apparmor confinement. Please check if \"/proc/*/attr/current\" is read and writeable.: {0}"
    )]
    Query(SystemError),
    /// The kernel refused.
    #[error(
        "failed to change to new confinement ({profile}). Please check if \"/proc/*/attr/current\" is read and writeable \
         and \"change_profile -> {current}//*\" is allowed.: {source}"
    )]
    Change {
        profile: String,
        current: String,
        source: SystemError,
    },
}

impl Confinement {
    /// The hat below the profile that this process has now.
    pub(super) fn of_this_process(hat: &str) -> Result<Self, AppArmorError> {
        let query = |error: std::io::Error| AppArmorError::Query(error.into());
        let mut attribute = open_attribute().map_err(query)?;
        let mut current = String::new();
        attribute.read_to_string(&mut current).map_err(query)?;
        Ok(Self {
            attribute,
            current: label(&current).to_owned(),
            hat: hat.to_owned(),
        })
    }

    /// Changes to it, for good.
    pub(super) fn enter(mut self) -> Result<(), AppArmorError> {
        let profile = format!("{}//{}", self.current, self.hat);
        // A `File` does not buffer, so this is the one write that the kernel wants.
        let command = format!("changeprofile {profile}");
        match self.attribute.write_all(command.as_bytes()) {
            Ok(()) => Ok(()),
            Err(error) => Err(AppArmorError::Change {
                profile,
                current: self.current,
                source: error.into(),
            }),
        }
    }
}

/// AppArmor's own file where the kernel has it (5.8), else the one that it shares with other security modules.
fn open_attribute() -> std::io::Result<File> {
    let open = |path| File::options().read(true).write(true).open(path);
    open("/proc/thread-self/attr/apparmor/current")
        .or_else(|_| open("/proc/thread-self/attr/current"))
}

/// `php-fpm` of `php-fpm (enforce)`.
fn label(text: &str) -> &str {
    let text = text.trim_end_matches(['\n', '\0']);
    match text.rsplit_once(" (") {
        Some((label, mode)) if mode.ends_with(')') => label,
        _ => text,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_mode_is_not_part_of_the_profile() {
        assert_eq!(
            label("/usr/sbin/php-fpm8.2 (enforce)\n"),
            "/usr/sbin/php-fpm8.2"
        );
        assert_eq!(label("php-fpm//&web (complain)\n"), "php-fpm//&web");
        assert_eq!(label("odd (name)  (enforce)"), "odd (name) ");
        assert_eq!(label("unconfined\n"), "unconfined");
    }

    #[test]
    fn without_apparmor_there_is_an_error_that_says_where_to_look() {
        let is_on = std::fs::read_to_string("/sys/module/apparmor/parameters/enabled")
            .is_ok_and(|enabled| enabled.starts_with('Y'));
        if is_on {
            // Then the test's own profile is unconfined, below which there is none.
            let hat = Confinement::of_this_process("no-such-hat").unwrap();
            let error = hat.enter().unwrap_err().to_string();
            assert!(
                error.starts_with("failed to change to new confinement"),
                "{error}"
            );
        } else {
            let error = Confinement::of_this_process("hat").unwrap_err().to_string();
            assert!(
                error.starts_with("failed to query apparmor confinement. Please check if"),
                "{error}"
            );
        }
    }
}
