//! The comparison of a treatment with control: the difference of their means over all units, and
//! its confidence sequence.
//!
//! - **Strata.** While allocations differ, so does the mix of units over time. Units are compared
//!   within the strata of equal allocations, and the differences averaged with the weights
//!   `n₀ n₁ / (n₀ + n₁)` (Cochran 1954, "Some methods for strengthening the common chi-squared
//!   tests"). Each stratum has its own variance, moderated by that of all strata of its arm: it
//!   counts as `MODERATION` more observations (Smyth 2004, "Linear models and empirical Bayes
//!   methods for assessing differential expression in microarray experiments"). A stratum of one
//!   unit has a variance then, and large strata of unequal variances have their own.
//! - **Information.** The confidence sequence runs in the number of observations of two equal arms
//!   that would be as precise, `4 Σ n₀ n₁ / (n₀ + n₁)`. A period in which a variant has 1 % of the
//!   units adds few.
//! - **CUPED** (Deng, Xu, Kohavi and Walker 2013, "Improving the sensitivity of online controlled
//!   experiments by utilizing pre-experiment data"): `y - θ (x - x̄)` in place of `y`, with
//!   `θ = cov(x, y) / var(x)` pooled over all arms and strata. The covariate `x` must not depend on
//!   the variant.
//! - **Per prediction**: a ratio `Σy / Σk` of the units' sums and sizes, whose variance is that of
//!   `y - r k` over `k̄²`, by the delta method (Deng, Knoblich and Lu 2018, "Applying the delta method
//!   in metric analytics"). Predictions of one unit are not independent, units are.

use serde::{Deserialize, Serialize};

use crate::confidence_sequence::{Boundary, Interval};
use crate::float;
use crate::moments::PairMoments;

/// What the companions of the moments are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Estimator {
    /// Nothing: the mean of the values.
    Mean,
    /// A covariate: the mean, adjusted by it.
    Adjusted,
    /// Sizes: the values are sums over as many predictions.
    Ratio,
}

/// What the values are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// Shares, from 0 to 1. Their variance is that of the values with one 0 and one 1 more
    /// (Agresti and Caffo 2000, "Simple and effective confidence intervals for proportions and
    /// differences of proportions ..."): 50 right of 50 are no certainty.
    Share,
    /// Any numbers. Without variance there is no interval.
    Number,
}

/// A treatment compared with control.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// Means of control and of the treatment.
    pub means: [f64; 2],
    /// The treatment's mean less control's.
    pub difference: Interval,
    /// Number of units with an outcome, of control and of the treatment.
    pub units: [u64; 2],
}

/// Weight of an arm's variance in that of each of its strata, in observations.
const MODERATION: f64 = 10.0;

/// An arm in one stratum.
struct Estimate {
    /// Number of units.
    n: f64,
    /// Number of observations: of predictions for a ratio, which become more while units return.
    observations: f64,
    mean: f64,
    /// Variance of one unit.
    variance: f64,
}

/// Compares a treatment with control, each by stratum in the same order. `theta` is [`theta`] of all
/// arms for [`Estimator::Adjusted`], and ignored otherwise. `None` as long as there is no interval.
#[must_use]
pub fn compare(
    control: &[PairMoments],
    treatment: &[PairMoments],
    (estimator, scale): (Estimator, Scale),
    theta: f64,
    boundary: &Boundary,
) -> Option<Comparison> {
    // Strata with both arms.
    let pairs = control.iter().zip(treatment).filter(|(a, b)| a.n > 0 && b.n > 0);
    let (control, treatment): (Vec<PairMoments>, Vec<PairMoments>) = pairs.unzip();
    let companion = mean_companion(control.iter().chain(&treatment));
    let arm = |strata: &[PairMoments]| estimate(strata, estimator, scale, theta, companion);
    let (a, b) = (arm(&control)?, arm(&treatment)?);
    let harmonic = |a: f64, b: f64| a * b / (a + b);
    let sum: f64 = a.iter().zip(&b).map(|(a, b)| harmonic(a.n, b.n)).sum();
    let (mut difference, mut variance, mut means, mut information) = (0.0, 0.0, [0.0; 2], 0.0);
    for (a, b) in a.iter().zip(&b) {
        let weight = harmonic(a.n, b.n) / sum;
        difference += weight * (b.mean - a.mean);
        variance += weight * weight * (a.variance / a.n + b.variance / b.n);
        means[0] += weight * a.mean;
        means[1] += weight * b.mean;
        information += 4.0 * harmonic(a.observations, b.observations);
    }
    if variance <= 0.0 {
        return None;
    }
    let units = [&control, &treatment].map(|arm| arm.iter().map(|stratum| stratum.n).sum::<u64>());
    let difference = boundary.interval(difference, variance, information)?;
    Some(Comparison { means, difference, units })
}

/// The coefficient `θ` of the covariate, pooled within the arms and strata; 0 for a covariate
/// without variance.
#[must_use]
pub fn theta<'a>(cells: impl Iterator<Item = &'a PairMoments>) -> f64 {
    let (products, squares) = cells.fold((0.0, 0.0), |(products, squares), cell| {
        (products + cell.products, squares + cell.companion_squares)
    });
    if squares > 0.0 { products / squares } else { 0.0 }
}

fn mean_companion<'a>(cells: impl Iterator<Item = &'a PairMoments>) -> f64 {
    cells.fold(PairMoments::default(), |all, cell| all.merged(cell)).mean_companion
}

/// The estimates of an arm, by stratum. `None` without a degree of freedom for its variance.
fn estimate(
    strata: &[PairMoments],
    estimator: Estimator,
    scale: Scale,
    theta: f64,
    companion: f64,
) -> Option<Vec<Estimate>> {
    let ratio = |cell: &PairMoments| cell.mean_value / cell.mean_companion;
    let all = strata.iter().fold(PairMoments::default(), |all, cell| all.merged(cell));
    let of_all = float(all.n);
    // With a 0 and a 1 added to n values, the sum of squared deviations grows by
    // 1/2 + n / (n + 2) · 2 (mean - 1/2)^2. Strata share it by their size.
    let (added_squares, added) = match scale {
        Scale::Share => {
            let mean = if estimator == Estimator::Ratio { ratio(&all) } else { all.mean_value };
            (0.5 + 2.0 * of_all / (of_all + 2.0) * (mean - 0.5) * (mean - 0.5), 2.0)
        }
        Scale::Number => (0.0, 0.0),
    };
    let of_stratum = |cell: &PairMoments| {
        let n = float(cell.n);
        let (mean, coefficient, size) = match estimator {
            Estimator::Mean => (cell.mean_value, 0.0, 1.0),
            Estimator::Adjusted => {
                (cell.mean_value - theta * (cell.mean_companion - companion), theta, 1.0)
            }
            Estimator::Ratio => (ratio(cell), ratio(cell), cell.mean_companion),
        };
        let PairMoments { value_squares, companion_squares, products, .. } = cell;
        let residual = value_squares - 2.0 * coefficient * products
            + coefficient * coefficient * companion_squares;
        // In the metric's unit, and one degree of freedom less for the stratum's mean.
        let squares = residual.max(0.0) / (size * size) + added_squares * n / of_all;
        let degrees = n - 1.0 + added * n / of_all;
        (Estimate { n, observations: n * size, mean, variance: 0.0 }, squares, degrees)
    };
    let found: Vec<_> = strata.iter().map(of_stratum).collect();
    let sums = found
        .iter()
        .fold((0.0, 0.0), |sums, (_, squares, degrees)| (sums.0 + squares, sums.1 + degrees));
    if sums.1 <= 0.0 {
        return None;
    }
    let of_arm = sums.0 / sums.1;
    let moderated = found.into_iter().map(|(estimate, squares, degrees)| {
        let variance = (squares + MODERATION * of_arm) / (degrees + MODERATION);
        Estimate { variance, ..estimate }
    });
    Some(moderated.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moments(pairs: &[(f64, f64)]) -> PairMoments {
        let mut moments = PairMoments::default();
        pairs.iter().for_each(|&(value, companion)| moments.add(value, companion));
        moments
    }

    fn boundary() -> Boundary {
        Boundary::narrowest_at(1000.0, 0.05).unwrap()
    }

    const MEAN: (Estimator, Scale) = (Estimator::Mean, Scale::Number);

    #[test]
    fn variance_is_that_of_a_difference_of_means() {
        let (a, b) = (moments(&[(1.0, 0.0), (3.0, 0.0)]), moments(&[(4.0, 0.0), (8.0, 0.0)]));
        let found = compare(&[a], &[b], MEAN, 0.0, &boundary()).unwrap();
        assert_eq!((found.means, found.difference.estimate), ([2.0, 6.0], 4.0));
        // 2 / 2 + 8 / 2.
        let expected = boundary().factor(4.0) * 5.0_f64.sqrt();
        assert!((found.difference.upper - 4.0 - expected).abs() < 1e-12, "{found:?}");
        assert_eq!(found.units, [2, 2]);
    }

    #[test]
    fn a_change_of_allocations_and_of_the_level_is_no_difference() {
        // Both arms rise from 1 to 9, as the treatment is ramped from a tenth to a half.
        let low = [(0.9, 0.0), (1.1, 0.0)].repeat(50);
        let high = [(8.9, 0.0), (9.1, 0.0)].repeat(50);
        let control = [moments(&low), moments(&high)];
        let treatment = [moments(&low[..10]), moments(&high)];
        let found = compare(&control, &treatment, MEAN, 0.0, &boundary()).unwrap();
        assert!(found.difference.estimate.abs() < 1e-9, "{found:?}");
        let pooled = |strata: &[PairMoments; 2]| [strata[0].merged(&strata[1])];
        let naive = compare(&pooled(&control), &pooled(&treatment), MEAN, 0.0, &boundary());
        assert!(naive.unwrap().difference.estimate > 3.0);
    }

    #[test]
    fn strata_of_unequal_variances_have_their_own() {
        let spread = |half: f64, n: usize| moments(&[(-half, 0.0), (half, 0.0)].repeat(n / 2));
        // Few of the treatment while the metric varies much, and more once it does not.
        let control = [spread(10.0, 20_000), spread(1.0, 20_000)];
        let treatment = [spread(10.0, 4_000), spread(1.0, 20_000)];
        let found = compare(&control, &treatment, MEAN, 0.0, &boundary()).unwrap();
        let weights = [20_000.0 * 4_000.0 / 24_000.0, 10_000.0];
        let information = 4.0 * (weights[0] + weights[1]);
        let half = found.difference.upper - found.difference.estimate;
        let variance = (half / boundary().factor(information)).powi(2);
        // Σ w² (s₀² / n₀ + s₁² / n₁) is Σ w s² for equal variances.
        let sum = weights[0] + weights[1];
        let expected = (weights[0] * 100.0 + weights[1] * 1.0) / (sum * sum);
        assert!((variance / expected - 1.0).abs() < 0.01, "{variance} {expected}");
    }

    #[test]
    fn stratum_of_one_unit_has_the_variance_of_its_arm() {
        let (many, one) = (moments(&[(1.0, 0.0), (3.0, 0.0)].repeat(50)), moments(&[(2.0, 0.0)]));
        let found = compare(&[many, one], &[many, one], MEAN, 0.0, &boundary()).unwrap();
        let half = found.difference.upper - found.difference.estimate;
        let variance = (half / boundary().factor(4.0 * 50.5)).powi(2);
        // 100 / 99 for one unit, and Σ w = 50.5.
        assert!((variance - 100.0 / 99.0 / 50.5).abs() < 1e-3, "{variance}");
    }

    #[test]
    fn stratum_of_one_arm_only_is_ignored() {
        let a = moments(&[(1.0, 0.0), (3.0, 0.0)]);
        let alone = moments(&[(100.0, 0.0), (101.0, 0.0)]);
        let found = compare(&[a, alone], &[a, PairMoments::default()], MEAN, 0.0, &boundary());
        assert_eq!(found.unwrap().units, [2, 2]);
        let none = compare(&[alone], &[PairMoments::default()], MEAN, 0.0, &boundary());
        assert_eq!(none, None);
    }

    #[test]
    fn all_right_is_no_certainty_and_equal_numbers_have_no_interval() {
        let right = moments(&[(1.0, 1.0); 50]);
        let share = (Estimator::Mean, Scale::Share);
        let found = compare(&[right], &[right], share, 0.0, &boundary()).unwrap();
        assert!(found.difference.upper > 0.05, "{found:?}");
        assert_eq!(compare(&[right], &[right], MEAN, 0.0, &boundary()), None);
        // The sum of squares of 50 ones, a one and a zero, over 51.
        let mut smoothed = moments(&[(1.0, 0.0); 50]);
        smoothed.add(0.0, 0.0);
        smoothed.add(1.0, 0.0);
        let expected =
            (smoothed.value_squares / 51.0 / 50.0 * 2.0).sqrt() * boundary().factor(100.0);
        assert!((found.difference.upper - expected).abs() < 1e-12, "{found:?} {expected}");
    }

    #[test]
    fn covariate_that_explains_the_value_narrows_the_interval() {
        let unit = |index: u32, shift: f64| {
            let covariate = f64::from(index % 10);
            (2.0 * covariate + shift + f64::from(index % 3), covariate)
        };
        let arm = |shift| moments(&(0..300).map(|index| unit(index, shift)).collect::<Vec<_>>());
        let (a, b) = (arm(0.0), arm(0.5));
        let theta = theta([a, b].iter());
        assert!((theta - 2.0).abs() < 0.05, "{theta}");
        let adjusted = (Estimator::Adjusted, Scale::Number);
        let adjusted = compare(&[a], &[b], adjusted, theta, &boundary()).unwrap();
        let plain = compare(&[a], &[b], MEAN, 0.0, &boundary()).unwrap();
        let width = |found: &Comparison| found.difference.upper - found.difference.lower;
        assert!((adjusted.difference.estimate - 0.5).abs() < 1e-9, "{adjusted:?}");
        assert!(width(&adjusted) < 0.2 * width(&plain), "{adjusted:?} {plain:?}");
    }

    #[test]
    fn ratio_is_the_mean_over_predictions_with_the_variance_over_units() {
        // Three units of four equal predictions are three observations, not twelve.
        let units = moments(&[(4.0, 4.0), (0.0, 4.0), (4.0, 4.0)]);
        let one = moments(&[(1.0, 1.0), (0.0, 1.0), (1.0, 1.0)]);
        let kind = (Estimator::Ratio, Scale::Share);
        let found = compare(&[units], &[units], kind, 0.0, &boundary()).unwrap();
        let same = compare(&[one], &[one], kind, 0.0, &boundary()).unwrap();
        assert_eq!(found.means, [2.0 / 3.0; 2]);
        let factors = [24.0, 6.0].map(|predictions| boundary().factor(predictions));
        let half = |found: &Comparison| found.difference.upper - found.difference.estimate;
        assert!((half(&found) / factors[0] - half(&same) / factors[1]).abs() < 1e-12);
    }
}
