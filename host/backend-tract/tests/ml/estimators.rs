//! What skl2onnx makes of scikit-learn's estimators (`make_estimators.py`): which graphs run, in which
//! backend, and how far from ONNX Runtime. `OPERATORS.md` is this as a table; `make operators` writes both.

use std::fmt::Write;
use std::path::Path;

use serde_json::Value;
use spinfer_backend::{Backend, Encoding, Error, Tensor};
use spinfer_backend_lean::Lean;
use spinfer_backend_tract::Tract;

use crate::cases;

/// Absolute for numbers up to 1, relative above. Gaussian processes and determinants take differences of
/// large sums of FP32.
const TOLERANCE: f64 = 1e-4;

/// What becomes of one estimator.
enum Outcome {
    /// The backend that runs it, and the greatest difference to ONNX Runtime.
    Runs(&'static str, f64),
    Fails(String),
    /// skl2onnx does not convert it, or ONNX Runtime does not run it: there is nothing to compare with.
    NoReference(String),
}

#[test]
fn of_what_skl2onnx_converts_nine_in_ten_run() {
    let entries = cases::read("tests/estimators.json.gz");
    let outcomes: Vec<(&Value, Outcome)> = entries.iter().map(|e| (e, outcome(e))).collect();
    let runs = outcomes.iter().filter(|(_, outcome)| matches!(outcome, Outcome::Runs(..))).count();
    let fails: Vec<&str> = outcomes
        .iter()
        .filter(|(_, outcome)| matches!(outcome, Outcome::Fails(_)))
        .map(|(entry, _)| entry["name"].as_str().unwrap())
        .collect();
    let converted = runs + fails.len();
    assert!(converted > 140, "only {converted} converted");
    assert!(runs * 10 >= converted * 9, "{runs} of {converted} run; not {fails:?}");
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("OPERATORS.md");
    let table = table(&outcomes, runs, converted);
    if std::env::var_os("SPINFER_WRITE").is_some() {
        std::fs::write(&file, &table).unwrap();
    }
    let written = std::fs::read_to_string(&file).unwrap();
    // Another processor rounds otherwise; that it stays within the tolerance was found above.
    let without_figures = |text: &str| -> Vec<String> {
        text.lines().map(|line| line.split("| up to").next().unwrap_or("").to_owned()).collect()
    };
    assert_eq!(
        without_figures(&written),
        without_figures(&table),
        "OPERATORS.md is not what runs: run `make operators`"
    );
}

fn outcome(entry: &Value) -> Outcome {
    if let Some(error) = entry["error"].as_str() {
        return Outcome::NoReference(error.to_owned());
    }
    let model = cases::bytes(&entry["model"]);
    let tensors = |of: &str| -> Option<Vec<Tensor>> {
        entry[of].as_array().unwrap().iter().map(cases::tensor).collect()
    };
    let backends: [&dyn Backend; 2] = [&Lean, &Tract];
    for backend in backends {
        let graph = match backend.load(&model, Encoding::Onnx) {
            Ok(graph) => graph,
            // As the host does: the next may have what this one lacks.
            Err(Error::Unsupported(_)) if backend.name() == "lean" => continue,
            Err(e) => return Outcome::Fails(e.to_string()),
        };
        let got = match graph.compute(tensors("inputs").unwrap()) {
            Ok(got) => got,
            Err(e) => return Outcome::Fails(e.to_string()),
        };
        let expected = tensors("outputs").unwrap();
        assert_eq!(got.len(), expected.len(), "{}", entry["name"]);
        let apart = got.iter().zip(&expected).map(|(got, y)| cases::difference(got, y));
        let most = apart.fold(0.0, f64::max);
        if most > TOLERANCE {
            return Outcome::Fails(format!("{most:.1e} from ONNX Runtime"));
        }
        return Outcome::Runs(backend.name(), most);
    }
    unreachable!("tract is the last")
}

fn table(outcomes: &[(&Value, Outcome)], runs: usize, converted: usize) -> String {
    let mut text = format!(
        "# What runs of scikit-learn\n\n\
         Every estimator of `skl2onnx.supported_converters()` and pipelines of them, fitted on a few rows \
         and converted with skl2onnx's defaults (versions: `models/requirements.txt`; what each is fitted on: \
         `tests/make_estimators.py`). Of {converted} that convert and that ONNX Runtime runs, {runs} run here. \
         The difference is the greatest to ONNX Runtime's outputs, absolute for numbers up to 1 and relative \
         above.\n\n\
         `wasi:nn` has tensors of numbers only. A `ZipMap` is left out: its output is the tensor of \
         probabilities, under its name. Inputs and outputs that are strings are refused: train a \
         classifier on the indices of its labels; so are inputs of BF16. A `TreeEnsemble` of FP64 may have no \
         post-transform, and 1 and 2 are what the standard says, which ONNX Runtime swaps.\n\n\
         Written by `tests/ml/estimators.rs`, which fails where this file is not what it finds. `make operators` \
         writes it again.\n"
    );
    for (kind, title) in [("estimator", "Estimators"), ("pipeline", "Pipelines")] {
        write!(
            text,
            "\n## {title}\n| name | backend | difference, or why not |\n| --- | --- | --- |\n"
        )
        .unwrap();
        for (entry, outcome) in outcomes.iter().filter(|(entry, _)| entry["kind"] == kind) {
            let name = entry["name"].as_str().unwrap();
            match outcome {
                Outcome::Runs(backend, most) => {
                    let most = if *most == 0.0 { "0".into() } else { format!("{most:.0e}") };
                    writeln!(text, "| {name} | {backend} | up to {most} |").unwrap();
                }
                Outcome::Fails(why) => {
                    writeln!(text, "| {name} | none | {} |", cell(why)).unwrap();
                }
                Outcome::NoReference(why) => {
                    let stage = if entry["model"].is_null() { "skl2onnx" } else { "ONNX Runtime" };
                    writeln!(text, "| {name} | not compared | {stage}: {} |", cell(why)).unwrap();
                }
            }
        }
    }
    text
}

fn cell(text: &str) -> String {
    let line = text.replace(['\n', '|'], " ");
    line.chars().take(220).collect()
}
