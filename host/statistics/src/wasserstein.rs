//! The first Wasserstein distance, also called the earth mover's distance: the area between two
//! distribution functions (Vallender 1974, "Calculation of the Wasserstein distance between
//! probability distributions on the line", Theory of Probability and Its Applications 18). It is
//! in the unit of the values, and equals the shift of a shifted distribution.
//!
//! A window holds no values, but the moments of each bin. [`binned`] is the exact distance of two
//! distributions that have all values of a bin at its mean. Collapsing a bin moves each of its
//! values by its distance from the mean, and so changes the distance by at most the mean absolute
//! deviation (the triangle inequality). Of a bin with the mean `u` and the standard deviation `s`
//! that one is at most
//!
//! - `s`, by Jensen's inequality, and
//! - `2 (b - u)(u - a) / (b - a)` between the edges `a` and `b`: the values are all at the edges.

/// A bin of a sample.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct BinMoments {
    /// Number of values, or the sum of their weights.
    pub weight: f64,
    pub mean: f64,
    /// Standard deviation of the bin's values, divided by their number.
    pub deviation: f64,
}

/// The distance of two binned samples.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BinnedDistance {
    pub distance: f64,
    /// Maximum difference to the distance of the samples themselves.
    pub error: f64,
}

/// The distance of two samples of weighted values. Values without weight are ignored. `None` without
/// weight, and if the distance is too large for FP64.
#[must_use]
pub fn distance(a: &[(f64, f64)], b: &[(f64, f64)]) -> Option<f64> {
    let (n, m) = (weight(a)?, weight(b)?);
    // Steps of `A - B` at each value.
    let steps = a.iter().map(|&(value, weight)| (value, weight / n));
    let mut steps: Vec<_> =
        steps.chain(b.iter().map(|&(value, weight)| (value, -weight / m))).collect();
    steps.retain(|&(_, step)| step != 0.0);
    steps.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut difference = 0.0;
    let area = steps.windows(2).map(|pair| {
        difference += pair[0].1;
        f64::abs(difference) * (pair[1].0 - pair[0].0)
    });
    let area: f64 = area.sum();
    area.is_finite().then_some(area)
}

/// The total weight. `None` without weight, or if a value or a weight is not finite.
fn weight(sample: &[(f64, f64)]) -> Option<f64> {
    let valid = |&(value, weight): &(f64, f64)| {
        weight == 0.0 || weight > 0.0 && weight.is_finite() && value.is_finite()
    };
    let total: f64 = sample.iter().map(|&(_, weight)| weight).sum();
    (sample.iter().all(valid) && total > 0.0 && total.is_finite()).then_some(total)
}

/// The distance of two samples in the same bins, which are separated by ascending `edges`.
#[must_use]
pub fn binned(a: &[BinMoments], b: &[BinMoments], edges: &[f64]) -> Option<BinnedDistance> {
    if a.len() != b.len() || a.len() != edges.len() + 1 {
        return None;
    }
    let values =
        |bins: &[BinMoments]| -> Vec<_> { bins.iter().map(|bin| (bin.mean, bin.weight)).collect() };
    let distance = distance(&values(a), &values(b))?;
    Some(BinnedDistance { distance, error: spread(a, edges) + spread(b, edges) })
}

/// Upper bound of the mean absolute deviation of values from the means of their bins.
fn spread(bins: &[BinMoments], edges: &[f64]) -> f64 {
    let total: f64 = bins.iter().map(|bin| bin.weight).sum();
    let spreads =
        bins.iter().enumerate().filter(|(_, bin)| bin.weight > 0.0).map(|(index, bin)| {
            let low = index.checked_sub(1).and_then(|index| edges.get(index));
            let between = match (low, edges.get(index)) {
                (Some(&low), Some(&high)) => {
                    2.0 * (high - bin.mean).max(0.0) * (bin.mean - low).max(0.0) / (high - low)
                }
                _ => f64::INFINITY,
            };
            bin.weight / total * bin.deviation.min(between)
        });
    spreads.sum()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_distance_is_that_computed_by_hand() {
        // Half of the mass moves from 1 to 3.
        assert_eq!(distance(&[(0.0, 1.0), (1.0, 1.0)], &[(0.0, 2.0), (3.0, 2.0)]), Some(1.0));
        assert_eq!(distance(&[(5.0, 0.5)], &[(2.0, 9.0), (f64::NAN, 0.0)]), Some(3.0));
    }

    #[test]
    fn samples_without_weight_or_with_infinite_values_have_no_distance() {
        assert_eq!(distance(&[], &[(1.0, 1.0)]), None);
        assert_eq!(distance(&[(1.0, 0.0)], &[(1.0, 1.0)]), None);
        for value in [f64::NAN, f64::INFINITY] {
            assert_eq!(distance(&[(value, 1.0)], &[(1.0, 1.0)]), None);
        }
        assert_eq!(distance(&[(1.0, -1.0), (2.0, 3.0)], &[(1.0, 1.0)]), None);
        let far = [(-f64::MAX, 1.0), (f64::MAX, 1.0)];
        assert_eq!(distance(&far, &[(0.0, 1.0), (f64::MAX, 1.0)]), Some(f64::MAX / 2.0));
        assert_eq!(distance(&far[..1], &far[1..]), None);
        // The difference is 0, times infinity.
        assert_eq!(distance(&far, &far), None);
        let bin = BinMoments { weight: 1.0, ..BinMoments::default() };
        assert_eq!(binned(&[bin], &[bin, bin], &[0.0]), None);
        assert_eq!(binned(&[bin; 2], &[bin; 2], &[]), None);
    }

    fn moments(values: &[f64], edges: &[f64]) -> Vec<BinMoments> {
        let bin = |index| {
            let of: Vec<f64> = values
                .iter()
                .copied()
                .filter(|x| edges.partition_point(|edge| edge <= x) == index)
                .collect();
            let weight = of.len() as f64;
            let mean = of.iter().sum::<f64>() / weight.max(1.0);
            let variance = of.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / weight.max(1.0);
            BinMoments { weight, mean, deviation: variance.sqrt() }
        };
        (0..=edges.len()).map(bin).collect()
    }

    fn sample() -> impl Strategy<Value = Vec<f64>> {
        prop::collection::vec((-50_i32..50).prop_map(|x| f64::from(x) / 4.0), 1..60)
    }

    proptest! {
        #[test]
        fn the_distance_of_values_is_within_the_error_of_the_binned_one(
            a in sample(),
            b in sample(),
            edges in prop::collection::btree_set(-50_i32..50, 0..12),
        ) {
            let edges: Vec<f64> = edges.into_iter().map(|x| f64::from(x) / 4.0 + 0.125).collect();
            let found = binned(&moments(&a, &edges), &moments(&b, &edges), &edges).unwrap();
            let each = |values: &[f64]| values.iter().map(|&x| (x, 1.0)).collect::<Vec<_>>();
            let exact = distance(&each(&a), &each(&b)).unwrap();
            prop_assert!((found.distance - exact).abs() <= found.error + 1e-9, "{found:?} {exact}");
            // The means are exact, so the distance is at least their difference.
            let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
            prop_assert!(found.distance >= (mean(&a) - mean(&b)).abs() - 1e-9);
            prop_assert!((exact - distance(&each(&b), &each(&a)).unwrap()).abs() < 1e-9);
        }
    }
}
