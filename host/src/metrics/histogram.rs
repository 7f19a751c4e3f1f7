//! A distribution, counted in buckets: one atomic addition for the bucket and one for the sum.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Where a histogram's buckets end.
#[derive(Debug)]
pub struct Buckets {
    /// The largest value of each bucket, ascending, in the smallest step that is counted. What is
    /// larger than the last has a bucket of its own.
    pub bounds: &'static [u64],
    /// So many steps are one of the metric's unit.
    pub steps: u64,
}

/// How often there were values in which bucket.
#[derive(Debug)]
pub struct Histogram {
    buckets: &'static Buckets,
    /// The sum of all values, and then how many there were in each bucket: together, so that
    /// threads that count pass each other one line of the processor's cache, not two. A sum of
    /// nanoseconds overflows after 584 years.
    cells: Box<[AtomicU64]>,
}

impl Histogram {
    #[must_use]
    pub fn new(buckets: &'static Buckets) -> Self {
        let cells = (0..buckets.bounds.len() + 2).map(|_| AtomicU64::new(0)).collect();
        Self { buckets, cells }
    }

    /// One more `value`, in steps.
    pub fn observe(&self, value: u64) {
        let bucket = self.buckets.bounds.partition_point(|&bound| bound < value);
        self.cells[1 + bucket].fetch_add(1, Ordering::Relaxed);
        self.cells[0].fetch_add(value, Ordering::Relaxed);
    }

    /// One more that took so long, where a step is a nanosecond.
    pub fn took(&self, time: Duration) {
        self.observe(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }

    /// How many values there were.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.cells[1..].iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }

    /// The sum of all values, in the metric's unit.
    #[must_use]
    pub fn sum(&self) -> f64 {
        self.in_units(self.cells[0].load(Ordering::Relaxed))
    }

    /// The end of each bucket in the metric's unit, and how many values there were up to it. The
    /// last has no end.
    pub fn cumulative(&self) -> impl Iterator<Item = (Option<f64>, u64)> {
        let ends = self.buckets.bounds.iter().map(|&bound| Some(self.in_units(bound)));
        let mut so_far = 0;
        ends.chain([None]).zip(&self.cells[1..]).map(move |(end, count)| {
            so_far += count.load(Ordering::Relaxed);
            (end, so_far)
        })
    }

    #[expect(clippy::cast_precision_loss, reason = "exact up to 104 days of nanoseconds")]
    fn in_units(&self, value: u64) -> f64 {
        value as f64 / self.buckets.steps as f64
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    static MILLISECONDS: Buckets =
        Buckets { bounds: &[1_000_000, 5_000_000], steps: 1_000_000_000 };

    #[test]
    fn a_value_counts_in_the_first_bucket_it_fits_and_in_all_after_it() {
        let histogram = Histogram::new(&MILLISECONDS);
        for milliseconds in [0, 1, 2, 5, 6] {
            histogram.took(Duration::from_millis(milliseconds));
        }
        let buckets: Vec<_> = histogram.cumulative().collect();
        assert_eq!(buckets, [(Some(0.001), 2), (Some(0.005), 4), (None, 5)]);
        assert_eq!((histogram.count(), histogram.sum()), (5, 0.014));
    }

    proptest! {
        #[test]
        fn no_value_is_lost(values in proptest::collection::vec(any::<u64>(), 0..100)) {
            let histogram = Histogram::new(&MILLISECONDS);
            values.iter().for_each(|&value| histogram.observe(value));
            prop_assert_eq!(histogram.count(), values.len() as u64);
            let counts: Vec<_> = histogram.cumulative().map(|(_, count)| count).collect();
            prop_assert!(counts.is_sorted() && counts.last() == Some(&histogram.count()));
        }
    }
}
