//! The operators of `ai.onnx.ml` as tract runs them: the cases that hold the lean operators to ONNX
//! Runtime (`host/backend-lean/tests/make_ml_cases.py`), as whole graphs.

use serde_json::Value;
use spinfer_backend::{Backend, Encoding, Error, Tensor, TensorType};
use spinfer_backend_lean::Lean;
use spinfer_backend_tract::Tract;

use crate::cases;

#[test]
fn every_graph_of_one_operator_gives_onnx_runtimes_outputs() {
    let cases = cases::read("../backend-lean/tests/ml_cases.json.gz");
    let results: Vec<Option<Result<(), String>>> = cases.iter().map(check).collect();
    let wrong: Vec<&String> =
        results.iter().flatten().filter_map(|result| result.as_ref().err()).collect();
    let run = results.iter().flatten().count();
    assert!(run > 350, "only {run} cases");
    let wrong: Vec<&str> = wrong.iter().map(|why| why.as_str()).collect();
    assert!(wrong.is_empty(), "{} of {run} cases:\n{}", wrong.len(), wrong.join("\n"));
}

/// `None` for a case with strings; those have to be refused.
fn check(case: &Value) -> Option<Result<(), String>> {
    let name = case["name"].as_str().unwrap();
    let model = cases::bytes(&case["model"]);
    let tensors = |of: &str| -> Option<Vec<Tensor>> {
        case[of].as_array().unwrap().iter().map(cases::tensor).collect()
    };
    let (Some(inputs), Some(expected)) = (tensors("inputs"), tensors("outputs")) else {
        let error = Tract.load(&model, Encoding::Onnx).unwrap_err();
        assert!(
            matches!(&error, Error::Unsupported(why) if ["strings", "Int16"].iter().any(|ty| why.contains(ty))),
            "{error}"
        );
        return None;
    };
    let compute = || Tract.load(&model, Encoding::Onnx)?.compute(inputs);
    Some(match compute() {
        Err(e) => Err(format!("{name}: {e}")),
        Ok(got) => got.iter().zip(&expected).try_for_each(|(got, expected)| {
            let difference = cases::difference(got, expected);
            let same = difference <= 1e-5 && got.dimensions == expected.dimensions;
            same.then_some(()).ok_or_else(|| format!("{name}: {difference} apart: {got:?}"))
        }),
    })
}

/// `wasi:nn` has no maps: an output of `ZipMap` is the probabilities it was to be made of.
#[test]
fn a_zip_map_is_its_scores_under_its_name() {
    let entries = cases::read("tests/estimators.json.gz");
    let forest = entries.iter().find(|entry| entry["name"] == "RandomForestClassifier").unwrap();
    let model = cases::bytes(&forest["model"]);
    let backends: [&dyn Backend; 2] = [&Lean, &Tract];
    for backend in backends {
        let graph = backend.load(&model, Encoding::Onnx).unwrap();
        let scores = &graph.outputs()[1];
        assert_eq!((&*scores.name, scores.ty), ("output_probability", TensorType::Fp32));
        assert_eq!(scores.shape, Some(vec![None, Some(3)]), "{}", backend.name());
        let outputs = graph.compute(vec![cases::tensor(&forest["inputs"][0]).unwrap()]).unwrap();
        let expected = cases::tensor(&forest["outputs"][1]).unwrap();
        assert!(cases::difference(&outputs[1], &expected) <= 1e-6, "{}", backend.name());
    }
}
