//! Whether two shares differ: of values that are missing, of a class.
//!
//! Where at least [`MIN_EXPECTED`] are expected in each of the four cells, the z-test of two
//! proportions with a pooled variance, two-sided, without a correction for continuity: the same as
//! the chi-squared test of the two-by-two table. Where fewer are, Fisher's exact test (Fisher 1935):
//! one missing value among 200 where the reference had none of a million is not a z of 70.

use statrs::function::factorial::ln_binomial;

use crate::chi_squared::{MIN_EXPECTED, homogeneity};
use crate::float;

/// `count` of `of`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    pub count: u64,
    pub of: u64,
}

impl Share {
    /// Between 0 and 1; 0 of nothing.
    #[must_use]
    pub fn value(self) -> f64 {
        if self.of == 0 { 0.0 } else { float(self.count.min(self.of)) / float(self.of) }
    }

    fn others(self) -> Option<u64> {
        self.of.checked_sub(self.count)
    }
}

/// How likely shares that differ as much are if they are one. `None` if one is of nothing, or of more
/// than there is.
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

/// Probabilities this close are taken for the same: the sum is over tables that are as likely as the
/// one observed or less, and equal ones differ in the last digits.
const SAME: f64 = 1e-7;

/// Fisher's exact test, two-sided: the probability, with the margins given, of all tables that are no
/// likelier than this one.
#[must_use]
pub fn fisher(a: Share, b: Share) -> Option<f64> {
    let (a_others, b_others) = (a.others()?, b.others()?);
    // Transposed where it has fewer terms: the sum runs over what the smaller margin can hold.
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
    let observed = ln_probability(a.count) + SAME;
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
    fn as_computed_by_hand() {
        // Of two and two, both of one side: 1 / C(4, 2), and the other way round.
        assert!((p_value(share(2, 2), share(0, 2)).unwrap() - 1.0 / 3.0).abs() < 1e-12);
        // z = (0.6 - 0.4) / sqrt(0.5 * 0.5 * 2 / 100) = 2.8284.
        let found = p_value(share(60, 100), share(40, 100)).unwrap();
        assert!((found - 0.004_677_734_981_047_265).abs() < 1e-12, "{found}");
    }

    #[test]
    fn nothing_in_either_is_no_difference() {
        assert_eq!(p_value(share(0, 9), share(0, 4)), Some(1.0));
        assert_eq!(p_value(share(9, 9), share(4, 4)), Some(1.0));
        assert_eq!(p_value(share(0, 0), share(1, 4)), None);
        assert_eq!(p_value(share(5, 4), share(1, 4)), None);
    }

    #[test]
    fn a_first_missing_value_is_not_certain_to_be_drift() {
        let found = p_value(share(0, 1_000_000), share(1, 200)).unwrap();
        assert!((1e-4..3e-4).contains(&found), "{found}");
        assert!(p_value(share(0, 120), share(1, 1_000)).unwrap() > 0.5);
    }

    proptest! {
        #[test]
        fn symmetric_and_bounded(a in 0_u64..3_000, b in 0_u64..3_000, more in (0_u64..3_000, 0_u64..3_000)) {
            let (a, b) = (share(a, a + more.0), share(b, b + more.1));
            if let Some(found) = p_value(a, b) {
                prop_assert!((0.0..=1.0).contains(&found));
                prop_assert!((found - p_value(b, a).unwrap()).abs() < 1e-9);
            }
        }
    }
}
