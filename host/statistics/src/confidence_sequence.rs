//! Confidence sequences: intervals that hold at every sample size at once, so that they may be
//! looked at after each observation, and the experiment ended whenever the result pleases.
//!
//! The asymptotic Gaussian-mixture confidence sequence of Waudby-Smith, Arbour, Sinha, Kennedy and
//! Ramdas (2024), "Time-uniform central limit theory and asymptotic confidence sequences", Annals of
//! Statistics 52, theorem 2.2. After `n` observations with mean `m` and standard deviation `s`:
//!
//! ```text
//! m ± s · sqrt( 2 (n ρ² + 1) / (n² ρ²) · ln( sqrt(n ρ² + 1) / α ) )
//! ```
//!
//! Its half width is [`Boundary::factor`] standard errors `s / sqrt(n)`. For the difference of the
//! means of two arms the standard error is `sqrt(s₀² / n₀ + s₁² / n₁)`, and `n` is the time in which
//! information accumulates (the paper's sequences for variances that change, under martingale
//! dependence): a sum is a Brownian motion in its own variance, so `n` has to grow as that does. With
//! `n₀ n₁ / (n₀ + n₁)` as the weight of a stratum's difference it grows as the sum of the weights,
//! whatever earlier outcomes made of the allocations. Times 4, that is `n₀ + n₁` for equal arms.
//!
//! What is guaranteed: the probability that the interval ever misses the true difference, at any
//! sample size from a first look at `m` units on, tends to at most `α` as `m` grows. The
//! observations need a finite variance, and are independent: one for each unit. It is a central
//! limit theorem, so `m`, the minimum sample, has to be large enough for the data. The simulations in
//! `tests/simulations.rs` measure what is.

use serde::{Deserialize, Serialize};

/// A confidence sequence's width: how many standard errors after how many observations.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Boundary {
    alpha: f64,
    /// `ρ²`, in 1 / observations.
    mixture: f64,
}

/// An interval around an estimate.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    pub estimate: f64,
    pub lower: f64,
    pub upper: f64,
}

impl Boundary {
    /// The boundary of the level `alpha` that is narrowest at `n` observations. `None` unless
    /// `alpha` is between 0 and 1, and `n` positive.
    ///
    /// The minimum of the width over `ρ` is at `n ρ² = -W₋₁(-α² / e) - 1` (appendix B.2 of the
    /// paper), where `w = n ρ² + 1` solves `w - ln w = 1 - 2 ln α`.
    #[must_use]
    pub fn narrowest_at(n: f64, alpha: f64) -> Option<Self> {
        if !(alpha > 0.0 && alpha < 1.0 && n > 0.0 && n.is_finite()) {
            return None;
        }
        let target = 1.0 - 2.0 * alpha.ln();
        // The left side is convex and grows beyond 1, so Newton's method converges from above.
        let mut w = 2.0 * target;
        for _ in 0..64 {
            w -= (w - w.ln() - target) / (1.0 - 1.0 / w);
        }
        let mixture = (w - 1.0) / n;
        // Not for a size near 0, nor for a level so near 1 that the logarithms cancel.
        (mixture > 0.0 && mixture.is_finite()).then_some(Self { alpha, mixture })
    }

    /// `ρ²`.
    #[must_use]
    pub fn mixture(&self) -> f64 {
        self.mixture
    }

    /// Half the width of the interval after `n` observations, in standard errors.
    #[must_use]
    pub fn factor(&self, n: f64) -> f64 {
        let scaled = n * self.mixture;
        let w = scaled + 1.0;
        (2.0 * w / scaled * (0.5 * w.ln() - self.alpha.ln())).sqrt()
    }

    /// The interval around `estimate`, which has the squared standard error `variance`, after `n`
    /// observations. `None` if it is not finite.
    #[must_use]
    pub fn interval(&self, estimate: f64, variance: f64, n: f64) -> Option<Interval> {
        let half = self.factor(n) * variance.sqrt();
        let finite = estimate.is_finite() && half.is_finite() && n > 0.0;
        finite.then_some(Interval { estimate, lower: estimate - half, upper: estimate + half })
    }
}

impl Interval {
    /// The largest absolute value in the interval.
    #[must_use]
    pub fn bound(&self) -> f64 {
        self.lower.abs().max(self.upper.abs())
    }

    /// The interval of the negated estimate.
    #[must_use]
    pub fn negated(&self) -> Self {
        Self { estimate: -self.estimate, lower: -self.upper, upper: -self.lower }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn levels_and_sizes_that_are_none_have_no_boundary() {
        for (n, alpha) in [
            (0.0, 0.05),
            (f64::NAN, 0.05),
            (f64::MIN_POSITIVE / 1e10, 0.05),
            (100.0, 0.0),
            (100.0, 1.0),
            (100.0, f64::NAN),
        ] {
            assert_eq!(Boundary::narrowest_at(n, alpha), None);
        }
        let boundary = Boundary::narrowest_at(100.0, 0.05).unwrap();
        assert_eq!(boundary.interval(f64::NAN, 1.0, 10.0), None);
        assert_eq!(boundary.interval(0.0, 1.0, 0.0), None);
    }

    proptest! {
        #[test]
        fn the_boundary_is_narrowest_where_it_is_tuned(n in 10.0..1e6, alpha in 0.0001..0.5) {
            let tuned = Boundary::narrowest_at(n, alpha).unwrap();
            for other in [0.5, 0.9, 1.1, 2.0] {
                let other = Boundary::narrowest_at(n * other, alpha).unwrap();
                prop_assert!(tuned.factor(n) <= other.factor(n) + 1e-12);
            }
        }
    }
}
