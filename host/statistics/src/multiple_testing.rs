//! Correction for multiple tests: with 100 features and no drift, one p-value below 0.01 is
//! expected.
//!
//! Holm's step-down procedure (Holm 1979, "A simple sequentially rejective multiple test
//! procedure", Scandinavian Journal of Statistics 6) keeps the probability of any false alarm at
//! most alpha, for any dependence of the tests: probabilities of classes sum to 1, and features are
//! rarely independent. It rejects every hypothesis that Bonferroni's correction rejects, and more.

/// Corrects p-values, so that each may be compared with alpha. The i-th smallest of `k` (from 0) is
/// multiplied by `k - i`, and is at least the one before it. NaN counts as 1.
#[must_use]
pub fn holm(p_values: &[f64]) -> Vec<f64> {
    let p_values: Vec<f64> = p_values.iter().map(|&p| if p.is_nan() { 1.0 } else { p }).collect();
    let mut order: Vec<usize> = (0..p_values.len()).collect();
    order.sort_by(|&a, &b| p_values[a].total_cmp(&p_values[b]));
    let mut corrected = vec![1.0; p_values.len()];
    let mut minimum = 0.0_f64;
    for (rank, &index) in order.iter().enumerate() {
        let remaining = crate::float((p_values.len() - rank) as u64);
        minimum = minimum.max((p_values[index] * remaining).clamp(0.0, 1.0));
        corrected[index] = minimum;
    }
    corrected
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn corrections_are_those_computed_by_hand() {
        // 0.01 * 4; 0.02 * 3 = 0.06; 0.03 * 2 = 0.06; 0.05 * 1, at least the one before.
        let corrected = holm(&[0.05, 0.01, 0.03, 0.02]);
        for (found, expected) in corrected.iter().zip([0.06, 0.04, 0.06, 0.06]) {
            assert!((found - expected).abs() < 1e-15, "{corrected:?}");
        }
        assert_eq!(holm(&[]), [0.0; 0]);
        assert_eq!(holm(&[f64::NAN, 0.5, 2.0]), [1.0, 1.0, 1.0]);
    }

    proptest! {
        #[test]
        fn corrections_are_between_the_p_value_and_bonferronis(p_values in prop::collection::vec(0.0..=1.0, 0..50)) {
            let bonferroni = p_values.len() as f64;
            for (found, p) in holm(&p_values).into_iter().zip(&p_values) {
                prop_assert!(found >= *p && found <= (p * bonferroni).min(1.0) + 1e-12);
            }
        }
    }
}
