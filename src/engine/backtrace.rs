//! PHP's call stack, read from another thread while the script goes on.

use std::ffi::c_char;
use std::fmt::{self, Write};
use std::mem::MaybeUninit;
use std::ptr;
use std::thread;
use std::time::Duration;

use super::ffi;

/// The call stack at one moment, innermost first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Backtrace {
    frames: Vec<Frame>,
    depth: usize,
}

/// One function, or file, that has been called.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Frame {
    address: usize,
    kind: Kind,
    class: String,
    function: String,
    /// Empty for PHP's own functions.
    file: String,
    /// Where in that file it is.
    line: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Unknown,
    Function,
    /// `include`, `require` or `eval`
    Include,
    /// The script itself.
    Script,
    /// Where a fiber begins.
    Fiber,
}

/// Reads the stack. Nobody holds the script up, so it may change meanwhile: it is read twice, and again until both are the same.
/// A script that calls short functions all the time never stands still for that long; then what was read last has to do, if all
/// of it is what it should be, down to the script itself. (The engine's stack grows and shrinks at one end, so a frame that is
/// read is that of a call of this moment or of one just before or after.)
pub(super) fn read(view: &ffi::fe_php_view, depth: usize) -> Backtrace {
    // A frame's caller is wanted for its line, and between the two may be functions of PHP's own.
    let most = depth.saturating_add(BEYOND);
    let mut before = links(view, most);
    let mut best = Vec::new();
    let mut best_is_whole = false;
    for _ in 0..ATTEMPTS {
        let now = links(view, most);
        let same = now.len() == before.len()
            && now.iter().zip(&before).all(|(now, before)| {
                (now.frame, now.function, now.previous)
                    == (before.frame, before.function, before.previous)
            });
        if let Some(frames) = now.iter().map(frame).collect::<Option<Vec<Frame>>>() {
            // The frame of a function that is about to be called has no caller yet.
            let whole = frames.len() == most
                || frames
                    .last()
                    .is_none_or(|last| matches!(last.kind, Kind::Script | Kind::Unknown));
            if whole || !best_is_whole {
                best = frames;
                best_is_whole = whole;
            }
            if same && whole {
                break;
            }
            if same {
                // The thread has been interrupted between two steps, so let it go on.
                thread::sleep(PAUSE);
            }
        }
        before = now;
    }
    Backtrace {
        frames: best,
        depth,
    }
}

impl Backtrace {
    /// The lines of php-fpm's slow log (`fpm_php_trace_dump`): each function with the place where it was called.
    pub(crate) fn slow_log(&self) -> String {
        let mut out = String::new();
        let shown = self.frames.iter().enumerate();
        let shown = shown.filter(|(_, frame)| frame.kind != Kind::Fiber);
        for (index, frame) in shown.take(self.depth) {
            let name = match frame.kind {
                Kind::Script | Kind::Fiber => break,
                Kind::Include => "[INCLUDE_OR_EVAL]",
                Kind::Unknown => "???",
                Kind::Function => frame.function.as_str(),
            };
            let caller = self.frames[index + 1..]
                .iter()
                .take_while(|frame| frame.kind != Kind::Unknown)
                .find(|frame| !frame.file.is_empty());
            let (file, line) = caller.map_or(("unknown", 0), |frame| (&frame.file, frame.line));
            // A `String` cannot fail to take text.
            let _ = writeln!(out, "[0x{:016x}] {name}() {file}:{line}", frame.address);
        }
        out
    }

    /// The same in the words of a crash report: each function with the place where it is now.
    pub(crate) fn lines(&self) -> impl Iterator<Item = String> {
        let frames = self.frames.iter().take(self.depth).enumerate();
        frames.map(|(number, frame)| format!("#{number} {frame}"))
    }
}

impl fmt::Display for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            Kind::Unknown => f.write_str("[unknown]")?,
            Kind::Fiber => f.write_str("[fiber]")?,
            Kind::Include | Kind::Script => f.write_str("[main]")?,
            Kind::Function if self.class.is_empty() => write!(f, "{}()", self.function)?,
            Kind::Function => write!(f, "{}::{}()", self.class, self.function)?,
        }
        if self.file.is_empty() {
            f.write_str(" [internal]")
        } else {
            write!(f, " {}:{}", self.file, self.line)
        }
    }
}

fn links(view: &ffi::fe_php_view, most: usize) -> Vec<ffi::fe_php_link> {
    let mut links: Vec<ffi::fe_php_link> = Vec::with_capacity(most);
    // SAFETY: there is room for `most`; the shim reads everything else through the kernel.
    let count = unsafe { ffi::fe_php_read_links(view, links.as_mut_ptr(), most) };
    // SAFETY: the shim has filled in so many.
    unsafe { links.set_len(count) };
    links
}

fn frame(link: &ffi::fe_php_link) -> Option<Frame> {
    let mut frame = MaybeUninit::<ffi::fe_php_frame>::uninit();
    // SAFETY: the shim writes to the frame, and reads what the link names through the kernel.
    if !unsafe { ffi::fe_php_read_frame(ptr::from_ref(link), frame.as_mut_ptr()) } {
        return None;
    }
    // SAFETY: the shim fills in all of it, and has said that it did.
    let frame = unsafe { frame.assume_init_ref() };
    Some(Frame {
        address: link.frame.addr(),
        kind: match u32::from(frame.kind) {
            ffi::FE_PHP_FRAME_FUNCTION => Kind::Function,
            ffi::FE_PHP_FRAME_INCLUDE => Kind::Include,
            ffi::FE_PHP_FRAME_SCRIPT => Kind::Script,
            ffi::FE_PHP_FRAME_FIBER => Kind::Fiber,
            _ => Kind::Unknown,
        },
        class: text(&frame.class_name),
        function: text(&frame.function),
        file: text(&frame.file),
        line: frame.line,
    })
}

/// What stands before the NUL.
pub(super) fn text(bytes: &[c_char]) -> String {
    let bytes: Vec<u8> = bytes
        .iter()
        .take_while(|byte| **byte != 0)
        .map(|byte| byte.to_ne_bytes()[0])
        .collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

const ATTEMPTS: u32 = 32;
const PAUSE: Duration = Duration::from_micros(500);
/// Frames below the last one that is shown.
const BEYOND: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(address: usize, kind: Kind, name: &str, file: &str, line: u32) -> Frame {
        let (class, function) = name.split_once("::").unwrap_or(("", name));
        Frame {
            address,
            kind,
            class: class.to_owned(),
            function: function.to_owned(),
            file: file.to_owned(),
            line,
        }
    }

    fn backtrace(depth: usize) -> Backtrace {
        Backtrace {
            frames: vec![
                frame(0x70, Kind::Function, "sleep", "", 0),
                frame(0x60, Kind::Function, "A::inner", "/a.php", 3),
                frame(0x50, Kind::Function, "array_map", "", 0),
                frame(0x40, Kind::Include, "", "/b.php", 7),
                frame(0x30, Kind::Script, "", "/main.php", 9),
                frame(0x20, Kind::Function, "never_shown", "/c.php", 1),
            ],
            depth,
        }
    }

    #[test]
    fn slow_log_says_where_functions_were_called_and_ends_at_the_script() {
        let expected = "[0x0000000000000070] sleep() /a.php:3\n\
                        [0x0000000000000060] inner() /b.php:7\n\
                        [0x0000000000000050] array_map() /b.php:7\n\
                        [0x0000000000000040] [INCLUDE_OR_EVAL]() /main.php:9\n";
        assert_eq!(backtrace(20).slow_log(), expected);
        let cut: String = expected.lines().take(2).map(|l| format!("{l}\n")).collect();
        assert_eq!(backtrace(2).slow_log(), cut);
    }

    #[test]
    fn a_function_that_no_script_called_has_an_unknown_place() {
        let lone = Backtrace {
            frames: vec![
                frame(0x20, Kind::Function, "handler", "/a.php", 2),
                frame(0x10, Kind::Unknown, "", "", 0),
            ],
            depth: 20,
        };
        assert_eq!(
            lone.slow_log(),
            "[0x0000000000000020] handler() unknown:0\n[0x0000000000000010] ???() unknown:0\n"
        );
    }

    #[test]
    fn report_says_where_functions_are() {
        let lines: Vec<String> = backtrace(3).lines().collect();
        let expected = [
            "#0 sleep() [internal]",
            "#1 A::inner() /a.php:3",
            "#2 array_map() [internal]",
        ];
        assert_eq!(lines, expected);
    }
}
