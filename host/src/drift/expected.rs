//! Expected accuracy of the predictions in a window ([`spinfer_statistics::expected_accuracy`]), and
//! the accuracy once labels are known.

use serde::{Deserialize, Serialize};

use super::baseline::{Baseline, Bins};
use super::layout::Slots;
use super::window::WindowSnapshot;
use crate::prediction_log::quality::{ClassificationResults, QualityGroup, Results};

/// Numbers of predictions with a label: sums, so that those of several hosts are added.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LabelCounts {
    labelled: u64,
    correct: u64,
}

impl LabelCounts {
    /// Those of a model version, of all its groups in the `quality`.
    pub(super) fn of(quality: &[(QualityGroup, Results)], model: &str, version: &str) -> Self {
        let groups = quality
            .iter()
            .filter(|(group, _)| group.model == model && group.version == version)
            .filter_map(|(_, results)| results.classification.as_ref());
        groups.fold(Self::default(), |sum, ClassificationResults { n, accuracy, .. }| {
            sum.plus(Self::with_accuracy(*n, accuracy.unwrap_or_default()))
        })
    }

    fn with_accuracy(labelled: u64, accuracy: f64) -> Self {
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "records are far below 2^53, and an accuracy is at least 0"
        )]
        let correct = (labelled as f64 * accuracy).round() as u64;
        Self { labelled, correct }
    }

    fn plus(self, other: Self) -> Self {
        Self {
            labelled: self.labelled.saturating_add(other.labelled),
            correct: self.correct.saturating_add(other.correct),
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "records are far below 2^53")]
    fn accuracy(self) -> Option<f64> {
        (self.labelled > 0).then(|| self.correct as f64 / self.labelled as f64)
    }
}

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

    /// Adds predictions with labels, of one host.
    pub(super) fn add_labels(&mut self, counts: LabelCounts) {
        let before = LabelCounts::with_accuracy(self.labelled, self.accuracy.unwrap_or_default());
        let all = before.plus(counts);
        (self.labelled, self.accuracy) = (all.labelled, all.accuracy());
    }
}
