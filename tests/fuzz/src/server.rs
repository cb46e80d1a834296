//! The modules of `src/server` that know neither PHP nor the event loop.

#[path = "../../../src/server/body.rs"]
mod body;
#[path = "../../../src/server/connection.rs"]
mod connection;
#[path = "../../../src/server/exchange.rs"]
mod exchange;
mod job;
#[path = "../../../src/server/output.rs"]
mod output;
#[path = "../../../src/server/properties/mod.rs"]
pub mod properties;
#[path = "../../../src/server/relay.rs"]
mod relay;
#[path = "../../../src/server/status_line.rs"]
mod status_line;
