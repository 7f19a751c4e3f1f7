//! Alarms of the fields of one model version: which counts are looked at, what that spends, and
//! when an alarm is raised and cleared.
//!
//! The window is a sequence of parts. Evidence is counted from the start of a part to now; the
//! starts looked at are those of the last 1, 2, 4, 8 ... parts and of the whole window, so that a
//! change is found soon whatever its time and size. A start gets its number, and with it its share
//! of alpha ([`crate::anytime`]), when it is first looked at: windows that are never looked at
//! spend nothing.

use crate::anytime::{corrected, p_value};
use crate::evidence::{CountEvidence, ln_sum};

/// p-value from which on an alarm is cleared: no start in the window has any evidence. Between
/// alpha and this an alarm is unchanged.
const CLEARED: f64 = 1.0;

/// The counts of one field.
#[derive(Clone, Copy, Debug)]
pub struct FieldCounts<'a> {
    /// Values in each bin of the reference.
    pub bins: &'a [u64],
    pub missing: u64,
    /// Values of categories that the reference lacks.
    pub unseen: u64,
}

/// The evidence of a field's counts: of the shares of its bins, and of the shares of missing and
/// of unseen values.
#[derive(Clone, Debug)]
pub struct FieldEvidence {
    bins: CountEvidence,
    missing: CountEvidence,
    /// For categories.
    unseen: Option<CountEvidence>,
}

impl FieldEvidence {
    /// For numbers, whose bins are between quantiles.
    #[must_use]
    pub fn numbers(bins: &[u64], missing: u64) -> Self {
        let missing = CountEvidence::unordered(&[sum(bins), missing]);
        Self { bins: CountEvidence::ordered(bins), missing, unseen: None }
    }

    #[must_use]
    pub fn categories(bins: &[u64], missing: u64) -> Self {
        let present = sum(bins);
        let missing = CountEvidence::unordered(&[present, missing]);
        // None of the reference values is unseen.
        let unseen = Some(CountEvidence::unordered(&[present, 0]));
        Self { bins: CountEvidence::unordered(bins), missing, unseen }
    }

    /// Whether its counts are of categories, and so have unseen ones.
    #[must_use]
    pub fn is_of_categories(&self) -> bool {
        self.unseen.is_some()
    }

    /// The logarithm of the evidence against "nothing has changed in this field": a mean of that of
    /// its parts, of which the bins have half of the weight.
    #[must_use]
    pub fn ln(&self, counts: &FieldCounts<'_>) -> f64 {
        let Self { bins, missing, unseen } = self;
        let seen = sum(counts.bins);
        let of_bins = bins.ln(counts.bins) + 0.5_f64.ln();
        let of_missing = missing.ln(&[seen.saturating_add(counts.unseen), counts.missing]);
        match unseen {
            None => ln_sum([of_bins, of_missing + 0.5_f64.ln()]),
            Some(unseen) => {
                let of_unseen = unseen.ln(&[seen, counts.unseen]);
                ln_sum([of_bins, of_missing + 0.25_f64.ln(), of_unseen + 0.25_f64.ln()])
            }
        }
    }
}

/// The sum of counts, which may be those of a file that another program has written.
fn sum(counts: &[u64]) -> u64 {
    counts.iter().fold(0, |sum, &count| sum.saturating_add(count))
}

/// For each start to look at: the number of the last parts that it covers, the most first.
pub fn covered(parts: usize) -> impl Iterator<Item = usize> {
    let powers = (0..usize::BITS).rev().map(|power| 1_usize << power);
    std::iter::once(parts)
        .chain(powers.filter(move |&covered| covered < parts))
        .filter(|&covered| covered > 0)
}

/// The logarithms of the evidence of all fields from one start.
#[derive(Clone, Debug)]
pub struct StartEvidence {
    /// Number of the start, from 1.
    pub start: u64,
    pub ln: Vec<f64>,
}

/// The p-value of each of `fields` fields: the smallest of all starts. It is valid for all fields
/// together, and for any number of looks.
#[must_use]
pub fn p_values(starts: &[StartEvidence], fields: usize) -> Vec<f64> {
    let mut smallest = vec![1.0_f64; fields];
    for StartEvidence { start, ln } in starts {
        for (smallest, ln) in smallest.iter_mut().zip(corrected(ln)) {
            *smallest = smallest.min(p_value(ln, *start));
        }
    }
    smallest
}

/// Whether there is an alarm after a look with this `p_value`, given whether there was one.
#[must_use]
pub fn is_raised(before: bool, p_value: f64, alpha: f64) -> bool {
    p_value < alpha || before && p_value < CLEARED
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_window_and_its_last_parts_are_looked_at() {
        let all = |parts| covered(parts).collect::<Vec<_>>();
        assert_eq!(all(0), [0; 0]);
        assert_eq!(all(1), [1]);
        assert_eq!(all(4), [4, 2, 1]);
        assert_eq!(all(20), [20, 16, 8, 4, 2, 1]);
    }

    #[test]
    fn alarm_is_raised_below_alpha_and_cleared_without_evidence() {
        let mut raised = false;
        let states = [0.5, 0.009, 0.2, 0.9, 1.0, 0.5].map(|p_value| {
            raised = is_raised(raised, p_value, 0.01);
            raised
        });
        assert_eq!(states, [false, true, true, true, false, false]);
    }

    #[test]
    fn bins_missing_and_unseen_values_each_are_evidence() {
        let field = FieldEvidence::categories(&[500, 400, 100], 0);
        let ln = |bins: &[u64], missing, unseen| field.ln(&FieldCounts { bins, missing, unseen });
        assert!(ln(&[50, 40, 10], 0, 0) < 0.0);
        assert!(ln(&[100, 80, 100], 0, 0) > 10.0);
        assert!(ln(&[50, 40, 10], 10, 0) > 10.0);
        assert!(ln(&[50, 40, 10], 0, 10) > 10.0);
        assert_eq!(ln(&[0, 0, 0], 0, 0), 0.0);
        // Rule of three: of 1000 without any, one of 100 is no surprise.
        assert!(ln(&[50, 40, 9], 0, 1) < 1.0);
        // No sum of these is a count, and none overflows.
        let vast = FieldEvidence::categories(&[u64::MAX, u64::MAX], u64::MAX);
        let counts = FieldCounts { bins: &[u64::MAX, 1], missing: 1, unseen: u64::MAX };
        assert_eq!(vast.ln(&counts), 0.0);
        let numbers = FieldEvidence::numbers(&[10; 10], 0);
        assert!(numbers.ln(&FieldCounts { bins: &[0; 10], missing: 50, unseen: 0 }) > 10.0);
    }

    #[test]
    fn p_value_is_that_of_the_start_with_the_most_evidence() {
        let ln = |evidence: f64| evidence.ln();
        let starts = [
            StartEvidence { start: 1, ln: vec![ln(1.0), ln(1.0)] },
            StartEvidence { start: 5, ln: vec![ln(99_999.0), ln(1.0)] },
        ];
        let [first, second] = p_values(&starts, 2)[..] else { panic!() };
        // (99,999 + 1) / 2, and 1 / (2.11 * 6 ln(6)^2).
        assert!((first - 2.11 * 6.0 * 6_f64.ln().powi(2) / 50_000.0).abs() < 1e-12, "{first}");
        assert_eq!((second, p_values(&[], 1)), (1.0, vec![1.0]));
    }
}
