//! Stock php-fpm and fe-php give the same answer to the same requests.
//!
//! Each test starts both with the same php.ini, directory and environment, sends both the same requests, and compares
//! head, body, error stream and exit status byte for byte. What may differ is listed, with reasons, in `allowed.rs`.

mod allowed;
mod bodies;
mod environment;
mod errors;
mod exits;
mod headers;
mod names;
mod output;
mod paths;
mod php_value;
mod requests;
mod sections;
mod sessions;
mod suite;
mod uploads;

use suite::{compare, compare_configured, compare_with_fresh_fpm};

/// As Debian's php.ini for servers has it, where it matters here.
const PRODUCTION: &[&str] = &[
    "display_errors=0",
    "log_errors=1",
    "error_reporting=E_ALL",
    "output_buffering=4096",
    "variables_order=GPCS",
    "request_order=GP",
    "session.gc_probability=0",
    "upload_max_filesize=64K",
    "post_max_size=256K",
    "user_ini.cache_ttl=0",
    "opcache.revalidate_freq=0",
];

/// As a developer sets it.
const DEVELOPMENT: &[&str] = &[
    "display_errors=1",
    "html_errors=1",
    "log_errors=1",
    "error_reporting=E_ALL",
    "output_buffering=0",
];

#[test]
fn requests_arrive_alike() {
    compare("requests", PRODUCTION, requests::cases);
}

#[test]
fn variable_names_are_parsed_alike() {
    compare("names", PRODUCTION, names::cases);
}

#[test]
fn bodies_are_read_alike() {
    compare("bodies", PRODUCTION, bodies::cases);
}

#[test]
fn bodies_are_left_alone_alike_without_post_data_reading() {
    compare(
        "unread bodies",
        &[PRODUCTION, &["enable_post_data_reading=0"]].concat(),
        bodies::cases,
    );
}

#[test]
fn uploads_are_read_alike() {
    compare("uploads", PRODUCTION, uploads::cases);
}

#[test]
fn scripts_are_found_alike() {
    compare("paths", PRODUCTION, paths::cases);
}

#[test]
fn scripts_are_found_alike_without_fix_pathinfo() {
    compare(
        "plain paths",
        &[PRODUCTION, &["cgi.fix_pathinfo=0"]].concat(),
        paths::cases,
    );
}

#[test]
fn response_heads_are_alike() {
    compare("headers", PRODUCTION, headers::cases);
}

#[test]
fn response_heads_are_alike_with_rfc2616_headers() {
    compare(
        "rfc2616 headers",
        &[PRODUCTION, &["cgi.rfc2616_headers=1"]].concat(),
        headers::cases,
    );
}

#[test]
fn output_is_alike() {
    compare("output", PRODUCTION, output::cases);
}

#[test]
fn unbuffered_output_is_alike() {
    compare("unbuffered output", DEVELOPMENT, output::cases);
}

#[test]
fn errors_in_production_are_alike() {
    compare("errors", PRODUCTION, errors::cases);
}

#[test]
fn errors_in_development_are_alike() {
    compare("displayed errors", DEVELOPMENT, errors::cases);
}

#[test]
fn errors_as_plain_text_on_stderr_are_alike() {
    let ini = [
        DEVELOPMENT,
        &["display_errors=stderr", "html_errors=0", "log_errors=0"],
    ]
    .concat();
    compare("errors on stderr", &ini, errors::cases);
}

#[test]
fn errors_are_alike_without_fastcgi_logging() {
    compare(
        "unlogged errors",
        &[PRODUCTION, &["fastcgi.logging=0"]].concat(),
        errors::cases,
    );
}

#[test]
fn scripts_end_alike() {
    compare("exits", PRODUCTION, exits::cases);
}

#[test]
fn sessions_are_alike() {
    compare("sessions", PRODUCTION, sessions::cases);
}

#[test]
fn settings_per_request_are_alike() {
    // php-fpm keeps PHP_ADMIN_VALUE and disabled functions for all later requests of the same process.
    compare_with_fresh_fpm("php_value", PRODUCTION, php_value::cases);
}

#[test]
fn sections_of_php_ini_apply_alike() {
    compare_with_fresh_fpm(
        "sections",
        &[PRODUCTION, sections::INI].concat(),
        sections::cases,
    );
}

#[test]
fn scripts_see_the_same_environment() {
    compare("environment", PRODUCTION, environment::cases);
}

#[test]
fn scripts_see_the_same_environment_with_all_variables() {
    let ini = [
        "variables_order=EGPCS",
        "register_argc_argv=1",
        "auto_globals_jit=0",
        "expose_php=1",
    ];
    compare(
        "full environment",
        &[PRODUCTION, &ini].concat(),
        environment::cases,
    );
}

/// What pools commonly set, some of it with an effect on each request.
const POOL: &str = "request_terminate_timeout = 60
request_slowlog_timeout = 30
slowlog = {directory}/slow.log
access.log = {directory}/access.log
access.format = \"%R %u %t %m %r%Q%q %s %f %{milli}d %{kilo}M %C\"
pm.status_path = /status-of-the-pool
ping.path = /ping-of-the-pool
env[FROM_POOL] = yes
php_value[auto_prepend_file] = none
php_admin_value[include_path] = .:/usr/share/php
catch_workers_output = yes
";

#[test]
fn configured_pools_answer_requests_alike() {
    compare_configured("requests", PRODUCTION, POOL, requests::cases);
}

#[test]
fn configured_pools_read_bodies_alike() {
    compare_configured("bodies", PRODUCTION, POOL, bodies::cases);
}

#[test]
fn configured_pools_find_scripts_alike() {
    compare_configured("paths", PRODUCTION, POOL, paths::cases);
}

#[test]
fn configured_pools_send_heads_alike() {
    compare_configured("headers", PRODUCTION, POOL, headers::cases);
}

#[test]
fn configured_pools_report_errors_alike() {
    compare_configured("errors", PRODUCTION, POOL, errors::cases);
}

#[test]
fn configured_pools_end_scripts_alike() {
    compare_configured("exits", PRODUCTION, POOL, exits::cases);
}

#[test]
fn configured_pools_give_scripts_the_same_environment() {
    compare_configured("environment", PRODUCTION, POOL, environment::cases);
}

#[test]
fn configured_pools_give_scripts_the_whole_environment() {
    let pool = format!("clear_env = no\n{POOL}");
    compare_configured("environment", PRODUCTION, &pool, environment::cases);
}
