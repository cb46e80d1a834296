//! The line that shows how far the measurement is, on standard error when that is a terminal.

use std::time::Duration;

use indicatif::{HumanCount, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::options::Plan;
use super::stats::Stats;

#[derive(Debug)]
pub(super) struct Progress {
    bar: ProgressBar,
    duration: Duration,
    /// The number of requests is not known beforehand: the bar shows the time.
    by_time: bool,
}

impl Progress {
    pub(super) fn new(plan: &Plan) -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        let style = "{prefix} {wide_bar} {percent}% {msg}";
        bar.set_style(ProgressStyle::with_template(style).expect("this template is valid"));
        Self {
            bar,
            duration: plan.duration.unwrap_or_default(),
            by_time: false,
        }
    }

    /// Begins a phase of `total` steps; without a total it lasts for the plan's duration.
    pub(super) fn phase(&mut self, name: &'static str, total: Option<u64>) {
        self.bar.set_prefix(name);
        self.bar.set_position(0);
        self.bar.set_message("");
        self.by_time = total.is_none();
        self.bar
            .set_length(total.unwrap_or_else(|| milliseconds(self.duration)));
    }

    /// Shows the counts of a phase that has run for `elapsed`.
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss
    )] // to look at
    pub(super) fn update(&mut self, stats: &Stats, elapsed: Duration) {
        if self.bar.is_hidden() {
            return;
        }
        let (answered, failed) = (stats.answered(), stats.failed());
        let done = answered + failed;
        let per_second = (answered as f64 / elapsed.as_secs_f64()) as u64;
        self.bar.set_message(format!(
            "{} answers, {} per second, {failed} errors",
            HumanCount(answered),
            HumanCount(per_second)
        ));
        self.bar.set_position(if self.by_time {
            milliseconds(elapsed)
        } else {
            done
        });
    }

    /// Shows that `done` steps of the phase are done.
    pub(super) fn position(&mut self, done: u64) {
        self.bar.set_position(done);
    }

    /// Removes the line.
    pub(super) fn clear(&mut self) {
        self.bar.finish_and_clear();
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
