//! From checked settings to the typed configuration.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::Duration;

use super::directive::{DIRECTIVES, Key, PRIORITY_UNSET};
use super::file::{Section, Sections};
use super::messages::Messages;
use super::options::FpmOptions;
use super::settings::Settings;
use super::{
    Config, GlobalConfig, IniMode, IniSetting, Limits, ListenAddress, LogTarget, Name, PoolConfig,
    ProcessManager, QueueAnswer, ResourceLimits, SocketOptions, StatusConfig, TimeLimits,
};
use crate::log::Level;

pub(super) fn global(settings: &Settings, options: &FpmOptions) -> GlobalConfig {
    // What there is to say of it, `config` says.
    let mut messages = Messages::new();
    let mut typer = Typer {
        messages: &mut messages,
        pool: None,
    };
    typer.global(settings, options)
}

/// The whole configuration.
pub(super) fn config(sections: &Sections, options: &FpmOptions, messages: &mut Messages) -> Config {
    let mut typer = Typer {
        messages,
        pool: None,
    };
    let global = typer.global(&sections.global, options);
    let mut pools = Vec::new();
    for (index, pool) in sections.pools.iter().enumerate() {
        if pool.shared.is_some() {
            continue;
        }
        typer.pool = Some(pool.name.clone());
        let mut config = typer.pool(pool, options);
        let status = sections
            .pools
            .iter()
            .find(|pool| pool.shared == Some(index));
        config.status.listen = status
            .and_then(|pool| pool.settings.text(Key::Listen))
            .map(ListenAddress::from_directive);
        pools.push(config);
    }
    Config { global, pools }
}

struct Typer<'a> {
    messages: &'a mut Messages,
    pool: Option<String>,
}

impl Typer<'_> {
    fn global(&mut self, settings: &Settings, options: &FpmOptions) -> GlobalConfig {
        let daemonize = settings.flag(Key::Daemonize);
        let on_terminal = options.force_stderr || std::io::stderr().is_terminal();
        let log = settings.text(Key::ErrorLog).unwrap_or_default();
        let error_log = if !daemonize && on_terminal {
            LogTarget::Stderr
        } else if log.eq_ignore_ascii_case("syslog") {
            LogTarget::Syslog {
                facility: i32::try_from(settings.number(Key::SyslogFacility)).unwrap_or(24),
                ident: settings
                    .text(Key::SyslogIdent)
                    .unwrap_or_default()
                    .to_owned(),
            }
        } else {
            LogTarget::File(log.into())
        };
        GlobalConfig {
            pid: settings.filled(Key::Pid).map(PathBuf::from),
            error_log,
            log_level: settings.log_level().unwrap_or(Level::Notice),
            log_limit: usize::try_from(settings.number(Key::LogLimit)).unwrap_or(usize::MAX),
            log_buffering: settings.flag(Key::LogBuffering),
            process_max: self.unsigned(settings, Key::ProcessMax),
            priority: priority(settings, Key::GlobalPriority),
            daemonize,
            rlimits: self.rlimits(settings, Key::GlobalRlimitFiles, Key::GlobalRlimitCore),
            emergency_restart_threshold: self.unsigned(settings, Key::EmergencyRestartThreshold),
            emergency_restart_interval: self.seconds(settings, Key::EmergencyRestartInterval),
            process_control_timeout: self.seconds(settings, Key::ProcessControlTimeout),
            systemd_interval: u64::try_from(settings.number(Key::SystemdInterval))
                .ok()
                .filter(|interval| *interval > 0)
                .map(Duration::from_millis),
        }
    }

    fn pool(&mut self, pool: &Section, options: &FpmOptions) -> PoolConfig {
        let settings = &pool.settings;
        let listen = settings.text(Key::Listen).unwrap_or_default();
        let listen = vec![ListenAddress::from_directive(listen)];
        let max_children = self.unsigned(settings, Key::MaxChildren);
        PoolConfig {
            socket: self.socket(settings),
            user: settings.filled(Key::User).map(name),
            group: settings.filled(Key::Group).map(name),
            pm: self.process_manager(settings),
            max_requests: self.unsigned(settings, Key::MaxRequests),
            queue_timeout: milliseconds(settings, Key::QueueTimeout),
            queue_answer: if settings.flag(Key::QueueAnswer) {
                QueueAnswer::Overloaded
            } else {
                QueueAnswer::ServiceUnavailable
            },
            status: StatusConfig {
                path: settings.filled(Key::StatusPath).map(str::to_owned),
                listen: None,
                ping_path: settings.filled(Key::PingPath).map(str::to_owned),
                ping_response: settings.filled(Key::PingResponse).map(str::to_owned),
            },
            access_log: settings.filled(Key::AccessLog).map(PathBuf::from),
            access_format: settings.text(Key::AccessFormat).map(str::to_owned),
            access_suppress_paths: settings
                .list(Key::AccessSuppressPath)
                .iter()
                .map(|(_, path)| path.clone())
                .collect(),
            time_limits: TimeLimits {
                terminate: some(self.seconds(settings, Key::TerminateTimeout)),
                track_finished: settings.flag(Key::TerminateTimeoutTrackFinished),
                slowlog: some(self.seconds(settings, Key::SlowLogTimeout)),
                slowlog_trace_depth: self.unsigned(settings, Key::SlowLogTraceDepth),
                slowlog_file: settings.filled(Key::SlowLog).map(PathBuf::from),
            },
            rlimits: self.rlimits(settings, Key::RlimitFiles, Key::RlimitCore),
            priority: priority(settings, Key::Priority),
            dumpable: settings.flag(Key::Dumpable),
            chroot: settings.filled(Key::Chroot).map(PathBuf::from),
            chdir: settings.filled(Key::Chdir).map(PathBuf::from),
            apparmor_hat: settings.filled(Key::AppArmorHat).map(str::to_owned),
            catch_workers_output: settings.flag(Key::CatchWorkersOutput),
            decorate_workers_output: settings.flag(Key::DecorateWorkersOutput),
            clear_env: settings.flag(Key::ClearEnv),
            env: settings.list(Key::Env).to_vec(),
            limit_extensions: settings
                .text(Key::LimitExtensions)
                .unwrap_or_default()
                .split([' ', '\t'])
                .filter(|extension| !extension.is_empty())
                .map(str::to_owned)
                .collect(),
            ini_settings: ini_settings(settings),
            ini: options.ini.clone(),
            pcntl: settings.flag(Key::Pcntl),
            limits: self.limits(settings),
            ..PoolConfig::new(pool.name.clone(), listen, max_children)
        }
    }

    fn socket(&mut self, settings: &Settings) -> SocketOptions {
        SocketOptions {
            backlog: i32::try_from(settings.number(Key::ListenBacklog)).unwrap_or(-1),
            owner: settings.filled(Key::ListenOwner).map(name),
            group: settings.filled(Key::ListenGroup).map(name),
            mode: self.mode(settings),
            acl_users: names(settings, Key::ListenAclUsers),
            acl_groups: names(settings, Key::ListenAclGroups),
            allowed_clients: settings
                .filled(Key::ListenAllowedClients)
                .map(str::to_owned),
        }
    }

    /// Octal, as far as it goes, as php-fpm has it.
    fn mode(&mut self, settings: &Settings) -> u32 {
        let Some(text) = settings.filled(Key::ListenMode) else {
            return 0o660;
        };
        let digits = text.trim_start_matches("0o");
        let octal = digits
            .bytes()
            .take_while(|b| (b'0'..=b'7').contains(b))
            .count();
        let mode = u32::from_str_radix(&digits[..octal], 8).unwrap_or(0) & 0o7777;
        if octal < digits.len() || octal == 0 || octal > 6 {
            self.warn(&format!(
                "listen.mode '{text}' is not an octal number such as 0660: {mode:04o} is used"
            ));
        }
        mode
    }

    fn process_manager(&mut self, settings: &Settings) -> ProcessManager {
        match settings.process_manager() {
            Some("dynamic") => ProcessManager::Dynamic {
                start_servers: self.unsigned(settings, Key::StartServers),
                min_spare_servers: self.unsigned(settings, Key::MinSpareServers),
                max_spare_servers: self.unsigned(settings, Key::MaxSpareServers),
                max_spawn_rate: self.unsigned(settings, Key::MaxSpawnRate),
            },
            Some("ondemand") => ProcessManager::OnDemand {
                process_idle_timeout: self.seconds(settings, Key::ProcessIdleTimeout),
            },
            _ => ProcessManager::Static,
        }
    }

    fn rlimits(&mut self, settings: &Settings, files: Key, core: Key) -> ResourceLimits {
        ResourceLimits {
            files: Some(u64::from(self.unsigned(settings, files))).filter(|files| *files > 0),
            core: match settings.number(core) {
                -1 => Some(u64::MAX),
                bytes => u64::try_from(bytes).ok().filter(|bytes| *bytes > 0),
            },
        }
    }

    fn limits(&mut self, settings: &Settings) -> Limits {
        let default = Limits::default();
        let size = |key, default| {
            let given = settings.given_number(key);
            given
                .and_then(|size| usize::try_from(size).ok())
                .unwrap_or(default)
        };
        let count = |key, default| {
            let given = settings.given_number(key);
            given
                .and_then(|count| u32::try_from(count).ok())
                .unwrap_or(default)
        };
        Limits {
            params_size: size(Key::LimitParamsSize, default.params_size),
            params_count: size(Key::LimitParamsCount, default.params_count),
            body_buffer: size(Key::LimitBodyBuffer, default.body_buffer),
            connections: count(Key::LimitConnections, default.connections),
            queue: match self.unsigned(settings, Key::QueueMax) {
                // php-fpm has no such limit; that of connections holds.
                0 => u32::MAX,
                queue => queue,
            },
            announces_multiplexing: default.announces_multiplexing,
            requests_per_connection: count(
                Key::LimitRequestsPerConnection,
                default.requests_per_connection,
            )
            .min(65_535),
            request_header_timeout: milliseconds(settings, Key::LimitRequestHeaderTimeout)
                .unwrap_or(default.request_header_timeout),
            output_buffer: size(Key::LimitOutputBuffer, default.output_buffer),
        }
    }

    /// A number that means nothing below zero; php-fpm lets it through, and what it then does is nobody's intention.
    fn unsigned(&mut self, settings: &Settings, key: Key) -> u32 {
        let number = settings.number(key);
        u32::try_from(number).unwrap_or_else(|_| {
            let name = DIRECTIVES[key as usize].name;
            self.warn(&format!("{name}({number}) is negative: 0 is used"));
            0
        })
    }

    fn seconds(&mut self, settings: &Settings, key: Key) -> Duration {
        Duration::from_secs(self.unsigned(settings, key).into())
    }

    fn warn(&mut self, text: &str) {
        let text = match &self.pool {
            Some(pool) => format!("[pool {pool}] {text}"),
            None => text.to_owned(),
        };
        self.messages.push(Level::Warning, text);
    }
}

/// The greatest number means nobody to the kernel.
pub(super) fn name(text: &str) -> Name {
    match text.parse() {
        Ok(id) if text.bytes().all(|byte| byte.is_ascii_digit()) && id != u32::MAX => Name::Id(id),
        _ => Name::Name(text.to_owned()),
    }
}

fn names(settings: &Settings, key: Key) -> Vec<String> {
    let text = settings.filled(key).unwrap_or_default();
    text.split(',')
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect()
}

fn priority(settings: &Settings, key: Key) -> Option<i32> {
    let priority = Some(settings.number(key)).filter(|priority| *priority != PRIORITY_UNSET)?;
    i32::try_from(priority).ok()
}

fn milliseconds(settings: &Settings, key: Key) -> Option<Duration> {
    let number = u64::try_from(settings.given_number(key)?).ok()?;
    some(Duration::from_millis(number))
}

fn some(time: Duration) -> Option<Duration> {
    Some(time).filter(|time| !time.is_zero())
}

/// In the order in which php-fpm applies them: values before admin values, and of each kind the last one first, so that
/// the first one of a name wins.
fn ini_settings(settings: &Settings) -> Vec<IniSetting> {
    [
        (Key::PhpValue, IniMode::User),
        (Key::PhpAdminValue, IniMode::Admin),
    ]
    .into_iter()
    .flat_map(|(key, mode)| {
        settings
            .list(key)
            .iter()
            .map(move |(name, value)| IniSetting {
                name: name.clone(),
                value: value.clone(),
                mode,
            })
    })
    .collect()
}
