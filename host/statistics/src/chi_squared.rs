//! Pearson's chi-squared tests on counts, without a continuity correction (Pearson 1900, "On the
//! criterion that a given system of deviations from the probable ...", Philosophical Magazine 50).
//!
//! The statistic is `sum (observed - expected)^2 / expected`. It has the chi-squared distribution
//! only if counts are not small: as a rule at least [`MIN_EXPECTED`] are expected in each bin.

use statrs::function::gamma::checked_gamma_ur;

use crate::{Count, float, total};

/// Minimum expected count of a bin. Below it the chi-squared distribution is a poor approximation
/// (Cochran 1954, "Some methods for strengthening the common chi-squared tests", Biometrics 10).
pub const MIN_EXPECTED: f64 = 5.0;

/// The result of a chi-squared test.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ChiSquared {
    pub statistic: f64,
    /// Degrees of freedom.
    pub degrees: usize,
    /// Probability of a statistic at least as large if the distributions are the same.
    pub p_value: f64,
}

impl ChiSquared {
    fn new(statistic: f64, degrees: usize) -> Self {
        Self { statistic, degrees, p_value: upper_tail(statistic, degrees) }
    }
}

/// Tests whether two histograms with the same bins are samples of one distribution. Bins that are
/// empty in both are ignored.
#[must_use]
pub fn homogeneity(a: &[impl Count], b: &[impl Count]) -> Option<ChiSquared> {
    if a.len() != b.len() {
        return None;
    }
    let (n, m) = (total(a)?, total(b)?);
    let bins = || {
        let pairs = a.iter().zip(b).map(|(a, b)| (a.number(), b.number()));
        pairs.filter(|&(a, b)| a > 0.0 || b > 0.0)
    };
    let statistic = bins().map(|(a, b)| {
        let both = a + b;
        let term = |count: f64, of: f64| {
            let expected = both * of / (n + m);
            (count - expected).powi(2) / expected
        };
        term(a, n) + term(b, m)
    });
    Some(ChiSquared::new(statistic.sum(), bins().count().saturating_sub(1)))
}

/// Tests whether `observed` counts have the shares `expected`, which are positive and sum to 1.
#[must_use]
pub fn goodness_of_fit(observed: &[u64], expected: &[f64]) -> Option<ChiSquared> {
    let n = total(observed)?;
    let whole: f64 = expected.iter().sum();
    let valid = expected.iter().all(|&share| share > 0.0) && (whole - 1.0).abs() < 1e-9;
    if observed.len() != expected.len() || !valid {
        return None;
    }
    let terms = observed.iter().zip(expected).map(|(&observed, &share)| {
        let expected = n * share;
        (float(observed) - expected).powi(2) / expected
    });
    Some(ChiSquared::new(terms.sum(), observed.len() - 1))
}

/// The probability of a value above `statistic`: the regularised upper incomplete gamma function
/// `Q(degrees / 2, statistic / 2)`; 1 without a degree of freedom.
pub(crate) fn upper_tail(statistic: f64, degrees: usize) -> f64 {
    if degrees == 0 || statistic <= 0.0 {
        return 1.0;
    }
    if statistic.is_infinite() {
        return 0.0;
    }
    let tail = checked_gamma_ur(float(degrees as u64) / 2.0, statistic / 2.0);
    tail.map_or(1.0, |tail| tail.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn statistics_are_those_computed_by_hand() {
        // Ten of 30 expected in each, 5 off in two: 25/10 + 25/10.
        let shares = [1.0 / 3.0; 3];
        let ChiSquared { statistic, degrees, p_value } =
            goodness_of_fit(&[15, 5, 10], &shares).unwrap();
        assert!((statistic - 5.0).abs() < 1e-12 && degrees == 2, "{statistic} {degrees}");
        // With two degrees of freedom the tail is exp(-x / 2).
        assert!((p_value - (-2.5_f64).exp()).abs() < 1e-12, "{p_value}");
        let same = homogeneity(&[10_u64, 20, 0], &[1_u64, 2, 0]).unwrap();
        assert_eq!((same.statistic, same.degrees, same.p_value), (0.0, 1, 1.0));
    }

    #[test]
    fn histograms_that_do_not_match_have_no_statistic() {
        assert_eq!(homogeneity(&[1_u64], &[1_u64, 2]), None);
        assert_eq!(homogeneity(&[0_u64, 0], &[1_u64, 2]), None);
        assert_eq!(goodness_of_fit(&[1, 2], &[1.0]), None);
        assert_eq!(goodness_of_fit(&[1, 2], &[0.5, 0.6]), None);
        assert_eq!(goodness_of_fit(&[1, 2], &[1.0, 0.0]), None);
        assert_eq!(goodness_of_fit(&[1, 2], &[f64::NAN, 0.5]), None);
    }

    proptest! {
        #[test]
        fn homogeneity_is_symmetric_and_bounded(
            bins in prop::collection::vec((0_u64..5_000, 0_u64..5_000), 1..40),
        ) {
            let (a, b): (Vec<_>, Vec<_>) = bins.into_iter().unzip();
            if let Some(test) = homogeneity(&a, &b) {
                prop_assert!(test.statistic >= 0.0 && (0.0..=1.0).contains(&test.p_value));
                let other = homogeneity(&b, &a).unwrap();
                prop_assert!((test.statistic - other.statistic).abs() <= 1e-9 * test.statistic.max(1.0));
            }
        }
    }
}
