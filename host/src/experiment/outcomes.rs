//! The outcomes of the requests that a variant served: counts that only grow. A request adds to a
//! few atomics; windows and differences are computed from snapshots.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use spinfer_statistics::moments::PairMoments;

/// Upper bounds of the latency buckets, in microseconds: 100 µs to 100 s in steps of 26 %, which is
/// the resolution of a guardrail's ratio. A last bucket has no bound.
pub const BOUNDS: [u64; 61] = [
    100,
    126,
    158,
    200,
    251,
    316,
    398,
    501,
    631,
    794,
    1_000,
    1_259,
    1_585,
    1_995,
    2_512,
    3_162,
    3_981,
    5_012,
    6_310,
    7_943,
    10_000,
    12_589,
    15_849,
    19_953,
    25_119,
    31_623,
    39_811,
    50_119,
    63_096,
    79_433,
    100_000,
    125_893,
    158_489,
    199_526,
    251_189,
    316_228,
    398_107,
    501_187,
    630_957,
    794_328,
    1_000_000,
    1_258_925,
    1_584_893,
    1_995_262,
    2_511_886,
    3_162_278,
    3_981_072,
    5_011_872,
    6_309_573,
    7_943_282,
    10_000_000,
    12_589_254,
    15_848_932,
    19_952_623,
    25_118_864,
    31_622_777,
    39_810_717,
    50_118_723,
    63_095_734,
    79_432_823,
    100_000_000,
];

/// Number of buckets.
const BUCKETS: usize = BOUNDS.len() + 1;

/// Unit of the squared latencies: (100 µs)², so that the sum overflows after 18 million requests of
/// 100 s.
const SQUARE_STEP: u64 = 100;

/// Counters of one variant, since the start of the process.
#[derive(Debug)]
pub struct OutcomeCounters {
    errors: AtomicU64,
    /// In microseconds.
    latency: AtomicU64,
    /// In [`SQUARE_STEP`] squared.
    squares: AtomicU64,
    buckets: [AtomicU64; BUCKETS],
}

impl Default for OutcomeCounters {
    fn default() -> Self {
        let zero = AtomicU64::default;
        let buckets = std::array::from_fn(|_| zero());
        Self { errors: zero(), latency: zero(), squares: zero(), buckets }
    }
}

/// Counts at one time, or the difference of two.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutcomeCounts {
    pub errors: u64,
    /// Sum of the latencies, in microseconds.
    pub latency: u64,
    /// Sum of the squared latencies, in (100 µs)².
    pub squares: u64,
    /// Number of requests in each latency bucket; empty for none at all.
    pub buckets: Vec<u64>,
}

impl OutcomeCounters {
    /// Adds a request with its outcome: whether it is an error, and its latency.
    pub fn observe(&self, error: bool, latency: Duration) {
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS.partition_point(|&bound| bound < micros);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.latency.fetch_add(micros, Ordering::Relaxed);
        let steps = micros / SQUARE_STEP;
        self.squares.fetch_add(steps.saturating_mul(steps), Ordering::Relaxed);
        if error {
            self.errors.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[must_use]
    pub fn counts(&self) -> OutcomeCounts {
        let load = |cell: &AtomicU64| cell.load(Ordering::Relaxed);
        OutcomeCounts {
            errors: load(&self.errors),
            latency: load(&self.latency),
            squares: load(&self.squares),
            buckets: self.buckets.iter().map(load).collect(),
        }
    }
}

impl OutcomeCounts {
    /// Number of requests.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.buckets.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// Number of requests above the bound of `bucket`.
    #[must_use]
    pub fn above(&self, bucket: usize) -> u64 {
        self.buckets.iter().skip(bucket + 1).fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// Whether it has a count for each bucket, or none at all.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        [0, BUCKETS].contains(&self.buckets.len())
    }

    /// Adds `other`.
    pub fn add(&mut self, other: &Self) {
        self.zip(other, u64::saturating_add);
    }

    /// What was counted since `before`. Counts that are smaller than before started anew.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        if self.requests() < before.requests() {
            return self.clone();
        }
        let mut difference = self.clone();
        difference.zip(before, u64::saturating_sub);
        difference
    }

    fn zip(&mut self, other: &Self, operation: fn(u64, u64) -> u64) {
        self.errors = operation(self.errors, other.errors);
        self.latency = operation(self.latency, other.latency);
        self.squares = operation(self.squares, other.squares);
        if self.buckets.len() < other.buckets.len() {
            self.buckets.resize(other.buckets.len().min(BUCKETS), 0);
        }
        for (count, other) in self.buckets.iter_mut().zip(&other.buckets) {
            *count = operation(*count, *other);
        }
    }

    /// The quantile `q` of the latencies, in seconds.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "bounds are below 2^53")]
    pub fn latency_quantile(&self, q: f64) -> Option<f64> {
        let bounds = BOUNDS.map(|bound| bound as f64 / 1e6);
        spinfer_statistics::histogram_quantile::quantile(q, &bounds, &self.buckets)
    }

    /// The moments of the errors: 1 for each, 0 for other responses.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
    pub fn error_moments(&self) -> PairMoments {
        let n = self.requests();
        if n == 0 {
            return PairMoments::default();
        }
        let rate = self.errors.min(n) as f64 / n as f64;
        let value_squares = n as f64 * rate * (1.0 - rate);
        PairMoments { n, mean_value: rate, value_squares, ..PairMoments::default() }
    }

    /// The moments of the latencies, in seconds.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "rounded beyond 2^53")]
    pub fn latency_moments(&self) -> PairMoments {
        let n = self.requests();
        if n == 0 {
            return PairMoments::default();
        }
        let mean_value = self.latency as f64 / 1e6 / n as f64;
        let step = SQUARE_STEP as f64 / 1e6;
        let squares = self.squares as f64 * step * step;
        let value_squares = (squares - n as f64 * mean_value * mean_value).max(0.0);
        PairMoments { n, mean_value, value_squares, ..PairMoments::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(outcomes: &[(bool, u64)]) -> OutcomeCounts {
        let counters = OutcomeCounters::default();
        for &(error, micros) in outcomes {
            counters.observe(error, Duration::from_micros(micros));
        }
        counters.counts()
    }

    #[test]
    fn outcomes_have_the_moments_of_their_requests() {
        let counts = counted(&[(false, 1_000), (true, 3_000), (false, 5_000), (false, 3_000)]);
        assert_eq!((counts.requests(), counts.errors), (4, 1));
        let errors = counts.error_moments();
        assert_eq!((errors.mean_value, errors.value_squares), (0.25, 0.75));
        let latencies = counts.latency_moments();
        assert!((latencies.mean_value - 0.003).abs() < 1e-12, "{latencies:?}");
        assert!((latencies.value_squares - 8e-6).abs() < 1e-12, "{latencies:?}");
    }

    #[test]
    fn difference_is_what_was_added_or_all_after_a_restart() {
        let before = counted(&[(true, 90)]);
        let after = counted(&[(true, 90), (false, 2_000_000_000), (true, 400)]);
        let difference = after.since(&before);
        assert_eq!((difference.requests(), difference.errors), (2, 1));
        assert_eq!(before.since(&after), before);
        let mut sum = difference;
        sum.add(&before);
        assert_eq!(sum, after);
    }

    #[test]
    fn slow_requests_are_those_above_a_bucket() {
        let counts = counted(&[(false, 100), (false, 101), (false, 126), (false, 500_000_000)]);
        assert_eq!([0, 1, 60].map(|bucket| counts.above(bucket)), [3, 1, 1]);
        assert_eq!(counts.latency_quantile(0.25), Some(100e-6));
        assert_eq!(OutcomeCounts::default().latency_quantile(0.5), None);
    }
}
