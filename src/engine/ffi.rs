//! What bindgen made of `csrc/shim.h`.
#![allow(
    missing_docs,
    missing_debug_implementations,
    non_camel_case_types,
    non_upper_case_globals,
    unreachable_pub
)]
#![allow(
    dead_code,
    clippy::all,
    clippy::pedantic,
    clippy::undocumented_unsafe_blocks,
    clippy::ptr_as_ptr
)]

include!(concat!(env!("OUT_DIR"), "/bindings.rs"));
