//! Tests whether two shares differ: of missing values, of a class.
//!
//! - If at least [`MIN_EXPECTED`] are expected in each of the four cells: the two-sided z-test of
//!   two proportions with pooled variance and without a continuity correction, which is the
//!   chi-squared test of the two-by-two table.
//! - Otherwise: Fisher's exact test (Fisher 1935). The z-test would have a z of 70 for one missing
//!   value of 200 where the reference has none of a million.

use statrs::function::factorial::ln_binomial;

use crate::chi_squared::{MIN_EXPECTED, homogeneity};
use crate::float;

/// A share: `count` of `of`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    pub count: u64,
    pub of: u64,
}

impl Share {
    /// The share, from 0 to 1; 0 if `of` is 0.
    #[must_use]
    pub fn value(self) -> f64 {
        if self.of == 0 { 0.0 } else { float(self.count.min(self.of)) / float(self.of) }
    }

    fn others(self) -> Option<u64> {
        self.of.checked_sub(self.count)
    }
}

/// The probability of shares that differ at least as much if both are samples of one. `None` if
/// `of` is 0 or less than `count`.
#[must_use]
pub fn p_value(a: Share, b: Share) -> Option<f64> {
    let (a_others, b_others) = (a.others()?, b.others()?);
    if a.of == 0 || b.of == 0 {
        return None;
    }
    let (count, others) = (a.count.checked_add(b.count)?, a_others.checked_add(b_others)?);
    if count == 0 || others == 0 {
        return Some(1.0);
    }
    let least = float(a.of.min(b.of)) * float(count.min(others)) / (float(a.of) + float(b.of));
    if least < MIN_EXPECTED {
        return fisher(a, b);
    }
    homogeneity(&[a.count, a_others], &[b.count, b_others]).map(|test| test.p_value)
}

/// Maximum difference of the logarithms of equal probabilities. The sum is over tables that are at
/// most as likely as the observed one, and equal ones differ in the last digits.
const TOLERANCE: f64 = 1e-7;

/// Fisher's exact test, two-sided: the probability of all tables with the same margins that are at
/// most as likely as this one.
#[must_use]
pub fn fisher(a: Share, b: Share) -> Option<f64> {
    let (a_others, b_others) = (a.others()?, b.others()?);
    // Transposed if the sum, over the smaller margin, has fewer terms then.
    let (a, b) = if a_others.checked_add(b_others)? < a.count.checked_add(b.count)? {
        (Share { count: a_others, ..a }, Share { count: b_others, ..b })
    } else {
        (a, b)
    };
    let count = a.count + b.count;
    let all = a.of.checked_add(b.of)?;
    let whole = ln_binomial(all, count);
    let ln_probability =
        |of_a: u64| ln_binomial(a.of, of_a) + ln_binomial(b.of, count - of_a) - whole;
    let observed = ln_probability(a.count) + TOLERANCE;
    let possible = count.saturating_sub(b.of)..=count.min(a.of);
    let unlikely = possible.map(ln_probability).filter(|&other| other <= observed);
    Some(unlikely.map(f64::exp).sum::<f64>().min(1.0))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn share(count: u64, of: u64) -> Share {
        Share { count, of }
    }

    #[test]
    fn p_values_are_those_computed_by_hand() {
        // Both of two against none of two: 1 / C(4, 2), and as much for the reverse.
        assert!((p_value(share(2, 2), share(0, 2)).unwrap() - 1.0 / 3.0).abs() < 1e-12);
        // z = (0.6 - 0.4) / sqrt(0.5 * 0.5 * 2 / 100) = 2.8284.
        let found = p_value(share(60, 100), share(40, 100)).unwrap();
        assert!((found - 0.004_677_734_981_047_265).abs() < 1e-12, "{found}");
    }

    #[test]
    fn equal_extreme_shares_do_not_differ() {
        assert_eq!(p_value(share(0, 9), share(0, 4)), Some(1.0));
        assert_eq!(p_value(share(9, 9), share(4, 4)), Some(1.0));
        assert_eq!(p_value(share(0, 0), share(1, 4)), None);
        assert_eq!(p_value(share(5, 4), share(1, 4)), None);
    }

    #[test]
    fn a_first_missing_value_is_not_certainly_drift() {
        let found = p_value(share(0, 1_000_000), share(1, 200)).unwrap();
        assert!((1e-4..3e-4).contains(&found), "{found}");
        assert!(p_value(share(0, 120), share(1, 1_000)).unwrap() > 0.5);
    }

    proptest! {
        #[test]
        fn the_p_value_is_symmetric_and_bounded(a in 0_u64..3_000, b in 0_u64..3_000, more in (0_u64..3_000, 0_u64..3_000)) {
            let (a, b) = (share(a, a + more.0), share(b, b + more.1));
            if let Some(found) = p_value(a, b) {
                prop_assert!((0.0..=1.0).contains(&found));
                prop_assert!((found - p_value(b, a).unwrap()).abs() < 1e-9);
            }
        }
    }
}
