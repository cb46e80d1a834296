use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::request::{StatusArrays, StatusValue};
use crate::scoreboard::{Moment, OpcacheFigures, RequestInfo, Scoreboard};

/// When the pool of these tests was started.
const STARTED: u64 = 1_795_555_949;

/// Two workers: one runs a script whose request is full of traps, one has answered two requests and is idle.
fn snapshot() -> Snapshot {
    let (scoreboard, _) = Scoreboard::create(2, 1).expect("memfd");
    let scoreboard = Arc::new(scoreboard);
    scoreboard.set_backlog(0, 511);
    scoreboard.count_slow_request();
    let at = Moment::from_micros;
    let busy = scoreboard.claim(3363, 1, 1).expect("free");
    busy.set_serving();
    busy.request_started();
    busy.worker(0).expect("there is one").begin(
        at(1_000_000),
        &RequestInfo {
            request_uri: b"/slow/<\xc3\xbc>.php",
            query_string: b"a=b\"c&\xc3\xbc=\xff'<x>",
            request_method: b"GET",
            script_filename: b"/srv/slow.php",
            auth_user: b"<b>",
            content_length: 0,
        },
    );
    let idle = scoreboard.claim(3364, 1, 1).expect("free");
    idle.set_serving();
    let mut worker = idle.worker(0).expect("there is one");
    for (begin, end) in [(100, 400), (1_000, 21_000)] {
        idle.request_started();
        worker.begin(at(begin), &RequestInfo::default());
        worker.waited(Duration::from_micros(begin));
        worker.end(at(end), 2 << 20, Duration::from_millis(5));
        idle.request_finished();
    }
    worker.accepting(at(21_000));
    idle.set_opcache(OpcacheFigures {
        used_memory: 9_000_000,
        hits: 12,
        ..OpcacheFigures::default()
    });
    let mut snapshot = scoreboard.full_snapshot();
    // The clocks stand still.
    snapshot.now = at(1_302_133);
    snapshot.started_at = UNIX_EPOCH + Duration::from_secs(STARTED);
    snapshot.taken_at = UNIX_EPOCH + Duration::from_millis(STARTED * 1_000 + 1_700);
    for worker in &mut snapshot.workers {
        worker.started_at = snapshot.started_at;
    }
    snapshot
}

fn page(query: &[u8], version: (u32, u32), more: &[(&[u8], &[u8])]) -> Page {
    let context = StatusContext {
        pool: "www",
        process_manager: &ProcessManager::Static,
        php_version: version,
        utc_offset: |_| 3_600,
    };
    let mut variables = Variables::new();
    variables.push(b"REQUEST_METHOD", b"GET");
    variables.push(b"QUERY_STRING", query);
    for (name, value) in more {
        variables.push(name, value);
    }
    render(
        &snapshot(),
        &context,
        StatusRequest::from_variables(&variables),
    )
}

fn body(query: &[u8]) -> String {
    String::from_utf8_lossy(&page(query, (8, 2), &[]).body).into_owned()
}

const ACCEPT: (&[u8], &[u8]) = (
    b"HTTP_ACCEPT",
    b"application/openmetrics-text;version=1.0.0",
);

/// What stock php-fpm 8.2 answers in the same state, but for what is said in the module's documentation.
#[test]
fn text_is_as_php_fpm_writes_it() {
    let page = page(b"full", (8, 2), &[]);
    let expected: &[u8] = b"\
pool:                 www
process manager:      static
start time:           24/Nov/2026:22:32:29 +0100
start since:          1
accepted conn:        3
listen queue:         0
max listen queue:     0
listen queue len:     511
idle processes:       1
active processes:     1
total processes:      2
max active processes: 2
max children reached: 0
slow requests:        1

************************
pid:                  3363
state:                Running
start time:           24/Nov/2026:22:32:29 +0100
start since:          1
requests:             1
request duration:     302133
request method:       GET
request URI:          /slow/<\xc3\xbc>.php?a=b\"c&\xc3\xbc=\xff'<x>
content length:       0
user:                 <b>
script:               /srv/slow.php
last request cpu:     0.00
last request memory:  0

************************
pid:                  3364
state:                Idle
start time:           24/Nov/2026:22:32:29 +0100
start since:          1
requests:             2
request duration:     20000
request method:       -
request URI:          -
content length:       0
user:                 -
script:               -
last request cpu:     25.00
last request memory:  2097152
";
    assert_eq!(
        String::from_utf8_lossy(&page.body),
        String::from_utf8_lossy(expected)
    );
    assert_eq!(page.body, expected);
    assert_eq!(
        (page.status, page.headers),
        (
            200,
            vec![
                ("Expires", "Thu, 01 Jan 1970 00:00:00 GMT"),
                (
                    "Cache-Control",
                    "no-cache, no-store, must-revalidate, max-age=0"
                ),
                ("Content-type", "text/plain;charset=UTF-8"),
            ]
        )
    );
    let short = body(b"");
    assert!(expected.starts_with(short.as_bytes()) && short.ends_with("slow requests:        1\n"));
}

#[test]
fn html_is_as_php_fpm_writes_it() {
    let rows = "<tr><th>pool</th><td>www</td></tr>
<tr><th>process manager</th><td>static</td></tr>
<tr><th>start time</th><td>24/Nov/2026:22:32:29 +0100</td></tr>
<tr><th>start since</th><td>1</td></tr>
<tr><th>accepted conn</th><td>3</td></tr>
<tr><th>listen queue</th><td>0</td></tr>
<tr><th>max listen queue</th><td>0</td></tr>
<tr><th>listen queue len</th><td>511</td></tr>
<tr><th>idle processes</th><td>1</td></tr>
<tr><th>active processes</th><td>1</td></tr>
<tr><th>total processes</th><td>2</td></tr>
<tr><th>max active processes</th><td>2</td></tr>
<tr><th>max children reached</th><td>0</td></tr>
<tr><th>slow requests</th><td>1</td></tr>
</table>
";
    let head = "<!DOCTYPE html PUBLIC \"-//W3C//DTD XHTML 1.0 Strict//EN\" \
                \"http://www.w3.org/TR/xhtml1/DTD/xhtml1-strict.dtd\">\n\
                <html xmlns=\"http://www.w3.org/1999/xhtml\" xml:lang=\"en\" lang=\"en\">\n\
                <head><title>PHP-FPM Status Page</title></head>\n<body>\n<table>\n";
    assert_eq!(body(b"html"), format!("{head}{rows}</body></html>"));
    let workers = "<table border=\"1\">\n<tr><th>pid</th><th>state</th><th>start time</th><th>start since</th>\
        <th>requests</th><th>request duration</th><th>request method</th><th>request uri</th><th>content length</th>\
        <th>user</th><th>script</th><th>last request cpu</th><th>last request memory</th></tr>\n\
        <tr><td>3363</td><td>Running</td><td>24/Nov/2026:22:32:29 +0100</td><td>1</td><td>1</td><td>302133</td>\
        <td>GET</td><td>/slow/&lt;\u{fc}&gt;.php?a=b&quot;c&amp;\u{fc}=\u{fffd}'&lt;x&gt;</td><td>0</td>\
        <td>&lt;b&gt;</td><td>/srv/slow.php</td><td>0.00</td><td>0</td></tr>\n\
        <tr><td>3364</td><td>Idle</td><td>24/Nov/2026:22:32:29 +0100</td><td>1</td><td>2</td><td>20000</td>\
        <td>-</td><td>-</td><td>0</td><td>-</td><td>-</td><td>25.00</td><td>2097152</td></tr>\n\
        </table></body></html>";
    assert_eq!(body(b"html&full"), format!("{head}{rows}{workers}"));
}

#[test]
fn xml_is_as_php_fpm_writes_it() {
    let pool = format!(
        "<?xml version=\"1.0\" ?>\n<status>\n<pool>www</pool>\n<process-manager>static</process-manager>\n\
         <start-time>{STARTED}</start-time>\n<start-since>1</start-since>\n<accepted-conn>3</accepted-conn>\n\
         <listen-queue>0</listen-queue>\n<max-listen-queue>0</max-listen-queue>\n\
         <listen-queue-len>511</listen-queue-len>\n<idle-processes>1</idle-processes>\n\
         <active-processes>1</active-processes>\n<total-processes>2</total-processes>\n\
         <max-active-processes>2</max-active-processes>\n<max-children-reached>0</max-children-reached>\n\
         <slow-requests>1</slow-requests>\n"
    );
    assert_eq!(body(b"xml"), format!("{pool}</status>"));
    let process = format!(
        "<processes>\n<process><pid>3363</pid><state>Running</state><start-time>{STARTED}</start-time>\
         <start-since>1</start-since><requests>1</requests><request-duration>302133</request-duration>\
         <request-method>GET</request-method>\
         <request-uri>/slow/&lt;\u{fc}&gt;.php?a=b&quot;c&amp;\u{fc}=\u{fffd}'&lt;x&gt;</request-uri>\
         <content-length>0</content-length><user>&lt;b&gt;</user><script>/srv/slow.php</script>\
         <last-request-cpu>0.00</last-request-cpu><last-request-memory>0</last-request-memory></process>\n"
    );
    let full = body(b"xml&full");
    assert!(
        full.starts_with(&format!("{pool}{process}"))
            && full.ends_with("</process>\n</processes>\n</status>"),
        "{full}"
    );
}

#[test]
fn json_is_as_php_fpm_writes_it() {
    let pool = format!(
        "{{\"pool\":\"www\",\"process manager\":\"static\",\"start time\":{STARTED},\"start since\":1,\
         \"accepted conn\":3,\"listen queue\":0,\"max listen queue\":0,\"listen queue len\":511,\
         \"idle processes\":1,\"active processes\":1,\"total processes\":2,\"max active processes\":2,\
         \"max children reached\":0,\"slow requests\":1"
    );
    assert_eq!(body(b"json"), format!("{pool}}}"));
    let process = format!(
        ", \"processes\":[{{\"pid\":3363,\"state\":\"Running\",\"start time\":{STARTED},\"start since\":1,\
         \"requests\":1,\"request duration\":302133,\"request method\":\"GET\",\
         \"request uri\":\"\\/slow\\/<\\u00fc>.php?a=b\\\"c&\\u00fc='<x>\",\"content length\":0,\"user\":\"<b>\",\
         \"script\":\"\\/srv\\/slow.php\",\"last request cpu\":0.00,\"last request memory\":0}},{{\"pid\":3364,"
    );
    let full = body(b"json&full");
    assert!(full.starts_with(&format!("{pool}{process}")), "{full}");
    let parsed: serde_json::Value = serde_json::from_str(&full).expect("valid JSON");
    assert_eq!(parsed["processes"][1]["last request cpu"], 25.0);
}

#[test]
fn memory_peak_is_there_since_php_8_4() {
    for (query, field) in [
        (
            &b"full"[..],
            "slow requests:        1\nmemory peak:          2097152\n\n***",
        ),
        (
            b"html",
            "<tr><th>memory peak</th><td>2097152</td></tr>\n</table>",
        ),
        (b"xml", "<memory-peak>2097152</memory-peak>\n</status>"),
        (b"json", ",\"slow requests\":1,\"memory peak\":2097152}"),
        (
            b"openmetrics",
            "phpfpm_slow_requests 1\n\
             # HELP phpfpm_memory_peak The memory usage peak since FPM has started.\n\
             # TYPE phpfpm_memory_peak gauge\nphpfpm_memory_peak 2097152\n# EOF\n",
        ),
    ] {
        let new = page(query, (8, 4), &[]).body;
        assert!(String::from_utf8_lossy(&new).contains(field), "{field}");
        let old = page(query, (8, 3), &[]).body;
        assert!(!String::from_utf8_lossy(&old).contains("peak"), "{field}");
    }
}

#[test]
fn openmetrics_for_who_does_not_say_what_it_accepts_is_php_fpms() {
    let expected = "# HELP phpfpm_up Could pool www using a static PM on PHP-FPM be reached?
# TYPE phpfpm_up gauge
phpfpm_up 1
# HELP phpfpm_start_since The number of seconds since FPM has started.
# TYPE phpfpm_start_since counter
phpfpm_start_since 1
# HELP phpfpm_accepted_connections The number of requests accepted by the pool.
# TYPE phpfpm_accepted_connections counter
phpfpm_accepted_connections 3
# HELP phpfpm_listen_queue The number of requests in the queue of pending connections.
# TYPE phpfpm_listen_queue gauge
phpfpm_listen_queue 0
# HELP phpfpm_max_listen_queue The maximum number of requests in the queue of pending connections since FPM has started.
# TYPE phpfpm_max_listen_queue counter
phpfpm_max_listen_queue 0
# TYPE phpfpm_listen_queue_length gauge
# HELP phpfpm_listen_queue_length The size of the socket queue of pending connections.
phpfpm_listen_queue_length 511
# HELP phpfpm_idle_processes The number of idle processes.
# TYPE phpfpm_idle_processes gauge
phpfpm_idle_processes 1
# HELP phpfpm_active_processes The number of active processes.
# TYPE phpfpm_active_processes gauge
phpfpm_active_processes 1
# HELP phpfpm_total_processes The number of idle + active processes.
# TYPE phpfpm_total_processes gauge
phpfpm_total_processes 2
# HELP phpfpm_max_active_processes The maximum number of active processes since FPM has started.
# TYPE phpfpm_max_active_processes counter
phpfpm_max_active_processes 2
# HELP phpfpm_max_children_reached The number of times, the process limit has been reached, when pm tries to start more children (works only for pm 'dynamic' and 'ondemand').
# TYPE phpfpm_max_children_reached counter
phpfpm_max_children_reached 0
# HELP phpfpm_slow_requests The number of requests that exceeded your 'request_slowlog_timeout' value.
# TYPE phpfpm_slow_requests counter
phpfpm_slow_requests 1
# EOF
";
    assert_eq!(body(b"openmetrics"), expected);
}

#[test]
fn strict_openmetrics_has_php_fpms_names_and_what_php_fpm_lacks() {
    let page = page(b"openmetrics", (8, 2), &[ACCEPT]);
    assert_eq!(
        page.headers[2],
        (
            "Content-Type",
            "application/openmetrics-text; version=1.0.0; charset=utf-8"
        )
    );
    let text = String::from_utf8(page.body).expect("UTF-8");
    let php_fpms = body(b"openmetrics");
    for sample in php_fpms.lines().filter(|line| !line.starts_with('#')) {
        assert!(text.contains(&format!("\n{sample}\n")), "{sample}");
    }
    for sample in [
        "phpfpm_process_state{child=\"0\",state=\"Running\"} 1",
        "phpfpm_process_state{child=\"1\",state=\"Running\"} 0",
        "phpfpm_process_state{child=\"1\",state=\"Idle\"} 1",
        "phpfpm_request_duration_seconds_bucket{le=\"0.0002\"} 0",
        "phpfpm_request_duration_seconds_bucket{le=\"0.0005\"} 1",
        "phpfpm_request_duration_seconds_bucket{le=\"+Inf\"} 2",
        "phpfpm_request_duration_seconds_count 2",
        "phpfpm_request_duration_seconds_sum 0.0203",
        "phpfpm_request_queue_seconds_count 2",
        "phpfpm_process_restarts_total 0",
        "phpfpm_process_crashes_total 0",
        "phpfpm_opcache_used_memory_bytes 9000000",
        "phpfpm_opcache_hits_total 12",
    ] {
        assert!(
            text.contains(&format!("\n{sample}\n")),
            "{sample} in {text}"
        );
    }
    assert!(!text.contains("last_request_cpu"), "only with ?full");
    assert!(
        body(b"openmetrics&full").contains("phpfpm_process_last_request_cpu{child=\"1\"} 25.00\n")
    );
}

/// Debian's python3-prometheus-client; `scripts/install-deps.sh test` installs it.
#[test]
#[cfg_attr(miri, ignore = "runs a program")]
fn strict_openmetrics_is_read_by_prometheus_own_strict_parser() {
    let reads = |page: &[u8]| {
        let mut python = Command::new("/usr/bin/python3")
            .args(["-c", STRICT_PARSER])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("Debian's python3");
        let mut input = python.stdin.take().expect("a pipe");
        input.write_all(page).expect("python3 reads");
        drop(input);
        python.wait_with_output().expect("python3 ends")
    };
    for query in [&b"openmetrics"[..], b"openmetrics&full"] {
        let output = reads(&page(query, (8, 4), &[ACCEPT]).body);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{error}");
        let families = String::from_utf8_lossy(&output.stdout);
        for family in [
            "phpfpm_accepted_connections unknown",
            "phpfpm_request_duration_seconds histogram",
            "phpfpm_opcache_hits counter",
        ] {
            assert!(families.contains(family), "{family} in {families}");
        }
    }
    let output = reads(&page(b"openmetrics", (8, 2), &[]).body);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(
        error.contains("Clashing name"),
        "php-fpm's own page is refused, or there is no parser: {error}"
    );
}

const STRICT_PARSER: &str = "
import sys
from prometheus_client.openmetrics.parser import text_string_to_metric_families
for family in text_string_to_metric_families(sys.stdin.read()):
    print(family.name, family.type)
";

#[test]
fn query_is_read_as_php_reads_it() {
    let request = |query: &[u8], more: &[(&[u8], &[u8])]| {
        let mut variables = Variables::new();
        variables.push(b"QUERY_STRING", query);
        for (name, value) in more {
            variables.push(name, value);
        }
        StatusRequest::from_variables(&variables)
    };
    let of = |query: &[u8]| {
        let request = request(query, &[]);
        (request.format, request.full)
    };
    assert_eq!(of(b""), (Format::Text, false));
    assert_eq!(of(b"full&json"), (Format::Json, true));
    assert_eq!(of(b"json=1&x=html&full="), (Format::Json, true));
    assert_eq!(of(b"%6aso%6E"), (Format::Json, false));
    assert_eq!(of(b"json[]=1&fuller&%"), (Format::Text, false));
    assert_eq!(of(b"json&xml&html"), (Format::Html, false));
    let strict = |strict| Format::OpenMetrics { strict };
    assert_eq!(of(b"openmetrics"), (strict(false), false));
    assert_eq!(of(b"openmetrics&full"), (strict(true), true));
    assert_eq!(request(b"openmetrics", &[ACCEPT]).format, strict(true));
}

#[test]
fn head_has_no_body() {
    let head = page(b"json", (8, 2), &[(b"REQUEST_METHOD", b"HEAD")]);
    assert_eq!((head.body.len(), head.headers.len()), (0, 3));
    assert_eq!(ping(None, true).body, b"");
}

#[test]
fn ping_answers_pong_or_what_is_configured() {
    let page = ping(None, false);
    assert_eq!((page.status, &*page.body), (200, &b"pong"[..]));
    assert_eq!(
        page.headers[0],
        ("Content-type", "text/plain;charset=UTF-8")
    );
    assert_eq!(ping(Some("alive"), false).body, b"alive");
}

#[test]
fn pages_are_where_they_are_configured_and_nowhere_else() {
    let config = StatusConfig {
        path: Some("/status".to_owned()),
        ping_path: Some("/ping".to_owned()),
        ..StatusConfig::default()
    };
    let at = |uri: &[u8]| PageKind::at(uri, &config);
    assert_eq!(at(b"/status"), Some(PageKind::Status));
    assert_eq!(at(b"/ping"), Some(PageKind::Ping));
    assert_eq!((at(b"/status/"), at(b"/"), at(b"")), (None, None, None));
    assert_eq!(PageKind::at(b"", &StatusConfig::default()), None);
}

#[test]
fn array_of_fpm_get_status_has_php_fpms_keys() {
    let context = StatusContext {
        pool: "www",
        process_manager: &ProcessManager::Static,
        php_version: (8, 2),
        utc_offset: |_| 0,
    };
    let StatusArrays { pool, procs } = php_status(&snapshot(), &context);
    let keys = |array: &[(&'static str, StatusValue)]| -> Vec<&'static str> {
        array.iter().map(|(key, _)| *key).collect()
    };
    assert_eq!(
        keys(&pool).join(" "),
        "pool process-manager start-time start-since accepted-conn listen-queue max-listen-queue listen-queue-len \
         idle-processes active-processes total-processes max-active-processes max-children-reached slow-requests"
    );
    assert_eq!(
        keys(&procs[0]).join(" "),
        "pid state start-time start-since requests request-duration request-method request-uri query-string \
         request-length user script last-request-cpu last-request-memory"
    );
    assert_eq!(pool[4].1, StatusValue::Long(3));
    assert_eq!(procs[0][1].1, StatusValue::String(b"Running".to_vec()));
    assert_eq!(procs[1][7].1, StatusValue::String(Vec::new()));
    assert_eq!(procs[1][12].1, StatusValue::Double(25.0));
}
