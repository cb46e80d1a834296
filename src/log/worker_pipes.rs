//! The pipes that worker processes have for standard output and error: made before a fork, read by the pool process.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::stdio::{dup2_stderr, dup2_stdout};

use super::worker_output::{FLUSH, Source, WorkerOutput};
use super::{LOG, Level, LogFile, write_lines};
use crate::descriptor::high_fd;

/// Both pipes, before the fork. The side that is not one's own is dropped after it.
#[derive(Debug)]
pub(crate) struct Pipes {
    stdout: (OwnedFd, OwnedFd),
    stderr: (OwnedFd, OwnedFd),
}

impl Pipes {
    /// For a pool with `catch_workers_output`.
    pub(crate) fn new() -> io::Result<Self> {
        let pipe = || -> io::Result<_> {
            let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
            // Only this end: a script that fills the pipe is to wait, not to fail.
            fcntl_setfl(&reader, fcntl_getfl(&reader)? | OFlags::NONBLOCK)?;
            Ok((high_fd(reader), high_fd(writer)))
        };
        Ok(Self {
            stdout: pipe()?,
            stderr: pipe()?,
        })
    }

    /// In the worker process: its descriptors 1 and 2 lead here from now on.
    ///
    /// What is returned is another number of standard error, out of the way of scripts.
    pub(crate) fn into_child(self) -> io::Result<WorkerStderr> {
        dup2_stdout(&self.stdout.1)?;
        dup2_stderr(&self.stderr.1)?;
        Ok(WorkerStderr(LogFile::new(self.stderr.1)))
    }

    /// In the pool process: what the worker process `pid` of `pool` says can be read here.
    pub(crate) fn into_parent(self, pool: &str, pid: i32, decorate: bool) -> WorkerPipes {
        WorkerPipes {
            stdout: Some(self.stdout.0),
            stderr: Some(self.stderr.0),
            output: WorkerOutput::new(LOG.settings(), pool, pid, decorate),
            pid,
        }
    }
}

/// In a worker process of a pool without `catch_workers_output`: what it says leads nowhere.
pub(crate) fn to_null() -> io::Result<()> {
    let null = File::options().write(true).open("/dev/null")?;
    dup2_stdout(&null)?;
    dup2_stderr(&null)?;
    Ok(())
}

/// Standard error of a worker process, for what PHP says itself.
#[derive(Debug)]
pub(crate) struct WorkerStderr(LogFile);

impl WorkerStderr {
    /// Writes a line.
    pub(crate) fn write(&self, line: &[u8]) {
        self.0.write(line);
    }

    /// A request has ended, so what it said last was a line.
    pub(crate) fn flush(&self) {
        self.0.write(FLUSH);
    }
}

/// The pool process's side of a worker process's pipes. Dropping it, as worker processes do with those of their siblings,
/// says nothing.
#[derive(Debug)]
pub(crate) struct WorkerPipes {
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
    output: WorkerOutput,
    pid: i32,
}

impl WorkerPipes {
    /// What to poll for reading: those streams that have not ended.
    pub(crate) fn sources(&self) -> impl Iterator<Item = (Source, BorrowedFd<'_>)> {
        let stdout = self.stdout.iter().map(|fd| (Source::Stdout, fd.as_fd()));
        let stderr = self.stderr.iter().map(|fd| (Source::Stderr, fd.as_fd()));
        stdout.chain(stderr)
    }

    /// Logs what there is to read from `source`.
    pub(crate) fn read(&mut self, source: Source) {
        let lines = self.take(source);
        write_lines(Level::Warning, &lines);
    }

    /// The process has ended: logs the rest of what it said.
    ///
    /// Processes that it started may have the pipes still; what they say later is lost, as under php-fpm.
    pub(crate) fn finish(mut self) {
        let mut lines = self.take(Source::Stdout);
        lines.append(&mut self.take(Source::Stderr));
        self.output.finish(&mut lines);
        write_lines(Level::Warning, &lines);
    }

    /// Reads until there is no more, or a worker process that does not stop has had its share.
    fn take(&mut self, source: Source) -> Vec<u8> {
        let mut lines = Vec::new();
        let at_once = !self.output.has_begun();
        let mut buffer = [0; 4096];
        for _ in 0..READS {
            let stream = match source {
                Source::Stdout => &mut self.stdout,
                Source::Stderr => &mut self.stderr,
            };
            let Some(fd) = stream else {
                break;
            };
            match rustix::io::read(&*fd, &mut buffer) {
                Ok(length @ 1..) => self.output.feed(source, &buffer[..length], &mut lines),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                ended => {
                    *stream = None;
                    self.output.end(source, at_once, &mut lines);
                    if let Err(errno) = ended {
                        super::error(format_args!(
                            "unable to read what child {} said into {}: {}",
                            self.pid,
                            source.name(),
                            super::Errno(&errno.into())
                        ));
                    }
                    break;
                }
            }
        }
        lines
    }
}

/// More than a pipe holds (16 pages by default), so that all is read of a process that has ended.
const READS: usize = 64;

#[cfg(test)]
mod tests {
    use rustix::event::{PollFd, PollFlags, poll};
    use rustix::io::{FdFlags, fcntl_getfd};

    use super::*;

    fn readable(pipes: &WorkerPipes) -> Vec<Source> {
        let sources: Vec<_> = pipes.sources().collect();
        let mut fds: Vec<_> = sources
            .iter()
            .map(|(_, fd)| PollFd::new(fd, PollFlags::IN))
            .collect();
        poll(&mut fds, Some(&rustix::time::Timespec::default())).expect("polled");
        let ready = fds.iter().zip(&sources);
        ready
            .filter(|(fd, _)| !fd.revents().is_empty())
            .map(|(_, (source, _))| *source)
            .collect()
    }

    #[test]
    fn output_is_read_until_its_end() {
        let pipes = Pipes::new().expect("pipes");
        let (stdout, stderr) = (
            pipes.stdout.1.try_clone().expect("copied"),
            pipes.stderr.1.try_clone().expect("copied"),
        );
        let mut parent = pipes.into_parent("www", 7, false);
        assert!(readable(&parent).is_empty());
        rustix::io::write(&stderr, b"one\ntw").expect("written");
        assert_eq!(readable(&parent), [Source::Stderr]);
        assert_eq!(parent.take(Source::Stderr), b"one\n");
        rustix::io::write(&stdout, b"other\n").expect("written");
        assert_eq!(parent.take(Source::Stdout), b"tw\nother\n");
        drop((stdout, stderr));
        assert_eq!(readable(&parent), [Source::Stdout, Source::Stderr]);
        assert!(parent.take(Source::Stdout).is_empty() && parent.take(Source::Stderr).is_empty());
        assert_eq!(parent.sources().count(), 0);
    }

    #[test]
    fn full_pipe_is_read_at_once() {
        let pipes = Pipes::new().expect("pipes");
        let stderr = pipes.stderr.1.try_clone().expect("copied");
        fcntl_setfl(&stderr, OFlags::NONBLOCK).expect("set");
        let mut written = 0;
        while let Ok(length) = rustix::io::write(&stderr, &[b'x'; 4096]) {
            written += length;
        }
        let mut parent = pipes.into_parent("www", 7, false);
        let mut lines = parent.take(Source::Stderr);
        drop(stderr);
        lines.extend(parent.take(Source::Stderr));
        parent.output.finish(&mut lines);
        let said = lines.iter().filter(|byte| **byte == b'x').count();
        assert_eq!(said, written);
    }

    #[test]
    fn writing_end_blocks_and_programs_of_a_script_inherit_neither() {
        let pipes = Pipes::new().expect("pipes");
        for (reader, writer) in [&pipes.stdout, &pipes.stderr] {
            assert!(
                fcntl_getfl(reader)
                    .expect("flags")
                    .contains(OFlags::NONBLOCK)
            );
            assert!(
                !fcntl_getfl(writer)
                    .expect("flags")
                    .contains(OFlags::NONBLOCK)
            );
            for fd in [reader, writer] {
                assert!(fcntl_getfd(fd).expect("flags").contains(FdFlags::CLOEXEC));
            }
        }
    }
}
