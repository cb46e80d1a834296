//! A log file: opened to append, written a line at a time, replaced in place.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::time::Timespec;

use super::{LOG, sys};
use crate::descriptor::high_fd;

/// A descriptor that lines are appended to. Its number stays the same for life.
#[derive(Debug)]
pub(crate) struct LogFile {
    fd: OwnedFd,
}

impl LogFile {
    /// Takes a descriptor over, and moves it out of the way of scripts.
    pub(crate) fn new(fd: OwnedFd) -> Self {
        Self { fd: high_fd(fd) }
    }

    /// Writes whole lines; one `write(2)` unless the system takes less.
    pub(crate) fn write(&self, lines: &[u8]) {
        write_to(self.fd.as_fd(), lines);
    }

    /// Leads to `new` from now on. Threads may be writing.
    pub(crate) fn replace(&self, new: OwnedFd) -> io::Result<()> {
        sys::replace(self.fd.as_fd(), new)
    }
}

impl AsFd for LogFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for LogFile {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

/// Opens a log file to append, and creates it for its owner alone if it is not there.
///
/// Names of standard error mean what it was before the error log took its place. Where that cannot be opened by name (a
/// socket, as systemd gives; somebody else's pipe or terminal), it is used as it is.
pub(crate) fn open(path: &Path) -> io::Result<OwnedFd> {
    let stream = LOG.standard_stream(path);
    let own_name = stream.map(|fd| format!("/proc/self/fd/{}", fd.as_raw_fd()));
    let opened = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(own_name.as_deref().map_or(path, Path::new));
    match (opened, stream) {
        (Ok(file), _) => Ok(file.into()),
        (Err(_), Some(stream)) => stream.try_clone_to_owned(),
        (Err(error), None) => Err(error),
    }
}

/// Writes all of it, unless that fails, or a nonblocking descriptor takes nothing for a second: there is nobody to tell.
pub(super) fn write_to(fd: BorrowedFd<'_>, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        match rustix::io::write(fd, bytes) {
            Ok(0) => return,
            Ok(written) => bytes = &bytes[written..],
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::OUT)];
                if !matches!(poll(&mut fds, Some(&PATIENCE)), Ok(1..) | Err(Errno::INTR)) {
                    return;
                }
            }
            Err(_) => return,
        }
    }
}

const PATIENCE: Timespec = Timespec {
    tv_sec: 1,
    tv_nsec: 0,
};

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn file_is_appended_to_and_private() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("log");
        for line in ["one\n", "two\n"] {
            LogFile::new(open(&path).expect("opens")).write(line.as_bytes());
        }
        assert_eq!(fs::read(&path).expect("a file"), b"one\ntwo\n");
        let mode = fs::metadata(&path).expect("a file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn rotated_file_is_left_for_the_new_one_under_the_same_number() {
        let directory = tempfile::tempdir().expect("a directory");
        let (path, old) = (directory.path().join("log"), directory.path().join("log.1"));
        let log = LogFile::new(open(&path).expect("opens"));
        let number = log.as_raw_fd();
        log.write(b"before\n");
        fs::rename(&path, &old).expect("renamed");
        log.write(b"meanwhile\n");
        log.replace(open(&path).expect("opens")).expect("replaced");
        log.write(b"after\n");
        assert_eq!(log.as_raw_fd(), number);
        assert_eq!(fs::read(&old).expect("a file"), b"before\nmeanwhile\n");
        assert_eq!(fs::read(&path).expect("a file"), b"after\n");
    }

    #[test]
    fn lines_written_while_the_file_is_replaced_are_whole_and_in_one_of_the_two() {
        let directory = tempfile::tempdir().expect("a directory");
        let paths: Vec<_> = (0..20)
            .map(|number| directory.path().join(number.to_string()))
            .collect();
        let log = LogFile::new(open(&paths[0]).expect("opens"));
        let line = format!("{}\n", "x".repeat(300));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..500).for_each(|_| log.write(line.as_bytes())));
            }
            for path in &paths[1..] {
                log.replace(open(path).expect("opens")).expect("replaced");
                std::thread::yield_now();
            }
        });
        let all: String = paths
            .iter()
            .map(|path| fs::read_to_string(path).expect("a file"))
            .collect();
        assert_eq!(all, line.repeat(2000));
    }

    #[test]
    fn full_nonblocking_pipe_does_not_hold_up_for_ever() {
        let (reader, writer) =
            rustix::pipe::pipe_with(rustix::pipe::PipeFlags::NONBLOCK).expect("a pipe");
        write_to(writer.as_fd(), &[b'x'; 1 << 17]);
        let mut buffer = vec![0; 1 << 17];
        assert!(rustix::io::read(&reader, &mut buffer).expect("bytes") >= 4096);
    }

    #[test]
    fn standard_error_that_has_no_name_is_used_as_it_is() {
        // Whatever standard error is in this test, it can be written to under each of its names.
        for name in ["/dev/stderr", "/proc/self/fd/2", "/dev/fd/2"] {
            let fd = open(Path::new(name)).expect(name);
            assert!(fd.as_raw_fd() > 2);
        }
    }
}
