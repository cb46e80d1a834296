//! Faults: what can go wrong while requests run, made to happen in a real server. After each of them the server answers the
//! next requests right, on new connections and on those that were open already, and holds no more than before.
//!
//! `FE_PHP_LONG=1` commits every fault ten times as often.

mod clients;
mod connections;
mod descriptors;
mod memory;
mod recursion;
mod slow;
mod stopped;
mod supervisor;
pub(crate) mod watch;
mod workers;
