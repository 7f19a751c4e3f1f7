//! Compares expected accuracy with NannyML's, on the fixed vectors of `vectors/make_nannyml.py`.

use serde::Deserialize;
use spinfer_statistics::expected_accuracy::{Calibration, LabelledRow};

#[derive(Deserialize)]
struct Vectors {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    classes: usize,
    reference: Vec<Row>,
    window: Vec<Row>,
    accuracy: f64,
    standard_error: f64,
    /// By predicted, then by actual class.
    confusion: Vec<Vec<f64>>,
}

#[derive(Deserialize)]
struct Row {
    probabilities: Vec<f64>,
    predicted: usize,
    actual: usize,
}

#[track_caller]
fn same(what: &str, found: f64, expected: f64) {
    assert!(
        (found - expected).abs() <= 1e-9 * expected.abs().max(1.0),
        "{what}: {found}, not {expected}"
    );
}

#[test]
fn accuracy_and_confusion_matrix_are_those_of_nannyml() {
    let vectors: Vectors = serde_json::from_str(include_str!("vectors/nannyml.json")).unwrap();
    for Case { classes, reference, window, accuracy, standard_error, confusion } in vectors.cases {
        let rows: Vec<_> = reference
            .into_iter()
            .map(|Row { probabilities, predicted, actual }| LabelledRow {
                probabilities,
                predicted,
                actual,
            })
            .collect();
        let calibration = Calibration::fit(&rows, classes).unwrap();
        let n = window.len() as f64;
        let mut found = vec![vec![0.0; classes]; classes];
        for Row { mut probabilities, predicted, .. } in window {
            assert!(calibration.calibrate(&mut probabilities));
            for (cell, probability) in found[predicted].iter_mut().zip(&probabilities) {
                *cell += probability;
            }
        }
        let diagonal: f64 = (0..classes).map(|class| found[class][class]).sum();
        same(&format!("{classes} classes: accuracy"), diagonal / n, accuracy);
        same("standard error", calibration.standard_error(n).unwrap(), standard_error);
        for (found, expected) in found.into_iter().flatten().zip(confusion.into_iter().flatten()) {
            same(&format!("{classes} classes: confusion"), found, expected);
        }
    }
}
