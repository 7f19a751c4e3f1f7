//! Expected accuracy of the predictions in a window ([`spinfer_statistics::expected_accuracy`]), and
//! the accuracy once labels are known.

use serde::{Deserialize, Serialize};

use super::baseline::{Baseline, Bins};
use super::layout::Slots;
use super::window::WindowSnapshot;
use crate::prediction_log::quality::ClassificationResults;

/// Performance of a classifier, with and without labels.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Performance {
    /// Number of predictions in the window with all probabilities.
    pub n: u64,
    /// Expected accuracy of these predictions; `None` without any.
    pub expected_accuracy: Option<f64>,
    /// Standard error of the expected accuracy.
    pub standard_error: Option<f64>,
    /// Accuracy on the reference data.
    pub baseline_accuracy: f64,
    /// Number of predictions in the log with a label, of any time, and the accuracy of these.
    pub labelled: u64,
    pub accuracy: Option<f64>,
    pub classes: Vec<String>,
    /// Expected shares of predictions: a row for each predicted class, a column for each actual one.
    pub expected_confusion: Vec<Vec<f64>>,
}

impl Performance {
    /// `None` without a calibration in the baseline.
    pub(super) fn new(
        baseline: &Baseline,
        slots: &Slots,
        snapshot: &WindowSnapshot,
    ) -> Option<Self> {
        let (calibrated, range) = baseline.calibration.as_ref().zip(slots.confusion.as_ref())?;
        let Bins::Category(categories) = &baseline.fields[calibrated.class].bins else {
            return None;
        };
        let cells = snapshot.sums.get(range.first..)?.chunks_exact(range.classes);
        let cells: Vec<&[f64]> = cells.take(range.classes).collect();
        // The probabilities of a row sum to 1.
        let sum: f64 = cells.iter().flat_map(|row| row.iter()).sum();
        let correct: f64 = cells.iter().enumerate().map(|(class, row)| row[class]).sum();
        let share = |value: f64| if sum > 0.0 { value / sum } else { 0.0 };
        let effective = snapshot.effective(range.rows..range.rows + 1);
        Some(Self {
            n: snapshot.counts.get(range.rows).copied().unwrap_or_default(),
            expected_accuracy: (sum > 0.0).then(|| share(correct)),
            standard_error: calibrated.calibration.standard_error(effective),
            baseline_accuracy: calibrated.calibration.accuracy,
            labelled: 0,
            accuracy: None,
            classes: categories.shown.clone(),
            expected_confusion: cells
                .iter()
                .map(|row| row.iter().map(|&cell| share(cell)).collect())
                .collect(),
        })
    }

    /// Adds the accuracy of predictions with labels.
    pub(super) fn add_labels<'a>(
        &mut self,
        results: impl Iterator<Item = &'a ClassificationResults>,
    ) {
        let (mut labelled, mut correct) = (0, 0.0);
        for ClassificationResults { n, accuracy, .. } in results {
            labelled += n;
            #[expect(clippy::cast_precision_loss, reason = "records are far below 2^53")]
            let n = *n as f64;
            correct += n * accuracy.unwrap_or_default();
        }
        #[expect(clippy::cast_precision_loss, reason = "records are far below 2^53")]
        let of = labelled as f64;
        (self.labelled, self.accuracy) = (labelled, (labelled > 0).then(|| correct / of));
    }
}
