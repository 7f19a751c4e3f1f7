//! p-values that are valid at every look, at any number of looks and of fields.
//!
//! Evidence ([`crate::evidence`]) is counted from a start. New starts are needed, as a change
//! would be diluted by the records before it. Each start `k` spends a share [`ln_spent`] of `alpha`;
//! the shares of all starts that will ever be sum to 1, so that the probability of any false alarm,
//! ever, is at most `alpha` (Bonferroni 1936; the sequence is that of Robbins and Siegmund 1970,
//! "Boundary crossing probabilities for the Wiener process and sample sums"). A start `k` needs
//! about `ln k` more evidence than the first: the millionth needs three times the evidence of the
//! first at alpha 0.01, and about three times the records.
//!
//! Fields are corrected by closed testing with means of evidence ([`corrected`]), which is valid
//! for any dependence of the fields.

use crate::evidence::ln_sum;
use crate::float;

/// `sum 1 / (j ln^2 j)` from 2 is 2.1097...
const SERIES: f64 = 2.11;

/// The logarithm of the share of alpha that the start number `start`, from 1, spends.
#[must_use]
pub fn ln_spent(start: u64) -> f64 {
    let j = float(start.max(1)) + 1.0;
    -(SERIES * j * j.ln().powi(2)).ln()
}

/// Corrects evidence, given and returned as logarithms, for the number of fields: that of a field
/// is the smallest mean of the evidence of any set of fields with this one (Vovk and Wang 2021,
/// "E-values: Calibration, combination and applications", Annals of Statistics 49, algorithm 1).
#[must_use]
pub fn corrected(ln_evidence: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..ln_evidence.len()).collect();
    order.sort_by(|&a, &b| ln_evidence[a].total_cmp(&ln_evidence[b]));
    let mut corrected = vec![0.0; ln_evidence.len()];
    for (rank, &index) in order.iter().enumerate() {
        // A smaller one lowers the mean while it is below it.
        let (mut ln_total, mut ln_mean, mut size) = (ln_evidence[index], ln_evidence[index], 1);
        for &other in &order[..rank] {
            if ln_evidence[other] >= ln_mean {
                break;
            }
            ln_total = ln_sum([ln_total, ln_evidence[other]]);
            size += 1;
            ln_mean = ln_total - float(size).ln();
        }
        corrected[index] = ln_mean;
    }
    corrected
}

/// The p-value of corrected evidence that is counted from the start number `start`: at most 1.
#[must_use]
pub fn p_value(ln_corrected: f64, start: u64) -> f64 {
    (-(ln_corrected + ln_spent(start))).exp().min(1.0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn shares_of_all_starts_sum_to_at_most_1() {
        let some: f64 = (1..2_000_000).map(|start| ln_spent(start).exp()).sum();
        // The rest is at most the integral, 1 / ln.
        let rest = 1.0 / (SERIES * 2e6_f64.ln());
        assert!((0.99..1.0).contains(&(some + rest)), "{some} {rest}");
        assert!(ln_spent(0) == ln_spent(1) && ln_spent(1) > ln_spent(2));
    }

    #[test]
    fn corrections_are_those_computed_by_hand() {
        let corrected = |evidence: &[f64]| -> Vec<f64> {
            let ln: Vec<f64> = evidence.iter().map(|e| e.ln()).collect();
            corrected(&ln).into_iter().map(f64::exp).collect()
        };
        let same = |found: Vec<f64>, expected: &[f64]| {
            assert_eq!(found.len(), expected.len());
            for (found, expected) in found.iter().zip(expected) {
                assert!((found - expected).abs() < 1e-9, "{found} {expected}");
            }
        };
        // 100 with both others: 102 / 3. 1.5 with 0.5: 1. The smallest alone.
        same(corrected(&[100.0, 0.5, 1.5]), &[34.0, 0.5, 1.0]);
        // 8 with 2 is 5; the 7 would raise it.
        same(corrected(&[2.0, 8.0, 7.0]), &[2.0, 5.0, 4.5]);
        same(corrected(&[]), &[]);
        same(corrected(&[3.0]), &[3.0]);
    }

    proptest! {
        #[test]
        fn a_correction_is_the_smallest_mean_of_a_set_with_the_field(
            evidence in prop::collection::vec(0.01_f64..50.0, 1..9),
        ) {
            let ln: Vec<f64> = evidence.iter().map(|e| e.ln()).collect();
            for (index, found) in corrected(&ln).into_iter().enumerate() {
                let smallest = (0_u32..1 << evidence.len())
                    .filter(|set| set & (1 << index) != 0)
                    .map(|set| {
                        let members = (0..evidence.len()).filter(|&i| set & (1 << i) != 0);
                        members.map(|i| evidence[i]).sum::<f64>() / f64::from(set.count_ones())
                    })
                    .fold(f64::INFINITY, f64::min);
                prop_assert!((found.exp() - smallest).abs() < 1e-9, "{found} {smallest}");
            }
        }
    }
}
