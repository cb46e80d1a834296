//! Finds PHP through php-config, compiles `csrc/`, declares its functions to Rust, and links libphp.
//!
//! What may be missing on a machine is looked for first and reported on standard error. Cargo is told the rest after
//! that, because it shows everything that a failed build script printed, around the message.

use std::env;
use std::fs;
use std::panic;
use std::path::{Path, PathBuf};
use std::process::{Command, exit};

/// Functions and types of `csrc/shim.h` that Rust may name.
const ALLOWED: &str = "fe_php_.*|FE_PHP_.*";
const OLDEST: (u32, u32) = (8, 2);
const NEWEST_KNOWN: u32 = 5;
const LIBRARY_DIRECTORIES: &[&str] = &[
    "lib",
    "lib64",
    "lib/x86_64-linux-gnu",
    "lib/aarch64-linux-gnu",
];
const HEADERS: &[&str] = &[
    "wrapper.h",
    "csrc/shim.h",
    "csrc/internal.h",
    "csrc/title.h",
];
const SOURCES: &[&str] = &[
    "csrc/sapi.c",
    "csrc/request.c",
    "csrc/variables.c",
    "csrc/ini.c",
    "csrc/module.c",
    "csrc/backtrace.c",
    "csrc/body.c",
    "csrc/memory.c",
    "csrc/pool.c",
    "csrc/timeout.c",
    "csrc/title.c",
    "csrc/interrupt.c",
    "csrc/frames.c",
];

/// Set to 1 by `make asan`: compiles `csrc/` with gcc's AddressSanitizer and UndefinedBehaviorSanitizer.
const SANITIZE: &str = "FE_PHP_SANITIZE";

fn main() {
    let php = Php::find();
    let (directory, name) = php.library();
    let mut shim = shim(&php);
    check_compiler(&shim);
    bind();

    for file in HEADERS.iter().chain(SOURCES) {
        println!("cargo:rerun-if-changed={file}");
    }
    for file in [
        "main/php_version.h",
        "main/php_config.h",
        "main/build-defs.h",
    ] {
        println!(
            "cargo:rerun-if-changed={}",
            php.include.join(file).display()
        );
    }
    for variable in ["PHP_CONFIG", "PHP_LIBDIR", "LIBCLANG_PATH", SANITIZE] {
        println!("cargo:rerun-if-env-changed={variable}");
    }
    println!("cargo:rustc-check-cfg=cfg(php_zts)");
    if php.zts {
        println!("cargo:rustc-cfg=php_zts");
    }
    for (name, value) in &php.build {
        println!("cargo:rustc-env=FE_PHP_BUILD_{name}={value}");
    }
    for minor in OLDEST.1..=NEWEST_KNOWN {
        println!("cargo:rustc-check-cfg=cfg(php8{minor})");
        if php.version >= (8, minor) {
            println!("cargo:rustc-cfg=php8{minor}");
        }
    }
    shim.cargo_metadata(true).cargo_warnings(true);
    if let Err(error) = shim.try_compile("fe_php_shim") {
        stop(&format!("csrc/ does not compile: {error}"), "");
    }
    if sanitize() {
        // Before libphp and so before libc, whose functions they replace.
        println!("cargo:rustc-link-lib=dylib=asan");
        println!("cargo:rustc-link-lib=dylib=ubsan");
    }
    println!("cargo:rustc-link-search=native={}", directory.display());
    println!("cargo:rustc-link-lib=dylib={name}");
    println!("cargo:rustc-link-arg=-Wl,-rpath,{}", directory.display());
}

struct Php {
    config: PathBuf,
    include: PathBuf,
    include_flags: Vec<String>,
    version: (u32, u32),
    zts: bool,
    /// Facts that php-fpm has compiled in, for `env!()`: name and value.
    build: Vec<(&'static str, String)>,
}

impl Php {
    fn find() -> Self {
        let config =
            env::var_os("PHP_CONFIG").map_or_else(|| PathBuf::from("php-config"), PathBuf::from);
        let include = PathBuf::from(ask(&config, "--include-dir"));
        let include_flags = ask(&config, "--includes")
            .split_whitespace()
            .map(String::from)
            .collect();
        let version_h = header(&include, "main/php_version.h");
        let config_h = header(&include, "main/php_config.h");
        let version = (
            number(&version_h, "PHP_MAJOR_VERSION"),
            number(&version_h, "PHP_MINOR_VERSION"),
        );
        if version < OLDEST {
            stop(
                &format!(
                    "PHP {}.{} is too old: {}.{} or newer is needed.",
                    version.0, version.1, OLDEST.0, OLDEST.1
                ),
                "Install php-dev and libphp-embed of a newer Debian, or set PHP_CONFIG to a newer PHP's php-config.",
            );
        }
        let zts = config_h
            .lines()
            .any(|line| line.trim_end() == "#define ZTS 1");
        let build_defs = header(&include, "main/build-defs.h");
        let build = vec![
            (
                "VERSION",
                format!(
                    "{}.{}.{}",
                    version.0,
                    version.1,
                    number(&version_h, "PHP_RELEASE_VERSION")
                ),
            ),
            ("PREFIX", text(&build_defs, "PHP_PREFIX")),
            ("SYSCONFDIR", text(&build_defs, "PHP_SYSCONFDIR")),
            ("LOCALSTATEDIR", text(&build_defs, "PHP_LOCALSTATEDIR")),
            (
                "CONFIG_FILE_PATH",
                text(&build_defs, "PHP_CONFIG_FILE_PATH"),
            ),
        ];
        Self {
            config,
            include,
            include_flags,
            version,
            zts,
            build,
        }
    }

    /// Where libphp is, and its name without `lib` and `.so`.
    fn library(&self) -> (PathBuf, String) {
        let prefix = PathBuf::from(ask(&self.config, "--prefix"));
        let (major, minor) = self.version;
        let names = [
            format!("php{major}.{minor}"),
            "php".to_owned(),
            format!("php{major}"),
        ];
        let directories = env::var_os("PHP_LIBDIR")
            .map(PathBuf::from)
            .into_iter()
            .chain(LIBRARY_DIRECTORIES.iter().map(|d| prefix.join(d)));
        for directory in directories {
            for name in &names {
                let file = directory.join(format!("lib{name}.so"));
                if file.exists() {
                    self.check_library(&file);
                    return (directory, name.clone());
                }
            }
        }
        stop(
            &format!(
                "libphp is missing: there is no libphp{major}.{minor}.so or libphp.so in {}/lib.",
                prefix.display()
            ),
            &format!(
                "Install Debian's package libphp-embed (libphp{major}.{minor}-embed), build PHP with \
                 --enable-embed=shared, or set PHP_LIBDIR to libphp's directory."
            ),
        );
    }

    /// Headers and library must come from the same build.
    fn check_library(&self, file: &Path) {
        let bytes = fs::read(file).unwrap_or_default();
        let contains = |text: &str| bytes.windows(text.len()).any(|w| w == text.as_bytes());
        let word = |zts| if zts { "ZTS" } else { "NTS" };
        let (major, minor) = self.version;
        let zts = contains("tsrm_get_ls_cache");
        let library = if zts != self.zts {
            word(zts)
        } else if !contains(&format!("X-Powered-By: PHP/{major}.{minor}.")) {
            "of another version"
        } else {
            return;
        };
        stop(
            &format!(
                "{} is {library}, but the headers in {} are of PHP {major}.{minor}, {}.",
                file.display(),
                self.include.display(),
                word(self.zts)
            ),
            "Install Debian's packages php-dev and libphp-embed of one version, or set PHP_CONFIG to the php-config of \
             the same build.",
        );
    }
}

/// php-config's answer.
fn ask(config: &Path, option: &str) -> String {
    let problem = match Command::new(config).arg(option).output() {
        Ok(output) if output.status.success() => {
            return String::from_utf8_lossy(&output.stdout).trim().to_owned();
        }
        Ok(output) => format!(
            "`{} {option}` failed ({}): {}",
            config.display(),
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        ),
        Err(error) => format!("{} cannot be run: {error}.", config.display()),
    };
    stop(
        &problem,
        "Install Debian's package php-dev, or set PHP_CONFIG to the php-config of another PHP.",
    )
}

fn header(include: &Path, name: &str) -> String {
    let file = include.join(name);
    fs::read_to_string(&file).unwrap_or_else(|error| {
        stop(
            &format!(
                "PHP's headers are missing: {} cannot be read: {error}.",
                file.display()
            ),
            "Install Debian's package php-dev, or set PHP_CONFIG to the php-config of another PHP.",
        )
    })
}

fn number(text: &str, name: &str) -> u32 {
    text.lines()
        .find_map(|line| {
            let value = line.strip_prefix("#define ")?.strip_prefix(name)?;
            value.trim().parse().ok()
        })
        .unwrap_or(0)
}

/// The value of `#define name "value"`.
fn text(header: &str, name: &str) -> String {
    header
        .lines()
        .find_map(|line| {
            let value = line.strip_prefix("#define ")?.strip_prefix(name)?;
            Some(
                value
                    .trim()
                    .strip_prefix('"')?
                    .strip_suffix('"')?
                    .to_owned(),
            )
        })
        .unwrap_or_default()
}

/// How `csrc/` is compiled. It says nothing to Cargo yet.
fn shim(php: &Php) -> cc::Build {
    let mut build = cc::Build::new();
    build.cargo_metadata(false).cargo_warnings(false);
    build.files(SOURCES).define("_GNU_SOURCE", None).define(
        "FE_PHP_VERSION",
        Some(format!("\"{}\"", env::var("CARGO_PKG_VERSION").unwrap_or_default()).as_str()),
    );
    if php.zts {
        build.define("ZEND_ENABLE_STATIC_TSRMLS_CACHE", "1");
    }
    for flag in &php.include_flags {
        build.flag(flag.replacen("-I", "-isystem", 1));
    }
    build
        .flag("-std=gnu11")
        .flag("-Wall")
        .flag("-Wextra")
        .flag("-Wno-unused-parameter");
    if sanitize() {
        build
            .flag("-fsanitize=address,undefined")
            .flag("-fno-sanitize-recover=undefined")
            .flag("-fno-omit-frame-pointer")
            .debug(true);
    }
    build
}

fn sanitize() -> bool {
    env::var(SANITIZE).is_ok_and(|value| value == "1")
}

fn check_compiler(shim: &cc::Build) {
    let problem = match shim.try_get_compiler() {
        Ok(tool) => match Command::new(tool.path()).arg("--version").output() {
            Ok(_) => return,
            Err(error) => format!("{} cannot be run: {error}", tool.path().display()),
        },
        Err(error) => error.to_string(),
    };
    stop(
        &format!("There is no C compiler: {problem}."),
        "Install Debian's package gcc, or set CC to a compiler.",
    );
}

/// Writes `bindings.rs`.
fn bind() {
    let install = "Install Debian's package libclang-dev.";
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default()).join("bindings.rs");
    // bindgen panics when libclang is not there.
    panic::set_hook(Box::new(|_| {}));
    let generated = panic::catch_unwind(|| {
        bindgen::Builder::default()
            .header("wrapper.h")
            .allowlist_function(ALLOWED)
            .allowlist_type(ALLOWED)
            .allowlist_var(ALLOWED)
            .rustified_enum("fe_php_script")
            .rustified_enum("fe_php_opcache")
            .derive_debug(false)
            .layout_tests(false)
            .generate()
    });
    let _ = panic::take_hook();
    match generated {
        Ok(Ok(bindings)) => {
            if let Err(error) = bindings.write_to_file(&out) {
                stop(
                    &format!("{} cannot be written: {error}.", out.display()),
                    "",
                );
            }
        }
        Ok(Err(error)) => stop(
            &format!("bindgen cannot read csrc/shim.h: {error}"),
            install,
        ),
        Err(payload) => {
            let reason = payload.downcast_ref::<String>().map_or("", String::as_str);
            if reason.contains("libclang") {
                stop("libclang, which bindgen needs, is missing.", install);
            }
            stop(&format!("bindgen panicked: {reason}"), install);
        }
    }
}

/// Ends the build with one message: what is wrong, and what to do.
#[allow(clippy::exit)] // a panic would put a backtrace around it
fn stop(problem: &str, remedy: &str) -> ! {
    eprintln!("\nfe-php cannot be built. {problem}\n{remedy}");
    exit(1)
}
