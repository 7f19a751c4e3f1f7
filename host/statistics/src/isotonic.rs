//! Isotonic regression: the nondecreasing function with the least squared error, by pooling
//! adjacent violators (Barlow, Bartholomew, Bremner and Brunk 1972, *Statistical Inference under
//! Order Restrictions*). It calibrates the scores of a classifier (Zadrozny and Elkan 2002).
//!
//! Between the fitted points the function is linear, beyond them constant, as in
//! `sklearn.isotonic.IsotonicRegression(out_of_bounds="clip")`.

use serde::{Deserialize, Serialize};

/// A fitted function: points with ascending `x`, of which neither repeats its neighbours' `y`
/// on both sides.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Isotonic {
    x: Vec<f64>,
    y: Vec<f64>,
}

/// Values that were pooled: their mean, number, and how many points of distinct `x` they are.
#[derive(Clone, Copy)]
struct Pool {
    mean: f64,
    weight: f64,
    points: usize,
}

impl Isotonic {
    /// Fits pairs of `x` and `y`. `None` without pairs, or if one is not finite.
    #[must_use]
    pub fn fit(pairs: &[(f64, f64)]) -> Option<Self> {
        if pairs.is_empty() || pairs.iter().any(|(x, y)| !x.is_finite() || !y.is_finite()) {
            return None;
        }
        let mut sorted = pairs.to_vec();
        sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut x = Vec::new();
        let mut pools: Vec<Pool> = Vec::new();
        for equal in sorted.chunk_by(|a, b| a.0 == b.0) {
            let weight = crate::float(equal.len() as u64);
            let mean = equal.iter().map(|(_, y)| y).sum::<f64>() / weight;
            x.push(equal[0].0);
            pools.push(Pool { mean, weight, points: 1 });
            while let [.., before, last] = &pools[..]
                && before.mean >= last.mean
            {
                let weight = before.weight + last.weight;
                let mean = (before.mean * before.weight + last.mean * last.weight) / weight;
                let points = before.points + last.points;
                pools.truncate(pools.len() - 2);
                pools.push(Pool { mean, weight, points });
            }
        }
        let mut fitted = Self::default();
        let mut x = x.into_iter();
        for Pool { mean, points, .. } in pools {
            let mut of_pool = x.by_ref().take(points);
            fitted.x.extend(of_pool.next());
            fitted.y.push(mean);
            if let Some(last) = of_pool.last() {
                fitted.x.push(last);
                fitted.y.push(mean);
            }
        }
        Some(fitted)
    }

    /// Whether the points are those of a function: for one that was read from a file.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        let Self { x, y } = self;
        let finite = x.iter().chain(y).all(|value| value.is_finite());
        let ascend = x.is_sorted_by(|a, b| a < b) && y.is_sorted();
        !x.is_empty() && x.len() == y.len() && finite && ascend
    }

    /// The function at `x`; NaN at NaN.
    #[must_use]
    pub fn at(&self, x: f64) -> f64 {
        let Self { x: xs, y: ys } = self;
        if x.is_nan() {
            return f64::NAN;
        }
        let above = xs.partition_point(|&point| point <= x);
        match (above.checked_sub(1), xs.get(above)) {
            (None, _) => ys.first().copied().unwrap_or(f64::NAN),
            (Some(below), None) => ys[below],
            (Some(below), Some(next)) => {
                let part = (x - xs[below]) / (next - xs[below]);
                ys[below] + part * (ys[above] - ys[below])
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn violators_are_pooled_and_points_between_are_interpolated() {
        let fitted =
            Isotonic::fit(&[(1.0, 0.0), (2.0, 1.0), (3.0, 0.0), (4.0, 0.5), (6.0, 1.0)]).unwrap();
        // 1, 0 and 1/2 are pooled to 1/2.
        assert_eq!(
            (&*fitted.x, &*fitted.y),
            (&[1.0, 2.0, 4.0, 6.0][..], &[0.0, 0.5, 0.5, 1.0][..])
        );
        for (x, expected) in [(0.0, 0.0), (1.5, 0.25), (3.0, 0.5), (5.0, 0.75), (9.0, 1.0)] {
            assert_eq!(fitted.at(x), expected, "{x}");
        }
        assert!(fitted.at(f64::NAN).is_nan() && fitted.is_valid());
        let equal = Isotonic::fit(&[(1.0, 0.0), (1.0, 1.0)]).unwrap();
        assert_eq!((equal.at(0.0), equal.at(5.0)), (0.5, 0.5));
    }

    #[test]
    fn values_that_are_not_finite_are_not_fitted() {
        assert_eq!(Isotonic::fit(&[]), None);
        assert_eq!(Isotonic::fit(&[(f64::NAN, 1.0)]), None);
        let invalid = |x: &[f64], y: &[f64]| !Isotonic { x: x.into(), y: y.into() }.is_valid();
        assert!(invalid(&[], &[]) && invalid(&[1.0], &[]) && invalid(&[1.0, 1.0], &[0.0, 1.0]));
        assert!(invalid(&[1.0, 2.0], &[1.0, 0.0]) && invalid(&[f64::NAN], &[0.0]));
    }

    proptest! {
        #[test]
        fn the_function_ascends_and_keeps_the_mean(
            pairs in prop::collection::vec((0_i32..20, 0_i32..2), 1..60),
        ) {
            let pairs: Vec<_> =
                pairs.into_iter().map(|(x, y)| (f64::from(x), f64::from(y))).collect();
            let fitted = Isotonic::fit(&pairs).unwrap();
            prop_assert!(fitted.is_valid());
            let sum = |of: &dyn Fn(&(f64, f64)) -> f64| pairs.iter().map(of).sum::<f64>();
            prop_assert!((sum(&|(x, _)| fitted.at(*x)) - sum(&|(_, y)| *y)).abs() < 1e-9);
        }
    }
}
