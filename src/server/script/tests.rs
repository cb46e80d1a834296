//! Each row was asked of php-fpm 8.2 (and 8.4, where that is said): same file, same answer, same variables.

use std::fs::{create_dir, remove_file, write};
use std::os::unix::fs::symlink;
use std::time::Duration;

use tempfile::TempDir;

use super::{ScriptSettings, resolve};
use crate::engine::CgiSettings;
use crate::request::{Script, Variables};

/// What it shows; variables as sent, `@` for the document root; the outcome; variables afterwards that were not
/// sent so, `-NAME` for one that has gone.
type Row = (&'static str, &'static str, &'static str, &'static str);

const FIX_PATHINFO: &[Row] = &[
    (
        "nginx",
        "SCRIPT_FILENAME=@/x.php SCRIPT_NAME=/x.php DOCUMENT_ROOT=@",
        "run @/x.php",
        "",
    ),
    (
        "nginx, path info split off by fastcgi_split_path_info",
        "SCRIPT_FILENAME=@/x.php SCRIPT_NAME=/x.php PATH_INFO=/info PATH_TRANSLATED=@/info DOCUMENT_ROOT=@",
        "run @/x.php",
        "",
    ),
    (
        "nginx, path info in the script's path and in PATH_INFO",
        "SCRIPT_FILENAME=@/x.php/info SCRIPT_NAME=/x.php PATH_INFO=/info DOCUMENT_ROOT=@",
        "run @/x.php",
        "ORIG_SCRIPT_FILENAME=@/x.php/info SCRIPT_FILENAME=@/x.php PATH_TRANSLATED=@/info",
    ),
    (
        "path info in the script's path only stays unknown",
        "SCRIPT_FILENAME=@/x.php/info SCRIPT_NAME=/x.php/info DOCUMENT_ROOT=@/",
        "run @/x.php",
        "ORIG_SCRIPT_FILENAME=@/x.php/info SCRIPT_FILENAME=@/x.php PATH_TRANSLATED=@",
    ),
    (
        "PATH_INFO that begins with the script's name",
        "SCRIPT_FILENAME=@/x.php/a/b SCRIPT_NAME=/cgi PATH_INFO=/x.php/a/b PATH_TRANSLATED=/t DOCUMENT_ROOT=@",
        "run @/x.php",
        "ORIG_PATH_INFO=/x.php/a/b PATH_INFO=/a/b ORIG_SCRIPT_NAME=/cgi SCRIPT_NAME=/x.php \
         ORIG_SCRIPT_FILENAME=@/x.php/a/b SCRIPT_FILENAME=@/x.php \
         ORIG_PATH_TRANSLATED=/t PATH_TRANSLATED=@/a/b",
    ),
    (
        "without DOCUMENT_ROOT, it is what stands before SCRIPT_NAME",
        "SCRIPT_FILENAME=@/dir/x.php/info SCRIPT_NAME=/x.php PATH_INFO=/info",
        "run @/dir/x.php",
        "ORIG_SCRIPT_FILENAME=@/dir/x.php/info SCRIPT_FILENAME=@/dir/x.php PATH_TRANSLATED=@/dir/info",
    ),
    (
        "nothing to tell the document root by",
        "SCRIPT_FILENAME=@/x.php/info SCRIPT_NAME=/y.php",
        "run @/x.php",
        "ORIG_SCRIPT_FILENAME=@/x.php/info SCRIPT_FILENAME=@/x.php",
    ),
    (
        "a slash at the end",
        "SCRIPT_FILENAME=@/x.php/",
        "run @/x.php",
        "ORIG_SCRIPT_FILENAME=@/x.php/ SCRIPT_FILENAME=@/x.php",
    ),
    ("a link", "SCRIPT_FILENAME=@/link.php", "run @/link.php", ""),
    (
        "doubled slashes",
        "SCRIPT_FILENAME=@//dir/./x.php",
        "run @//dir/./x.php",
        "",
    ),
    (
        "a dangling link",
        "SCRIPT_FILENAME=@/dangling.php",
        "not found",
        "*",
    ),
    (
        "no such file",
        "SCRIPT_FILENAME=@/missing.php",
        "not found",
        "*",
    ),
    (
        "no such file in a missing directory",
        "SCRIPT_FILENAME=@/missing/x.php",
        "not found",
        "*",
    ),
    (
        "a directory with a slash",
        "SCRIPT_FILENAME=@/dir/",
        "not found",
        "*",
    ),
    (
        "a directory without one",
        "SCRIPT_FILENAME=@/dir",
        "denied @/dir",
        "*",
    ),
    (
        "below a directory named like a script",
        "SCRIPT_FILENAME=@/d.php/missing.php",
        "not found",
        "*",
    ),
    (
        "the parent of a directory",
        "SCRIPT_FILENAME=@/dir/../x.php",
        "not found",
        "*",
    ),
    (
        "dots that are no parent",
        "SCRIPT_FILENAME=@/a..b.php",
        "run @/a..b.php",
        "",
    ),
    (
        "another extension",
        "SCRIPT_FILENAME=@/text.txt",
        "denied @/text.txt",
        "*",
    ),
    (
        "another extension under path info",
        "SCRIPT_FILENAME=@/text.txt/x.php",
        "denied @/text.txt",
        "*",
    ),
    ("capitals", "SCRIPT_FILENAME=@/X.PHP", "denied @/X.PHP", "*"),
    ("phar", "SCRIPT_FILENAME=@/x.phar", "run @/x.phar", ""),
    ("an empty name", "SCRIPT_FILENAME=", "denied ", "*"),
    ("no name at all", "SCRIPT_NAME=/x.php", "not found", "*"),
    (
        "PATH_TRANSLATED in place of SCRIPT_FILENAME",
        "PATH_TRANSLATED=@/x.php",
        "run @/x.php",
        "SCRIPT_FILENAME=@/x.php",
    ),
    (
        "Apache's Action with mod_fastcgi",
        "SCRIPT_FILENAME=/usr/bin/php SCRIPT_NAME=/php PATH_INFO=/x.php PATH_TRANSLATED=@/x.php REDIRECT_URL=/x.php",
        "run @/x.php",
        "ORIG_SCRIPT_FILENAME=/usr/bin/php SCRIPT_FILENAME=@/x.php ORIG_PATH_INFO=/x.php -PATH_INFO \
         ORIG_PATH_TRANSLATED=@/x.php -PATH_TRANSLATED ORIG_SCRIPT_NAME=/php SCRIPT_NAME=/x.php",
    ),
    (
        "Apache's Action with path info",
        "SCRIPT_FILENAME=/usr/bin/php SCRIPT_NAME=/php PATH_INFO=/x.php/a PATH_TRANSLATED=@/x.php/a \
         REDIRECT_URL=/x.php/a DOCUMENT_ROOT=@",
        "run @/x.php",
        "ORIG_SCRIPT_FILENAME=/usr/bin/php SCRIPT_FILENAME=@/x.php ORIG_PATH_INFO=/x.php/a PATH_INFO=/a \
         ORIG_PATH_TRANSLATED=@/x.php/a PATH_TRANSLATED=@/a ORIG_SCRIPT_NAME=/php SCRIPT_NAME=/x.php",
    ),
    (
        "REDIRECT_URL alone takes PATH_INFO away",
        "SCRIPT_FILENAME=@/x.php SCRIPT_NAME=/x.php PATH_INFO=/info REDIRECT_URL=/pretty",
        "run @/x.php",
        "ORIG_PATH_INFO=/info -PATH_INFO",
    ),
    (
        "a redirect whose script is SCRIPT_FILENAME already goes on with the whole path",
        "SCRIPT_FILENAME=@/x.php PATH_TRANSLATED=@/x.php/a REDIRECT_URL=/x.php/a",
        "denied @/x.php/a",
        "*",
    ),
    (
        "IIS",
        "SERVER_SOFTWARE=Microsoft-IIS/10.0 SCRIPT_FILENAME=@/x.php SCRIPT_NAME=/x.php PATH_INFO=/x.php/info",
        "run @/x.php",
        "ORIG_PATH_INFO=/x.php/info PATH_INFO=/info",
    ),
    (
        "IIS without path info",
        "SERVER_SOFTWARE=Microsoft-IIS/10.0 SCRIPT_FILENAME=@/x.php SCRIPT_NAME=/x.php PATH_INFO=/x.php",
        "run @/x.php",
        "ORIG_PATH_INFO=/x.php -PATH_INFO",
    ),
];

const PROXY_URLS: &[Row] = &[
    (
        "ProxyPass",
        "SCRIPT_FILENAME=proxy:fcgi://127.0.0.1:9000@/x.php SCRIPT_NAME=/x.php DOCUMENT_ROOT=@",
        "run @/x.php",
        "SCRIPT_FILENAME=@/x.php",
    ),
    (
        "SetHandler with a Unix socket",
        "SCRIPT_FILENAME=proxy:fcgi://localhost@/x.php SCRIPT_NAME=/x.php PATH_INFO=/info REDIRECT_URL=/pretty",
        "run @/x.php",
        "SCRIPT_FILENAME=@/x.php",
    ),
    (
        "a balancer, and a query from a rewrite rule",
        "SCRIPT_FILENAME=Proxy:Balancer://php/@/x.php?a=1 SCRIPT_NAME=/x.php",
        "run /@/x.php",
        "SCRIPT_FILENAME=/@/x.php",
    ),
    (
        "path info that Apache does not know of",
        "SCRIPT_FILENAME=proxy:fcgi://localhost@/x.php/info SCRIPT_NAME=/x.php/info DOCUMENT_ROOT=@",
        "run @/x.php",
        "SCRIPT_FILENAME=@/x.php ORIG_SCRIPT_FILENAME=@/x.php/info ORIG_SCRIPT_NAME=/x.php/info \
         SCRIPT_NAME=/x.php PATH_INFO=/info PATH_TRANSLATED=@/info",
    ),
    (
        "path info that Apache does not know of, without DOCUMENT_ROOT",
        "SCRIPT_FILENAME=proxy:fcgi://localhost@/dir/x.php/info SCRIPT_NAME=/x.php/info",
        "run @/dir/x.php",
        "SCRIPT_FILENAME=@/dir/x.php ORIG_SCRIPT_FILENAME=@/dir/x.php/info ORIG_SCRIPT_NAME=/x.php/info \
         SCRIPT_NAME=/x.php PATH_INFO=/info PATH_TRANSLATED=@/dir/info",
    ),
    (
        "path info that Apache knows of",
        "SCRIPT_FILENAME=proxy:fcgi://localhost@/x.php/info SCRIPT_NAME=/x.php PATH_INFO=/info DOCUMENT_ROOT=@",
        "run @/x.php",
        "SCRIPT_FILENAME=@/x.php ORIG_SCRIPT_FILENAME=@/x.php/info PATH_TRANSLATED=@/info",
    ),
    (
        "path info that Apache has otherwise",
        "SCRIPT_FILENAME=proxy:fcgi://localhost@/x.php/info SCRIPT_NAME=/x.php PATH_INFO=/other",
        "run @/x.php",
        "SCRIPT_FILENAME=@/x.php ORIG_SCRIPT_FILENAME=@/x.php/info ORIG_PATH_INFO=/other PATH_INFO=/info \
         ORIG_SCRIPT_NAME=/x.php SCRIPT_NAME=/other PATH_TRANSLATED=@/info",
    ),
    (
        "no path in the URL",
        "SCRIPT_FILENAME=proxy:fcgi://localhost?a=1",
        "not found",
        "*",
    ),
    (
        "a path info with a parent in it",
        "SCRIPT_FILENAME=proxy:fcgi://localhost@/x.php/../y.php",
        "run @/x.php",
        "*",
    ),
];

const ENCODED_8_2: &[Row] = &[(
    "encoded path info that Apache does not know of",
    "SCRIPT_FILENAME=proxy:fcgi://localhost@/x.php/a%2Fb%zz SCRIPT_NAME=/x.php/a/b%zz DOCUMENT_ROOT=@",
    "run @/x.php",
    "SCRIPT_FILENAME=@/x.php ORIG_SCRIPT_FILENAME=@/x.php/a%2Fb%zz ORIG_SCRIPT_NAME=/x.php/a/b%zz \
     SCRIPT_NAME=/x.php PATH_INFO=/a%2Fb%zz PATH_TRANSLATED=@/a%2Fb%zz",
)];

const ENCODED_8_4: &[Row] = &[(
    "encoded path info that Apache does not know of",
    "SCRIPT_FILENAME=proxy:fcgi://localhost@/x.php/a%2Fb%zz SCRIPT_NAME=/x.php/a/b%zz DOCUMENT_ROOT=@",
    "run @/x.php",
    "SCRIPT_FILENAME=@/x.php ORIG_SCRIPT_FILENAME=@/x.php/a%2Fb%zz ORIG_SCRIPT_NAME=/x.php/a/b%zz \
     SCRIPT_NAME=/x.php PATH_INFO=/a/b%zz PATH_TRANSLATED=@/a/b%zz",
)];

/// Of PHP 8.5's own documentation rather than of a php-fpm: there was none to ask.
const DECODED_8_5: &[Row] = &[
    (
        "encoded path",
        "SCRIPT_FILENAME=proxy:fcgi://localhost@/%78%2ephp?%78 SCRIPT_NAME=/x.php DOCUMENT_ROOT=@",
        "run @/x.php",
        "SCRIPT_FILENAME=@/x.php",
    ),
    (
        "encoded path with path info, which is decoded once",
        "SCRIPT_FILENAME=proxy:fcgi://localhost@/%78.php/a%2525 SCRIPT_NAME=/x.php/a%25 DOCUMENT_ROOT=@",
        "run @/x.php",
        "SCRIPT_FILENAME=@/x.php ORIG_SCRIPT_FILENAME=@/x.php/a%25 ORIG_SCRIPT_NAME=/x.php/a%25 SCRIPT_NAME=/x.php \
         PATH_INFO=/a%25 PATH_TRANSLATED=@/a%25",
    ),
    (
        "a way out",
        "SCRIPT_FILENAME=proxy:fcgi://localhost@/dir/%2e%2e/x.php SCRIPT_NAME=/x.php",
        "not found",
        "*",
    ),
    (
        "a NUL",
        "SCRIPT_FILENAME=proxy:fcgi://localhost@/x.php%00.php SCRIPT_NAME=/x.php",
        "not found",
        "*",
    ),
];

const NO_FIX_PATHINFO: &[Row] = &[
    (
        "the path as it is",
        "SCRIPT_FILENAME=@/x.php PATH_INFO=/info",
        "run @/x.php",
        "",
    ),
    (
        "a missing file is left to be opened",
        "SCRIPT_FILENAME=@/missing.php",
        "run @/missing.php",
        "",
    ),
    (
        "no path info is looked for",
        "SCRIPT_FILENAME=@/x.php/info",
        "denied @/x.php/info",
        "*",
    ),
    (
        "PATH_TRANSLATED first",
        "SCRIPT_FILENAME=@/missing.php PATH_TRANSLATED=@/x.php",
        "run @/x.php",
        "",
    ),
    (
        "a proxy URL",
        "SCRIPT_FILENAME=proxy:fcgi://h@/x.php?a",
        "run @/x.php",
        "SCRIPT_FILENAME=@/x.php",
    ),
];

const DISCARD_PATH: &[Row] = &[
    (
        "SCRIPT_FILENAME first",
        "SCRIPT_FILENAME=@/x.php PATH_TRANSLATED=@/y.php",
        "run @/x.php",
        "",
    ),
    (
        "PATH_TRANSLATED alone",
        "PATH_TRANSLATED=@/x.php",
        "run @/x.php",
        "",
    ),
];

fn site() -> TempDir {
    let root = TempDir::new().unwrap();
    let at = |name: &str| root.path().join(name);
    create_dir(at("dir")).unwrap();
    create_dir(at("d.php")).unwrap();
    for name in [
        "x.php",
        "dir/x.php",
        "x.phar",
        "X.PHP",
        "text.txt",
        "a..b.php",
    ] {
        write(at(name), "<?php").unwrap();
    }
    symlink("x.php", at("link.php")).unwrap();
    symlink("nowhere.php", at("dangling.php")).unwrap();
    root
}

fn settings() -> ScriptSettings {
    let cgi = CgiSettings {
        fix_pathinfo: true,
        discard_path: false,
        decode_script_path: false,
    };
    ScriptSettings {
        decode_path_info: false,
        trust_files_for: Duration::ZERO,
        ..ScriptSettings::from(cgi)
    }
}

fn variables(pairs: &str) -> Variables {
    let mut variables = Variables::new();
    for (name, value) in pairs
        .split_whitespace()
        .filter_map(|pair| pair.split_once('='))
    {
        variables.push(name.as_bytes(), value.as_bytes());
    }
    variables
}

fn outcome(script: &Script) -> String {
    match script {
        Script::File { path } => format!("run {}", String::from_utf8_lossy(path)),
        Script::NotFound => "not found".to_owned(),
        Script::AccessDenied { path } => format!("denied {}", String::from_utf8_lossy(path)),
    }
}

/// `NAME=value` of variables that were not sent so, and `-NAME` of those that have gone.
fn changes(sent: &Variables, after: &Variables) -> Vec<String> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut changes = Vec::new();
    for (name, _) in sent.iter().filter(|(name, _)| after.get(name).is_none()) {
        changes.push(format!("-{}", text(name)));
    }
    for (name, _) in after.iter() {
        let value = after.get(name).unwrap();
        if sent.get(name) != Some(value) {
            changes.push(format!("{}={}", text(name), text(value)));
        }
    }
    changes.sort();
    changes.dedup();
    changes
}

#[track_caller]
fn check(settings: &ScriptSettings, rows: &[Row]) {
    let site = site();
    let root = site.path().to_str().unwrap();
    for (name, sent, expected, expected_changes) in rows {
        let sent = variables(&sent.replace('@', root));
        let mut after = sent.clone();
        let script = resolve(&mut after, settings);
        assert_eq!(outcome(&script), expected.replace('@', root), "{name}");
        if *expected_changes != "*" {
            let mut expected: Vec<String> = expected_changes
                .replace('@', root)
                .split_whitespace()
                .map(String::from)
                .collect();
            expected.sort();
            assert_eq!(changes(&sent, &after), expected, "{name}");
        }
    }
}

#[test]
fn path_info_is_split_off_as_by_php_fpm() {
    check(&settings(), FIX_PATHINFO);
}

#[test]
fn apaches_urls_are_taken_apart_as_by_php_fpm() {
    check(&settings(), PROXY_URLS);
    check(&settings(), ENCODED_8_2);
    check(
        &ScriptSettings {
            decode_path_info: true,
            ..settings()
        },
        PROXY_URLS,
    );
    check(
        &ScriptSettings {
            decode_path_info: true,
            ..settings()
        },
        ENCODED_8_4,
    );
    check(
        &ScriptSettings {
            decode_script_path: true,
            ..settings()
        },
        DECODED_8_5,
    );
}

#[test]
fn without_fix_pathinfo_a_path_is_taken_as_it_is() {
    let settings = ScriptSettings {
        fix_pathinfo: false,
        ..settings()
    };
    check(&settings, NO_FIX_PATHINFO);
    check(
        &ScriptSettings {
            discard_path: true,
            ..settings
        },
        DISCARD_PATH,
    );
}

#[test]
fn security_limit_extensions_decides_what_is_run() {
    let only = |extensions: &[&str]| ScriptSettings {
        limit_extensions: extensions.iter().map(ToString::to_string).collect(),
        ..settings()
    };
    check(
        &only(&[]),
        &[("all", "SCRIPT_FILENAME=@/text.txt", "run @/text.txt", "")],
    );
    check(
        &only(&[]),
        &[("an empty name", "SCRIPT_FILENAME=", "not found", "*")],
    );
    check(
        &only(&[".txt"]),
        &[
            (
                "its own",
                "SCRIPT_FILENAME=@/text.txt",
                "run @/text.txt",
                "",
            ),
            (
                "not the default ones",
                "SCRIPT_FILENAME=@/x.php",
                "denied @/x.php",
                "*",
            ),
        ],
    );
}

#[test]
fn doc_root_stands_in_for_document_root() {
    let settings = ScriptSettings {
        doc_root: b"/srv".to_vec(),
        ..settings()
    };
    check(
        &settings,
        &[
            (
                "none sent",
                "SCRIPT_FILENAME=@/x.php",
                "run @/x.php",
                "DOCUMENT_ROOT=/srv",
            ),
            (
                "one sent",
                "SCRIPT_FILENAME=@/x.php DOCUMENT_ROOT=/www",
                "run @/x.php",
                "",
            ),
        ],
    );
}

#[test]
fn a_path_that_is_no_c_string_is_refused() {
    let site = site();
    let script = format!("{}/x.php", site.path().display());
    for fix_pathinfo in [true, false] {
        let settings = ScriptSettings {
            fix_pathinfo,
            ..settings()
        };
        for path in [
            format!("{script}\0"),
            format!("{script}/\0a"),
            format!("{script}\0/a.php"),
        ] {
            for prefix in ["", "proxy:fcgi://localhost"] {
                let mut variables = Variables::new();
                variables.push(b"SCRIPT_FILENAME", format!("{prefix}{path}").as_bytes());
                assert_eq!(
                    resolve(&mut variables, &settings),
                    Script::NotFound,
                    "{prefix}{path:?}"
                );
            }
        }
    }
}

#[test]
fn other_variables_end_at_their_first_nul_byte() {
    let site = site();
    let script = format!("{}/x.php", site.path().display());
    let mut variables = Variables::new();
    variables.push(b"SCRIPT_FILENAME", format!("{script}/info").as_bytes());
    variables.push(b"PATH_INFO", b"/x.php/info\0/more");
    variables.push(b"DOCUMENT_ROOT", b"/srv\0/www");
    assert_eq!(
        resolve(&mut variables, &settings()),
        Script::File {
            path: script.into_bytes()
        }
    );
    assert_eq!(variables.get(b"SCRIPT_NAME"), Some(&b"/x.php"[..]));
    assert_eq!(variables.get(b"PATH_INFO"), Some(&b"/info"[..]));
    assert_eq!(variables.get(b"PATH_TRANSLATED"), Some(&b"/srv/info"[..]));
}

#[test]
fn a_path_that_is_too_long_is_refused() {
    let site = site();
    let root = site.path().display();
    for fix_pathinfo in [true, false] {
        let settings = ScriptSettings {
            fix_pathinfo,
            ..settings()
        };
        for path in [
            format!("{root}/{}.php", "x".repeat(5000)),
            format!("{}{root}/x.php", "/".repeat(4096)),
        ] {
            let mut variables = Variables::new();
            variables.push(b"SCRIPT_FILENAME", path.as_bytes());
            assert_eq!(resolve(&mut variables, &settings), Script::NotFound);
        }
    }
    // Path info may be as long as it likes.
    let mut variables = Variables::new();
    variables.push(
        b"SCRIPT_FILENAME",
        format!("{root}/x.php{}", "/i".repeat(50_000)).as_bytes(),
    );
    let file = format!("{root}/x.php").into_bytes();
    assert_eq!(
        resolve(&mut variables, &settings()),
        Script::File { path: file }
    );
}

#[test]
fn a_relative_path_is_made_absolute() {
    let settings = ScriptSettings {
        fix_pathinfo: false,
        ..settings()
    };
    let directory = std::env::current_dir().unwrap();
    for path in ["x.php", "phar://x.php", "http://localhost/x.php"] {
        let mut variables = Variables::new();
        variables.push(b"SCRIPT_FILENAME", path.as_bytes());
        let whole = format!("{}/{path}", directory.display()).into_bytes();
        assert_eq!(
            resolve(&mut variables, &settings),
            Script::File { path: whole }
        );
        assert_eq!(variables.get(b"SCRIPT_FILENAME"), Some(path.as_bytes()));
    }
}

#[test]
fn the_last_of_several_values_counts() {
    let sent = "SCRIPT_FILENAME=@/missing.php SCRIPT_FILENAME=@/x.php";
    check(&settings(), &[("twice", sent, "run @/x.php", "")]);
}

#[test]
fn a_file_is_trusted_to_stay_for_a_while_and_a_missing_one_to_stay_away_never() {
    let site = site();
    let script = site.path().join("new.php");
    let resolve = |trust_files_for| {
        let mut variables = Variables::new();
        variables.push(b"SCRIPT_FILENAME", script.to_str().unwrap().as_bytes());
        outcome(&resolve(
            &mut variables,
            &ScriptSettings {
                trust_files_for,
                ..settings()
            },
        ))
    };
    let (run, hour) = (
        format!("run {}", script.display()),
        Duration::from_secs(3600),
    );
    assert_eq!(resolve(hour), "not found");
    write(&script, "<?php").unwrap();
    assert_eq!(resolve(hour), run);
    remove_file(&script).unwrap();
    assert_eq!(resolve(hour), run);
    assert_eq!(resolve(Duration::from_nanos(1)), "not found");
    assert_eq!(resolve(hour), "not found");
}
