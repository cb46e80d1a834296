//! What `build.rs` says when something is missing on the machine: one message that names the Debian package.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::php;

#[test]
fn missing_php_config_stops_the_build() {
    let machine = Machine::new();
    let message = machine.refusal(&[("PHP_CONFIG", "/nonexistent/php-config")]);
    assert_says(
        &message,
        &["/nonexistent/php-config", "package php-dev", "PHP_CONFIG"],
    );
    let message = machine.refusal(&[("PHP_CONFIG", "php-config"), ("PATH", "/nonexistent")]);
    assert_says(&message, &["php-config cannot be run", "package php-dev"]);
}

#[test]
fn failing_php_config_stops_the_build() {
    let machine = Machine::new();
    let php_config = machine.script("php-config", "echo 'no such thing' >&2; exit 3");
    let message = machine.refusal(&[("PHP_CONFIG", &php_config)]);
    assert_says(
        &message,
        &["exit status: 3", "no such thing", "package php-dev"],
    );
}

#[test]
fn missing_headers_stop_the_build() {
    let machine = Machine::new();
    let php_config = machine.php_config("/nonexistent/include", None);
    let message = machine.refusal(&[("PHP_CONFIG", &php_config)]);
    assert_says(
        &message,
        &["/nonexistent/include/main/php_version.h", "package php-dev"],
    );
}

#[test]
fn old_php_stops_the_build() {
    let machine = Machine::new();
    let include = machine.headers((7, 4), php::is_zts());
    let message = machine.refusal(&[("PHP_CONFIG", &machine.php_config(&include, None))]);
    assert_says(
        &message,
        &[
            "PHP 7.4 is too old: 8.2",
            "php-dev and libphp-embed",
            "PHP_CONFIG",
        ],
    );
}

#[test]
fn missing_libphp_stops_the_build() {
    let machine = Machine::new();
    let include = php::config("--include-dir");
    let php_config = machine.php_config(&include, Some("/nonexistent"));
    let message = machine.refusal(&[("PHP_CONFIG", &php_config)]);
    let package = format!("libphp{}-embed", php::branch());
    assert_says(
        &message,
        &[
            "/nonexistent/lib",
            "package libphp-embed",
            &package,
            "PHP_LIBDIR",
        ],
    );
}

#[test]
fn libphp_of_another_build_stops_the_build() {
    let machine = Machine::new();
    let minor = php::version_number() / 100 % 100;
    let include = machine.headers((8, minor), !php::is_zts());
    let message = machine.refusal(&[("PHP_CONFIG", &machine.php_config(&include, None))]);
    let said = if php::is_zts() {
        "libphp.so is ZTS"
    } else {
        ".so is NTS"
    };
    assert_says(&message, &[said, &include, "package", "PHP_CONFIG"]);

    let include = machine.headers((8, if minor == 5 { 4 } else { 5 }), php::is_zts());
    let message = machine.refusal(&[("PHP_CONFIG", &machine.php_config(&include, None))]);
    assert_says(
        &message,
        &["libphp.so is of another version", "package", "PHP_CONFIG"],
    );
}

#[test]
fn missing_compiler_stops_the_build() {
    let message = Machine::new().refusal(&[("CC", "/nonexistent/cc")]);
    assert_says(&message, &["/nonexistent/cc", "package gcc"]);
}

#[test]
fn missing_libclang_stops_the_build() {
    let message = Machine::new().refusal(&[("LIBCLANG_PATH", "/nonexistent")]);
    assert_says(
        &message,
        &["libclang", "is missing", "package libclang-dev"],
    );
}

#[track_caller]
fn assert_says(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "no {part:?} in:\n{message}");
    }
}

/// A machine on which something is missing, made of scripts and headers in a directory of its own.
struct Machine {
    directory: tempfile::TempDir,
}

impl Machine {
    fn new() -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
        }
    }

    /// Runs the build script and returns its message.
    fn refusal(&self, variables: &[(&str, &str)]) -> String {
        let triple = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
        let output = Command::new(build_script())
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .env_remove("PHP_LIBDIR")
            .env("OUT_DIR", self.directory.path())
            .envs([("HOST", &triple), ("TARGET", &triple)])
            .env("OPT_LEVEL", "0")
            .env("RUST_BACKTRACE", "1")
            .envs(variables.iter().copied())
            .output()
            .unwrap();
        let message = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{message}");
        assert_eq!(String::from_utf8_lossy(&output.stdout), "", "{message}");
        let lines: Vec<_> = message.trim().lines().collect();
        assert!(
            lines.len() == 2 && lines[0].starts_with("fe-php cannot be built. "),
            "{message}"
        );
        message
    }

    /// A php-config that has other headers, and perhaps another prefix.
    fn php_config(&self, include: &str, prefix: Option<&str>) -> String {
        let prefix = prefix.map_or_else(|| php::config("--prefix"), str::to_owned);
        let answers = format!(
            "case $1 in --include-dir) echo {include};; --includes) echo -I{include};; --prefix) echo {prefix};; esac"
        );
        self.script("php-config", &answers)
    }

    fn script(&self, name: &str, commands: &str) -> String {
        let file = self.directory.path().join(name);
        fs::write(&file, format!("#!/bin/sh\n{commands}\n")).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        file.to_str().unwrap().to_owned()
    }

    /// An include directory with the headers of another PHP.
    fn headers(&self, (major, minor): (u32, u32), zts: bool) -> String {
        let include = self.directory.path().join(format!("{major}.{minor}-{zts}"));
        fs::create_dir_all(include.join("main")).unwrap();
        let version =
            format!("#define PHP_MAJOR_VERSION {major}\n#define PHP_MINOR_VERSION {minor}\n");
        fs::write(include.join("main/php_version.h"), version).unwrap();
        let config = if zts { "#define ZTS 1\n" } else { "" };
        fs::write(include.join("main/php_config.h"), config).unwrap();
        let definitions = ["PREFIX", "SYSCONFDIR", "LOCALSTATEDIR", "CONFIG_FILE_PATH"]
            .map(|name| format!("#define PHP_{name} \"/nonexistent\"\n"));
        fs::write(include.join("main/build-defs.h"), definitions.concat()).unwrap();
        include.to_str().unwrap().to_owned()
    }
}

/// The newest build script, which Cargo keeps beside the directory that it gave it.
fn build_script() -> PathBuf {
    let builds = Path::new(env!("OUT_DIR")).ancestors().nth(2).unwrap();
    let scripts = fs::read_dir(builds).unwrap().filter_map(|entry| {
        let entry = entry.unwrap();
        let is_ours = entry.file_name().to_str()?.starts_with("fe-php-");
        let file = entry.path().join("build-script-build");
        let modified = fs::metadata(&file).ok()?.modified().unwrap();
        is_ours.then_some((modified, file))
    });
    scripts.max().expect("Cargo has built build.rs").1
}
