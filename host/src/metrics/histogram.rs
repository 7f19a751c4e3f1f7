//! Histograms with fixed buckets: an observation is one atomic addition for the bucket and one for
//! the sum.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The bucket bounds of a histogram.
#[derive(Debug)]
pub struct Buckets {
    /// Inclusive upper bound of each bucket, ascending, in steps. Larger values are in a last
    /// bucket without a bound.
    pub bounds: &'static [u64],
    /// Number of steps in one unit of the metric.
    pub steps: u64,
}

/// A histogram: the number of observed values in each bucket, and their sum.
#[derive(Debug)]
pub struct Histogram {
    buckets: &'static Buckets,
    /// The sum of all values, followed by the number of values in each bucket. In one allocation,
    /// so that threads contend for one cache line, not two. A sum of nanoseconds overflows after
    /// 584 years.
    cells: Box<[AtomicU64]>,
}

impl Histogram {
    #[must_use]
    pub fn new(buckets: &'static Buckets) -> Self {
        let cells = (0..buckets.bounds.len() + 2).map(|_| AtomicU64::new(0)).collect();
        Self { buckets, cells }
    }

    /// Adds a `value`, in steps.
    pub fn observe(&self, value: u64) {
        let bucket = self.buckets.bounds.partition_point(|&bound| bound < value);
        self.cells[1 + bucket].fetch_add(1, Ordering::Relaxed);
        self.cells[0].fetch_add(value, Ordering::Relaxed);
    }

    /// Adds a duration. The step must be a nanosecond.
    pub fn observe_duration(&self, time: Duration) {
        self.observe(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Number of observed values.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.cells[1..].iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }

    /// Sum of all values, in the metric's unit.
    #[must_use]
    pub fn sum(&self) -> f64 {
        self.in_units(self.cells[0].load(Ordering::Relaxed))
    }

    /// The upper bound of each bucket, in the metric's unit, and the number of values up to it. The
    /// last bucket has no bound.
    pub fn cumulative(&self) -> impl Iterator<Item = (Option<f64>, u64)> {
        let bounds = self.buckets.bounds.iter().map(|&bound| Some(self.in_units(bound)));
        let mut cumulative = 0;
        bounds.chain([None]).zip(&self.cells[1..]).map(move |(bound, count)| {
            cumulative += count.load(Ordering::Relaxed);
            (bound, cumulative)
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
    fn value_counts_in_its_bucket_and_in_every_larger_one() {
        let histogram = Histogram::new(&MILLISECONDS);
        for milliseconds in [0, 1, 2, 5, 6] {
            histogram.observe_duration(Duration::from_millis(milliseconds));
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
