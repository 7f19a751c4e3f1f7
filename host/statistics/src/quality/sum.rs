//! Sums without accumulating rounding errors, means and ratios.

/// A sum of floating-point numbers with its rounding error (Neumaier 1974, "Rundungsfehleranalyse
/// einiger Verfahren zur Summation endlicher Summen", ZAMM 54), which does not drift over millions of
/// additions and removals.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Sum {
    sum: f64,
    compensation: f64,
}

impl Sum {
    pub(super) fn add(&mut self, value: f64) {
        let total = self.sum + value;
        self.compensation += if self.sum.abs() >= value.abs() {
            (self.sum - total) + value
        } else {
            (value - total) + self.sum
        };
        self.sum = total;
    }

    pub(super) fn value(self) -> f64 {
        self.sum + self.compensation
    }
}

/// `sum / n`; `None` without observations.
#[expect(clippy::cast_precision_loss, reason = "a mean: exact up to 2^53 observations")]
pub(super) fn mean(sum: Sum, n: u64) -> Option<f64> {
    (n > 0).then(|| sum.value() / n as f64)
}

/// `part / of`; `None` if `of` is 0.
#[expect(clippy::cast_precision_loss, reason = "a ratio: exact up to 2^53 observations")]
pub(super) fn ratio(part: u64, of: u64) -> Option<f64> {
    (of > 0).then(|| part as f64 / of as f64)
}
