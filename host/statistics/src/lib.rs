//! Statistics of predictions: drift, prediction quality, and experiments. No I/O, no clock.
//!
//! Each module has one statistic: its formula, its source, and its test of significance. A
//! histogram is a slice of counts, one for each bin. Two that are compared have the same bins. A
//! statistic that cannot be computed, without data or with different bins, is `None`, never a NaN.

pub mod alarm;
pub mod anytime;
pub mod chi_squared;
pub mod comparison;
pub mod confidence_sequence;
pub mod evidence;
pub mod expected_accuracy;
pub mod guard;
pub mod histogram_quantile;
pub mod isotonic;
pub mod jensen_shannon;
pub mod kolmogorov_smirnov;
pub mod moments;
pub mod population_stability;
pub mod quality;
pub mod sample_ratio;
pub mod share;
pub mod thompson;
pub mod verdict;
pub mod wasserstein;

/// What a histogram counts: whole values, or the sum of their weights.
pub trait Count: Copy {
    fn number(self) -> f64;
}

impl Count for u64 {
    fn number(self) -> f64 {
        float(self)
    }
}

impl Count for f64 {
    fn number(self) -> f64 {
        self
    }
}

/// The number of values without weights that estimate a share as precisely as weighted ones (Kish
/// 1965, *Survey Sampling*): `sum(w)^2 / sum(w^2)`. 0 without values.
#[must_use]
pub fn effective_size(weights: f64, squares: f64) -> f64 {
    if squares > 0.0 { weights * weights / squares } else { 0.0 }
}

/// The total of `counts`; `None` if it is 0, or too large to be exact.
fn total(counts: &[impl Count]) -> Option<f64> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    let total: f64 = counts.iter().map(|count| count.number()).sum();
    (total > 0.0 && total <= EXACT).then_some(total)
}

/// A count as a float. Exact below 2^53, far above the counts of any window.
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
fn float(count: u64) -> f64 {
    count as f64
}
