//! Statistics of predictions: drift and prediction quality. No I/O, no clock.
//!
//! Each module has one statistic: its formula, its source, and the test of significance that goes
//! with it. Histograms are slices of counts, one for each bin; two that are compared have the same
//! bins. What cannot be computed (no data, other bins) is `None`, never a NaN.

pub mod chi_squared;
pub mod jensen_shannon;
pub mod kolmogorov_smirnov;
pub mod multiple_testing;
pub mod population_stability;
pub mod quality;
pub mod share;

mod kolmogorov_distribution;

/// The total of `counts`; `None` if there is nothing, or too much to be counted.
fn total(counts: &[u64]) -> Option<u64> {
    let total = counts.iter().try_fold(0_u64, |sum, &count| sum.checked_add(count))?;
    (total > 0).then_some(total)
}

/// Of a count. Exact below 2^53, which no window comes near.
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
fn float(count: u64) -> f64 {
    count as f64
}
