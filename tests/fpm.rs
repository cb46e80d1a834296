//! A server configured by php-fpm.conf: what php-fpm's own test suite (`make conformance`) does not cover.

pub(crate) mod config;
mod load;
mod pm;
mod refused_reload;
mod reload;
pub(crate) mod status;
