//! The calls that neither std nor rustix offers.

use std::ffi::CStr;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;
use std::time::Duration;

/// Seconds that local time is ahead of UTC at `seconds` since 1970.
pub(super) fn local_offset(seconds: i64) -> i64 {
    local_time(seconds).map_or(0, |parts| parts.tm_gmtoff)
}

fn local_time(seconds: i64) -> Option<libc::tm> {
    let mut parts = MaybeUninit::<libc::tm>::zeroed();
    // SAFETY: both pointers are to live values of the right types; a null return is checked.
    let filled = unsafe { libc::localtime_r(&raw const seconds, parts.as_mut_ptr()) };
    if filled.is_null() {
        return None;
    }
    // SAFETY: all-zero bytes are a valid `tm` (integers and a nullable pointer), and it has been filled in since.
    Some(unsafe { parts.assume_init() })
}

/// Appends what strftime(3) makes of local time, in English whatever locale a script has set; nothing if that is longer
/// than 511 bytes.
pub(super) fn write_time(out: &mut Vec<u8>, format: &CStr, seconds: i64) {
    let Some(parts) = local_time(seconds) else {
        return;
    };
    let Some(Locale(locale)) = plain_locale() else {
        return;
    };
    let mut buffer = [0u8; 512];
    // SAFETY: the pointers are to a buffer of the length that is given, a C string, a filled-in `tm` and a locale that
    // is never freed.
    let length = unsafe {
        libc::strftime_l(
            buffer.as_mut_ptr().cast(),
            buffer.len(),
            format.as_ptr(),
            &raw const parts,
            *locale,
        )
    };
    out.extend_from_slice(&buffer[..length]);
}

struct Locale(libc::locale_t);

// SAFETY: the "C" locale is constant and lives for ever, so any thread may read it.
unsafe impl Send for Locale {}
// SAFETY: as above.
unsafe impl Sync for Locale {}

fn plain_locale() -> Option<&'static Locale> {
    static LOCALE: OnceLock<Option<Locale>> = OnceLock::new();
    LOCALE
        .get_or_init(|| {
            // SAFETY: a C string, and no locale to start from.
            let locale =
                unsafe { libc::newlocale(libc::LC_ALL_MASK, c"C".as_ptr(), std::ptr::null_mut()) };
            (!locale.is_null()).then_some(Locale(locale))
        })
        .as_ref()
}

/// Makes the number of `target` lead where `new` does, in one step: who writes meanwhile reaches either of the two.
pub(super) fn replace(target: BorrowedFd<'_>, new: OwnedFd) -> io::Result<()> {
    // SAFETY: both numbers are open descriptors. The owner of `target` goes on owning its number, and expects this.
    let answer = unsafe { libc::dup3(new.as_raw_fd(), target.as_raw_fd(), libc::O_CLOEXEC) };
    if answer == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// CPU time in user and kernel mode of this thread, and of children of the process that it has waited for.
pub(super) fn cpu_time() -> (Duration, Duration) {
    let (user, system) = usage(libc::RUSAGE_THREAD);
    let (children_user, children_system) = usage(libc::RUSAGE_CHILDREN);
    (user + children_user, system + children_system)
}

fn usage(who: libc::c_int) -> (Duration, Duration) {
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the pointer is to memory for the result. The call cannot fail for these arguments, and zeros stay then.
    unsafe { libc::getrusage(who, usage.as_mut_ptr()) };
    // SAFETY: it is all integers, for which zeros are valid.
    let usage = unsafe { usage.assume_init() };
    (duration(usage.ru_utime), duration(usage.ru_stime))
}

fn duration(time: libc::timeval) -> Duration {
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let microseconds = u64::try_from(time.tv_usec).unwrap_or(0);
    Duration::from_secs(seconds) + Duration::from_micros(microseconds)
}
