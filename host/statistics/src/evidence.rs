//! Evidence against "these counts have the distribution of the reference", valid at every look.
//!
//! # The null hypothesis
//! The shares of the bins, `q`, are not known: the reference is a sample, too. Given the
//! reference, they have a Dirichlet distribution, and so the probability of the next records is
//! Dirichlet-multinomial, with the parameters `c`:
//!
//! - Bins between quantiles of a continuous field: the shares between order statistics of a
//!   sample of `n` are Dirichlet with one parameter for each of the `n + 1` gaps, whatever the
//!   distribution (Wilks 1941, "Determination of sample sizes for setting tolerance limits",
//!   Annals of Mathematical Statistics 12; Tukey 1947). An edge halves a gap: `c` is the count of
//!   the bin, plus a half for the first and the last. But for the halves of the gaps at edges, this
//!   is exact.
//! - Categories: the posterior of Jeffreys' prior, `count + 1/2`, which loses least to any `q`
//!   (Clarke and Barron 1994, "Jeffreys' prior is asymptotically least favorable under entropy
//!   risk", Journal of Statistical Planning and Inference 41). A category of count 0 keeps a
//!   positive share of about `1 / 2n`.
//!
//! # The evidence
//! `E = sum w_j P(counts | alternative j) / P(counts | null)`, a ratio of probabilities of the
//! sequence of records. Under the null it is a martingale that starts at 1, so that the
//! probability that it *ever* reaches `1 / alpha` is at most `alpha` (Ville 1939, *Étude critique
//! de la notion de collectif*; Ramdas, Grünwald, Vovk and Shafer 2023, "Game-theoretic statistics
//! and safe anytime-valid inference", Statistical Science 38). One may look after every record.
//!
//! # The alternatives
//! All are Dirichlet-multinomial. They decide the power, and cannot make a false alarm more likely.
//!
//! - Half of the weight: shares around those of the reference, at distances from far
//!   (concentration 4) to near (half of the reference's), and any shares (Jeffreys' prior).
//! - Half, if bins are ordered: the field is shifted or stretched, on the scale on which the
//!   reference is normal. A shift in one direction needs far fewer records to be found than an
//!   arbitrary change of ten bins.

use std::f64::consts::{FRAC_2_SQRT_PI, SQRT_2};

use statrs::function::erf::erfc_inv;
use statrs::function::gamma::{checked_gamma_ur, ln_gamma};

use crate::{float, total};

/// Parameter of Jeffreys' prior.
const JEFFREYS: f64 = 0.5;
/// Concentrations of alternatives around the reference; each is four times the one before.
const CONCENTRATIONS: [f64; 6] = [4.0, 16.0, 64.0, 256.0, 1024.0, 4096.0];
/// Shifts, in standard deviations, in both directions.
const SHIFTS: [f64; 5] = [0.125, 0.25, 0.5, 1.0, 2.0];
/// Factors of the standard deviation.
const STRETCHES: [f64; 4] = [0.5, 0.75, 1.333, 2.0];

/// The evidence of counts against a reference histogram.
#[derive(Clone, Debug)]
pub struct CountEvidence {
    null: DirichletMultinomial,
    /// Logarithm of the weight, and the distribution.
    alternatives: Vec<(f64, DirichletMultinomial)>,
}

/// The distribution of a sequence of values whose shares have a Dirichlet distribution.
#[derive(Clone, Debug)]
struct DirichletMultinomial {
    parameters: Vec<f64>,
    sum: f64,
    /// `ln Γ(sum) - sum ln Γ(parameters)`.
    ln_constant: f64,
}

impl CountEvidence {
    /// For ordered bins, whose edges are quantiles of the reference.
    #[must_use]
    pub fn ordered(reference: &[u64]) -> Self {
        let last = reference.len().saturating_sub(1);
        let half = |at: usize| if at == 0 || at == last { JEFFREYS } else { 0.0 };
        let count = reference.iter().enumerate();
        // Bins without reference values exist if the edges are no quantiles.
        let count = count.map(|(at, &count)| (float(count) + half(at)).max(JEFFREYS));
        Self::new(count.collect(), true)
    }

    /// For bins without an order.
    #[must_use]
    pub fn unordered(reference: &[u64]) -> Self {
        Self::new(reference.iter().map(|&count| float(count) + JEFFREYS).collect(), false)
    }

    fn new(parameters: Vec<f64>, ordered: bool) -> Self {
        let null = DirichletMultinomial::new(parameters);
        let shares: Vec<f64> = null.parameters.iter().map(|c| c / null.sum).collect();
        let around = |shares: &[f64], concentration: f64| {
            DirichletMultinomial::new(shares.iter().map(|q| q * concentration).collect())
        };
        let mut any = vec![DirichletMultinomial::new(vec![JEFFREYS; shares.len()])];
        // One as concentrated as the null would be the null.
        let near = CONCENTRATIONS.iter().filter(|&&concentration| concentration < null.sum / 2.0);
        any.extend(near.map(|&concentration| around(&shares, concentration)));
        let mut moved = Vec::new();
        if ordered && shares.len() > 1 {
            let shifts = SHIFTS.iter().flat_map(|&shift| [(shift, 1.0), (-shift, 1.0)]);
            for (shift, stretch) in shifts.chain(STRETCHES.map(|stretch| (0.0, stretch))) {
                moved.push(around(&transformed(&shares, shift, stretch), null.sum));
            }
        }
        let families = if moved.is_empty() { 1.0 } else { 2.0 };
        let weighted = [any, moved].into_iter().flat_map(|family| {
            let ln_weight = -(families * float(family.len() as u64)).ln();
            family.into_iter().map(move |alternative| (ln_weight, alternative))
        });
        Self { alternatives: weighted.collect(), null }
    }

    /// The logarithm of the evidence of `counts`, one for each bin; 0 without counts.
    #[must_use]
    pub fn ln(&self, counts: &[u64]) -> f64 {
        if counts.len() != self.null.parameters.len() || total(counts).is_none() {
            return 0.0;
        }
        let terms = self
            .alternatives
            .iter()
            .map(|(ln_weight, alternative)| ln_weight + alternative.ln_probability(counts));
        ln_sum(terms) - self.null.ln_probability(counts)
    }
}

impl DirichletMultinomial {
    fn new(parameters: Vec<f64>) -> Self {
        let sum = parameters.iter().sum();
        let ln_constant = ln_gamma(sum) - parameters.iter().map(|&c| ln_gamma(c)).sum::<f64>();
        Self { parameters, sum, ln_constant }
    }

    /// The logarithm of the probability of a sequence of values with these `counts`.
    fn ln_probability(&self, counts: &[u64]) -> f64 {
        let counts = || counts.iter().map(|&count| float(count));
        let terms = counts().zip(&self.parameters).map(|(count, c)| ln_gamma(c + count));
        self.ln_constant + terms.sum::<f64>() - ln_gamma(self.sum + counts().sum::<f64>())
    }
}

/// The shares of the same bins after the values, which are standard normal before, are stretched
/// and then shifted.
fn transformed(shares: &[f64], shift: f64, stretch: f64) -> Vec<f64> {
    // Keeps every parameter of an alternative positive.
    const MINIMUM: f64 = 1e-9;
    let (mut below, mut before) = (0.0, f64::NEG_INFINITY);
    let last = shares.len() - 1;
    let moved: Vec<f64> = shares
        .iter()
        .enumerate()
        .map(|(at, share)| {
            below += share;
            let z = (normal_quantile(below) - shift) / stretch;
            let end = if at == last { f64::INFINITY } else { z };
            let share = normal_between(before, end).max(MINIMUM);
            before = end;
            share
        })
        .collect();
    let sum: f64 = moved.iter().sum();
    moved.into_iter().map(|share| share / sum).collect()
}

/// The probability of a standard normal value between `low` and `high`, of the tail that has more
/// digits.
fn normal_between(low: f64, high: f64) -> f64 {
    let (low, high) = if low > 0.0 { (-high, -low) } else { (low, high) };
    (erfc(-high / SQRT_2) - erfc(-low / SQRT_2)) / 2.0
}

/// The complementary error function. That of `statrs` has ten digits.
fn erfc(x: f64) -> f64 {
    let square = (x * x).min(700.0);
    let tail = if square > 0.0 { checked_gamma_ur(0.5, square).unwrap_or(0.0) } else { 1.0 };
    if x < 0.0 { 2.0 - tail } else { tail }
}

/// The value below which a standard normal one is with the probability `share`.
fn normal_quantile(share: f64) -> f64 {
    let tail = 2.0 * share.min(1.0);
    let x = erfc_inv(tail);
    // The approximation has nine digits; a step of Newton's method doubles them.
    let refined = x + (erfc(x) - tail) / (FRAC_2_SQRT_PI * (-x * x).exp());
    -SQRT_2 * if refined.is_finite() { refined } else { x }
}

/// The logarithm of a sum, of logarithms of its terms.
#[must_use]
pub fn ln_sum(terms: impl IntoIterator<Item = f64>) -> f64 {
    let terms: Vec<f64> = terms.into_iter().collect();
    let greatest = terms.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if greatest.is_infinite() {
        return greatest;
    }
    greatest + terms.iter().map(|term| (term - greatest).exp()).sum::<f64>().ln()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn evidence_is_that_computed_by_hand() {
        // Null: Beta(3/2, 1/2). One alternative, Jeffreys' prior: Beta(1/2, 1/2). The first value
        // is in the first bin with probability 3/4, and 1/2.
        let found = CountEvidence::unordered(&[1, 0]).ln(&[1, 0]).exp();
        assert!((found - 2.0 / 3.0).abs() < 1e-12, "{found}");
        // Two: 3/4 * 5/6, and 1/2 * 3/4.
        let found = CountEvidence::unordered(&[1, 0]).ln(&[2, 0]).exp();
        assert!((found - 0.6).abs() < 1e-12, "{found}");
    }

    #[test]
    fn counts_of_other_bins_or_none_are_no_evidence() {
        let evidence = CountEvidence::ordered(&[10, 10, 10]);
        assert_eq!(evidence.ln(&[0, 0, 0]), 0.0);
        assert_eq!(evidence.ln(&[1, 2]), 0.0);
        assert_eq!(CountEvidence::unordered(&[]).ln(&[]), 0.0);
        assert!(CountEvidence::ordered(&[7]).ln(&[100]).abs() < 1e-9, "one bin");
        assert!(CountEvidence::unordered(&[0, 0, 0]).ln(&[9, 0, 0]).is_finite(), "no reference");
    }

    /// Each factor of the process has the expectation 1 under the null, after any counts.
    #[test]
    fn evidence_is_a_martingale_under_the_null() {
        for evidence in [
            CountEvidence::ordered(&[12, 12, 12, 0, 13]),
            CountEvidence::unordered(&[100, 0, 3, 1, 500]),
        ] {
            for counts in [[0, 0, 0, 0, 0], [5, 0, 9, 1, 2], [400, 10, 0, 0, 90]] {
                let DirichletMultinomial { parameters, sum, .. } = &evidence.null;
                let seen: f64 = counts.iter().map(|&count| count as f64).sum();
                let expected: f64 = (0..counts.len())
                    .map(|bin| {
                        let mut next = counts;
                        next[bin] += 1;
                        let share = (parameters[bin] + counts[bin] as f64) / (sum + seen);
                        share * (evidence.ln(&next) - evidence.ln(&counts)).exp()
                    })
                    .sum();
                assert!((expected - 1.0).abs() < 1e-9, "{counts:?}: {expected}");
            }
        }
    }

    #[test]
    fn transformed_shares_are_those_of_the_normal_distribution() {
        let deciles = [0.1; 10];
        let shifted = transformed(&deciles, 1.0, 1.0);
        // P(Z + 1 < the first decile, -1.2816) and P(Z + 1 > the last).
        assert!((shifted[0] - 0.011_257_914).abs() < 1e-6, "{shifted:?}");
        assert!((shifted[9] - 0.389_143_7).abs() < 1e-6, "{shifted:?}");
        assert!(transformed(&[0.5, 0.5], 0.0, 2.0).iter().all(|x| (x - 0.5).abs() < 1e-12));
        assert!(transformed(&[1.0, 0.0, 0.0], 2.0, 0.5).iter().all(|&x| x > 0.0));
    }

    proptest! {
        #[test]
        fn evidence_of_any_counts_is_a_number(
            bins in prop::collection::vec((0_u64..100_000, 0_u64..100_000), 1..30),
        ) {
            let (reference, counts): (Vec<_>, Vec<_>) = bins.into_iter().unzip();
            prop_assert!(CountEvidence::ordered(&reference).ln(&counts).is_finite());
            let mut other = counts.clone();
            other.reverse();
            let mut reversed = reference.clone();
            reversed.reverse();
            let (a, b) = (CountEvidence::unordered(&reference), CountEvidence::unordered(&reversed));
            prop_assert!((a.ln(&counts) - b.ln(&other)).abs() < 1e-6);
        }
    }
}
