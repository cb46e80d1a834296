//! The report's table, as Markdown that can be read as it is.

use std::fmt::Write as _;

use crate::cases::{Case, Figure, Goal, Kind};
use crate::load::Sample;
use crate::rounds::{Row, median_of, most_of, ratio_of};

/// Columns of numbers.
const NUMBERS: std::ops::Range<usize> = 2..10;

#[derive(Debug, Default)]
pub(crate) struct Table {
    lines: Vec<Vec<String>>,
}

const HEAD: [&str; 12] = [
    "case",
    "server",
    "CPU us",
    "ratio",
    "requests/s",
    "ratio",
    "p50",
    "ratio",
    "p99",
    "ratio",
    "goal",
    "remarks",
];

impl Table {
    /// Adds a case's rows; the first is what the others are divided by.
    pub(crate) fn add(&mut self, case: &Case, rows: Vec<Row>) {
        for (index, row) in rows.iter().enumerate() {
            let base = &rows[0];
            let number = |figure: fn(&Sample) -> Option<f64>, digits: usize| {
                median_of(row, figure).map_or_else(String::new, |value| format!("{value:.digits$}"))
            };
            let ratio = |figure: fn(&Sample) -> Option<f64>| match ratio_of(row, base, figure) {
                Some(ratio) if index > 0 => format!("{ratio:.2}"),
                _ => String::new(),
            };
            let latency = |figure: fn(&Sample) -> Option<f64>| {
                median_of(row, figure).map_or_else(String::new, time)
            };
            let goals = if row.judged { case.goals } else { &[] };
            self.lines.push(vec![
                if index == 0 { case.name } else { "" }.to_owned(),
                row.name.clone(),
                number(|sample| sample.cpu, 1),
                ratio(|sample| sample.cpu),
                number(|sample| sample.rate, 0),
                ratio(|sample| sample.rate),
                latency(|sample| sample.p50),
                ratio(|sample| sample.p50),
                latency(|sample| sample.p99),
                ratio(|sample| sample.p99),
                goals
                    .iter()
                    .map(|goal| judge(goal, row, base))
                    .collect::<Vec<_>>()
                    .join(", "),
                remarks(case, row, base),
            ]);
        }
    }

    pub(crate) fn markdown(&self) -> String {
        let head: Vec<String> = HEAD.map(str::to_owned).into();
        let widths: Vec<usize> = (0..HEAD.len())
            .map(|column| {
                let lines = std::iter::once(&head).chain(&self.lines);
                lines
                    .map(|line| line[column].chars().count())
                    .max()
                    .unwrap_or(0)
            })
            .collect();
        let mut text = String::new();
        let mut write = |line: &[String]| {
            for (column, (cell, width)) in line.iter().zip(&widths).enumerate() {
                // Numbers to the right, so that they can be compared.
                let _ = if NUMBERS.contains(&column) {
                    write!(text, "| {cell:>width$} ")
                } else {
                    write!(text, "| {cell:<width$} ")
                };
            }
            text.push_str("|\n");
        };
        write(&head);
        let rule: Vec<String> = widths
            .iter()
            .enumerate()
            .map(|(column, width)| {
                if NUMBERS.contains(&column) {
                    format!("{}:", "-".repeat(width - 1))
                } else {
                    "-".repeat(*width)
                }
            })
            .collect();
        write(&rule);
        for line in &self.lines {
            write(line);
        }
        text
    }
}

/// The goal, and whether it is reached.
fn judge(goal: &Goal, row: &Row, base: &Row) -> String {
    let bound = goal.bound();
    let (text, value) = match goal.what {
        Figure::CpuRatio => (
            format!("CPU ≤ {bound}"),
            ratio_of(row, base, |sample| sample.cpu),
        ),
        Figure::RateRatio => (
            format!("requests/s ≥ {bound}"),
            ratio_of(row, base, |sample| sample.rate),
        ),
        Figure::P99Ratio => (
            format!("p99 ≤ {bound}"),
            ratio_of(row, base, |sample| sample.p99),
        ),
        Figure::PssRatio => (
            format!("PSS ≤ {bound}"),
            ratio_of(row, base, |sample| sample.pss),
        ),
        Figure::P50Micros => (
            format!("p50 ≤ {}", time(bound)),
            median_of(row, |sample| sample.p50),
        ),
        Figure::P95Micros => (
            format!("p95 ≤ {}", time(bound)),
            median_of(row, |sample| sample.p95),
        ),
        Figure::PssPerConnection => (
            format!("PSS ≤ {} KB a connection", bound / 1024.0),
            most_of(row, |sample| sample.pss_per_connection),
        ),
    };
    let reached = match (goal.what, value) {
        (_, None) => "?",
        (Figure::RateRatio, Some(value)) if value >= bound => "yes",
        (Figure::RateRatio, Some(_)) => "no",
        (_, Some(value)) if value <= bound => "yes",
        (_, Some(_)) => "no",
    };
    format!("{text}: {reached}")
}

/// Figures that few cases have, and what went wrong.
fn remarks(case: &Case, row: &Row, base: &Row) -> String {
    let mut texts = Vec::new();
    let per_connection = most_of(row, |sample| sample.pss_per_connection);
    if let Some(bytes) = per_connection {
        texts.push(format!(
            "at most {:.2} KB of PSS a connection",
            bytes / 1024.0
        ));
    } else if matches!(case.kind, Kind::Memory)
        && let Some(bytes) = median_of(row, |sample| sample.pss)
    {
        let ratio = ratio_of(row, base, |sample| sample.pss).unwrap_or(1.0);
        texts.push(format!("PSS {:.0} MB ({ratio:.2})", bytes / 1_048_576.0));
    }
    if let Some(p95) = median_of(row, |sample| sample.p95) {
        texts.push(format!("p95 {}", time(p95)));
    }
    if matches!(case.kind, Kind::Load(_))
        && let Some(busy) = median_of(row, |sample| sample.busy)
    {
        texts.push(format!("{busy} busy"));
    }
    if !row.note.is_empty() {
        texts.push(row.note.replace('|', "/"));
    }
    texts.join(", ")
}

/// Microseconds with the unit that suits them.
fn time(micros: f64) -> String {
    if micros < 1e3 {
        format!("{micros:.0} us")
    } else if micros < 1e6 {
        format!("{:.2} ms", micros / 1e3)
    } else {
        format!("{:.2} s", micros / 1e6)
    }
}
