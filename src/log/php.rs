//! What PHP says itself while `error_log` is not set in php.ini (fpm_main.c, sapi_cgi_log_message).

use super::line::cut;
use super::{LOG, Level, Settings};

/// A message of PHP's in a worker process, which goes to two places: to the web server, unless `fastcgi.logging` is off,
/// and to the worker's standard error, where `catch_workers_output` finds it.
#[derive(Debug)]
pub(crate) struct PhpMessage {
    line: Vec<u8>,
    head: usize,
}

impl PhpMessage {
    /// `PHP message: ` and the message, no longer than `log_limit` allows.
    pub(crate) fn new(message: &[u8]) -> Self {
        Self::with_settings(LOG.settings(), message)
    }

    fn with_settings(settings: Settings, message: &[u8]) -> Self {
        // No time: whoever reads standard error adds that.
        let head: &[u8] = match settings.level {
            // Where php-fpm writes it (zlog_print_format).
            Level::Debug => b"NOTICE: sapi_cgi_log_message(), line 1: ",
            Level::Notice => b"NOTICE: ",
            Level::Warning | Level::Error | Level::Alert => b"",
        };
        let mut line = [head, b"PHP message: ", message].concat();
        // The end of the line counts.
        cut(&mut line, 0, settings.limit - 1);
        line.push(b'\n');
        Self {
            line,
            head: head.len(),
        }
    }

    /// For FCGI_STDERR; php-fpm puts `; ` between two of a request.
    pub(crate) fn for_web_server(&self) -> &[u8] {
        &self.line[self.head..self.line.len() - 1]
    }

    /// For standard error, with its end.
    pub(crate) fn line(&self) -> &[u8] {
        &self.line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: Settings = Settings {
        level: Level::Notice,
        limit: 2048,
        buffering: true,
        syslog: false,
    };

    #[test]
    fn long_message_is_cut_to_the_limit_as_php_fpm_cuts_it() {
        // log-bm-limit-2048-msg-4000.phpt
        let message = PhpMessage::with_settings(SETTINGS, &[b't'; 4000]);
        let expected = format!("PHP message: {}...", "t".repeat(2023));
        assert_eq!(message.for_web_server(), expected.as_bytes());
        assert_eq!(message.line(), format!("NOTICE: {expected}\n").as_bytes());
        assert_eq!(message.line().len(), 2048);
    }

    #[test]
    fn message_that_just_fits_is_whole() {
        let fits = 2047 - "NOTICE: PHP message: ".len();
        let message = PhpMessage::with_settings(SETTINGS, &vec![b't'; fits]);
        assert!(message.line().ends_with(b"tttt\n") && message.line().len() == 2048);
        let message = PhpMessage::with_settings(SETTINGS, &vec![b't'; fits + 1]);
        assert!(message.line().ends_with(b"t...\n") && message.line().len() == 2048);
    }

    #[test]
    fn head_is_left_out_above_its_level() {
        let settings = Settings {
            level: Level::Error,
            ..SETTINGS
        };
        let message = PhpMessage::with_settings(settings, b"text");
        assert_eq!(message.line(), b"PHP message: text\n");
        assert_eq!(message.for_web_server(), b"PHP message: text");
    }
}
