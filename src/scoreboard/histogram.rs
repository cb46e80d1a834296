//! Durations counted in buckets: 1, 2, 5 times each power of ten, from 10 µs to 100 s.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of the buckets in microseconds, each included; what is longer falls into one more bucket.
pub(crate) const BOUNDS: [u64; 22] = [
    10,
    20,
    50,
    100,
    200,
    500,
    1_000,
    2_000,
    5_000,
    10_000,
    20_000,
    50_000,
    100_000,
    200_000,
    500_000,
    1_000_000,
    2_000_000,
    5_000_000,
    10_000_000,
    20_000_000,
    50_000_000,
    100_000_000,
];
const BUCKETS: usize = BOUNDS.len() + 1;

/// The buckets in shared memory.
#[repr(C)]
pub(super) struct Histogram {
    buckets: [AtomicU64; BUCKETS],
    microseconds: AtomicU64,
}

impl Histogram {
    /// Counts one duration. Only one thread may do so: others only read, so nothing needs a locked instruction.
    pub(super) fn record(&self, duration: Duration) {
        let microseconds = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS.partition_point(|&bound| bound < microseconds);
        add_alone(&self.buckets[bucket], 1);
        add_alone(&self.microseconds, microseconds);
    }

    /// Adds what is here to `total`.
    pub(super) fn add_to(&self, total: &mut Distribution) {
        for (sum, bucket) in total.counts.iter_mut().zip(&self.buckets) {
            *sum += bucket.load(Ordering::Relaxed);
        }
        total.microseconds = total
            .microseconds
            .wrapping_add(self.microseconds.load(Ordering::Relaxed));
    }

    /// Moves what is here to `past`; its writer is dead.
    pub(super) fn move_to(&self, past: &Self) {
        let both = self.buckets.iter().zip(&past.buckets);
        for (from, to) in both.chain([(&self.microseconds, &past.microseconds)]) {
            to.fetch_add(from.swap(0, Ordering::Relaxed), Ordering::Relaxed);
        }
    }
}

/// Adds without a locked instruction, for counters that have one writer.
pub(super) fn add_alone(counter: &AtomicU64, amount: u64) {
    let sum = counter.load(Ordering::Relaxed).wrapping_add(amount);
    counter.store(sum, Ordering::Relaxed);
}

/// The contents of one histogram or of several.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Distribution {
    counts: [u64; BUCKETS],
    microseconds: u64,
}

impl Distribution {
    /// How many durations were counted.
    pub(crate) fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The sum of all durations.
    pub(crate) fn sum(&self) -> Duration {
        Duration::from_micros(self.microseconds)
    }

    /// For each of [`BOUNDS`], how many durations were no longer.
    pub(crate) fn cumulative(&self) -> impl Iterator<Item = (Duration, u64)> {
        let mut sum = 0;
        BOUNDS.iter().zip(&self.counts).map(move |(&bound, count)| {
            sum += count;
            (Duration::from_micros(bound), sum)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn histogram() -> Histogram {
        Histogram {
            buckets: [const { AtomicU64::new(0) }; BUCKETS],
            microseconds: AtomicU64::new(0),
        }
    }

    #[test]
    fn bound_belongs_to_its_bucket_and_nothing_is_lost_above_the_last() {
        let own = histogram();
        for microseconds in [0, 10, 11, 100_000_000, 100_000_001] {
            own.record(Duration::from_micros(microseconds));
        }
        let mut total = Distribution::default();
        own.add_to(&mut total);
        let cumulative: Vec<u64> = total.cumulative().map(|(_, count)| count).collect();
        assert_eq!((cumulative[0], cumulative[1]), (2, 3));
        assert_eq!(
            (cumulative.last().copied(), total.count()),
            (Some(4), 5),
            "the fifth is above all bounds"
        );
        assert_eq!(total.sum(), Duration::from_micros(200_000_022));
    }

    #[test]
    fn moving_leaves_nothing_behind() {
        let (own, past) = (histogram(), histogram());
        own.record(Duration::from_millis(3));
        past.record(Duration::from_millis(4));
        own.move_to(&past);
        let (mut left, mut moved) = (Distribution::default(), Distribution::default());
        own.add_to(&mut left);
        past.add_to(&mut moved);
        assert_eq!(left, Distribution::default());
        assert_eq!((moved.count(), moved.sum()), (2, Duration::from_millis(7)));
    }
}
