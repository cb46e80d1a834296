#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

const ENVIRONMENT: Environment<'static> = Environment {
    php_version: [8, 2, 36],
    prefix: "/usr",
    sysconfdir: "/etc",
    localstatedir: "/var",
    variable: |name| match name {
        b"HOME" => Some(b"/root".to_vec()),
        b"EMPTY" => Some(Vec::new()),
        _ => None,
    },
    defines: &[],
};

fn statements(text: &str, environment: &Environment<'_>) -> (Vec<String>, Result<(), SyntaxError>) {
    let mut seen = Vec::new();
    let text_of = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    let result = parse(text.as_bytes(), environment, &mut |statement| {
        seen.push(match statement {
            Statement::Section(name) => format!("[{}]", text_of(name)),
            Statement::Entry(name, None) => text_of(name),
            Statement::Entry(name, Some(value)) => format!("{}={}", text_of(name), text_of(value)),
            Statement::Element(name, key, value) => {
                format!("{}[{}]={}", text_of(name), text_of(key), text_of(value))
            }
        });
    });
    (seen, result)
}

fn one(text: &str) -> String {
    let (seen, result) = statements(&format!("{text}\n"), &ENVIRONMENT);
    assert_eq!(result, Ok(()), "{text}");
    assert_eq!(seen.len(), 1, "{text}: {seen:?}");
    seen.concat()
}

fn error(text: &str) -> String {
    let (_, result) = statements(&format!("{text}\n"), &ENVIRONMENT);
    result.expect_err(text).message
}

#[test]
fn values_are_read_as_php_reads_them() {
    for (text, expected) in [
        ("a = b", "a=b"),
        ("  a.b  =  b c  ", "a.b=b c"),
        ("a=", "a="),
        ("a = ; comment", "a="),
        ("a = b ; comment", "a=b"),
        ("a = b;comment", "a=b"),
        ("a = \"b ; c\"", "a=b ; c"),
        ("a = 'b \"; c'", "a=b \"; c"),
        (r#"a = "q\"u\\o\$t\e""#, r#"a=q"u\o$t\e"#),
        (r#"a = "C:\path\""#, r"a=C:\path\"),
        ("a = On", "a=1"),
        ("a = yes  ", "a=1"),
        ("a = off", "a="),
        ("a = NONE", "a="),
        ("a = null", "a="),
        ("a = only", "a=only"),
        ("a = on-line", "a=on-line"),
        ("a = 10s", "a=10s"),
        ("a = -1", "a=-1"),
        ("a = .5", "a=.5"),
        ("a = E_ALL", "a=32767"),
        ("a = E_ALL & ~E_NOTICE", "a=32759"),
        ("a = 1 | 2 ^ 2", "a=1"),
        ("a = !0", "a=1"),
        ("a = (1|2)&~1", "a=2"),
        ("a = E_ERROR foo", "a=1 foo"),
        ("a = x\"y\" z", "a=xyz"),
        ("a = ${HOME}/x", "a=/root/x"),
        ("a = \"${HOME}/$x\"", "a=/root/$x"),
        ("a = ${NONE_SUCH}", "a="),
        ("a = /var/log/$pool.log", "a=/var/log/$pool.log"),
        ("[www]", "[www]"),
        ("[E_ALL]", "[E_ALL]"),
        ("[ a b ]", "[ a b ]"),
        ("[]", "[]"),
        ("env[A] = 1", "env[A]=1"),
        ("env[ 'A' ] = 1", "env[A]=1"),
        ("php_value[a.b] = on", "php_value[a.b]=1"),
        ("env[] = x", "env[]=x"),
        ("a", "a"),
        ("# a", "# a"),
        ("\u{feff}a = b", "a=b"),
    ] {
        assert_eq!(one(text), expected, "{text}");
    }
}

#[test]
fn syntax_errors_have_php_words() {
    for (text, expected) in [
        ("[www", "unexpected end of file, expecting ']'"),
        (" [www]", "unexpected END_OF_LINE, expecting '='"),
        ("a = b = c", "unexpected '='"),
        (
            "a = (1|2",
            "unexpected END_OF_LINE, expecting '^' or '|' or '&' or ')'",
        ),
        ("a = )", "unexpected ')'"),
        (
            "a = \"b",
            "unexpected end of file, expecting TC_DOLLAR_CURLY or TC_QUOTED_STRING or '\"'",
        ),
        ("a = 'b", "unexpected end of file"),
        ("a = ${B", "unexpected end of file, expecting '}'"),
        ("a = ${}", "unexpected '}', expecting TC_VARNAME"),
        ("env[a = 1", "unexpected end of file, expecting ']'"),
        ("env[a] 1", "unexpected TC_LABEL, expecting '='"),
        ("a = 1 | =", "unexpected END_OF_LINE"),
        ("yes = 1", "unexpected BOOL_TRUE"),
        ("a = on b", "unexpected TC_CONSTANT"),
        ("}", "unexpected '}'"),
        ("$a = 1", "unexpected '$'"),
    ] {
        assert_eq!(error(text), format!("syntax error, {expected}"), "{text}");
    }
}

#[test]
fn words_of_php_8_3_name_the_fallback() {
    let newer = Environment {
        php_version: [8, 3, 0],
        ..ENVIRONMENT
    };
    let (_, result) = statements("a = ${B", &newer);
    assert_eq!(
        result.unwrap_err().message,
        "syntax error, unexpected end of file, expecting TC_FALLBACK or '}'"
    );
}

#[test]
fn statements_before_an_error_count() {
    let (seen, result) = statements("a = b = c\n", &ENVIRONMENT);
    assert_eq!(seen, ["a=b "]);
    result.unwrap_err();
}

#[test]
fn a_carriage_return_ends_a_line_too() {
    let (seen, result) = statements("[www]\ra = b\r\n", &ENVIRONMENT);
    assert_eq!(
        (seen.as_slice(), result),
        (&["[www]".to_owned(), "a=b".to_owned()][..], Ok(()))
    );
}

#[test]
fn variables_have_fallbacks_since_8_3() {
    let newer = Environment {
        php_version: [8, 3, 0],
        ..ENVIRONMENT
    };
    for (text, expected) in [
        ("a = ${NONE_SUCH:-b c}", "a=b c"),
        ("a = ${HOME:-b}", "a=/root"),
        ("a = ${EMPTY:-b}", "a="),
        ("a = \"x${NONE_SUCH:-${HOME}}y\"", "a=x/rooty"),
        ("a = ${NONE_SUCH:-}", "a="),
        ("a = ${NONE_SUCH:-\"q\"}/d", "a=q/d"),
    ] {
        let (seen, result) = statements(&format!("{text}\n"), &newer);
        assert_eq!(
            (seen.concat().as_str(), result),
            (expected, Ok(())),
            "{text}"
        );
    }
    assert_eq!(one("a = ${NONE_SUCH:-b}"), "a=");
    let (_, result) = statements("a = ${NONE_SUCH:-'q'}\n", &newer);
    result.unwrap_err();
}

#[test]
fn settings_of_the_command_line_come_before_the_environment() {
    let defines = [("HOME".to_owned(), "x".to_owned())];
    let environment = Environment {
        defines: &defines,
        ..ENVIRONMENT
    };
    assert_eq!(statements("a = ${HOME}\n", &environment).0, ["a=x"]);
}

#[test]
fn deep_nesting_is_refused() {
    assert_eq!(
        error(&format!("a = {}1", "(".repeat(10_000))),
        "memory exhausted"
    );
    assert_eq!(
        error(&format!("a = {}1", "~".repeat(10_000))),
        "memory exhausted"
    );
}

#[test]
fn numbers_are_atois() {
    for (text, expected) in [
        ("12x", 12),
        (" -7", -7),
        ("", 0),
        ("x", 0),
        ("4294967297", 1),
    ] {
        assert_eq!(atoi(text.as_bytes()), expected, "{text}");
    }
    assert_eq!(atoi(b"99999999999999999999"), -1);
}

proptest! {
    #[test]
    fn no_input_panics(text in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse(&text, &ENVIRONMENT, &mut |_| ());
    }

    /// Characters that mean something, so that all states are reached.
    #[test]
    fn no_syntax_panics(text in "[a-c=\\[\\]\"'\\\\${}();|&^~! \t\r\n:\\-1.]{0,60}", newer: bool) {
        let environment = Environment {
            php_version: if newer { [8, 4, 0] } else { [8, 2, 0] },
            ..ENVIRONMENT
        };
        let _ = parse(text.as_bytes(), &environment, &mut |_| ());
    }
}
