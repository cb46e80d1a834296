//! `rlimit_files` and `rlimit_core`: of the supervisor, which pools inherit, and of worker processes.

use rustix::process::{Resource, Rlimit, setrlimit};

use crate::config::ResourceLimits;
use crate::descriptor::limit_has_changed;
use crate::errno::SystemError;

/// Why a limit is not what the configuration says.
#[derive(Debug, thiserror::Error)]
#[error(
    "failed to set {directive} for this pool. Please check your system limits or decrease {directive}. \
     setrlimit({resource}, {value}): {source}"
)]
pub(crate) struct LimitError {
    directive: &'static str,
    resource: &'static str,
    /// As php-fpm has it: -1 for unlimited.
    value: String,
    source: SystemError,
}

/// Sets the limits of this process and those it will start; answers what could not be set. What fails leaves the old
/// limit; php-fpm ends when that is the supervisor's, and lets a worker process go on.
pub(crate) fn set_limits(limits: &ResourceLimits) -> Vec<LimitError> {
    let wanted = [
        (
            "rlimit_files",
            "RLIMIT_NOFILE",
            Resource::Nofile,
            limits.files,
        ),
        ("rlimit_core", "RLIMIT_CORE", Resource::Core, limits.core),
    ];
    let mut failed = Vec::new();
    for (directive, resource, which, value) in wanted {
        // php-fpm takes 0 for unset.
        let Some(value) = value.filter(|&value| value != 0) else {
            continue;
        };
        let limit = Some(value).filter(|&value| value != u64::MAX);
        let both = Rlimit {
            current: limit,
            maximum: limit,
        };
        if let Err(errno) = setrlimit(which, both) {
            failed.push(LimitError {
                directive,
                resource,
                value: limit.map_or_else(|| "-1".to_owned(), |limit| limit.to_string()),
                source: errno.into(),
            });
        }
    }
    limit_has_changed();
    failed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_that_is_impossible_is_reported_and_not_set() {
        // Above fs.nr_open, which not even root may exceed.
        let limits = ResourceLimits {
            files: Some(u64::MAX - 1),
            core: None,
        };
        let failed = set_limits(&limits);
        let text = failed.first().map(ToString::to_string);
        assert_eq!(
            text.as_deref(),
            Some(
                "failed to set rlimit_files for this pool. Please check your system limits or decrease rlimit_files. \
                 setrlimit(RLIMIT_NOFILE, 18446744073709551614): Operation not permitted (1)"
            )
        );
        assert_eq!(failed.len(), 1);
        assert!(set_limits(&ResourceLimits::default()).is_empty());
    }
}
