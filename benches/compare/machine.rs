//! Where and how the figures came about.

use std::fs;
use std::process::Command;

use crate::load::php_name;
use crate::options::Options;
use crate::support::php;

/// The report's head.
pub(crate) fn describe(options: &Options) -> String {
    let field = |file: &str, name: &str| {
        let text = fs::read_to_string(file).unwrap_or_default();
        text.lines()
            .find_map(|line| line.strip_prefix(name))
            .map_or_else(
                || "unknown".to_owned(),
                |rest| rest.trim_start_matches([':', ' ', '\t']).to_owned(),
            )
    };
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let fpm = php::fpm().map_or_else(|| "none".to_owned(), |path| path.display().to_string());
    let rounds = match (options.rounds, options.quick) {
        (Some(rounds), _) => format!(", {rounds} rounds"),
        (None, true) => ", --quick".to_owned(),
        (None, false) => String::new(),
    };
    format!(
        "# fe-php beside php-fpm: {php}

- machine: {model}, {cores} cores, {memory} of memory, Linux {kernel}
- build: {version}, {fpm}
- fe-php: {crate_version}, commit {commit}; {date}
- command: `{command}`{rounds}

Four workers each, the same php.ini and extensions, OPcache on, a Unix socket unless TCP is named, four connections from
one thread of `fe-php bench` on the same machine. CPU is that of the server's process tree for each request; figures are
medians over interleaved rounds. A ratio is the row's figure divided by that of the case's first row, as the median of
the ratios within a round. Processes \"at work\" are those that did a tenth of the work or more.
",
        php = php_name(),
        model = field("/proc/cpuinfo", "model name"),
        memory = field("/proc/meminfo", "MemTotal"),
        kernel = fs::read_to_string("/proc/sys/kernel/osrelease")
            .unwrap_or_default()
            .trim(),
        version = php::config("--configure-options")
            .split_whitespace()
            .find(|option| option.contains("prefix="))
            .map_or_else(php_name, |option| format!("{}, {option}", php_name())),
        crate_version = env!("CARGO_PKG_VERSION"),
        commit = output(&["git", "describe", "--always", "--dirty"]),
        date = output(&["date", "-u", "+%F"]),
        command = command(),
    )
}

/// The make target that runs this.
fn command() -> &'static str {
    if php::is_zts() {
        "make bench-zts"
    } else if php::is_packaged() {
        "make bench"
    } else {
        "make bench-nts84"
    }
}

fn output(command: &[&str]) -> String {
    let output = Command::new(command[0])
        .args(&command[1..])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output();
    match output {
        Ok(output) if output.status.success() => {
            String::from_utf8_lossy(&output.stdout).trim().to_owned()
        }
        _ => "unknown".to_owned(),
    }
}
