//! Times in access log lines, made once a second.

use std::ffi::{CStr, CString};

use crate::log::sys;

/// The text of each time in a format, as it was written last.
#[derive(Debug)]
pub(super) struct TimeCache {
    texts: Vec<(i64, Vec<u8>)>,
}

impl TimeCache {
    /// Room for so many times.
    pub(super) fn new(count: usize) -> Self {
        Self {
            texts: vec![(i64::MIN, Vec::new()); count],
        }
    }

    /// The text of the time with this number.
    pub(super) fn text(&mut self, number: usize, format: &CStr, seconds: i64) -> &[u8] {
        let (second, text) = &mut self.texts[number];
        if *second != seconds {
            text.clear();
            sys::write_time(text, format, seconds);
            *second = seconds;
        }
        text
    }
}

/// What php-fpm writes for `%t`.
pub(super) fn default_format() -> CString {
    c"%d/%b/%Y:%H:%M:%S %z".to_owned()
}
