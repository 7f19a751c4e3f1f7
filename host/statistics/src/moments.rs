//! Count, means, and sums of squares and products of pairs, which can be merged: what several nodes
//! know of one variant is exactly what one node would know of all its units.
//!
//! The updates are those of Welford (1962) and of Chan, Golub and LeVeque (1979), "Updating formulae
//! and a pairwise algorithm for computing sample variances", which do not cancel.

use serde::{Deserialize, Serialize};

use crate::float;

/// Moments of pairs of a value and a companion: a covariate, or the size of the unit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PairMoments {
    /// Number of pairs.
    pub n: u64,
    pub mean_value: f64,
    pub mean_companion: f64,
    /// Sum of the squared deviations of the values from their mean.
    pub value_squares: f64,
    /// Sum of the squared deviations of the companions from their mean.
    pub companion_squares: f64,
    /// Sum of the products of both deviations.
    pub products: f64,
}

impl PairMoments {
    /// Adds a pair.
    pub fn add(&mut self, value: f64, companion: f64) {
        let one = Self { n: 1, mean_value: value, mean_companion: companion, ..Self::default() };
        *self = self.merged(&one);
    }

    /// The moments of both samples together.
    #[must_use]
    pub fn merged(&self, other: &Self) -> Self {
        let n = self.n.saturating_add(other.n);
        if other.n == 0 {
            return *self;
        }
        if self.n == 0 {
            return *other;
        }
        let share = float(other.n) / float(n);
        let weight = float(self.n) * share;
        let value = other.mean_value - self.mean_value;
        let companion = other.mean_companion - self.mean_companion;
        Self {
            n,
            mean_value: self.mean_value + value * share,
            mean_companion: self.mean_companion + companion * share,
            value_squares: self.value_squares + other.value_squares + value * value * weight,
            companion_squares: self.companion_squares
                + other.companion_squares
                + companion * companion * weight,
            products: self.products + other.products + value * companion * weight,
        }
    }

    /// Whether every number is finite and no sum of squares is negative, as in what another node
    /// may have written.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        let Self { mean_value, mean_companion, value_squares, companion_squares, products, .. } =
            self;
        let all = [mean_value, mean_companion, value_squares, companion_squares, products];
        all.into_iter().all(|number| number.is_finite())
            && *value_squares >= 0.0
            && *companion_squares >= 0.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(pairs: &[(f64, f64)]) -> PairMoments {
        let mut moments = PairMoments::default();
        pairs.iter().for_each(|&(value, companion)| moments.add(value, companion));
        moments
    }

    #[test]
    fn moments_are_those_computed_by_hand() {
        let found = of(&[(1.0, 2.0), (3.0, 2.0), (5.0, 8.0)]);
        assert_eq!((found.n, found.mean_value, found.mean_companion), (3, 3.0, 4.0));
        assert_eq!((found.value_squares, found.companion_squares), (8.0, 24.0));
        assert_eq!(found.products, 12.0);
    }

    #[test]
    fn a_large_offset_does_not_cancel() {
        let found = of(&[(1e9 + 4.0, 0.0), (1e9 + 7.0, 0.0), (1e9 + 13.0, 0.0), (1e9 + 16.0, 0.0)]);
        assert!((found.value_squares - 90.0).abs() < 1e-6, "{found:?}");
    }

    #[test]
    fn moments_that_are_no_moments_are_invalid() {
        assert!(PairMoments::default().is_valid());
        assert!(!PairMoments { mean_value: f64::NAN, ..PairMoments::default() }.is_valid());
        assert!(!PairMoments { value_squares: -1.0, ..PairMoments::default() }.is_valid());
    }

    proptest! {
        #[test]
        fn merged_moments_are_those_of_the_union(
            pairs in prop::collection::vec((-100.0..100.0, -100.0..100.0), 0..60),
            at in 0.0..1.0,
        ) {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index")]
            let at = (at * pairs.len() as f64) as usize;
            let (a, b) = pairs.split_at(at);
            let (merged, whole) = (of(a).merged(&of(b)), of(&pairs));
            prop_assert_eq!(merged.n, whole.n);
            for (found, expected) in [
                (merged.mean_value, whole.mean_value),
                (merged.mean_companion, whole.mean_companion),
                (merged.value_squares, whole.value_squares),
                (merged.companion_squares, whole.companion_squares),
                (merged.products, whole.products),
            ] {
                prop_assert!((found - expected).abs() <= 1e-9 * expected.abs().max(1.0));
            }
        }
    }
}
