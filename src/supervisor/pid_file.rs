//! `pid`: the file that has the supervisor's number while it runs.

use std::fs::{File, OpenOptions, remove_file};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Dropping it removes the file.
#[derive(Debug)]
pub(super) struct PidFile {
    path: PathBuf,
}

impl PidFile {
    /// Writes the number of this process, in place of whatever an earlier one has left (`fpm_conf_write_pid`).
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        if let Err(error) = remove_file(path)
            && error.kind() != io::ErrorKind::NotFound
        {
            return Err(error);
        }
        let mut file: File = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o644)
            .open(path)?;
        write!(file, "{}", std::process::id())?;
        Ok(Self {
            path: path.to_owned(),
        })
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // Whoever keeps us from removing it has a reason.
        let _ = remove_file(&self.path);
    }
}
