//! Expected accuracy, and the accuracy once labels are known.

use spinfer_statistics::expected_accuracy::{Calibration, LabelledRow};

use super::super::baseline::CalibrationEntry;
use super::*;
use crate::prediction_log::quality::{ClassificationResults, QualityGroup, Results};

/// Iris with a calibration: of probability 0.9 six of eight rows are right.
fn calibrated() -> String {
    let rows: Vec<LabelledRow> = (0..24)
        .map(|row| {
            let predicted = row % 3;
            let mut probabilities = vec![0.05; 3];
            probabilities[predicted] = 0.9;
            let actual = if row < 18 { predicted } else { (predicted + 1) % 3 };
            LabelledRow { probabilities, predicted, actual }
        })
        .collect();
    let fitted = Calibration::fit(&rows, 3).unwrap();
    let entry =
        CalibrationEntry { class: "label".into(), probabilities: "probabilities".into(), fitted };
    let mut file: serde_json::Value = serde_json::from_str(IRIS).unwrap();
    file["calibration"] = serde_json::to_value(entry).unwrap();
    file.to_string()
}

fn with_probabilities(label: &str, probabilities: [f32; 3]) -> LogEntry {
    let mut entry = iris(&[[5.0, 3.0, 4.0, 1.0]], label);
    let columns = Columns {
        names: names(&["probabilities[0]", "probabilities[1]", "probabilities[2]"]),
        values: ColumnValues::Fp32(probabilities.to_vec()),
    };
    Arc::make_mut(&mut entry.predictions).outputs.push(columns);
    entry
}

#[test]
fn accuracy_is_expected_from_calibrated_probabilities() {
    let monitor = watched(&calibrated(), IRIS_SIGNATURE, &DriftSettings::default());
    let performance = || monitor.report(now(), None).versions[0].performance.clone().unwrap();
    let before = performance();
    assert_eq!((before.n, before.expected_accuracy, before.baseline_accuracy), (0, None, 0.75));
    for _ in 0..12 {
        monitor.observe(&with_probabilities("setosa", [0.9, 0.05, 0.05]));
    }
    // Without all probabilities, with an unknown class, or with a missing probability: not counted.
    monitor.observe(&iris(&[[5.0, 3.0, 4.0, 1.0]], "setosa"));
    monitor.observe(&with_probabilities("rose", [0.9, 0.05, 0.05]));
    monitor.observe(&with_probabilities("setosa", [0.9, f32::NAN, 0.05]));
    let found = performance();
    // 3/4, and 1/8 of the other classes: the sum is 1.
    assert_eq!(found.n, 12);
    assert!((found.expected_accuracy.unwrap() - 0.75).abs() < 1e-6, "{found:?}");
    assert!((found.standard_error.unwrap() - 0.125).abs() < 1e-12, "{found:?}");
    assert!((found.expected_confusion[0][1] - 0.125).abs() < 1e-6, "{found:?}");
    assert_eq!((found.labelled, found.accuracy), (0, None));
    assert_eq!(found.classes, ["setosa", "versicolor", "virginica"]);
}

#[test]
fn accuracy_on_labels_is_shown_with_the_expected_one() {
    let monitor = watched(&calibrated(), IRIS_SIGNATURE, &DriftSettings::default());
    let mut report = monitor.report(now(), None);
    let group = |model: &str, variant: &str, n, accuracy| {
        let group = QualityGroup {
            model: model.into(),
            version: "1".into(),
            variant: variant.into(),
            ..QualityGroup::default()
        };
        let classification = ClassificationResults {
            n,
            accuracy: Some(accuracy),
            macro_precision: None,
            macro_recall: None,
            brier_score: None,
            brier_n: 0,
            classes: Vec::new(),
        };
        (group, Results { classification: Some(classification), ..Results::default() })
    };
    report.add_quality(&[
        group("iris-classifier", "control", 30, 0.9),
        group("iris-classifier", "treatment", 10, 0.5),
        group("wine", "", 1_000, 0.1),
    ]);
    let performance = report.versions[0].performance.clone().unwrap();
    assert_eq!((performance.labelled, performance.accuracy), (40, Some(0.8)));

    // Labels of two hosts are added, whichever computes the report.
    let other = watched(&calibrated(), IRIS_SIGNATURE, &DriftSettings::default());
    let of_monitor = [group("iris-classifier", "", 30, 0.9)];
    let of_other = [group("iris-classifier", "", 10, 0.5)];
    for (first, own, second, others) in
        [(&monitor, &of_monitor, &other, &of_other), (&other, &of_other, &monitor, &of_monitor)]
    {
        let mut windows = second.windows();
        windows.add_quality(others);
        let json = serde_json::to_vec(&[windows]).unwrap();
        let sent = SavedWindows::parse_all(&json).unwrap();
        let mut report = first.merged_report(now(), None, &sent).unwrap();
        report.add_quality(own);
        let performance = report.versions[0].performance.clone().unwrap();
        assert_eq!((performance.labelled, performance.accuracy), (40, Some(0.8)));
    }
}

#[test]
fn calibration_that_does_not_match_is_rejected_with_the_key() {
    let signature = ModelToml::parse(IRIS_SIGNATURE).unwrap();
    let whole = calibrated();
    for (change, part) in [
        ("class", "calibration: class: `probabilities[0]` is no output with categories"),
        ("classes", "calibration: classes: must have, for each of the 3 labels"),
    ] {
        let mut file: serde_json::Value = serde_json::from_str(&whole).unwrap();
        match change {
            "class" => file["calibration"]["class"] = "probabilities[0]".into(),
            _ => drop(file["calibration"]["classes"].as_array_mut().unwrap().pop()),
        }
        let error = format!("{:#}", Baseline::parse(&file.to_string(), &signature).unwrap_err());
        assert!(error.contains(part), "{error}");
    }
}
