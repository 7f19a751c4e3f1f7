//! Statistics of predictions: drift and prediction quality. No I/O, no clock.
//!
//! Each module has one statistic: its formula, its source, and its test of significance. A
//! histogram is a slice of counts, one for each bin. Two that are compared have the same bins. A
//! statistic that cannot be computed, without data or with different bins, is `None`, never a NaN.

pub mod chi_squared;
pub mod jensen_shannon;
pub mod kolmogorov_smirnov;
pub mod multiple_testing;
pub mod population_stability;
pub mod quality;
pub mod share;

mod kolmogorov_distribution;

/// The total of `counts`; `None` if it is 0, or overflows.
fn total(counts: &[u64]) -> Option<u64> {
    let total = counts.iter().try_fold(0_u64, |sum, &count| sum.checked_add(count))?;
    (total > 0).then_some(total)
}

/// A count as a float. Exact below 2^53, far above the counts of any window.
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
fn float(count: u64) -> f64 {
    count as f64
}
