//! What `ps` shows of a process: `php-fpm: master process (/etc/php/8.2/fpm/php-fpm.conf)`, `php-fpm: pool www`.

use std::ffi::{CString, c_char};

unsafe extern "C" {
    /// csrc/title.c
    fn fe_php_set_title(title: *const c_char);
}

/// Changes the title of this process. For a process that has one thread, since the environment is moved.
pub(crate) fn set(title: &str) {
    if let Ok(title) = CString::new(title) {
        // SAFETY: the string lives during the call, which copies it into memory that it has found to be the process's own.
        unsafe { fe_php_set_title(title.as_ptr()) };
    }
}

/// Takes the name of the parent, which `ps -C` and `pgrep` go by. Without /proc it stays as it is.
pub(crate) fn take_name_of_parent() {
    let Some(parent) = rustix::process::getppid() else {
        return;
    };
    let name = std::fs::read(format!("/proc/{}/comm", parent.as_raw_nonzero()));
    if let Some(name) = name
        .ok()
        .and_then(|name| CString::new(name.trim_ascii_end()).ok())
    {
        // What the parent could have as a name, its child can.
        let _ = rustix::thread::set_name(&name);
    }
}
