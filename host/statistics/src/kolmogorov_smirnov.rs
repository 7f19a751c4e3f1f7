//! The two-sample Kolmogorov-Smirnov statistic (Smirnov 1939): the maximum distance of two
//! empirical distribution functions.

use crate::kolmogorov_distribution::upper_tail;
use crate::{Count, float, total};

/// The result of a two-sample Kolmogorov-Smirnov test.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KolmogorovSmirnov {
    /// Maximum distance of the distribution functions, from 0 to 1.
    pub statistic: f64,
    /// Probability of a statistic at least as large if both samples are of one continuous
    /// distribution.
    pub p_value: f64,
}

/// Tests two samples. NaN is ignored.
///
/// The p-value is that of the one-sample statistic of `n m / (n + m)` values, rounded to a whole
/// number, as in `scipy.stats.ks_2samp(method="asymp")`.
#[must_use]
pub fn two_sample(a: &[f64], b: &[f64]) -> Option<KolmogorovSmirnov> {
    let (a, b) = (sorted(a), sorted(b));
    if a.is_empty() || b.is_empty() {
        return None;
    }
    let (n, m) = (float(a.len() as u64), float(b.len() as u64));
    let (mut i, mut j, mut statistic) = (0, 0, 0.0_f64);
    while i < a.len() && j < b.len() {
        let value = a[i].min(b[j]);
        i += a[i..].iter().take_while(|&&x| x <= value).count();
        j += b[j..].iter().take_while(|&&x| x <= value).count();
        let difference = float(i as u64) / n - float(j as u64) / m;
        statistic = statistic.max(difference.abs());
    }
    let effective = (n * m / (n + m)).round_ties_even();
    Some(KolmogorovSmirnov { statistic, p_value: upper_tail(effective, statistic) })
}

fn sorted(values: &[f64]) -> Vec<f64> {
    let mut values: Vec<f64> = values.iter().copied().filter(|value| !value.is_nan()).collect();
    values.sort_by(f64::total_cmp);
    values
}

/// The maximum distance of two histograms with the same bins at the edges of bins.
///
/// It is a lower bound of the statistic of the values themselves, whose distribution functions may
/// be further apart within a bin. So it has no p-value.
#[must_use]
pub fn binned(a: &[impl Count], b: &[impl Count]) -> Option<f64> {
    if a.len() != b.len() {
        return None;
    }
    let (n, m) = (total(a)?, total(b)?);
    let (mut below_a, mut below_b, mut statistic) = (0.0, 0.0, 0.0_f64);
    for (a, b) in a.iter().zip(b) {
        below_a += a.number();
        below_b += b.number();
        statistic = statistic.max((below_a / n - below_b / m).abs());
    }
    Some(statistic)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn statistics_are_those_computed_by_hand() {
        // At 2: all values of one sample, and none of the other.
        assert_eq!(two_sample(&[1.0, 2.0], &[3.0, 4.0, 5.0]).unwrap().statistic, 1.0);
        // Ties: 1/2 and 2/3 at 1; 1 and 2/3 at 2.
        let found = two_sample(&[1.0, 2.0], &[1.0, 1.0, 3.0, f64::NAN]).unwrap();
        assert!((found.statistic - 1.0 / 3.0).abs() < 1e-15, "{found:?}");
        assert_eq!(two_sample(&[f64::NAN], &[1.0]), None);
        assert_eq!(binned(&[1_u64, 1, 2], &[2_u64, 1, 1]), Some(0.25));
        assert_eq!(binned(&[1_u64], &[1_u64, 1]), None);
        assert_eq!(binned(&[0_u64], &[1_u64]), None);
    }

    fn sample() -> impl Strategy<Value = Vec<f64>> {
        prop::collection::vec((-50_i32..50).prop_map(|x| f64::from(x) / 4.0), 1..80)
    }

    proptest! {
        #[test]
        fn the_statistic_is_symmetric_bounded_and_zero_for_equal_samples(a in sample(), b in sample()) {
            let found = two_sample(&a, &b).unwrap();
            prop_assert!((0.0..=1.0).contains(&found.statistic), "{found:?}");
            prop_assert!((0.0..=1.0).contains(&found.p_value), "{found:?}");
            prop_assert!((found.statistic - two_sample(&b, &a).unwrap().statistic).abs() < 1e-15);
            let same = two_sample(&a, &a).unwrap();
            prop_assert_eq!((same.statistic, same.p_value), (0.0, 1.0));
        }

        #[test]
        fn the_binned_statistic_is_a_lower_bound(a in sample(), b in sample(), edges in prop::collection::btree_set(-50_i32..50, 0..12)) {
            let edges: Vec<f64> = edges.into_iter().map(|x| f64::from(x) / 4.0).collect();
            let count = |sample: &[f64]| {
                let mut counts = vec![0; edges.len() + 1];
                for x in sample {
                    counts[edges.partition_point(|edge| edge <= x)] += 1;
                }
                counts
            };
            let (exact, found) = (two_sample(&a, &b).unwrap(), binned(&count(&a), &count(&b)).unwrap());
            prop_assert!(found <= exact.statistic + 1e-12, "{found} {exact:?}");
        }
    }
}
