//! Sample-ratio mismatch: whether the units were assigned in the configured shares. If they were
//! not, units are lost or assigned wrongly, and no comparison of the variants means anything.
//!
//! The sequential test of Lindon and Malek (2022), "Anytime-valid inference for multinomial count
//! data", NeurIPS 35: the ratio of the probability of the counts `n` with shares from a Dirichlet
//! distribution around the configured ones, `Dirichlet(k θ)`, to that with the shares `θ`:
//!
//! ```text
//! e = B(k θ + n) / B(k θ) · ∏ θᵢ^(-nᵢ)
//! ```
//!
//! It is a martingale of mean 1 if units arrive with the shares `θ`, so the probability that it ever
//! reaches `1 / α` is at most `α`, for any number of looks (Ville's inequality), and exactly: nothing
//! is asymptotic. A change of allocations starts another stratum with its own shares. The strata
//! follow each other, so their evidence is multiplied.

use serde::{Deserialize, Serialize};
use statrs::function::gamma::ln_gamma;

use crate::chi_squared::{goodness_of_fit, upper_tail};
use crate::{float, total};

/// Evidence from which on the split counts as broken: a false alarm in 1,000 experiments.
pub const MISMATCH: f64 = 1000.0;

/// Concentration `k` of the Dirichlet distribution, in units. The test is most sensitive to shares
/// that are off by about `sqrt(θ (1 - θ) / k)`, 5 percentage points of a half; smaller deviations
/// take more units.
const CONCENTRATION: f64 = 100.0;

/// The units of each variant while the allocations were the same.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SplitCounts {
    /// Number of units, by variant.
    pub units: Vec<u64>,
    /// Share of the units that each variant was to get.
    pub shares: Vec<f64>,
}

/// The result of the tests.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct RatioTest {
    /// Natural logarithm of the evidence `e` against the configured shares.
    pub log_evidence: f64,
    /// p-value of Pearson's chi-squared test, added over the strata. It holds for one look only, and
    /// decides nothing.
    pub chi_squared_p: f64,
    /// Number of units.
    pub units: u64,
}

impl RatioTest {
    #[must_use]
    pub fn is_mismatch(&self) -> bool {
        self.log_evidence >= MISMATCH.ln()
    }
}

/// Tests the counts of all strata. Variants with a share of 0 are ignored; a unit of theirs was
/// assigned under other allocations. The other shares are divided by their sum. `None` without a unit,
/// or if the lengths differ.
#[must_use]
pub fn ratio_test(strata: &[SplitCounts]) -> Option<RatioTest> {
    let mut test = RatioTest { log_evidence: 0.0, chi_squared_p: 1.0, units: 0 };
    let (mut statistic, mut degrees) = (0.0, 0);
    for SplitCounts { units, shares } in strata {
        if units.len() != shares.len() {
            return None;
        }
        let used = units.iter().zip(shares).filter(|&(_, &share)| share > 0.0);
        let (units, shares): (Vec<u64>, Vec<f64>) = used.map(|(&n, &share)| (n, share)).unzip();
        let whole: f64 = shares.iter().sum();
        let shares: Vec<f64> = shares.into_iter().map(|share| share / whole).collect();
        let Some(n) = total(&units) else { continue };
        test.units = test.units.saturating_add(units.iter().sum());
        test.log_evidence += log_evidence(&units, &shares, n);
        if let Some(fit) = goodness_of_fit(&units, &shares) {
            statistic += fit.statistic;
            degrees += fit.degrees;
        }
    }
    test.chi_squared_p = upper_tail(statistic, degrees);
    (test.units > 0).then_some(test)
}

fn log_evidence(units: &[u64], shares: &[f64], n: f64) -> f64 {
    let terms = units.iter().zip(shares).map(|(&units, share)| {
        let prior = CONCENTRATION * share;
        ln_gamma(prior + float(units)) - ln_gamma(prior) - float(units) * share.ln()
    });
    terms.sum::<f64>() + ln_gamma(CONCENTRATION) - ln_gamma(CONCENTRATION + n)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(units: &[u64], shares: &[f64]) -> SplitCounts {
        SplitCounts { units: units.to_vec(), shares: shares.to_vec() }
    }

    #[test]
    fn the_first_unit_is_no_evidence() {
        // B(k/2 + 1, k/2) / B(k/2, k/2) is 1/2, which the share cancels.
        let test = ratio_test(&[counts(&[1, 0], &[0.5, 0.5])]).unwrap();
        assert!(test.log_evidence.abs() < 1e-12, "{test:?}");
    }

    #[test]
    fn strata_have_their_own_shares() {
        let honest = [counts(&[900, 100], &[0.9, 0.1]), counts(&[500, 500], &[0.5, 0.5])];
        let test = ratio_test(&honest).unwrap();
        assert!(!test.is_mismatch() && test.units == 2000, "{test:?}");
        assert!(test.chi_squared_p > 0.99, "{test:?}");
        // The same units with the last allocations only.
        assert!(ratio_test(&[counts(&[1400, 600], &[0.5, 0.5])]).unwrap().is_mismatch());
    }

    #[test]
    fn variant_without_a_share_is_ignored() {
        let test = ratio_test(&[counts(&[50, 50, 1], &[0.5, 0.5, 0.0])]).unwrap();
        assert_eq!(test.units, 100);
        assert_eq!(ratio_test(&[counts(&[0, 0], &[0.5, 0.5])]), None);
        assert_eq!(ratio_test(&[counts(&[1], &[0.5, 0.5])]), None);
        // A holdout has the rest.
        let of_most = ratio_test(&[counts(&[500, 500], &[0.45, 0.45])]).unwrap();
        assert_eq!(of_most, ratio_test(&[counts(&[500, 500], &[0.5, 0.5])]).unwrap());
    }
}
