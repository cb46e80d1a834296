//! PHP run inside a Rust program: a drop-in replacement for php-fpm, and a library that runs PHP scripts.
//!
//! The program is `fe-php`; see the README. The library is [`Php`]: start it once, then run scripts from any thread.
//!
//! # Layout
//!
//! One request:
//!
//! ```text
//! socket   server/reactor/       accept, read, hand over
//! codec    server/connection.rs  fastcgi::Decoder → Job
//! worker   server/driver.rs      which thread waits for sockets, which runs PHP
//! request  server/script.rs      variables → Script
//! engine   engine/execute.rs     csrc/request.c: request startup → script → shutdown
//! sapi     engine/sapi.rs        callbacks from csrc/sapi.c → ResponseSink
//! response server/exchange.rs    records, written by the PHP thread itself
//! socket   server/output.rs      what the socket did not take
//! ```
//!
//! Control:
//!
//! ```text
//! main.rs → app.rs → supervisor (tokio, no PHP) ── exec ─▶ zygote (the pool process: PHP's module startup)
//!                        │                                   └─ fork ─▶ server (worker processes)
//!                        └── scoreboard: shared memory, mapped by all ─▶ status: pages made of it
//! ```
//!
//! `fe-php bench` is a client and shares only `fastcgi` with the rest: bench/.

#[doc(hidden)]
pub mod app;
mod bench;
mod cli;
mod config;
#[allow(unsafe_code)]
mod descriptor;
#[allow(unsafe_code)]
mod engine;
mod errno;
#[doc(hidden)]
pub mod fastcgi;
mod log;
mod php;
mod pm;
#[doc(hidden)]
pub mod request;
#[allow(unsafe_code)]
mod scoreboard;
mod server;
mod status;
#[allow(unsafe_code)]
mod supervisor;
#[allow(unsafe_code)]
mod title;
mod users;
#[allow(unsafe_code)]
mod zygote;

pub use php::{BodySender, Builder, Php, PhpError, Request, Response, StreamedResponse};
