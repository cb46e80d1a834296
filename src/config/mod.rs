//! The configuration, checked, in the form that processes hand each other: what php-fpm.conf and the command line say.

mod global;
mod pool;

pub(crate) use global::{GlobalConfig, LogTarget};
pub(crate) use pool::{
    IniConfig, IniMode, IniSetting, Limits, ListenAddress, Name, PoolConfig, ProcessManager,
    ResourceLimits, SocketOptions, StatusConfig, TimeLimits,
};
