use std::path::Path;

use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::inference::{BackendOptions, InferenceFlags};

/// The training data of models/iris-classifier (models/iris.py), from scikit-learn.
const TRAINING: &str = include_str!("fixtures/iris-training.csv");

/// A model repository with versions of iris-classifier, without baselines.
fn repository(versions: &[&str]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/iris-classifier");
    for version in versions {
        let to = dir.path().join("models/iris-classifier").join(version);
        std::fs::create_dir_all(&to).unwrap();
        for file in ["model.onnx", "model.toml"] {
            std::fs::copy(models.join(version).join(file), to.join(file)).unwrap();
        }
    }
    dir
}

fn command(dir: &Path, csv: &str) -> BaselineOptions {
    let data = dir.join("data.csv");
    std::fs::write(&data, csv).unwrap();
    BaselineOptions {
        data,
        model: "iris-classifier".into(),
        version: None,
        label: None,
        force: false,
        from: dir.join("spin.toml"),
        inference: InferenceFlags::default(),
    }
}

fn refused(command: &BaselineOptions) -> String {
    format!("{:#}", run(command, &mut Vec::new()).unwrap_err())
}

/// Asserts equality, of numbers to the seven digits of 32-bit floats.
fn assert_same(found: &Value, expected: &Value, at: &str) {
    match (found, expected) {
        (Value::Object(found), Value::Object(expected)) => {
            assert_eq!(
                found.keys().collect::<Vec<_>>(),
                expected.keys().collect::<Vec<_>>(),
                "{at}"
            );
            for (key, value) in found {
                assert_same(value, &expected[key], &format!("{at}.{key}"));
            }
        }
        (Value::Array(found), Value::Array(expected)) => {
            assert_eq!(found.len(), expected.len(), "{at}");
            let pairs = found.iter().zip(expected);
            pairs.for_each(|(found, expected)| assert_same(found, expected, at));
        }
        (Value::Number(found), Value::Number(expected)) => {
            let (found, expected) = (found.as_f64().unwrap(), expected.as_f64().unwrap());
            let difference = (found - expected).abs();
            assert!(difference <= 1e-6 * expected.abs() + 1e-9, "{at}: {found}, not {expected}");
        }
        _ => assert_eq!(found, expected, "{at}"),
    }
}

#[test]
fn baseline_of_the_training_data_equals_the_one_written_by_training() {
    for version in ["1", "2"] {
        let dir = repository(&[version]);
        let mut out = Vec::new();
        run(&command(dir.path(), TRAINING), &mut out).unwrap();
        let printed = String::from_utf8(out).unwrap();
        assert!(printed.contains("120 rows, 4 features, 4 outputs"), "{printed}");
        let version = format!("models/iris-classifier/{version}/baseline.json");
        let read = |path: &Path| -> Value {
            serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
        };
        let golden = read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(&version));
        assert_same(&read(&dir.path().join(&version)), &golden, &version);
    }
}

#[test]
fn existing_baseline_is_overwritten_only_with_force() {
    let dir = repository(&["1"]);
    let mut command = command(dir.path(), TRAINING);
    run(&command, &mut Vec::new()).unwrap();
    let path = dir.path().join("models/iris-classifier/1/baseline.json");
    let first = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&command.data, &TRAINING[..TRAINING.len() / 2]).unwrap();
    let error = refused(&command);
    assert!(error.contains("already exists") && error.contains("--force"), "{error}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), first);
    command.force = true;
    let half: Vec<_> = TRAINING.lines().take(60).collect();
    std::fs::write(&command.data, half.join("\n")).unwrap();
    run(&command, &mut Vec::new()).unwrap();
    assert!(std::fs::read_to_string(&path).unwrap().contains("\"rows\": 59"));
    let left = std::fs::read_dir(path.parent().unwrap()).unwrap().count();
    assert_eq!(left, 3, "no staged file is left");
}

#[test]
fn empty_cells_are_missing_and_other_columns_are_ignored() {
    let dir = repository(&["1"]);
    let csv = "petal_width,name,sepal_length,petal_length,sepal_width\n\
               0.2,a,5.1,1.4,3.5\n0.3,\"b, c\",NaN,1.5,3.6\n0.4,,,1.6,3.7\n";
    run(&command(dir.path(), csv), &mut Vec::new()).unwrap();
    let path = dir.path().join("models/iris-classifier/1/baseline.json");
    let file: BaselineFile = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let counts = |summary: &Summary| match summary {
        Summary::Number { count, missing, .. } | Summary::Category { count, missing, .. } => {
            (*count, *missing)
        }
    };
    assert_eq!(counts(&file.features["sepal_length"]), (1, 2));
    assert_eq!(counts(&file.features["petal_width"]), (3, 0));
    assert_eq!(counts(&file.outputs["label"]), (3, 0));
}

#[test]
fn invalid_input_is_reported_and_nothing_is_written() {
    let dir = repository(&["1", "2"]);
    let error = refused(&command(dir.path(), TRAINING));
    assert!(error.contains("has the versions 1, 2") && error.contains("--version"), "{error}");
    for (csv, part) in [
        (
            "a,sepal_width,petal_length\n1,2,3\n",
            "there is no column `sepal_length`, `petal_width`; \
          expected `sepal_length`, `sepal_width`, `petal_length`, `petal_width`, found `a`, ",
        ),
        (
            "sepal_length,sepal_width,petal_length,petal_width\n1,2,3,x\n",
            "line 2: the column `petal_width`: `x` is not a number",
        ),
        ("sepal_length,sepal_width,petal_length,petal_width\n1,2,3\n", "line: 2"),
        ("sepal_length,sepal_width,petal_length,petal_width\n", "the file has no rows"),
        (
            "sepal_length,sepal_width,petal_length,petal_width,petal_width\n1,2,3,4,5\n",
            "the column `petal_width` twice",
        ),
        ("", "there is no column"),
    ] {
        let command = BaselineOptions { version: Some("1".into()), ..command(dir.path(), csv) };
        let error = refused(&command);
        assert!(error.contains(part) && error.contains("data.csv"), "{error}");
    }
    let other = |model: &str, version: &str| BaselineOptions {
        model: model.into(),
        version: Some(version.into()),
        ..command(dir.path(), TRAINING)
    };
    let error = refused(&other("iris-classifier", "3"));
    assert!(error.contains("no such version; it has 1, 2"), "{error}");
    for model in ["wine", "../models/iris-classifier", "", ".."] {
        assert!(refused(&other(model, "1")).contains("there is no version of it"), "{model}");
    }
    assert!(!dir.path().join("models/iris-classifier/1/baseline.json").exists());
}

/// The training data with a column of labels, by row.
fn labelled(label: impl Fn(usize) -> &'static str) -> String {
    let rows = TRAINING.lines().enumerate().map(|(line, row)| {
        let label = if line == 0 { "species" } else { label(line - 1) };
        format!("{row},{label}\n")
    });
    rows.collect()
}

#[test]
fn calibration_is_fitted_on_rows_with_labels() {
    let dir = repository(&["1"]);
    let species = ["setosa", "versicolor", "virginica", ""];
    let mut out = Vec::new();
    let options = BaselineOptions {
        label: Some("species".into()),
        ..command(dir.path(), &labelled(|row| species[row % 4]))
    };
    run(&options, &mut out).unwrap();
    let printed = String::from_utf8(out).unwrap();
    assert!(printed.contains("Calibrated on 90 rows with labels; accuracy 0."), "{printed}");
    let path = dir.path().join("models/iris-classifier/1/baseline.json");
    let file: BaselineFile = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let CalibrationEntry { class, probabilities, fitted } = file.calibration.unwrap();
    assert_eq!((&*class, &*probabilities, fitted.rows), ("label", "probabilities", 90));
    assert!(fitted.is_valid(3) && fitted.accuracy < 0.6, "labels at random: {fitted:?}");
    let mut certain = [0.98, 0.01, 0.01];
    assert!(fitted.calibrate(&mut certain) && certain[0] < 0.7, "{certain:?}");
}

#[test]
fn calibration_is_added_to_an_existing_baseline() {
    let dir = repository(&["1"]);
    run(&command(dir.path(), TRAINING), &mut Vec::new()).unwrap();
    let path = dir.path().join("models/iris-classifier/1/baseline.json");
    let before = std::fs::read_to_string(&path).unwrap();
    // Other rows than those of the reference.
    let species = ["setosa", "versicolor", "virginica"];
    let rows = labelled(|row| species[row % 3]);
    let validation: Vec<_> = rows.lines().take(61).collect();
    let options = BaselineOptions {
        label: Some("species".into()),
        ..command(dir.path(), &validation.join("\n"))
    };
    let mut out = Vec::new();
    run(&options, &mut out).unwrap();
    let printed = String::from_utf8(out).unwrap();
    assert!(printed.contains("the reference for drift is unchanged"), "{printed}");
    assert!(printed.contains("Calibrated on 60 rows with labels"), "{printed}");
    let text = std::fs::read_to_string(&path).unwrap();
    let reference = before.strip_prefix('{').unwrap();
    assert!(text.ends_with(reference.trim_start()), "the reference is the same, byte for byte");
    let file: BaselineFile = serde_json::from_str(&text).unwrap();
    assert_eq!((file.rows, file.calibration.unwrap().fitted.rows), (120, 60));
    // The text is that of a baseline with both.
    let file: BaselineFile = serde_json::from_str(&text).unwrap();
    assert_eq!(to_json(&file).unwrap().lines().count(), text.lines().count());

    let error = refused(&options);
    assert!(error.contains("already has a calibration") && error.contains("--force"), "{error}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
}

#[test]
fn unknown_label_is_reported_with_the_classes() {
    let dir = repository(&["1"]);
    let refused = |csv: &str, label: &str| {
        refused(&BaselineOptions { label: Some(label.into()), ..command(dir.path(), csv) })
    };
    let error = refused(&labelled(|_| "rose"), "species");
    let part = "line 2: the column `species`: `rose` is not a class; the classes are `setosa`, ";
    assert!(error.contains(part), "{error}");
    let error = refused(TRAINING, "species");
    assert!(error.contains("--label species: there is no such column; found `sepal_"), "{error}");
    let error = refused(&labelled(|_| ""), "species");
    assert!(error.contains("no row has a label and a prediction"), "{error}");
}

#[test]
fn model_with_preprocessing_in_its_component_is_refused() {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models");
    let signature = inference::declared(&models.join("language-identifier/1")).unwrap();
    let graph = Runner::load(
        "iris-classifier",
        &models.join("iris-classifier/1"),
        &BackendOptions::default().backends(),
    )
    .unwrap();
    let error =
        ReferenceColumns::read("text\nhello\n".as_bytes(), &signature, &graph, None).unwrap_err();
    assert!(error.to_string().contains("runs the graph alone"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn arbitrary_tables_do_not_panic(csv in "(sepal_length,sepal_width,petal_length,petal_width\n)?[ -~\n]{0,80}") {
        let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/iris-classifier/1");
        let signature = inference::declared(&models).unwrap();
        let graph = Runner::load("iris-classifier", &models, &BackendOptions::default().backends()).unwrap();
        let _ = ReferenceColumns::read(csv.as_bytes(), &signature, &graph, None);
    }
}
