use std::fs;
use std::net::Ipv6Addr;

use proptest::prelude::*;

use super::*;

fn record(variables: &Variables) -> AccessRecord<'_> {
    AccessRecord {
        client: Some(IpAddr::from([127, 0, 0, 1])),
        method: b"GET",
        uri: b"/index.php",
        query: b"",
        script: b"/var/www/index.php",
        user: b"",
        content_length: 0,
        status: 200,
        variables,
        headers: b"X-Powered-By: PHP/8.2.32\nContent-Type: text/plain;charset=UTF-8\nX-Empty:\n",
        accepted: 1_795_247_400,
        now: 1_795_247_402,
        duration: Duration::from_micros(2_345_678),
        cpu: CpuTime {
            user: Duration::from_millis(600),
            system: Duration::from_micros(12_345),
        },
        memory: 2_097_152,
    }
}

/// The line of `record`, and its format's opinion of nothing else.
fn line_of(format: &str, record: &AccessRecord<'_>) -> String {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("log");
    writer(format, &path, &[]).write(record);
    fs::read_to_string(&path).expect("a log")
}

fn line(format: &str) -> String {
    line_of(format, &record(&Variables::new()))
}

fn writer(format: &str, path: &Path, suppressed: &[&str]) -> AccessWriter {
    let suppressed: Vec<String> = suppressed.iter().map(ToString::to_string).collect();
    AccessWriter::new(Arc::new(AccessLog::new(
        AccessFormat::parse(format).expect("a format"),
        Arc::new(LogFile::new(open_access_log(path).expect("opens"))),
        &suppressed,
        "www",
        4711,
    )))
}

#[test]
fn log_that_cannot_be_opened_is_an_error_in_php_fpms_words() {
    let error = open_access_log(Path::new("/nonexistent/log")).expect_err("no file");
    assert_eq!(
        error.to_string(),
        "failed to open access log (/nonexistent/log): No such file or directory (2)"
    );
}

#[test]
fn default_format_is_php_fpms() {
    let line = line(DEFAULT_ACCESS_FORMAT);
    let start = line.strip_prefix("127.0.0.1 -  ").expect("client and user");
    let (time, rest) = start.split_at("21/Nov/2026:07:50:00 +0000".len());
    // Whatever the time zone is.
    let shape: String = time
        .chars()
        .map(|character| match character {
            '0'..='9' => '0',
            '-' => '+',
            other => other,
        })
        .collect();
    assert_eq!(shape, "00/Nov/0000:00:00:00 +0000");
    assert_eq!(rest, " \"GET /index.php\" 200\n");
}

#[test]
fn each_code_writes_what_php_fpm_writes() {
    let pid = getpid();
    for (format, expected) in [
        ("%%", "%"),
        ("100%", "100"),
        ("%C", "26.11"),
        ("%{total}C %{user}C %{SYSTEM}C", "26.11 25.58 0.53"),
        ("%d %{seconds}d", "2.346 2.346"),
        (
            "%{milli}d %{mili}d %{milliseconds}d",
            "2345.678 2345.678 2345.678",
        ),
        ("%{micro}d", "2345678"),
        ("%f", "/var/www/index.php"),
        ("%l", "0"),
        ("%m", "GET"),
        (
            "%M %{bytes}M %{kilo}M %{Megabytes}M",
            "2097152 2097152 2048 2",
        ),
        ("%n", "www"),
        (
            "%{X-Powered-By}o %{Content-Type}o",
            "PHP/8.2.32 text/plain;charset=UTF-8",
        ),
        ("%{X-Empty}o %{X-Absent}o %{X-Powered}o", "- - -"),
        ("%P", "4711"),
        ("%p", pid.to_string().as_str()),
        ("'%m %r%Q%q' %s", "'GET /index.php' 200"),
        ("%R", "127.0.0.1"),
        ("%{%s}t %{%s}T", "1795247400 1795247402"),
        ("a %{%Y}t b", "a 2026 b"),
        ("[%u]", "[]"),
        ("%{ignored}{%s}t", "1795247400"),
    ] {
        assert_eq!(line(format), format!("{expected}\n"), "{format}");
    }
}

#[test]
fn what_is_missing_is_a_dash_or_nothing() {
    let variables = Variables::new();
    let record = AccessRecord {
        client: None,
        method: b"",
        uri: b"",
        script: b"",
        headers: b"",
        ..record(&variables)
    };
    assert_eq!(
        line_of("%R %m [%r] %f %{NAME}e %{Name}o [%Q%q]", &record),
        "- - [] - - - []\n"
    );
}

#[test]
fn query_user_and_variables_are_the_clients() {
    let mut variables = Variables::new();
    variables.push(b"HTTP_USER_AGENT", b"curl/8");
    let record = AccessRecord {
        query: b"a=b&c",
        user: b"joe",
        status: 404,
        ..record(&variables)
    };
    assert_eq!(
        line_of("%u \"%m %r%Q%q\" %s %{HTTP_USER_AGENT}e", &record),
        "joe \"GET /index.php?a=b&c\" 404 curl/8\n"
    );
}

#[test]
fn no_client_can_forge_a_line() {
    let variables = Variables::new();
    let record = AccessRecord {
        user: b"joe\n127.0.0.1 - root\x1b",
        ..record(&variables)
    };
    assert_eq!(line_of("%u", &record), "joe\\x0a127.0.0.1 - root\\x1b\n");
}

#[test]
fn mapped_address_is_written_as_ipv4() {
    let variables = Variables::new();
    let mapped = Ipv6Addr::from([0, 0, 0, 0, 0, 0xffff, 0x7f00, 1]);
    for (address, expected) in [(mapped, "127.0.0.1\n"), (Ipv6Addr::LOCALHOST, "::1\n")] {
        let record = AccessRecord {
            client: Some(address.into()),
            ..record(&variables)
        };
        assert_eq!(line_of("%R", &record), expected);
    }
}

#[test]
fn request_without_duration_has_no_cpu_either() {
    let variables = Variables::new();
    let record = AccessRecord {
        duration: Duration::ZERO,
        ..record(&variables)
    };
    assert_eq!(line_of("%C", &record), "0.00\n");
}

#[test]
fn wrong_formats_are_refused_in_php_fpms_words() {
    let duration = "only 'seconds', 'milli', 'milliseconds', 'micro' or 'microseconds' are allowed as a modifier for %d ('x')";
    let memory = "only 'bytes', 'kilo', 'kilobytes', 'mega' or 'megabytes' are allowed as a modifier for %M ('x')";
    for (format, message) in [
        (
            "%{x}C",
            "only 'total', 'user' or 'system' are allowed as a modifier for %C ('x')",
        ),
        ("%{x}d", duration),
        ("%{x}M", memory),
        (
            "%e",
            "the name of the environment variable must be set between embraces for %e",
        ),
        (
            "%{}o",
            "the name of the header must be set between embraces for %o",
        ),
        ("%{x}m", "embrace is not allowed for modifier %m"),
        ("%{x}%", "embrace is not allowed for modifier %%"),
        ("%{x}", "missing closing embrace in the access.format"),
        ("%{x", "missing closing embrace in the access.format"),
        ("%z", "Invalid token in the access.format (%z)"),
        ("ok %}", "Invalid token in the access.format (%})"),
    ] {
        assert_eq!(
            AccessFormat::parse(format),
            Err(message.to_owned()),
            "{format}"
        );
    }
}

#[test]
fn format_tells_what_it_needs() {
    let needs = |format| {
        let format = AccessFormat::parse(format).expect("a format");
        (format.needs_cpu(), format.needs_headers())
    };
    assert_eq!(needs(DEFAULT_ACCESS_FORMAT), (false, false));
    assert_eq!(needs("%{user}C"), (true, false));
    assert_eq!(needs("%{Age}o"), (false, true));
    assert_eq!(needs("%M"), (false, false));
}

#[test]
fn line_ends_at_php_fpms_length() {
    let variables = Variables::new();
    let query = vec![b'q'; 2000];
    let record = AccessRecord {
        query: &query,
        ..record(&variables)
    };
    let cut = line_of("%q%q%q%q", &record);
    assert_eq!(cut, format!("{}\n", "q".repeat(1024)));
}

#[test]
fn long_requests_are_cut_as_php_fpm_cuts_them_and_leave_room_for_the_rest() {
    let variables = Variables::new();
    let long = vec![b'x'; 2000];
    let record = AccessRecord {
        method: &long,
        uri: &long,
        query: &long,
        script: &long,
        user: &long,
        ..record(&variables)
    };
    let expected: Vec<String> = [15, 127, 511, 255, 31]
        .map(|length| "x".repeat(length))
        .to_vec();
    assert_eq!(
        line_of("%m %r %q %f %u", &record),
        format!("{}\n", expected.join(" "))
    );
    assert!(line_of("%r?%q %s", &record).ends_with("xxx 200\n"));
}

#[test]
fn empty_line_is_not_written() {
    assert_eq!(line("%u"), "");
}

#[test]
fn only_successful_requests_without_query_and_body_are_suppressed() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("log");
    let mut writer = writer("%m %r%Q%q %s %l", &path, &["/ping", "/index.php"]);
    let variables = Variables::new();
    let record = record(&variables);
    for suppressed in [
        record,
        AccessRecord {
            method: b"HEAD",
            ..record
        },
        AccessRecord {
            uri: b"/ping",
            status: 204,
            ..record
        },
    ] {
        writer.write(&suppressed);
    }
    assert_eq!(fs::read_to_string(&path).expect("a log"), "");
    for logged in [
        AccessRecord {
            method: b"POST",
            ..record
        },
        AccessRecord {
            query: b"x",
            ..record
        },
        AccessRecord {
            status: 500,
            ..record
        },
        AccessRecord {
            status: 304,
            ..record
        },
        AccessRecord {
            content_length: 1,
            ..record
        },
        AccessRecord {
            uri: b"/ping/",
            ..record
        },
    ] {
        writer.write(&logged);
    }
    let expected = "POST /index.php 200 0\nGET /index.php?x 200 0\nGET /index.php 500 0\n\
                    GET /index.php 304 0\nGET /index.php 200 1\nGET /ping/ 200 0\n";
    assert_eq!(fs::read_to_string(&path).expect("a log"), expected);
}

#[test]
fn reopened_log_gets_the_lines_of_every_thread() {
    let directory = tempfile::tempdir().expect("a directory");
    let (path, new) = (directory.path().join("log"), directory.path().join("new"));
    let mut first = writer("%s", &path, &[]);
    let mut second = AccessWriter::new(Arc::clone(&first.log));
    let variables = Variables::new();
    first.write(&record(&variables));
    first
        .log
        .file
        .replace(open_access_log(&new).expect("opens"))
        .expect("replaced");
    first.write(&record(&variables));
    second.write(&record(&variables));
    assert_eq!(fs::read_to_string(&path).expect("a log"), "200\n");
    assert_eq!(fs::read_to_string(&new).expect("a log"), "200\n200\n");
}

#[test]
fn time_follows_the_second() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("log");
    let mut writer = writer("%{%s}t %{%S}T", &path, &[]);
    let variables = Variables::new();
    for accepted in [10, 10, 11] {
        writer.write(&AccessRecord {
            accepted,
            now: accepted + 1,
            ..record(&variables)
        });
    }
    let expected = "10 11\n10 11\n11 12\n";
    assert_eq!(fs::read_to_string(&path).expect("a log"), expected);
}

#[test]
fn cpu_time_of_work_is_seen() {
    let start = CpuTime::now();
    let mut sum = 0u64;
    while CpuTime::now().since(start).user < Duration::from_millis(10) {
        sum = (0..10_000).fold(sum, u64::wrapping_add);
    }
    assert_ne!(sum, 1);
    assert_eq!(start.since(CpuTime::now()), CpuTime::default());
}

proptest! {
    #[test]
    fn no_format_panics(format in "[%{}a-zA-Z \u{e4}]{0,40}") {
        if let Ok(format) = AccessFormat::parse(&format) {
            let mut out = Vec::new();
            let variables = Variables::new();
            let record = record(&variables);
            let line = format::Line { record: &record, pool: "www", pid: 1, supervisor: 1 };
            format.append(&line, &mut TimeCache::new(format.times()), &mut out);
        }
    }
}
