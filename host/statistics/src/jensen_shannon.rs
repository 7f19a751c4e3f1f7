//! The Jensen-Shannon distance of two histograms: the square root of the Jensen-Shannon divergence
//! (Lin 1991), which is a metric (Endres and Schindelin 2003).
//!
//! `sqrt((D(p || m) + D(q || m)) / 2)` with `m = (p + q) / 2` and the Kullback-Leibler divergence
//! `D` to base 2: 0 for equal shares, 1 for histograms without a common bin. It needs no smoothing.

use crate::{Count, total};

/// The distance of two histograms with the same bins, from 0 to 1.
#[must_use]
pub fn distance(a: &[impl Count], b: &[impl Count]) -> Option<f64> {
    if a.len() != b.len() {
        return None;
    }
    let (n, m) = (total(a)?, total(b)?);
    let divergence = a.iter().zip(b).map(|(a, b)| {
        let (p, q) = (a.number() / n, b.number() / m);
        let middle = f64::midpoint(p, q);
        term(p, middle) + term(q, middle)
    });
    // Rounding may make the sum slightly less than 0 or more than 2.
    Some((divergence.sum::<f64>() / 2.0).clamp(0.0, 1.0).sqrt())
}

/// The term of one bin in `D(p || m)`.
fn term(p: f64, m: f64) -> f64 {
    if p > 0.0 { p * (p / m).log2() } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_distance_is_that_computed_by_hand() {
        assert_eq!(distance(&[1_u64, 1, 0, 0], &[0_u64, 0, 5, 5]), Some(1.0));
        assert_eq!(distance(&[1_u64, 1], &[10_u64, 10]), Some(0.0));
        // p = (1, 0), q = (1/2, 1/2), m = (3/4, 1/4).
        let expected = ((4.0_f64 / 3.0).log2() + 0.5 * (2.0_f64 / 3.0).log2() + 0.5) / 2.0;
        let found = distance(&[4_u64, 0], &[3_u64, 3]).unwrap();
        assert!((found - expected.sqrt()).abs() < 1e-15, "{found}");
        assert_eq!(distance(&[1_u64], &[1_u64, 2]), None);
        assert_eq!(distance(&[0_u64], &[1_u64]), None);
    }

    proptest! {
        #[test]
        fn the_distance_is_symmetric_bounded_and_zero_for_equal_histograms(
            bins in prop::collection::vec((0_u64..5_000, 0_u64..5_000), 1..40),
        ) {
            let (a, b): (Vec<_>, Vec<_>) = bins.into_iter().unzip();
            if let Some(found) = distance(&a, &b) {
                prop_assert!((0.0..=1.0).contains(&found));
                prop_assert!((found - distance(&b, &a).unwrap()).abs() < 1e-12);
                prop_assert!(distance(&a, &a).unwrap() < 1e-7);
            }
        }
    }
}
