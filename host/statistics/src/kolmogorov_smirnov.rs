//! The two-sample Kolmogorov-Smirnov statistic (Smirnov 1939): the maximum distance of two
//! empirical distribution functions.

use crate::{Count, total};

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
        assert_eq!(binned(&[1_u64, 1, 2], &[2_u64, 1, 1]), Some(0.25));
        assert_eq!(binned(&[1_u64], &[1_u64, 1]), None);
        assert_eq!(binned(&[0_u64], &[1_u64]), None);
    }

    fn sample() -> impl Strategy<Value = Vec<f64>> {
        prop::collection::vec((-50_i32..50).prop_map(|x| f64::from(x) / 4.0), 1..80)
    }

    /// The statistic of the values themselves, by its definition.
    fn unbinned(a: &[f64], b: &[f64]) -> f64 {
        let share = |sample: &[f64], value: f64| {
            let below = sample.iter().filter(|&&x| x <= value).count();
            crate::float(below as u64) / crate::float(sample.len() as u64)
        };
        let distances = a.iter().chain(b).map(|&value| (share(a, value) - share(b, value)).abs());
        distances.fold(0.0, f64::max)
    }

    proptest! {
        #[test]
        fn the_statistic_is_symmetric_and_a_lower_bound(a in sample(), b in sample(), edges in prop::collection::btree_set(-50_i32..50, 0..12)) {
            let edges: Vec<f64> = edges.into_iter().map(|x| f64::from(x) / 4.0).collect();
            let count = |sample: &[f64]| {
                let mut counts = vec![0_u64; edges.len() + 1];
                for x in sample {
                    counts[edges.partition_point(|edge| edge < x)] += 1;
                }
                counts
            };
            let (of_a, of_b) = (count(&a), count(&b));
            let found = binned(&of_a, &of_b).unwrap();
            prop_assert!((0.0..=unbinned(&a, &b) + 1e-12).contains(&found), "{found}");
            prop_assert!((found - binned(&of_b, &of_a).unwrap()).abs() < 1e-15);
            prop_assert_eq!(binned(&of_a, &of_a), Some(0.0));
            // A bin for each value.
            let all: Vec<f64> = (-50..50).map(|x| f64::from(x) / 4.0).collect();
            let each = |sample: &[f64]| -> Vec<u64> {
                all.iter().map(|value| sample.iter().filter(|x| *x == value).count() as u64).collect()
            };
            let exact = binned(&each(&a), &each(&b)).unwrap();
            prop_assert!((exact - unbinned(&a, &b)).abs() < 1e-12, "{exact}");
        }
    }
}
