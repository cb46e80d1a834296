//! docs/directives.md, from the table of directives: `fe-php directives`.

use super::directive::{DIRECTIVES, Directive, Key, Kind, Scope};

/// The page.
pub(crate) fn reference() -> String {
    let mut page = INTRODUCTION.to_owned();
    for (title, scope, ours) in [
        ("Section `[global]`", Scope::Global, false),
        ("Sections of pools", Scope::Pool, false),
        ("fe-php's own, in sections of pools", Scope::Pool, true),
    ] {
        page.push_str("\n## ");
        page.push_str(title);
        page.push('\n');
        if ours {
            page.push_str(OURS);
        }
        for directive in DIRECTIVES {
            if directive.scope == scope && directive.is_ours() == ours {
                page.push_str(&entry(directive));
            }
        }
    }
    page
}

fn entry(directive: &Directive) -> String {
    let Directive {
        key,
        name,
        default,
        doc,
        ..
    } = directive;
    let name = match directive.kind {
        Kind::Array if *key == Key::AccessSuppressPath => format!("{name}[]"),
        Kind::Array | Kind::BooleanArray => format!("{name}[...]"),
        _ => (*name).to_owned(),
    };
    let kind = kind(directive.kind);
    let since = match directive.since {
        Some(version) => format!("; php-fpm has it since PHP {version}"),
        None => String::new(),
    };
    let note = match directive.note {
        "" => String::new(),
        note => format!("\n\n*fe-php:* {note}"),
    };
    format!("\n### `{name}`\n\n{doc}{note}\n\nA {kind}. Default: {default}{since}.\n")
}

fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Text | Kind::Array => "text",
        Kind::Integer | Kind::Priority | Kind::Count => "number",
        Kind::Time => "time: seconds, or a number with `s`, `m`, `h` or `d`",
        Kind::Milliseconds => "time: seconds, or a number with `ms`, `s`, `m`, `h` or `d`",
        Kind::Boolean | Kind::BooleanArray => {
            "boolean: `yes`, `true`, `on`, `1`, or `no`, `false`, `off`, `none`, `0`"
        }
        Kind::LogLevel | Kind::Facility | Kind::ProcessManager | Kind::QueueAnswer => "word",
        Kind::CoreSize => "number of bytes, or `unlimited`",
        Kind::Size => "size: bytes, or a number with `K`, `M` or `G`",
    }
}

const INTRODUCTION: &str = "\
# Directives of php-fpm.conf

<!-- Written by `fe-php directives`; do not edit. -->

fe-php reads php-fpm's configuration: the file of `-y`, by default `/etc/php/X.Y/fpm/php-fpm.conf` with Debian's PHP and
`etc/php-fpm.conf` below PHP's prefix elsewhere, and the files that `include=` names there. `fe-php fpm -t` checks it,
`-tt` shows what it means. The syntax is that of php.ini, one line for each entry: `;` begins a comment, values may be
quoted, `${NAME}` is a variable of the environment or a setting of `-d` (with PHP 8.3 and later also
`${NAME:-otherwise}`), and `$pool` in a text is the pool's name.

What differs from php-fpm, besides the notes below:

- Messages about the lines behind an `include` have the right line number, and syntax errors name file and line.
- PHP's constants are known as far as they belong to PHP itself (`E_ALL`, `PHP_VERSION`, `LOG_*` and the like), not those
  of extensions, and `${name}` does not look into php.ini.
- Values must be UTF-8; comments need not be.
- Negative numbers where they mean nothing are warned of and taken for 0.
";

const OURS: &str = "
php-fpm refuses a file that has one of these.
";

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_page_in_docs_is_up_to_date() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/directives.md");
        let page = std::fs::read_to_string(file).unwrap_or_default();
        assert!(
            page == reference(),
            "docs/directives.md is out of date: write it with `cargo run -- directives > docs/directives.md`"
        );
    }

    #[test]
    fn every_directive_is_described() {
        for directive in DIRECTIVES {
            assert!(directive.doc.ends_with('.'), "{}", directive.name);
            assert!(!directive.default.is_empty(), "{}", directive.name);
        }
    }
}
