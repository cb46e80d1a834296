//! The status page as text, html, xml and JSON: the same fields, differently dressed.

use std::io::Write;

use super::StatusContext;
use super::escape;
use super::fields::{self, Field, Value};
use super::time;
use crate::scoreboard::Snapshot;

/// `name:` in 22 columns, and the value.
pub(super) fn text(snapshot: &Snapshot, context: &StatusContext<'_>, full: bool) -> Vec<u8> {
    let mut out = Vec::new();
    text_lines(&mut out, &fields::pool(snapshot, context), context);
    if full {
        for (worker, request) in fields::workers(snapshot) {
            put(&mut out, "\n************************\n");
            let fields = fields::worker(snapshot, worker, request);
            text_lines(&mut out, &fields, context);
        }
    }
    out
}

fn text_lines(out: &mut Vec<u8>, fields: &[Field], context: &StatusContext<'_>) {
    for (name, value) in fields {
        let name = match *name {
            "request uri" => "request URI",
            name => name,
        };
        put(out, format_args!("{:<22}", format!("{name}:")));
        match value {
            Value::Text(bytes) => out.extend_from_slice(&escape::line(bytes)),
            Value::Time(seconds) => put(out, local_time(*seconds, context)),
            value => put(out, plain(value)),
        }
        out.push(b'\n');
    }
}

/// A table of the pool, and one of its workers.
pub(super) fn html(snapshot: &Snapshot, context: &StatusContext<'_>, full: bool) -> Vec<u8> {
    let cell = |value: &Value| match value {
        Value::Time(seconds) => local_time(*seconds, context),
        value => marked_up(value),
    };
    let mut out = Vec::from(HTML_HEAD);
    for (name, value) in fields::pool(snapshot, context) {
        let value = cell(&value);
        put(
            &mut out,
            format_args!("<tr><th>{name}</th><td>{value}</td></tr>\n"),
        );
    }
    put(&mut out, "</table>\n");
    if full {
        put(&mut out, HTML_WORKERS);
        for (worker, request) in fields::workers(snapshot) {
            put(&mut out, "<tr>");
            for (_, value) in fields::worker(snapshot, worker, request) {
                put(&mut out, format_args!("<td>{}</td>", cell(&value)));
            }
            put(&mut out, "</tr>\n");
        }
        put(&mut out, "</table>");
    }
    put(&mut out, "</body></html>");
    out
}

/// An element for each field.
pub(super) fn xml(snapshot: &Snapshot, context: &StatusContext<'_>, full: bool) -> Vec<u8> {
    let element = |(name, value): &Field| {
        let name = name.replace(' ', "-");
        format!("<{name}>{}</{name}>", marked_up(value))
    };
    let mut out = Vec::from(b"<?xml version=\"1.0\" ?>\n<status>\n");
    for field in fields::pool(snapshot, context) {
        put(&mut out, format_args!("{}\n", element(&field)));
    }
    if full {
        put(&mut out, "<processes>\n");
        for (worker, request) in fields::workers(snapshot) {
            put(&mut out, "<process>");
            for field in fields::worker(snapshot, worker, request) {
                put(&mut out, element(&field));
            }
            put(&mut out, "</process>\n");
        }
        put(&mut out, "</processes>\n");
    }
    put(&mut out, "</status>");
    out
}

/// An object, and an array of objects in it.
pub(super) fn json(snapshot: &Snapshot, context: &StatusContext<'_>, full: bool) -> Vec<u8> {
    let members = |fields: Vec<Field>| {
        let members: Vec<String> = fields
            .iter()
            .map(|(name, value)| match value {
                Value::Text(bytes) => format!("\"{name}\":\"{}\"", escape::json(bytes)),
                Value::Name(text) => format!("\"{name}\":\"{text}\""),
                value => format!("\"{name}\":{}", plain(value)),
            })
            .collect();
        members.join(",")
    };
    let mut out = Vec::new();
    put(
        &mut out,
        format_args!("{{{}", members(fields::pool(snapshot, context))),
    );
    if full {
        let workers: Vec<String> = fields::workers(snapshot)
            .map(|(worker, request)| {
                format!("{{{}}}", members(fields::worker(snapshot, worker, request)))
            })
            .collect();
        put(
            &mut out,
            format_args!(", \"processes\":[{}]", workers.join(",")),
        );
    }
    out.push(b'}');
    out
}

fn marked_up(value: &Value) -> String {
    match value {
        Value::Text(bytes) => escape::markup(bytes),
        value => plain(value),
    }
}

/// A value that needs no escaping.
fn plain(value: &Value) -> String {
    match value {
        Value::Name(text) => text.clone(),
        Value::Text(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Value::Number(number) => number.to_string(),
        Value::Percent(percent) => format!("{percent:.2}"),
        Value::Time(seconds) => seconds.to_string(),
    }
}

fn local_time(seconds: i64, context: &StatusContext<'_>) -> String {
    time::local(seconds, (context.utc_offset)(seconds))
}

fn put(out: &mut Vec<u8>, text: impl std::fmt::Display) {
    // A `Vec` cannot fail to take bytes.
    let _ = write!(out, "{text}");
}

const HTML_HEAD: &str = r#"<!DOCTYPE html PUBLIC "-//W3C//DTD XHTML 1.0 Strict//EN" "http://www.w3.org/TR/xhtml1/DTD/xhtml1-strict.dtd">
<html xmlns="http://www.w3.org/1999/xhtml" xml:lang="en" lang="en">
<head><title>PHP-FPM Status Page</title></head>
<body>
<table>
"#;

const HTML_WORKERS: &str = concat!(
    "<table border=\"1\">\n<tr><th>pid</th><th>state</th><th>start time</th><th>start since</th><th>requests</th>",
    "<th>request duration</th><th>request method</th><th>request uri</th><th>content length</th><th>user</th>",
    "<th>script</th><th>last request cpu</th><th>last request memory</th></tr>\n"
);
