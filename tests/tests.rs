//! All integration tests, in one binary: they drive the `fe-php` program from outside.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss
)]
#![allow(missing_docs)]

#[macro_use]
mod support;

mod applications;
mod bench;
mod build_messages;
mod differential;
mod dispatch;
mod extensions;
mod fastcgi;
mod faults;
mod fpm;
mod fpm_notify;
mod fpm_queue;
mod fpm_status;
mod frontends;
mod isolation;
mod logs;
mod memory;
mod opcache;
mod process_max;
mod processes;
mod regression;
mod security;
mod time_limit;
mod time_limits;
