//! The callbacks that the C shim calls; each borrows the request's context for its own length only.
//!
//! None of them calls PHP, so no `longjmp` can pass through their frames; a panic becomes an error return.

use std::ffi::{c_char, c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::{ptr, slice};

use super::context::RequestContext;
use super::execute::fill_table;
use super::ffi;
use super::log_message;
use crate::request::{RequestEnd, ResponseHead, StatusValue};

pub(super) const CALLBACKS: ffi::fe_php_callbacks = ffi::fe_php_callbacks {
    send_headers: Some(send_headers),
    write: Some(write),
    flush: Some(flush),
    finish: Some(finish),
    read_body: Some(read_body),
    variables: Some(variables),
    error: Some(error),
    log: Some(log),
    ending: Some(ending),
    status: Some(status),
};

const OK: c_int = 0;
const GONE: c_int = -1;

/// Runs `action` on the context behind `pointer`; `failed` stands for no context, or a panic.
fn with_context<T>(
    pointer: *mut c_void,
    failed: T,
    action: impl FnOnce(&mut RequestContext<'_>) -> T,
) -> T {
    // SAFETY: the pointer is null or the one that `execute` put in the request, whose context outlives the call and
    // is borrowed by nobody else on this thread while PHP runs.
    let Some(context) = (unsafe { pointer.cast::<RequestContext<'_>>().as_mut() }) else {
        return failed;
    };
    match catch_unwind(AssertUnwindSafe(|| action(context))) {
        Ok(value) => value,
        Err(panic) => {
            let text = panic
                .downcast_ref::<&str>()
                .map(ToString::to_string)
                .or_else(|| panic.downcast_ref::<String>().cloned())
                .unwrap_or_else(|| "a callback panicked".to_owned());
            // The context itself is whole: the panic came out of the sink or the body.
            context.panic.get_or_insert(text);
            failed
        }
    }
}

/// Bytes that C lends for the length of a callback.
fn lent<'a>(pointer: *const c_char, length: usize) -> &'a [u8] {
    if pointer.is_null() || length == 0 {
        return &[];
    }
    // SAFETY: C hands over a pointer and the length of what it points to, both valid until the callback returns, and
    // no caller keeps the slice longer.
    unsafe { slice::from_raw_parts(pointer.cast::<u8>(), length) }
}

extern "C" fn send_headers(context: *mut c_void, head: *const ffi::fe_php_head) -> c_int {
    // SAFETY: the shim passes the address of a struct on its stack.
    let Some(head) = (unsafe { head.as_ref() }) else {
        return GONE;
    };
    with_context(context, GONE, |context| {
        let lines: &[ffi::fe_php_bytes] = if head.count == 0 {
            &[]
        } else {
            // SAFETY: `lines` points to `count` elements for the length of this call.
            unsafe { slice::from_raw_parts(head.lines, head.count) }
        };
        let status_line = lent(head.status_line.ptr, head.status_line.len);
        let answer = context.sink.head(ResponseHead {
            status: u16::try_from(head.status).unwrap_or(500),
            status_line: (!status_line.is_empty()).then_some(status_line),
            nph: head.nph,
            rfc2616_headers: head.rfc2616_headers,
            headers: &mut lines.iter().map(|line| lent(line.ptr, line.len)),
        });
        if answer.is_ok() { OK } else { GONE }
    })
}

extern "C" fn write(context: *mut c_void, data: *const c_char, length: usize) -> c_int {
    with_context(context, GONE, |context| {
        match context.sink.write(lent(data, length)) {
            Ok(()) => OK,
            Err(_) => GONE,
        }
    })
}

extern "C" fn flush(context: *mut c_void) -> c_int {
    with_context(context, GONE, |context| {
        if context.sink.flush().is_ok() {
            OK
        } else {
            GONE
        }
    })
}

extern "C" fn finish(context: *mut c_void) -> c_int {
    with_context(context, GONE, |context| {
        if context.sink.finish().is_ok() {
            OK
        } else {
            GONE
        }
    })
}

extern "C" fn read_body(context: *mut c_void, buffer: *mut c_char, length: usize) -> usize {
    with_context(context, 0, |context| {
        // SAFETY: PHP lends a writable buffer of `length` bytes for the length of this call; they may not be
        // initialised, but u8 has no invalid value and they are only written to.
        let buffer = unsafe { slice::from_raw_parts_mut(buffer.cast::<u8>(), length) };
        context.read_body(buffer)
    })
}

extern "C" fn variables(context: *mut c_void) -> ffi::fe_php_variables {
    // Not null even when there are none, so that C does not ask again.
    let none = ffi::fe_php_variables {
        list: ptr::NonNull::dangling().as_ptr(),
        count: 0,
    };
    with_context(context, none, |context| {
        fill_table(context.table, context.variables);
        ffi::fe_php_variables {
            list: context.table.as_ptr(),
            count: context.table.len(),
        }
    })
}

extern "C" fn error(context: *mut c_void, message: *const c_char, length: usize) {
    with_context(context, (), |context| {
        context.sink.error(lent(message, length));
    });
}

extern "C" fn log(
    context: *mut c_void,
    message: *const c_char,
    length: usize,
    to_client: bool,
    another: bool,
) {
    // A panic in the logger has nowhere to be told.
    let Ok(text) = catch_unwind(|| log_message(lent(message, length), to_client)) else {
        return;
    };
    if to_client {
        with_context(context, (), |context| {
            if another {
                context.sink.error(b"; ");
            }
            context.sink.error(&text);
        });
    }
}

extern "C" fn ending(context: *mut c_void, end: *const ffi::fe_php_end) {
    // SAFETY: the shim passes the address of a struct on its stack.
    let Some(end) = (unsafe { end.as_ref() }) else {
        return;
    };
    with_context(context, (), |context| {
        context.sink.ending(&RequestEnd {
            variables: context.variables,
            memory_peak: end.memory_peak,
            status: u16::try_from(end.status).unwrap_or(0),
        });
    });
}

extern "C" fn status(context: *mut c_void) -> ffi::fe_php_status {
    let none = ffi::fe_php_status {
        values: ptr::null(),
        count: 0,
    };
    with_context(context, none, |context| {
        context.status = context.sink.status();
        context.status_table.clear();
        let Some(status) = &context.status else {
            return none;
        };
        let value = |(name, value): &(&'static str, StatusValue)| status_value(name, value);
        context.status_table.extend(status.pool.iter().map(value));
        for process in &status.procs {
            context
                .status_table
                .push(status_value("", &StatusValue::Long(0)));
            context.status_table.extend(process.iter().map(value));
        }
        ffi::fe_php_status {
            values: context.status_table.as_ptr(),
            count: context.status_table.len(),
        }
    })
}

fn status_value(name: &'static str, value: &StatusValue) -> ffi::fe_php_status_value {
    let mut element = ffi::fe_php_status_value {
        name: super::execute::bytes(name.as_bytes()),
        kind: 0,
        integer: 0,
        number: 0.0,
        text: super::execute::bytes(b""),
    };
    match value {
        StatusValue::Long(integer) => element.integer = *integer,
        StatusValue::Double(number) => {
            element.kind = 1;
            element.number = *number;
        }
        StatusValue::String(text) => {
            element.kind = 2;
            element.text = super::execute::bytes(text);
        }
    }
    element
}
