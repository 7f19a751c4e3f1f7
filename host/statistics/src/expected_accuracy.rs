//! Accuracy without labels: confidence-based performance estimation, as NannyML defines it
//! (<https://nannyml.readthedocs.io/en/stable/how_it_works/performance_estimation.html>).
//!
//! 1. Each class has a calibration, fitted on reference data with labels: the share of rows that
//!    are of the class, as a function of its probability ([`crate::isotonic`]).
//! 2. The calibrated probabilities of a row are divided by their sum; if that is 0, all are equal.
//! 3. The expected accuracy of rows is the mean of the probability of the predicted class. The
//!    expected confusion matrix has at (predicted, actual) the sum of the probability of the actual
//!    class over the rows with the prediction.
//! 4. Its standard error is that of the mean of as many rows of the reference:
//!    `sqrt(a (1 - a) / n)` with the accuracy `a` on the reference. If all of its `r` rows are
//!    right, or none, that would be 0, and certain of what `r` rows cannot show: `a` is then the
//!    mean of the posterior of Jeffreys' prior, `(r + 1/2) / (r + 1)` (Brown, Cai and DasGupta
//!    2001, "Interval estimation for a binomial proportion", Statistical Science 16). NannyML has
//!    0 here.
//!
//! The estimate is right if calibration still holds: if the inputs drift, but the relation of
//! inputs and labels does not. It cannot see a concept drift.

use serde::{Deserialize, Serialize};

use crate::float;
use crate::isotonic::Isotonic;

/// The calibration of a classifier, and its accuracy, on reference data with labels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// Number of rows with a label.
    pub rows: u64,
    /// Accuracy on these rows.
    pub accuracy: f64,
    /// For each class.
    pub classes: Vec<Isotonic>,
}

/// A row of the reference.
#[derive(Clone, Debug)]
pub struct LabelledRow {
    /// Probability of each class.
    pub probabilities: Vec<f64>,
    /// Index of the predicted class, and of the actual one.
    pub predicted: usize,
    pub actual: usize,
}

impl Calibration {
    /// Fits the calibration of `classes` classes. `None` without rows, or if a row has another
    /// number of probabilities, or one that is not finite.
    #[must_use]
    pub fn fit(rows: &[LabelledRow], classes: usize) -> Option<Self> {
        if rows.iter().any(|row| row.probabilities.len() != classes) {
            return None;
        }
        let fit = |class: usize| {
            let pair = |row: &LabelledRow| {
                (row.probabilities[class], f64::from(u8::from(row.actual == class)))
            };
            Isotonic::fit(&rows.iter().map(pair).collect::<Vec<_>>())
        };
        let fitted = (0..classes).map(fit).collect::<Option<Vec<_>>>()?;
        let correct = rows.iter().filter(|row| row.predicted == row.actual).count();
        let (correct, rows) = (correct as u64, rows.len() as u64);
        Some(Self { rows, accuracy: float(correct) / float(rows), classes: fitted })
    }

    /// Whether it is a calibration of `classes` classes: for one that was read from a file.
    #[must_use]
    pub fn is_valid(&self, classes: usize) -> bool {
        let Self { rows, accuracy, classes: fitted } = self;
        let valid = fitted.len() == classes && fitted.iter().all(Isotonic::is_valid);
        *rows > 0 && (0.0..=1.0).contains(accuracy) && valid
    }

    /// Calibrates the `probabilities` of a row, in place. False, without a change that is of use,
    /// if one is NaN or there is another number of classes.
    pub fn calibrate(&self, probabilities: &mut [f64]) -> bool {
        if probabilities.len() != self.classes.len() || probabilities.is_empty() {
            return false;
        }
        for (probability, class) in probabilities.iter_mut().zip(&self.classes) {
            *probability = class.at(*probability);
        }
        let sum: f64 = probabilities.iter().sum();
        let equal = 1.0 / float(probabilities.len() as u64);
        for probability in probabilities.iter_mut() {
            *probability = if sum == 0.0 { equal } else { *probability / sum };
        }
        sum.is_finite()
    }

    /// The standard error of the expected accuracy of `n` rows.
    #[must_use]
    pub fn standard_error(&self, n: f64) -> Option<f64> {
        let rows = float(self.rows);
        let accuracy = if self.accuracy > 0.0 && self.accuracy < 1.0 {
            self.accuracy
        } else {
            (self.accuracy * rows + 0.5) / (rows + 1.0)
        };
        let variance = accuracy * (1.0 - accuracy);
        (n > 0.0).then(|| (variance / n).sqrt())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(probabilities: &[f64], actual: usize) -> LabelledRow {
        let best = (0..probabilities.len())
            .max_by(|&a, &b| probabilities[a].total_cmp(&probabilities[b]))
            .unwrap();
        LabelledRow { probabilities: probabilities.into(), predicted: best, actual }
    }

    #[test]
    fn calibrated_probabilities_are_those_computed_by_hand() {
        // At 0.9 three of four are right, at 0.2 none is of the class.
        let rows = [
            row(&[0.9, 0.1], 0),
            row(&[0.9, 0.1], 0),
            row(&[0.9, 0.1], 0),
            row(&[0.9, 0.1], 1),
            row(&[0.2, 0.8], 1),
        ];
        let calibration = Calibration::fit(&rows, 2).unwrap();
        assert_eq!((calibration.rows, calibration.accuracy), (5, 0.8));
        let mut probabilities = [0.9, 0.1];
        assert!(calibration.calibrate(&mut probabilities));
        assert_eq!(probabilities, [0.75, 0.25]);
        let error = calibration.standard_error(16.0).unwrap();
        assert!((error - 0.1).abs() < 1e-12, "{error}");
        assert!(calibration.is_valid(2) && !calibration.is_valid(3));
    }

    #[test]
    fn reference_without_errors_leaves_an_error() {
        for actual in [0, 1] {
            let rows = vec![row(&[0.9, 0.1], actual); 9];
            let calibration = Calibration::fit(&rows, 2).unwrap();
            // 9.5 of 10.
            let error = calibration.standard_error(19.0).unwrap();
            assert!((error - 0.05).abs() < 1e-12, "{error}");
        }
    }

    #[test]
    fn rows_without_finite_probabilities_are_not_estimated() {
        assert_eq!(Calibration::fit(&[], 2), None);
        assert_eq!(Calibration::fit(&[row(&[0.5, 0.5], 0)], 3), None);
        let calibration =
            Calibration::fit(&[row(&[0.6, 0.2, 0.2], 1), row(&[0.5, 0.1, 0.4], 1)], 3).unwrap();
        assert!(!calibration.calibrate(&mut [f64::NAN, 0.5, 0.5]));
        assert!(!calibration.calibrate(&mut [0.5, 0.5]));
        assert_eq!(calibration.standard_error(0.0), None);
        let never =
            Calibration { classes: vec![Isotonic::fit(&[(0.5, 0.0)]).unwrap(); 2], ..calibration };
        let mut probabilities = [0.3, 0.7];
        assert!(never.calibrate(&mut probabilities) && probabilities == [0.5, 0.5]);
    }
}
