//! `src/server/job.rs` without the engine that runs it.

use std::sync::Arc;
use std::time::Instant;

use super::exchange::Exchange;
use crate::fastcgi::ProtocolStatus;
use crate::request::{Body, Variables};

#[derive(Debug)]
pub(crate) struct Job {
    pub(super) token: u64,
    pub(super) exchange: Arc<Exchange>,
    pub(super) variables: Variables,
    pub(super) body: Body,
    pub(super) ready: Instant,
    pub(super) counted: bool,
}

impl Job {
    pub(super) fn new(
        token: u64,
        exchange: Arc<Exchange>,
        variables: Variables,
        body: Body,
        ready: Instant,
    ) -> Self {
        Self {
            token,
            exchange,
            variables,
            body,
            ready,
            counted: false,
        }
    }

    pub(super) fn refuse(self, status: ProtocolStatus) {
        let _ = self.exchange.end(status);
    }
}
