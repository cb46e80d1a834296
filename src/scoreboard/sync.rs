//! The atomics of [`idle`](super::idle). `tests/model` compiles that module with another `sync`, whose atomics try every order.

pub(super) use std::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, Ordering};
