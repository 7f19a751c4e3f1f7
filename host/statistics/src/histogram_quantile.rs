//! Quantiles of a histogram: of latencies that were only counted by bucket.
//!
//! Within its bucket a quantile is interpolated linearly, as Prometheus' `histogram_quantile` does;
//! its error is at most the width of that bucket.

use crate::{float, total};

/// The quantile `q`, from 0 to 1, of values with these `counts` in buckets with the upper `bounds`.
/// The first bucket starts at 0. The last count, without a bound, gives the largest bound. `None`
/// without values, or if there is not one count more than bounds.
#[must_use]
pub fn quantile(q: f64, bounds: &[f64], counts: &[u64]) -> Option<f64> {
    let n = total(counts)?;
    if counts.len() != bounds.len() + 1 || !(0.0..=1.0).contains(&q) {
        return None;
    }
    let rank = q * n;
    let (mut below, mut lower) = (0.0, 0.0);
    for (&upper, &count) in bounds.iter().zip(counts) {
        let count = float(count);
        if count > 0.0 && below + count >= rank {
            return Some(lower + (upper - lower) * (rank - below) / count);
        }
        (below, lower) = (below + count, upper);
    }
    bounds.last().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_computed_by_hand() {
        let bounds = [1.0, 2.0, 4.0];
        assert_eq!(quantile(0.5, &bounds, &[10, 10, 0, 0]), Some(1.0));
        assert_eq!(quantile(0.75, &bounds, &[10, 10, 0, 0]), Some(1.5));
        assert_eq!(quantile(0.9, &bounds, &[0, 5, 5, 0]), Some(3.6));
        assert_eq!(quantile(0.99, &bounds, &[0, 1, 0, 9]), Some(4.0));
        assert_eq!(quantile(0.0, &bounds, &[0, 3, 0, 0]), Some(1.0));
    }

    #[test]
    fn histograms_without_values_have_no_quantile() {
        assert_eq!(quantile(0.5, &[1.0], &[0, 0]), None);
        assert_eq!(quantile(0.5, &[1.0], &[1]), None);
        assert_eq!(quantile(1.5, &[1.0], &[1, 0]), None);
        assert_eq!(quantile(0.5, &[], &[1]), None);
    }
}
