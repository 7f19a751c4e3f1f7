//! Fits the calibration of a classifier on reference data with labels.

use anyhow::{Context, Result, bail, ensure};
use csv::StringRecord;
use spinfer_model_toml::ModelToml;
use spinfer_statistics::expected_accuracy::{Calibration, LabelledRow};

use super::columns::{is_missing, listed};
use super::run_graph::Numbers;
use crate::drift::baseline::CalibrationEntry;
use crate::drift::signature;
use crate::process::text::shortened;

/// The column of labels.
#[derive(Debug)]
pub(super) struct LabelColumn {
    name: String,
    /// Index of the column in the file.
    column: usize,
    /// Labels of the classes, as spelled in the file.
    classes: Vec<String>,
    /// Index of the class of each row that the graph ran on; `None` if it is missing.
    values: Vec<Option<usize>>,
}

impl LabelColumn {
    /// Finds the column `name`.
    pub(super) fn find(name: &str, header: &StringRecord, model: &ModelToml) -> Result<Self> {
        let column = header.iter().position(|other| other == name);
        let column = column.with_context(|| {
            format!("--label {name}: there is no such column; found {}", listed(header))
        })?;
        ensure!(
            model.labels.len() > 1,
            "--label {name}: the model has no classes: its model.toml has no `labels`. Accuracy can be \
             expected of classifiers only"
        );
        let (name, classes) = (name.to_owned(), model.labels.clone());
        Ok(Self { name, column, classes, values: Vec::new() })
    }

    /// Adds the label of a row that the graph runs on.
    pub(super) fn push(&mut self, record: &StringRecord) -> Result<()> {
        let Self { name, column, classes, values } = self;
        let cell = record.get(*column).unwrap_or_default();
        let class = classes.iter().position(|class| class == cell);
        // A class may be named as a missing value is.
        ensure!(
            class.is_some() || is_missing(cell),
            "the column `{name}`: `{}` is not a class; the classes are {}",
            shortened(cell),
            listed(classes)
        );
        values.push(class);
        Ok(())
    }

    /// The calibration on the rows whose label is present.
    pub(super) fn calibrate(
        &self,
        outputs: &[(String, Numbers)],
        model: &ModelToml,
    ) -> Result<CalibrationEntry> {
        let Self { name, classes, values, .. } = self;
        let labels = signature::classes(model);
        let class = model.outputs.iter().find_map(|output| {
            let (_, values) = outputs.iter().find(|(name, _)| *name == output.name)?;
            let Numbers::Integer(predicted) = values else { return None };
            Some((output.name.clone(), predicted))
        });
        let (class, predicted) = class.with_context(|| {
            format!("--label {name}: the graph has no output with one class per row")
        })?;
        let probabilities = model.outputs.iter().find_map(|output| {
            let element = |index| {
                let name = format!("{}[{index}]", output.name);
                outputs.iter().find(|(other, _)| *other == name).map(|(_, values)| values)
            };
            let columns: Vec<&Numbers> = (0..classes.len()).map(element).collect::<Option<_>>()?;
            element(classes.len()).is_none().then_some((output.name.clone(), columns))
        });
        let Some((probabilities, columns)) = probabilities else {
            bail!("--label {name}: the graph has no output with a probability for each class");
        };
        let mut rows = Vec::new();
        for (row, actual) in values.iter().enumerate() {
            let found = predicted.get(row).and_then(|class| labels.iter().position(|l| l == class));
            if let (Some(actual), Some(predicted)) = (*actual, found) {
                let probabilities = columns.iter().map(|column| column.at(row)).collect();
                rows.push(LabelledRow { probabilities, predicted, actual });
            }
        }
        rows.retain(|row| row.probabilities.iter().all(|p| p.is_finite()));
        let fitted = Calibration::fit(&rows, classes.len());
        let fitted = fitted
            .with_context(|| format!("--label {name}: no row has a label and a prediction"))?;
        Ok(CalibrationEntry { class, probabilities, fitted })
    }
}
