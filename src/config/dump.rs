//! What `-tt` shows: php-fpm's `fpm_conf_dump()`, with fe-php's own directives at the end where they are set.

use super::directive::{DIRECTIVES, Directive, Key, Kind, PRIORITY_UNSET, Scope};
use super::file::Sections;
use super::settings::Settings;

/// The lines, to be logged as notices.
pub(super) fn dump(sections: &Sections) -> Vec<String> {
    let mut lines = vec!["[global]".to_owned()];
    section(&mut lines, Scope::Global, &sections.global);
    for pool in &sections.pools {
        if pool.shared.is_none() {
            lines.push(format!("[{}]", pool.name));
            section(&mut lines, Scope::Pool, &pool.settings);
        }
    }
    lines
}

fn section(lines: &mut Vec<String>, scope: Scope, settings: &Settings) {
    for directive in DIRECTIVES.iter().filter(|row| row.scope == scope) {
        entry(lines, directive, settings);
    }
    lines.push(" ".to_owned());
}

fn entry(lines: &mut Vec<String>, directive: &Directive, settings: &Settings) {
    let Directive { key, name, .. } = *directive;
    // php-fpm has no apparmor_hat in its dump, and no listen.setfib on Linux.
    let optional = directive.is_ours() || matches!(key, Key::AppArmorHat | Key::ListenSetfib);
    if optional && !settings.is_changed(directive) {
        return;
    }
    if matches!(directive.kind, Kind::Array | Kind::BooleanArray) {
        for (index, value) in settings.list(key) {
            lines.push(format!("\t{name}[{index}] = {value}"));
        }
        return;
    }
    lines.push(format!("\t{name} = {}", value(directive, settings)));
}

fn value(directive: &Directive, settings: &Settings) -> String {
    let key = directive.key;
    let number = settings.number(key);
    match directive.kind {
        Kind::Text if key == Key::EventsMechanism => "epoll".to_owned(),
        Kind::Text => settings.text(key).unwrap_or("undefined").to_owned(),
        Kind::Boolean => if number == 0 { "no" } else { "yes" }.to_owned(),
        Kind::LogLevel => match settings.log_level() {
            Some(level) => format!("{level:?}").to_uppercase(),
            // php-fpm's words for its own default.
            None => "unknown value".to_owned(),
        },
        Kind::Priority if number == PRIORITY_UNSET => "undefined".to_owned(),
        Kind::ProcessManager => settings.process_manager().unwrap_or("undefined").to_owned(),
        Kind::Time if key == Key::SystemdInterval => format!("{}s", number / 1000),
        Kind::Time if key == Key::ProcessIdleTimeout => number.to_string(),
        Kind::Time => format!("{number}s"),
        Kind::Milliseconds => format!("{number}ms"),
        Kind::QueueAnswer => if number == 0 { "503" } else { "overloaded" }.to_owned(),
        _ => number.to_string(),
    }
}
