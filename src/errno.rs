//! Errors of the system in php-fpm's words.

use std::fmt;
use std::io;

/// Displays as php-fpm ends its lines about failed system calls: `Permission denied (13)`.
#[derive(Debug)]
pub(crate) struct SystemError(pub(crate) io::Error);

impl fmt::Display for SystemError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.to_string();
        match self.0.raw_os_error() {
            // As std has it: `Permission denied (os error 13)`.
            Some(_) => f.write_str(&text.replace("(os error ", "(")),
            None => f.write_str(&text),
        }
    }
}

impl std::error::Error for SystemError {}

impl<E: Into<io::Error>> From<E> for SystemError {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_system_error_reads_as_php_fpm_writes_it() {
        let error = SystemError(io::Error::from_raw_os_error(libc::EADDRINUSE));
        assert_eq!(error.to_string(), "Address already in use (98)");
        let own = SystemError(io::Error::other("of our own"));
        assert_eq!(own.to_string(), "of our own");
    }
}
