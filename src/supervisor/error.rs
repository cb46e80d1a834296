//! Why the supervisor ends, and with which exit code.

use std::io;

use super::messages::MessageError;
use super::sockets::SocketError;
use crate::log;
use crate::zygote::IdentityError;

/// Why the supervisor ended other than by a signal.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SupervisorError {
    /// A listening socket.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// Nobody to run scripts as.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// An access log or slow log.
    #[error(transparent)]
    Log(#[from] log::AccessLogError),
    /// The pid file.
    #[error("Unable to create the PID file ({path}).: {}", log::Errno(source))]
    PidFile {
        /// Where it should be.
        path: String,
        /// The system's answer.
        source: io::Error,
    },
    /// A system call that should not fail.
    #[error("the supervisor cannot start: {0}")]
    Setup(#[source] io::Error),
    /// The program could not be executed again.
    #[error("the pool process cannot be started: {0}")]
    Spawn(#[source] io::Error),
    /// The pool process could not be told what to do.
    #[error("the pool process cannot be started: {0}")]
    Message(#[from] MessageError),
    /// PHP or the worker processes did not start; nothing was served.
    #[error("{0}")]
    StartFailed(String),
    /// The pool process ended before it was ready, without a word.
    #[error("the pool process exited {0} before it was ready")]
    DiedAtStart(String),
}

impl SupervisorError {
    /// Whether it is about what is configured rather than about PHP: php-fpm says "FPM initialization failed" then.
    pub(crate) fn is_initialization(&self) -> bool {
        matches!(
            self,
            Self::Socket(_) | Self::Identity(_) | Self::Log(_) | Self::PidFile { .. }
        )
    }

    /// The exit code that php-fpm has for it.
    pub(crate) fn exit_code(&self) -> i32 {
        match self {
            Self::Socket(_)
            | Self::Identity(_)
            | Self::Log(_)
            | Self::PidFile { .. }
            | Self::StartFailed(_) => EXIT_CONFIG,
            Self::Setup(_) | Self::Spawn(_) | Self::Message(_) | Self::DiedAtStart(_) => {
                EXIT_SOFTWARE
            }
        }
    }
}

/// FPM_EXIT_CONFIG.
pub(crate) const EXIT_CONFIG: i32 = 78;

/// FPM_EXIT_SOFTWARE.
pub(crate) const EXIT_SOFTWARE: i32 = 70;
