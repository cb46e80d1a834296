//! What loading a configuration has to say, in order, for the log.

use std::io;

use super::global::GlobalConfig;
use crate::errno::SystemError;
use crate::log::Level;

/// Messages, as php-fpm logs them while it reads its configuration.
#[derive(Debug)]
pub(crate) struct Messages {
    list: Vec<Message>,
    /// `log_level`, from the moment that it counts.
    level: Level,
    /// Where they belong, once that is known.
    global: Option<GlobalConfig>,
}

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    /// None for a line of PHP's own on standard error, which has neither time nor level.
    pub(crate) level: Option<Level>,
    /// Without a line break.
    pub(crate) text: String,
}

impl Messages {
    pub(crate) fn new() -> Self {
        Self {
            list: Vec::new(),
            level: Level::Notice,
            global: None,
        }
    }

    /// The section `[global]`, if it could be read and its log be opened.
    pub(crate) fn global(&self) -> Option<&GlobalConfig> {
        self.global.as_ref()
    }

    pub(super) fn set_global(&mut self, global: GlobalConfig) {
        self.global = Some(global);
    }

    /// All messages. Those below `log_level` are not among them, except what came before it was known.
    pub(crate) fn list(&self) -> &[Message] {
        &self.list
    }

    pub(super) fn set_level(&mut self, level: Level) {
        self.level = level;
    }

    pub(super) fn push(&mut self, level: Level, text: impl Into<String>) {
        if level >= self.level {
            self.list.push(Message {
                level: Some(level),
                text: text.into(),
            });
        }
    }

    pub(super) fn error(&mut self, text: impl Into<String>) {
        self.push(Level::Error, text);
    }

    /// With the system's reason, as php-fpm's ZLOG_SYSERROR.
    pub(super) fn system_error(&mut self, text: &str, error: io::Error) {
        self.error(format!("{text}: {}", SystemError::from(error)));
    }

    /// An empty line, if a message of this level is seen.
    pub(super) fn blank_line_after(&mut self, level: Level) {
        if level >= self.level {
            self.plain("");
        }
    }

    /// A line of PHP's own.
    pub(super) fn plain(&mut self, text: impl Into<String>) {
        self.list.push(Message {
            level: None,
            text: text.into(),
        });
    }
}
