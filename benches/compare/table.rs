//! The report's tables, as Markdown that can be read as it is.

use std::fmt::Write as _;

use crate::cases::{Case, Figure, Goal, Kind};
use crate::load::{OVERTAKEN, Sample};
use crate::options::BEFORE;
use crate::rounds::{Row, median_of, most_of, ratio_of};

/// One table for what requests cost, and one for cases that show who waits for whom.
#[derive(Debug, Default)]
pub(crate) struct Tables {
    costs: Vec<Vec<String>>,
    fairness: Vec<Vec<String>>,
}

/// A figure of a sample.
type Get = fn(&Sample) -> Option<f64>;

/// What a column says about a row.
enum Column {
    Case,
    Server,
    /// A number with so many digits.
    Number(&'static str, Get, usize),
    /// Microseconds.
    Time(&'static str, Get),
    /// Of the first row's figure.
    Ratio(&'static str, Get),
    Goals,
    Remarks,
}

const COSTS: &[Column] = &[
    Column::Case,
    Column::Server,
    Column::Number("CPU us", |sample| sample.cpu, 1),
    Column::Ratio("ratio", |sample| sample.cpu),
    Column::Number("requests/s", |sample| sample.rate, 0),
    Column::Ratio("ratio", |sample| sample.rate),
    Column::Time("p50", |sample| sample.p50),
    Column::Ratio("ratio", |sample| sample.p50),
    Column::Time("p99", |sample| sample.p99),
    Column::Ratio("ratio", |sample| sample.p99),
    Column::Goals,
    Column::Remarks,
];

const FAIRNESS: &[Column] = &[
    Column::Case,
    Column::Server,
    Column::Number("CPU us", |sample| sample.cpu, 1),
    Column::Ratio("ratio", |sample| sample.cpu),
    Column::Number("requests/s", |sample| sample.rate, 0),
    Column::Ratio("ratio", |sample| sample.rate),
    Column::Number("busy", Sample::busy, 2),
    Column::Ratio("ratio", Sample::busy),
    Column::Time("p50", |sample| sample.p50),
    Column::Time("p99", |sample| sample.p99),
    Column::Ratio("ratio", Sample::p99_by_cpu),
    Column::Time("longest", |sample| sample.longest),
    Column::Ratio("ratio", Sample::longest_by_cpu),
    Column::Number("overtaken", |sample| sample.overtaken, 0),
    Column::Number("most", |sample| sample.most_overtaken, 0),
    Column::Goals,
    Column::Remarks,
];

impl Tables {
    /// Adds a case's rows; the first is what the others are divided by.
    pub(crate) fn add(&mut self, case: &Case, rows: &[Row]) {
        let (lines, columns) = if case.kind.is_fairness() {
            (&mut self.fairness, FAIRNESS)
        } else {
            (&mut self.costs, COSTS)
        };
        for index in 0..rows.len() {
            let cells = columns.iter().map(|column| column.cell(case, rows, index));
            lines.push(cells.collect());
        }
    }

    pub(crate) fn markdown(&self) -> String {
        let mut text = String::new();
        if !self.costs.is_empty() {
            text += &markdown(COSTS, &self.costs);
        }
        if !self.costs.is_empty() && !self.fairness.is_empty() {
            text.push('\n');
        }
        if !self.fairness.is_empty() {
            let _ = write!(
                text,
                "All servers have as many clients as the case says. \"busy\" is requests a second times CPU per request: how many\n\
                 processors the server uses. The ratios of p99 and of the longest request are divided by that of CPU per request.\n\
                 \"overtaken\" is the number of requests in a round that more than {OVERTAKEN} later ones overtook, \"most\" the most\n\
                 overtakings of one request.\n\n"
            );
            text += &markdown(FAIRNESS, &self.fairness);
        }
        text
    }
}

impl Column {
    fn name(&self) -> &'static str {
        match self {
            Self::Case => "case",
            Self::Server => "server",
            Self::Number(name, ..) | Self::Time(name, _) | Self::Ratio(name, _) => name,
            Self::Goals => "goal",
            Self::Remarks => "remarks",
        }
    }

    fn is_number(&self) -> bool {
        matches!(self, Self::Number(..) | Self::Time(..) | Self::Ratio(..))
    }

    fn cell(&self, case: &Case, rows: &[Row], index: usize) -> String {
        let (row, base) = (&rows[index], &rows[0]);
        match self {
            Self::Case if index == 0 => case.name.clone(),
            Self::Case => String::new(),
            Self::Server => row.name.clone(),
            Self::Number(_, figure, digits) => {
                median_of(row, figure).map_or_else(String::new, |value| format!("{value:.digits$}"))
            }
            Self::Time(_, figure) => median_of(row, figure).map_or_else(String::new, time),
            Self::Ratio(_, figure) => match ratio_of(row, base, figure) {
                Some(ratio) if index > 0 => format!("{ratio:.2}"),
                _ => String::new(),
            },
            Self::Goals => goals(case, row, rows),
            Self::Remarks => remarks(case, row, base),
        }
    }
}

fn markdown(columns: &[Column], lines: &[Vec<String>]) -> String {
    let head: Vec<String> = columns
        .iter()
        .map(|column| column.name().to_owned())
        .collect();
    let widths: Vec<usize> = (0..head.len())
        .map(|column| {
            let lines = std::iter::once(&head).chain(lines);
            lines
                .map(|line| line[column].chars().count())
                .max()
                .unwrap_or(0)
        })
        .collect();
    let mut text = String::new();
    let mut write = |line: &[String]| {
        for ((cell, width), column) in line.iter().zip(&widths).zip(columns) {
            // Numbers to the right, so that they can be compared.
            let _ = if column.is_number() {
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
        .zip(columns)
        .map(|(width, column)| {
            if column.is_number() {
                format!("{}:", "-".repeat(width - 1))
            } else {
                "-".repeat(*width)
            }
        })
        .collect();
    write(&rule);
    for line in lines {
        write(line);
    }
    text
}

/// The goals of a row, and whether they are reached.
fn goals(case: &Case, row: &Row, rows: &[Row]) -> String {
    /// CPU per request, by that of `--before`.
    const BY_BEFORE: f64 = 1.03;

    let own = if row.judged { case.goals } else { &[] };
    let mut texts: Vec<String> = own.iter().map(|goal| judge(goal, row, &rows[0])).collect();
    let before = row.name.strip_prefix("fe-php").and_then(|rest| {
        let name = format!("{BEFORE}{rest}");
        rows.iter().find(|row| row.name == name)
    });
    if let Some(ratio) = before.and_then(|before| ratio_of(row, before, |sample| sample.cpu)) {
        let reached = if ratio <= BY_BEFORE { "yes" } else { "no" };
        texts.push(format!(
            "CPU ≤ {BY_BEFORE} of before: {reached} ({ratio:.3})"
        ));
    }
    texts.join(", ")
}

/// The goal, and whether it is reached.
fn judge(goal: &Goal, row: &Row, base: &Row) -> String {
    let bound = goal.bound();
    let ratio = |figure: Get| ratio_of(row, base, figure);
    let (text, value) = match goal.what {
        Figure::CpuRatio => (format!("CPU ≤ {bound}"), ratio(|sample| sample.cpu)),
        Figure::RateRatio => (format!("requests/s ≥ {bound}"), ratio(|sample| sample.rate)),
        Figure::BusyRatio => (format!("busy ≥ {bound}"), ratio(Sample::busy)),
        Figure::P99Ratio => (format!("p99 ≤ {bound}"), ratio(|sample| sample.p99)),
        Figure::P99ByCpuRatio => (format!("p99 ≤ {bound}"), ratio(Sample::p99_by_cpu)),
        Figure::LongestByCpuRatio => (format!("longest ≤ {bound}"), ratio(Sample::longest_by_cpu)),
        Figure::PssRatio => (format!("PSS ≤ {bound}"), ratio(|sample| sample.pss)),
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
    let high = matches!(goal.what, Figure::RateRatio | Figure::BusyRatio);
    let reached = match value {
        None => "?",
        Some(value) if high && value >= bound || !high && value <= bound => "yes",
        Some(_) => "no",
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
    if matches!(case.kind, Kind::Load(_) | Kind::Pages(_))
        && let Some(processes) = median_of(row, |sample| sample.at_work)
    {
        texts.push(format!("{processes} at work"));
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
