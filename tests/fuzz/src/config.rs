//! As much of `src/config` as the protocol code needs.

#[path = "../../../src/config/pool.rs"]
mod pool;

pub(crate) use pool::Limits;
