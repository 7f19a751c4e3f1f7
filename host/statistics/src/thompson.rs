//! Allocations by Thompson sampling: each variant gets the share of the units that equals the
//! probability that it is the best (Thompson 1933, "On the likelihood that one unknown probability
//! exceeds another", Biometrika 25; Scott 2010, "A modern Bayesian look at the multi-armed bandit").
//!
//! The probabilities are integrals, not samples, so that every node computes the same from the same
//! rewards:
//!
//! ```text
//! P(variant i is best) = ∫ fᵢ(x) ∏_{j≠i} Fⱼ(x) dx
//! ```

use std::f64::consts::PI;

use statrs::function::beta::ln_beta;
use statrs::function::erf::erfc;

use crate::float;
use crate::moments::PairMoments;

/// What is believed of the mean reward of a variant.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Posterior {
    /// Rewards in [0, 1]: `Beta(1 + Σr, 1 + n - Σr)`. Exact for rewards of 0 and 1; for those between
    /// it is that of one draw with the probability `r` each (Agrawal and Goyal 2012, "Analysis of
    /// Thompson sampling for the multi-armed bandit problem", section 2), and so wider.
    Beta { a: f64, b: f64 },
    /// Other rewards: normal around the mean, with its standard error.
    Normal { mean: f64, deviation: f64 },
}

impl Posterior {
    /// Of rewards in [0, 1].
    #[must_use]
    pub fn of_shares(rewards: &PairMoments) -> Self {
        let n = float(rewards.n);
        let sum = (n * rewards.mean_value).clamp(0.0, n);
        Self::Beta { a: 1.0 + sum, b: 1.0 + n - sum }
    }

    /// Of any rewards. `None` with fewer than two, or if all are equal.
    #[must_use]
    pub fn of_numbers(rewards: &PairMoments) -> Option<Self> {
        let n = float(rewards.n);
        let deviation = (rewards.value_squares / (n * (n - 1.0))).sqrt();
        let known = rewards.n > 1 && deviation > 0.0 && deviation.is_finite();
        known.then_some(Self::Normal { mean: rewards.mean_value, deviation })
    }

    fn mean_and_deviation(self) -> (f64, f64) {
        match self {
            Self::Beta { a, b } => {
                let n = a + b;
                (a / n, (a * b / (n * n * (n + 1.0))).sqrt())
            }
            Self::Normal { mean, deviation } => (mean, deviation),
        }
    }

    fn density(self, x: f64) -> f64 {
        match self {
            Self::Beta { a, b } if x > 0.0 && x < 1.0 => {
                ((a - 1.0) * x.ln() + (b - 1.0) * (1.0 - x).ln() - ln_beta(a, b)).exp()
            }
            Self::Beta { .. } => 0.0,
            Self::Normal { mean, deviation } => {
                let z = (x - mean) / deviation;
                (-0.5 * z * z).exp() / (deviation * (2.0 * PI).sqrt())
            }
        }
    }

    fn below(self, x: f64) -> f64 {
        match self {
            Self::Beta { .. } if x <= 0.0 => 0.0,
            Self::Beta { .. } if x >= 1.0 => 1.0,
            Self::Beta { a, b } => beta_below(a, b, x),
            Self::Normal { mean, deviation } => {
                0.5 * erfc((mean - x) / (deviation * std::f64::consts::SQRT_2))
            }
        }
    }
}

/// The regularised incomplete beta function `I_x(a, b)`, for `x` between 0 and 1, by its continued
/// fraction (Press, Teukolsky, Vetterling and Flannery 2007, *Numerical Recipes*, section 6.4). It
/// needs a multiple of `sqrt(max(a, b))` terms; `statrs` stops after 140, which is too early for a
/// variant with some 10,000 rewards.
fn beta_below(a: f64, b: f64, x: f64) -> f64 {
    // The fraction converges fast below the mean.
    if x > (a + 1.0) / (a + b + 2.0) {
        return 1.0 - beta_below_mean(b, a, 1.0 - x);
    }
    beta_below_mean(a, b, x)
}

fn beta_below_mean(a: f64, b: f64, x: f64) -> f64 {
    const MAX_TERMS: u64 = 10_000;
    // A divisor of 0 becomes a very small one (Lentz 1976).
    let divisor = |value: f64| if value.abs() < 1e-300 { 1e-300 } else { value };
    let (mut c, mut d) = (1.0, 1.0 / divisor(1.0 - (a + b) * x / (a + 1.0)));
    let mut fraction = d;
    for m in 1..MAX_TERMS {
        let m = float(m);
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        let mut change = 1.0;
        for term in [even, odd] {
            d = 1.0 / divisor(1.0 + term * d);
            c = divisor(1.0 + term / c);
            change = c * d;
            fraction *= change;
        }
        if (change - 1.0).abs() < 1e-15 {
            break;
        }
    }
    let front = a * x.ln() + b * (1.0 - x).ln() - ln_beta(a, b);
    (front.exp() * fraction / a).clamp(0.0, 1.0)
}

/// Half the number of nodes of a segment.
const HALF: usize = 10;
/// Ends of segments, in standard deviations from each mean: beyond the last the density is below
/// 1e-22 of its maximum for a normal one.
const ENDS: [f64; 6] = [0.5, 1.0, 2.0, 4.0, 7.0, 10.0];

/// The probability of each variant to be the best, which sum to 1. `None` without a variant, and for
/// numbers whose deviations are lost in their digits.
#[must_use]
pub fn best(posteriors: &[Posterior]) -> Option<Vec<f64>> {
    let segments = segments(posteriors);
    let nodes = gauss_legendre();
    let mut best = vec![0.0; posteriors.len()];
    for ends in segments.windows(2) {
        let (middle, half) = (0.5 * (ends[0] + ends[1]), 0.5 * (ends[1] - ends[0]));
        for (node, weight) in nodes.iter().flat_map(|&(x, w)| [(x, w), (-x, w)]) {
            let x = middle + half * node;
            let below: Vec<f64> = posteriors.iter().map(|posterior| posterior.below(x)).collect();
            for (index, posterior) in posteriors.iter().enumerate() {
                let others = below.iter().enumerate().filter(|&(other, _)| other != index);
                let others: f64 = others.map(|(_, below)| below).product();
                best[index] += half * weight * posterior.density(x) * others;
            }
        }
    }
    let sum: f64 = best.iter().sum();
    best.iter_mut().for_each(|share| *share /= sum);
    (sum > 0.0 && sum.is_finite()).then_some(best)
}

/// Where the densities change, ascending.
fn segments(posteriors: &[Posterior]) -> Vec<f64> {
    let bounded = posteriors.iter().all(|posterior| matches!(posterior, Posterior::Beta { .. }));
    let ends = posteriors.iter().flat_map(|posterior| {
        let (mean, deviation) = posterior.mean_and_deviation();
        let around =
            ENDS.iter().flat_map(move |end| [mean - end * deviation, mean + end * deviation]);
        around.chain([mean])
    });
    let limits: &[f64] = if bounded { &[0.0, 1.0] } else { &[] };
    let inside = |x: &f64| !bounded || (0.0..=1.0).contains(x);
    let mut ends: Vec<f64> = ends.filter(inside).chain(limits.iter().copied()).collect();
    ends.sort_by(f64::total_cmp);
    ends
}

/// The positive nodes of the Gauss-Legendre rule of `2 HALF` points on [-1, 1], with their weights:
/// zeros of the Legendre polynomial, by Newton's method.
fn gauss_legendre() -> [(f64, f64); HALF] {
    let n = float(2 * HALF as u64);
    std::array::from_fn(|index| {
        let mut x = (PI * (float(index as u64) + 0.75) / (n + 0.5)).cos();
        let mut slope = 1.0;
        for _ in 0..20 {
            let (mut before, mut last) = (1.0, x);
            for k in 2..=2 * HALF as u64 {
                let k = float(k);
                (before, last) = (last, ((2.0 * k - 1.0) * x * last - (k - 1.0) * before) / k);
            }
            slope = n * (x * last - before) / (x * x - 1.0);
            x -= last / slope;
        }
        (x, 2.0 / ((1.0 - x * x) * slope * slope))
    })
}

/// Granularity of allocations: units are hashed to 10,000 buckets.
const STEPS: f64 = 10_000.0;

/// The share of each variant: at least `minimum`, and the rest by the probability to be the best.
/// They are multiples of 1/10,000 and sum to 1. `None` if there is no variant, a probability is none,
/// or the minima sum to more than 1.
#[must_use]
pub fn allocations(best: &[f64], minimum: f64) -> Option<Vec<f64>> {
    let free = 1.0 - minimum * float(best.len() as u64);
    let all = best.iter().chain([&minimum]);
    if best.is_empty() || free < -1e-9 || !all.into_iter().all(|share| (0.0..=1.0).contains(share))
    {
        return None;
    }
    let exact: Vec<f64> =
        best.iter().map(|share| (minimum + free.max(0.0) * share) * STEPS).collect();
    let mut steps: Vec<f64> = exact.iter().map(|share| (share + 1e-6).floor()).collect();
    // The largest remainders get what rounding down has left.
    let mut order: Vec<usize> = (0..best.len()).collect();
    order.sort_by(|&a, &b| (exact[b] - steps[b]).total_cmp(&(exact[a] - steps[a])));
    for index in order {
        if steps.iter().sum::<f64>() < STEPS - 0.5 {
            steps[index] += 1.0;
        }
    }
    Some(steps.into_iter().map(|share| share / STEPS).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn equal_variants_are_equally_likely_the_best() {
        for posterior in [
            Posterior::Beta { a: 1.0, b: 1.0 },
            Posterior::Beta { a: 300.0, b: 700.0 },
            Posterior::Normal { mean: -5.0, deviation: 0.1 },
        ] {
            for share in best(&[posterior; 3]).unwrap() {
                assert!((share - 1.0 / 3.0).abs() < 1e-9, "{share}");
            }
        }
    }

    #[test]
    fn posteriors_follow_the_rewards() {
        let mut rewards = PairMoments::default();
        [1.0, 0.0, 0.5, 1.0].iter().for_each(|&reward| rewards.add(reward, 0.0));
        assert_eq!(Posterior::of_shares(&rewards), Posterior::Beta { a: 3.5, b: 2.5 });
        let Some(Posterior::Normal { mean, deviation }) = Posterior::of_numbers(&rewards) else {
            panic!("no posterior");
        };
        // The sum of squares is 0.6875, over 4 times 3.
        assert_eq!((mean, deviation), (0.625, (0.6875_f64 / 12.0).sqrt()));
        assert_eq!(Posterior::of_numbers(&PairMoments::default()), None);
    }

    #[test]
    fn posteriors_without_a_density_have_no_best() {
        assert_eq!(best(&[]), None);
        let exact = Posterior::Normal { mean: 1e9, deviation: 1e-9 };
        assert_eq!(best(&[exact; 2]), None);
        assert_eq!(best(&[Posterior::Normal { mean: 0.0, deviation: f64::NAN }; 2]), None);
    }

    #[test]
    fn every_variant_has_the_minimum() {
        assert_eq!(allocations(&[1.0, 0.0], 0.05), Some(vec![0.95, 0.05]));
        assert_eq!(allocations(&[1.0, 0.0], 0.5), Some(vec![0.5, 0.5]));
        assert_eq!(allocations(&[1.0, 0.0], 0.6), None);
        assert_eq!(allocations(&[], 0.0), None);
        assert_eq!(allocations(&[f64::NAN, 1.0], 0.0), None);
        let thirds = allocations(&[1.0 / 3.0; 3], 0.0).unwrap();
        assert!((thirds.iter().sum::<f64>() - 1.0).abs() < 1e-12, "{thirds:?}");
    }

    proptest! {
        #[test]
        fn allocations_sum_to_one_and_keep_the_minimum(
            weights in prop::collection::vec(0.001_f64..1.0, 1..9), minimum in 0.0_f64..0.1,
        ) {
            let sum: f64 = weights.iter().sum();
            let best: Vec<f64> = weights.iter().map(|weight| weight / sum).collect();
            let shares = allocations(&best, minimum).unwrap();
            prop_assert!((shares.iter().sum::<f64>() - 1.0).abs() < 1e-9);
            prop_assert!(shares.iter().all(|share| *share >= minimum - 1.0001 / STEPS));
        }
    }
}
