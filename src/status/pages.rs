//! The pages that a pool answers itself, made of its configuration and scoreboard.

use std::sync::Arc;

use super::{PageKind, StatusContext, StatusRequest, is_head, php_status, ping, render};
use crate::config::{PoolConfig, ProcessManager, StatusConfig};
use crate::log;
use crate::request::{StatusArrays, Variables};
use crate::scoreboard::Scoreboard;

/// Everything that these pages are made of.
#[derive(Debug)]
pub(crate) struct Pages {
    pool: String,
    process_manager: ProcessManager,
    config: StatusConfig,
    scoreboard: Arc<Scoreboard>,
    php_version: (u32, u32),
    /// `X-Powered-By`, with `expose_php`.
    powered_by: Option<String>,
}

impl Pages {
    /// `version` is PHP's: `8.2.36`.
    pub(crate) fn new(
        config: &PoolConfig,
        scoreboard: Arc<Scoreboard>,
        version: &str,
        expose_php: bool,
    ) -> Self {
        let mut numbers = version.split('.').map(|part| part.parse().unwrap_or(0));
        Self {
            pool: config.name.clone(),
            process_manager: config.pm.clone(),
            config: config.status.clone(),
            scoreboard,
            php_version: (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)),
            powered_by: expose_php.then(|| format!("PHP/{version}")),
        }
    }

    /// Whether the request is for one of them.
    pub(crate) fn kind(&self, variables: &Variables) -> Option<PageKind> {
        if self.config.path.is_none() && self.config.ping_path.is_none() {
            return None;
        }
        PageKind::at(variables.get(b"SCRIPT_NAME")?, &self.config)
    }

    /// Makes the page: headers, an empty line, the body.
    pub(crate) fn page(&self, kind: PageKind, variables: &Variables) -> Vec<u8> {
        let page = match kind {
            PageKind::Ping => ping(self.config.ping_response.as_deref(), is_head(variables)),
            PageKind::Status => {
                let request = StatusRequest::from_variables(variables);
                let snapshot = if request.full {
                    self.scoreboard.full_snapshot()
                } else {
                    self.scoreboard.snapshot()
                };
                render(&snapshot, &self.context(), request)
            }
        };
        let mut bytes = Vec::with_capacity(page.body.len() + 256);
        let powered_by = self.powered_by.as_deref();
        let headers = powered_by.map(|version| ("X-Powered-By", version));
        for (name, value) in headers.into_iter().chain(page.headers.iter().copied()) {
            bytes.extend_from_slice(name.as_bytes());
            bytes.extend_from_slice(b": ");
            bytes.extend_from_slice(value.as_bytes());
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(&page.body);
        bytes
    }

    /// The same figures for a script.
    pub(crate) fn php_status(&self) -> StatusArrays {
        php_status(&self.scoreboard.full_snapshot(), &self.context())
    }

    fn context(&self) -> StatusContext<'_> {
        StatusContext {
            pool: &self.pool,
            process_manager: &self.process_manager,
            php_version: self.php_version,
            utc_offset: log::local_offset,
        }
    }
}
