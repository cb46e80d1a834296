//! The package's protocol code, compiled by path and so without PHP, for the fuzz targets. What they check is in the
//! modules called `properties`.
#![allow(dead_code, missing_docs)] // each is used in the package

mod config;
#[path = "../../../src/descriptor.rs"]
mod descriptor;
#[path = "../../../src/fastcgi/mod.rs"]
pub mod fastcgi;
#[path = "../../../src/request.rs"]
mod request;
pub mod server;
