//! Servers take turns; what they did becomes a row of the table.

use std::ops::Range;

use crate::load::Sample;

/// One line of the table.
#[derive(Debug, Default)]
pub(crate) struct Row {
    /// The server, with what is special about this row.
    pub(crate) name: String,
    pub(crate) samples: Vec<Sample>,
    /// Said beside or instead of figures.
    pub(crate) note: String,
    /// The case's goals are for this row.
    pub(crate) judged: bool,
}

impl Row {
    pub(crate) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            judged: name == "fe-php",
            ..Self::default()
        }
    }
}

/// Rounds with these numbers for each row, whose samples `measure` takes by the row's place. A row that fails has a note
/// and no samples, and the others go on.
pub(crate) fn take_turns(
    rows: &mut [Row],
    rounds: Range<usize>,
    mut measure: impl FnMut(usize) -> Result<Sample, String>,
) {
    let count = rows.len();
    for round in rounds {
        for turn in 0..count {
            // Everybody is first, second, … equally often.
            let place = (turn + round) % count;
            let index = if (round / count).is_multiple_of(2) {
                place
            } else {
                count - 1 - place
            };
            let row = &mut rows[index];
            if !row.note.is_empty() {
                continue;
            }
            match measure(index) {
                Ok(sample) => row.samples.push(sample),
                Err(error) => {
                    eprintln!("  {}: {error}", row.name);
                    row.note = format!("failed: {error}");
                    row.samples.clear();
                }
            }
        }
    }
}

/// The median of a figure over the rounds.
pub(crate) fn median_of(row: &Row, figure: impl Fn(&Sample) -> Option<f64>) -> Option<f64> {
    median(row.samples.iter().filter_map(figure).collect())
}

/// The largest of a figure's values: of memory that the first round fills and the next ones find free.
pub(crate) fn most_of(row: &Row, figure: impl Fn(&Sample) -> Option<f64>) -> Option<f64> {
    row.samples.iter().filter_map(figure).max_by(f64::total_cmp)
}

/// The median of the ratios to `base` within a round.
pub(crate) fn ratio_of(
    row: &Row,
    base: &Row,
    figure: impl Fn(&Sample) -> Option<f64>,
) -> Option<f64> {
    let pairs = row.samples.iter().zip(&base.samples);
    median(
        pairs
            .filter_map(|(own, base)| Some(figure(own)? / figure(base)?))
            .collect(),
    )
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.is_empty() {
        None
    } else if values.len() % 2 == 1 {
        Some(values[middle])
    } else {
        Some(f64::midpoint(values[middle - 1], values[middle]))
    }
}
