//! Finds PHP through php-config, compiles `csrc/`, declares its functions to Rust, and links libphp.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, exit};

/// Functions and types of `csrc/shim.h` that Rust may name.
const ALLOWED: &str = "fe_php_.*|FE_PHP_.*";
const OLDEST: (u32, u32) = (8, 2);
const NEWEST_KNOWN: u32 = 5;

fn main() {
    for file in ["wrapper.h", "csrc/shim.h", "csrc/internal.h"]
        .iter()
        .chain(SOURCES)
    {
        println!("cargo:rerun-if-changed={file}");
    }
    println!("cargo:rerun-if-env-changed=PHP_CONFIG");
    println!("cargo:rustc-check-cfg=cfg(php_zts)");
    for minor in OLDEST.1..=NEWEST_KNOWN {
        println!("cargo:rustc-check-cfg=cfg(php8{minor})");
    }

    let php = Php::find();
    println!(
        "cargo:rerun-if-changed={}",
        php.include.join("main/php_version.h").display()
    );
    println!(
        "cargo:rerun-if-changed={}",
        php.include.join("main/php_config.h").display()
    );
    if php.zts {
        println!("cargo:rustc-cfg=php_zts");
    }
    for minor in OLDEST.1..=php.version.1.min(NEWEST_KNOWN) {
        println!("cargo:rustc-cfg=php8{minor}");
    }
    compile_shim(&php);
    bind();
    link(&php);
}

const SOURCES: &[&str] = &[
    "csrc/sapi.c",
    "csrc/request.c",
    "csrc/variables.c",
    "csrc/ini.c",
    "csrc/module.c",
    "csrc/backtrace.c",
];

struct Php {
    config: PathBuf,
    include: PathBuf,
    include_flags: Vec<String>,
    version: (u32, u32),
    zts: bool,
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
        let header = include.join("main/php_version.h");
        let Ok(text) = fs::read_to_string(&header) else {
            stop(&format!(
                "PHP's headers are missing: {} cannot be read. Install Debian's package php-dev, or set PHP_CONFIG to \
                 the php-config of a PHP built with --enable-embed.",
                header.display()
            ));
        };
        let version = (
            number(&text, "PHP_MAJOR_VERSION"),
            number(&text, "PHP_MINOR_VERSION"),
        );
        if version < OLDEST {
            stop(&format!(
                "PHP {}.{} is too old: fe-php needs {}.{} or newer. Install a newer php-dev and libphp-embed, or set \
                 PHP_CONFIG to another php-config.",
                version.0, version.1, OLDEST.0, OLDEST.1
            ));
        }
        let zts = fs::read_to_string(include.join("main/php_config.h"))
            .is_ok_and(|text| text.lines().any(|line| line.trim_end() == "#define ZTS 1"));
        Self {
            config,
            include,
            include_flags,
            version,
            zts,
        }
    }

    /// Where libphp is, and its name without `lib` and `.so`.
    fn library(&self) -> (PathBuf, String) {
        let prefix = PathBuf::from(ask(&self.config, "--prefix"));
        let (major, minor) = self.version;
        let mut directories: Vec<PathBuf> = env::var_os("PHP_LIBDIR")
            .map(PathBuf::from)
            .into_iter()
            .collect();
        directories.extend(
            [
                "lib",
                "lib64",
                "lib/x86_64-linux-gnu",
                "lib/aarch64-linux-gnu",
            ]
            .map(|d| prefix.join(d)),
        );
        let names = [
            format!("php{major}.{minor}"),
            "php".to_owned(),
            format!("php{major}"),
        ];
        for directory in &directories {
            for name in &names {
                let file = directory.join(format!("lib{name}.so"));
                if file.exists() {
                    self.check_library(&file);
                    return (directory.clone(), name.clone());
                }
            }
        }
        stop(&format!(
            "libphp is missing: no libphp{major}.{minor}.so or libphp.so in {}. Install Debian's package libphp-embed \
             (libphp{major}.{minor}-embed), build PHP with --enable-embed=shared, or set PHP_LIBDIR to its directory.",
            directories
                .iter()
                .map(|d| d.display().to_string())
                .collect::<Vec<_>>()
                .join(", ")
        ));
    }

    fn check_library(&self, file: &Path) {
        let bytes = fs::read(file).unwrap_or_default();
        let has_tsrm = bytes
            .windows(17)
            .any(|window| window == b"tsrm_get_ls_cache");
        if has_tsrm != self.zts {
            let word = |zts| if zts { "ZTS" } else { "NTS" };
            stop(&format!(
                "{} is {}, but the headers in {} are {}: set PHP_CONFIG to the php-config of the same build.",
                file.display(),
                word(has_tsrm),
                self.include.display(),
                word(self.zts)
            ));
        }
    }
}

fn ask(config: &Path, option: &str) -> String {
    match Command::new(config).arg(option).output() {
        Ok(output) if output.status.success() => {
            String::from_utf8_lossy(&output.stdout).trim().to_owned()
        }
        Ok(output) => stop(&format!(
            "`{} {option}` failed: {}",
            config.display(),
            String::from_utf8_lossy(&output.stderr).trim()
        )),
        Err(error) => stop(&format!(
            "{} cannot be run ({error}). Install Debian's package php-dev, or set PHP_CONFIG to a php-config.",
            config.display()
        )),
    }
}

fn number(text: &str, name: &str) -> u32 {
    text.lines()
        .find_map(|line| {
            line.strip_prefix("#define ")?
                .strip_prefix(name)?
                .trim()
                .parse()
                .ok()
        })
        .unwrap_or(0)
}

fn compile_shim(php: &Php) {
    let mut build = cc::Build::new();
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
    if let Err(error) = build.try_compile("fe_php_shim") {
        stop(&format!(
            "csrc/ does not compile: {error}. A C compiler is in Debian's package gcc."
        ));
    }
}

fn bind() {
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default()).join("bindings.rs");
    // bindgen panics when libclang is not there.
    std::panic::set_hook(Box::new(|_| {}));
    let generated = std::panic::catch_unwind(|| {
        bindgen::Builder::default()
            .header("wrapper.h")
            .allowlist_function(ALLOWED)
            .allowlist_type(ALLOWED)
            .rustified_enum("fe_php_script")
            .derive_debug(false)
            .layout_tests(false)
            .generate()
            .map_err(|error| error.to_string())
    });
    let _ = std::panic::take_hook();
    match generated {
        Ok(Ok(bindings)) => bindings
            .write_to_file(&out)
            .unwrap_or_else(|error| stop(&format!("{} cannot be written: {error}", out.display()))),
        Ok(Err(error)) => stop(&format!(
            "bindgen: {error}. Install Debian's package libclang-dev."
        )),
        Err(_) => {
            stop("libclang is missing, which bindgen needs. Install Debian's package libclang-dev.")
        }
    }
}

fn link(php: &Php) {
    let (directory, name) = php.library();
    println!("cargo:rustc-link-search=native={}", directory.display());
    println!("cargo:rustc-link-lib=dylib={name}");
    println!("cargo:rustc-link-arg=-Wl,-rpath,{}", directory.display());
}

#[allow(clippy::exit)] // one message, and no panic's backtrace around it
fn stop(message: &str) -> ! {
    eprintln!("fe-php: {message}");
    println!("cargo:warning={message}");
    exit(1)
}
