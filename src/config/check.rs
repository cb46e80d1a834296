//! php-fpm's checks of the whole configuration, in its order and words: `fpm_conf_post_process()` and
//! `fpm_conf_process_all_pools()`. They also fill in what depends on other directives, and make paths absolute.

use std::fs;
use std::io;
use std::path::Path;

use super::directive::{Key, PRIORITY_UNSET};
use super::file::{Failed, Section, Sections};
use super::messages::Messages;
use super::options::{FpmOptions, PhpBuild};
use super::pool::{ListenAddress, Name};
use super::settings::Settings;
use super::typed;
use crate::log::{AccessFormat, DEFAULT_ACCESS_FORMAT, Level, open_log_file};
use crate::users::Lookup;

/// The checks.
#[derive(Debug)]
pub(super) struct Checker<'a> {
    pub(super) options: &'a FpmOptions,
    pub(super) php: &'a PhpBuild,
    pub(super) messages: &'a mut Messages,
}

type Checked = Result<(), Failed>;

/// The size of what the kernel takes for the path of a socket, with the NUL behind it.
const SOCKET_PATH: usize = 108;

impl Checker<'_> {
    /// All checks but those of [`Checker::names`].
    pub(super) fn check(&mut self, sections: &mut Sections) -> Checked {
        self.global(&mut sections.global)?;
        self.pools(&mut sections.pools)?;
        for pool in &sections.pools {
            if let Some(log) = pool.settings.text(Key::AccessLog) {
                self.open_log(log, |log| format!("failed to open access log ({log})"))?;
            }
        }
        for pool in &sections.pools {
            let settings = &pool.settings;
            let (Some(_), Some(text)) = (
                settings.filled(Key::AccessLog),
                settings.text(Key::AccessFormat),
            ) else {
                continue;
            };
            if let Err(problem) = AccessFormat::parse(text) {
                self.messages.push(Level::Warning, problem);
                return self.pool_error(pool, &format!("wrong format for access.format '{text}'"));
            }
        }
        Ok(())
    }

    fn global(&mut self, settings: &mut Settings) -> Checked {
        let below_state = Some(self.php.localstatedir.clone());
        if let Some(pid) = settings.text(Key::Pid) {
            let pid = self.full_path(pid, None, below_state.as_deref());
            settings.set_text(Key::Pid, pid);
        }
        if let Some(daemonize) = self.options.daemonize {
            settings.set_number(Key::Daemonize, daemonize.into());
        }
        if let Some(level) = settings.log_level() {
            self.messages.set_level(level);
        }
        if settings.number(Key::LogLimit) < MIN_LOG_LIMIT {
            return self.error(format!("log_limit must be greater than {MIN_LOG_LIMIT}"));
        }
        if settings.number(Key::ProcessMax) < 0 {
            return self.error("process_max can't be negative");
        }
        if !is_priority(settings.number(Key::GlobalPriority)) {
            return self.error("process.priority must be included into [-19,20]");
        }
        self.systemd(settings);
        if settings.text(Key::SyslogIdent).is_none() {
            settings.set_text(Key::SyslogIdent, "php-fpm");
        }
        if settings.number(Key::SyslogFacility) < 0 {
            settings.set_number(Key::SyslogFacility, LOG_DAEMON);
        }
        let log = settings.text(Key::ErrorLog).unwrap_or("log/php-fpm.log");
        if log.eq_ignore_ascii_case("syslog") {
            settings.set_text(Key::ErrorLog, log.to_owned());
        } else {
            let log = self.full_path(log, None, below_state.as_deref());
            settings.set_text(Key::ErrorLog, log.as_str());
            self.open_log(&log, |log| format!("failed to open error_log ({log})"))?;
        }
        // The log is open: from here on, what is wrong belongs there.
        let global = typed::global(settings, self.options);
        self.messages.set_global(global);
        self.events_mechanism(settings)
    }

    /// The time between messages to systemd, in seconds; kept in milliseconds from here on.
    fn systemd(&mut self, settings: &mut Settings) {
        let watchdog = std::env::var("WATCHDOG_USEC").ok();
        let half = watchdog.map_or(0, |time| super::ini::atoi(time.as_bytes()) / 2000);
        let interval = settings.number(Key::SystemdInterval);
        let interval = if half > 1000 {
            if interval > 0 {
                self.messages
                    .push(Level::Warning, "systemd_interval option ignored");
            }
            let seconds = f64::from(half) / 1000.0;
            self.messages.push(
                Level::Notice,
                format!(
                    "systemd watchdog configured to {}sec",
                    three_digits(seconds)
                ),
            );
            half.into()
        } else if interval < 0 {
            SYSTEMD_INTERVAL
        } else {
            interval * 1000
        };
        settings.set_number(Key::SystemdInterval, interval);
    }

    fn events_mechanism(&mut self, settings: &mut Settings) -> Checked {
        let Some(mechanism) = settings.text(Key::EventsMechanism) else {
            return Ok(());
        };
        let known = ["epoll", "poll", "select"]
            .into_iter()
            .find(|known| known.eq_ignore_ascii_case(mechanism));
        match known {
            Some("epoll") => {}
            Some(known) => self.messages.push(
                Level::Notice,
                format!("events.mechanism = {known} has no effect: fe-php always uses epoll"),
            ),
            None => {
                return self.error(format!(
                    "event mechanism '{mechanism}' is not available on this system"
                ));
            }
        }
        settings.unset(Key::EventsMechanism);
        Ok(())
    }

    fn pools(&mut self, pools: &mut Vec<Section>) -> Checked {
        if pools.is_empty() {
            return self.error(
                "No pool defined. at least one pool section must be specified in config file",
            );
        }
        // Pools for status pages join the list while it is gone through.
        let mut index = 0;
        while index < pools.len() {
            let mut pool = pools[index].clone();
            self.addresses(&mut pool)?;
            self.process_manager(&mut pool)?;
            if pool.settings.text(Key::StatusListen).is_some() {
                let status = self.status_pool(&mut pool, index);
                pools.push(status);
            }
            self.status_and_ping(&mut pool)?;
            self.logs(&mut pool)?;
            self.directories(&mut pool)?;
            self.ini_paths(&mut pool);
            pools[index] = pool;
            index += 1;
        }
        for (index, pool) in pools.iter().enumerate() {
            let listen = pool.settings.text(Key::Listen);
            let same = |(other, section): &(usize, &Section)| {
                *other != index && section.settings.text(Key::Listen) == listen
            };
            if let Some((_, other)) = pools.iter().enumerate().find(same) {
                let text = format!(
                    "unable to set listen address as it's already used in another pool '{}'",
                    pool.name
                );
                return self.pool_error(other, &text);
            }
        }
        Ok(())
    }

    fn addresses(&mut self, pool: &mut Section) -> Checked {
        if let Some(prefix) = pool.settings.filled(Key::Prefix) {
            let prefix = self.full_path(prefix, None, None);
            pool.settings.set_text(Key::Prefix, prefix.as_str());
            if !is_directory(&prefix) {
                let text = format!("the prefix '{prefix}' does not exist or is not a directory");
                return self.pool_error(pool, &text);
            }
        }
        if pool.settings.text(Key::User).is_none() && is_root() && !self.options.run_as_root {
            return self.pool_alert(pool, "user has not been defined");
        }
        let Some(listen) = pool.settings.filled(Key::Listen) else {
            return self.pool_alert(pool, "no listen address have been defined!");
        };
        if let ListenAddress::Unix(_) = ListenAddress::from_directive(listen) {
            let path = self.full_path(listen, Some(pool), None);
            pool.settings.set_text(Key::Listen, path);
        }
        if !is_priority(pool.settings.number(Key::Priority)) {
            return self.pool_error(pool, "process.priority must be included into [-19,20]");
        }
        if pool.settings.number(Key::ListenSetfib) >= 0 {
            let text =
                "listen.setfib has no effect: there are no routing tables of this kind on Linux";
            self.messages
                .push(Level::Notice, format!("[pool {}] {text}", pool.name));
        }
        Ok(())
    }

    fn process_manager(&mut self, pool: &mut Section) -> Checked {
        let Some(pm) = pool.settings.process_manager() else {
            let text = "the process manager is missing (static, dynamic or ondemand)";
            return self.pool_alert(pool, text);
        };
        if pool.settings.number(Key::MaxChildren) < 1 {
            return self.pool_alert(pool, "pm.max_children must be a positive value");
        }
        match pm {
            "dynamic" => self.dynamic(pool),
            "ondemand" => self.ondemand(pool),
            _ => Ok(()),
        }
    }

    fn dynamic(&mut self, pool: &mut Section) -> Checked {
        let settings = &pool.settings;
        let min = settings.number(Key::MinSpareServers);
        let max = settings.number(Key::MaxSpareServers);
        let start = settings.number(Key::StartServers);
        let children = settings.number(Key::MaxChildren);
        let problem = if min <= 0 {
            format!("pm.min_spare_servers({min}) must be a positive value")
        } else if max <= 0 {
            format!("pm.max_spare_servers({max}) must be a positive value")
        } else if min > children || max > children {
            format!(
                "pm.min_spare_servers({min}) and pm.max_spare_servers({max}) cannot be greater than pm.max_children({children})"
            )
        } else if max < min {
            format!("pm.max_spare_servers({max}) must not be less than pm.min_spare_servers({min})")
        } else if start > 0 && (start < min || start > max) {
            format!(
                "pm.start_servers({start}) must not be less than pm.min_spare_servers({min}) and not greater than pm.max_spare_servers({max})"
            )
        } else {
            String::new()
        };
        if !problem.is_empty() {
            return self.pool_alert(pool, &problem);
        }
        if start <= 0 {
            let start = min + (max - min) / 2;
            pool.settings.set_number(Key::StartServers, start);
            self.messages.push(
                Level::Notice,
                format!(
                    "[pool {}] pm.start_servers is not set. It's been set to {start}.",
                    pool.name
                ),
            );
        }
        if pool.settings.number(Key::MaxSpawnRate) < 1 {
            return self.pool_alert(pool, "pm.max_spawn_rate must be a positive value");
        }
        Ok(())
    }

    fn ondemand(&mut self, pool: &mut Section) -> Checked {
        let timeout = pool.settings.number(Key::ProcessIdleTimeout);
        if timeout < 1 {
            let text = format!("pm.process_idle_timeout({timeout}s) must be greater than 0s");
            return self.pool_alert(pool, &text);
        }
        let backlog = pool.settings.number(Key::ListenBacklog);
        if backlog < DEFAULT_BACKLOG {
            self.messages.push(
                Level::Warning,
                format!(
                    "[pool {}] listen.backlog({backlog}) was too low for the ondemand process manager. I updated it for you to {DEFAULT_BACKLOG}.",
                    pool.name
                ),
            );
            pool.settings
                .set_number(Key::ListenBacklog, DEFAULT_BACKLOG);
        }
        for key in [
            Key::StartServers,
            Key::MinSpareServers,
            Key::MaxSpareServers,
        ] {
            pool.settings.set_number(key, 0);
        }
        Ok(())
    }

    /// php-fpm has a pool of its own for `pm.status_listen`; here it is only checked like one.
    fn status_pool(&self, pool: &mut Section, index: usize) -> Section {
        let settings = &mut pool.settings;
        if settings.text(Key::StatusPath).is_none() {
            settings.set_text(Key::StatusPath, "/");
        }
        let mut status = Settings::new();
        for key in [
            Key::ListenAclGroups,
            Key::ListenAclUsers,
            Key::ListenAllowedClients,
            Key::ListenGroup,
            Key::ListenOwner,
            Key::ListenMode,
            Key::User,
            Key::Group,
            Key::StatusPath,
            Key::PingPath,
            Key::PingResponse,
        ] {
            if let Some(text) = settings.text(key) {
                status.set_text(key, text);
            }
        }
        if let Some(listen) = settings.text(Key::StatusListen) {
            status.set_text(Key::Listen, listen);
        }
        status.set_number(Key::Pm, 2);
        status.set_number(Key::MaxChildren, 2);
        Section {
            name: format!("{}_status", pool.name),
            settings: status,
            shared: Some(index),
        }
    }

    fn status_and_ping(&mut self, pool: &mut Section) -> Checked {
        if let Some(path) = pool.settings.filled(Key::StatusPath) {
            let alone = pool.settings.text(Key::StatusListen).is_none() && pool.shared.is_none();
            let problem = page_problem("status", path, if alone { 2 } else { 1 });
            self.no_problem(pool, problem)?;
        }
        let Some(path) = pool.settings.filled(Key::PingPath) else {
            pool.settings.unset(Key::PingResponse);
            return Ok(());
        };
        let problem = page_problem("ping", path, 2);
        self.no_problem(pool, problem)?;
        match pool.settings.text(Key::PingResponse) {
            None => pool.settings.set_text(Key::PingResponse, "pong"),
            Some("") => {
                return self.pool_error(pool, "the ping response page '' is not long enough");
            }
            Some(_) => {}
        }
        Ok(())
    }

    fn logs(&mut self, pool: &mut Section) -> Checked {
        if let Some(log) = pool.settings.filled(Key::AccessLog) {
            let log = self.full_path(log, Some(pool), None);
            pool.settings.set_text(Key::AccessLog, log);
            if pool.settings.text(Key::AccessFormat).is_none() {
                pool.settings
                    .set_text(Key::AccessFormat, DEFAULT_ACCESS_FORMAT);
            }
        }
        if let Some(log) = pool.settings.filled(Key::SlowLog) {
            let log = self.full_path(log, Some(pool), None);
            pool.settings.set_text(Key::SlowLog, log);
        }
        let slow = pool.settings.number(Key::SlowLogTimeout);
        let slow_log = pool.settings.filled(Key::SlowLog).map(str::to_owned);
        if slow != 0 {
            let Some(log) = &slow_log else {
                let text = "'slowlog' must be specified for use with 'request_slowlog_timeout'";
                return self.pool_error(pool, text);
            };
            self.open_log(log, |log| {
                format!("Unable to create or open slowlog({log})")
            })?;
            let terminate = pool.settings.number(Key::TerminateTimeout);
            if terminate != 0 && slow > terminate {
                let text = format!(
                    "'request_slowlog_timeout' ({slow}) can't be greater than 'request_terminate_timeout' ({terminate})"
                );
                return self.pool_error(pool, &text);
            }
        }
        let depth = pool.settings.number(Key::SlowLogTraceDepth);
        if depth == 0 {
            pool.settings.set_number(Key::SlowLogTraceDepth, 20);
            return Ok(());
        }
        if slow_log.is_none() {
            let text = "'slowlog' must be specified for use with 'request_slowlog_trace_depth'";
            return self.pool_error(pool, text);
        }
        if depth < 0 {
            let text = format!("'request_slowlog_trace_depth' ({depth}) must be a positive value");
            return self.pool_error(pool, &text);
        }
        Ok(())
    }

    fn directories(&mut self, pool: &mut Section) -> Checked {
        if let Some(chroot) = pool.settings.filled(Key::Chroot) {
            let chroot = self.chroot(chroot, pool);
            pool.settings.set_text(Key::Chroot, chroot.as_str());
            if !chroot.starts_with('/') {
                let text = format!("the chroot path '{chroot}' must start with a '/'");
                return self.pool_error(pool, &text);
            }
            if !is_directory(&chroot) {
                let text =
                    format!("the chroot path '{chroot}' does not exist or is not a directory");
                return self.pool_error(pool, &text);
            }
        }
        if let Some(chdir) = pool.settings.filled(Key::Chdir) {
            let chdir = self.full_path(chdir, Some(pool), None);
            pool.settings.set_text(Key::Chdir, chdir.as_str());
            let problem = if !chdir.starts_with('/') {
                format!("the chdir path '{chdir}' must start with a '/'")
            } else if let Some(chroot) = pool.settings.text(Key::Chroot) {
                let within = format!("{chroot}/{chdir}");
                if is_directory(&within) {
                    String::new()
                } else {
                    format!(
                        "the chdir path '{chdir}' within the chroot path '{chroot}' ('{within}') does not exist or is not a directory"
                    )
                }
            } else if is_directory(&chdir) {
                String::new()
            } else {
                format!("the chdir path '{chdir}' does not exist or is not a directory")
            };
            self.no_problem(pool, problem)?;
        }
        if pool.settings.text(Key::LimitExtensions).is_none() {
            pool.settings.set_text(Key::LimitExtensions, ".php .phar");
        }
        Ok(())
    }

    /// Settings that are paths may be below the prefix too, outside a chroot.
    fn ini_paths(&self, pool: &mut Section) {
        if pool.settings.text(Key::Chroot).is_some() {
            return;
        }
        for key in [Key::PhpValue, Key::PhpAdminValue] {
            let mut list = pool.settings.list(key).to_vec();
            for (name, value) in &mut list {
                let syslog = key == Key::PhpAdminValue
                    && name.eq_ignore_ascii_case("error_log")
                    && value.eq_ignore_ascii_case("syslog");
                if !syslog && INI_PATHS.iter().any(|path| path.eq_ignore_ascii_case(name)) {
                    *value = self.full_path(value, Some(pool), None);
                }
            }
            pool.settings.list_mut(key).clone_from_slice(&list);
        }
    }

    /// What `-t` looks up besides: users, groups and how long paths are. php-fpm serves without that only to find out later.
    pub(super) fn names(&mut self, pools: &[Section]) -> Checked {
        for pool in pools {
            let of_pool = Lookup::of_pool(&pool.name);
            let of_socket = Lookup::of_socket(&pool.name);
            for (key, lookup) in [
                (Key::User, of_pool),
                (Key::Group, of_pool),
                (Key::ListenOwner, of_socket),
                (Key::ListenGroup, of_socket),
            ] {
                let name = pool.settings.text(key).unwrap_or_default();
                if name.is_empty() || matches!(typed::name(name), Name::Id(_)) {
                    continue;
                }
                let is_user = matches!(key, Key::User | Key::ListenOwner);
                if name.bytes().all(|byte| byte.is_ascii_digit()) {
                    let (pool, what) = (&pool.name, if is_user { "user" } else { "group" });
                    return self.error(format!("[pool {pool}] {what} ID '{name}' is out of range"));
                }
                let found = if is_user {
                    lookup.user(name).map(drop)
                } else {
                    lookup.group(name).map(drop)
                };
                if let Err(problem) = found {
                    return self.error(problem.to_string());
                }
            }
            for key in [Key::Listen, Key::StatusListen] {
                let address = pool.settings.text(key).unwrap_or_default();
                if let ListenAddress::Unix(path) = ListenAddress::from_directive(address)
                    && path.as_os_str().len() >= SOCKET_PATH
                {
                    let (pool, length) = (&pool.name, address.len());
                    return self.error(format!(
                        "[pool {pool}] cannot bind to UNIX socket '{address}' as path is too long (found length: {length}, \
                         maximal length: {SOCKET_PATH})"
                    ));
                }
            }
        }
        Ok(())
    }

    /// `path`, below the prefix unless it is absolute: the pool's, else that of `-p`, else `otherwise`, else PHP's.
    fn full_path(&self, path: &str, pool: Option<&Section>, otherwise: Option<&str>) -> String {
        if path.starts_with('/') {
            return path.to_owned();
        }
        let full = format!("{}/{path}", self.prefix(pool, otherwise));
        if !full.starts_with('/') && pool.is_some() {
            return self.full_path(&full, None, otherwise);
        }
        full
    }

    /// The same for `chroot`, which may begin with `$prefix`.
    fn chroot(&mut self, path: &str, pool: &Section) -> String {
        if path.starts_with('/') {
            return path.to_owned();
        }
        match path.find("$prefix") {
            None => self.full_path(path, Some(pool), None),
            Some(0) => {
                let prefix = self.prefix(Some(pool), None).to_owned();
                let full = match &path["$prefix".len()..] {
                    "" => prefix,
                    rest => format!("{prefix}/{rest}"),
                };
                self.full_path(&full, None, None)
            }
            Some(_) => {
                self.messages
                    .error("'$prefix' must be use at the beginning of the value");
                path.to_owned()
            }
        }
    }

    fn prefix<'p>(&'p self, pool: Option<&'p Section>, otherwise: Option<&'p str>) -> &'p str {
        pool.and_then(|pool| pool.settings.text(Key::Prefix))
            .or(self.options.prefix.as_deref())
            .or(otherwise)
            .unwrap_or(&self.php.prefix)
    }

    /// A log that cannot be opened is found now rather than at the first line.
    fn open_log(&mut self, path: &str, problem: impl Fn(&str) -> String) -> Checked {
        // As it will be opened: `/proc/self/fd/2` works for whatever that is.
        let opened = open_log_file(Path::new(path));
        opened.map(drop).map_err(|error: io::Error| {
            self.messages.system_error(&problem(path), error);
            Failed
        })
    }

    fn no_problem(&mut self, pool: &Section, problem: String) -> Checked {
        if problem.is_empty() {
            return Ok(());
        }
        self.pool_error(pool, &problem)
    }

    fn pool_error(&mut self, pool: &Section, text: &str) -> Checked {
        self.error(format!("[pool {}] {text}", pool.name))
    }

    fn pool_alert(&mut self, pool: &Section, text: &str) -> Checked {
        self.messages
            .push(Level::Alert, format!("[pool {}] {text}", pool.name));
        Err(Failed)
    }

    fn error(&mut self, text: impl Into<String>) -> Checked {
        self.messages.error(text);
        Err(Failed)
    }
}

pub(super) fn is_directory(path: &str) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.is_dir())
}

pub(super) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn is_priority(number: i64) -> bool {
    number == PRIORITY_UNSET || (-19..=20).contains(&number)
}

/// What is wrong with the path of the status or ping page, if anything.
fn page_problem(page: &str, path: &str, shortest: usize) -> String {
    if !path.starts_with('/') {
        return format!("the {page} path '{path}' must start with a '/'");
    }
    if path.len() < shortest {
        return format!("the {page} path '{path}' is not long enough");
    }
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"/-_.~".contains(&byte);
    if !path.bytes().all(allowed) {
        return format!(
            "the {page} path '{path}' must contain only the following characters '[alphanum]/_-.~'"
        );
    }
    String::new()
}

/// C's `%.3g` for what may occur here.
fn three_digits(number: f64) -> String {
    let decimals = match number {
        100.0.. => 0,
        10.0.. => 1,
        _ => 2,
    };
    let text = format!("{number:.decimals$}");
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    }
}

const MIN_LOG_LIMIT: i64 = 512;
const LOG_DAEMON: i64 = 24;
const SYSTEMD_INTERVAL: i64 = 10_000;
/// As many as the kernel allows.
const DEFAULT_BACKLOG: i64 = -1;

const INI_PATHS: &[&str] = &[
    "error_log",
    "extension_dir",
    "mime_magic.magicfile",
    "sendmail_path",
    "session.cookie_path",
    "session_pgsql.sem_file_name",
    "soap.wsdl_cache_dir",
    "uploadprogress.file.filename_template",
    "xdebug.output_dir",
    "xdebug.profiler_output_dir",
    "xdebug.trace_output_dir",
    "xmms.path",
    "axis2.client_home",
    "blenc.key_file",
    "coin_acceptor.device",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_written_as_c_writes_them() {
        for (number, text) in [
            (15.0, "15"),
            (1.5, "1.5"),
            (2.25, "2.25"),
            (12.34, "12.3"),
            (120.0, "120"),
            (100.4, "100"),
        ] {
            assert_eq!(three_digits(number), text);
        }
    }
}
