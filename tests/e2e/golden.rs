//! Every golden case of every example model, through both doors, in both protocols.

use serde_json::{Value, json};
use spinfer_tests::{Manifest, STANDARD_DOOR, Spinfer, root};

struct Golden {
    version: u32,
    tolerance: f64,
    cases: Vec<Value>,
}

fn golden(version: u32) -> Golden {
    let path = root().join(format!("models/iris-classifier/{version}/golden.json"));
    let golden: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let cases = golden["cases"].as_array().unwrap().clone();
    assert!(cases.len() > 30, "the golden file is whole");
    Golden { version, tolerance: golden["tolerance"].as_f64().unwrap(), cases }
}

fn iris(version: u32, settings: &str) -> Spinfer {
    Spinfer::up(&Manifest::default().with_iris("iris", version, "/...", settings))
}

fn check(spinfer: &Spinfer, golden: &Golden) {
    let model = format!("/v2/models/iris-classifier/versions/{}", golden.version);
    for case in &golden.cases {
        let (shape, data) =
            (&case["inputs"]["features"]["shape"], &case["inputs"]["features"]["data"]);
        let expected = &case["outputs"];
        let input = json!({"name": "features", "shape": shape, "datatype": "FP32", "data": data});
        let answer =
            spinfer.post(&format!("{model}/infer"), json!({"inputs": [input]}).to_string());
        assert_eq!(answer.status, 200, "{}", answer.text());
        let answer = answer.json();
        for output in answer["outputs"].as_array().unwrap() {
            let expected = &expected[output["name"].as_str().unwrap()];
            assert_eq!(output["shape"], expected["shape"]);
            assert_close(&output["data"], &expected["data"], golden.tolerance);
        }
        assert_eq!(answer["outputs"].as_array().unwrap().len(), 2);
        if shape[0] == 1 {
            let body = json!({"features": data}).to_string();
            let answer = spinfer.post(&format!("{model}/predict"), body).json();
            let label = expected["label"]["data"][0].as_u64().unwrap() as usize;
            let species = ["setosa", "versicolor", "virginica"];
            assert_eq!(answer["prediction"], species[label]);
            let of_each: Vec<_> =
                species.iter().map(|name| answer["probabilities"][name].clone()).collect();
            let expected = &expected["probabilities"]["data"];
            assert_close(&of_each.into(), expected, golden.tolerance);
            assert_close(
                &json!([answer["probability"]]),
                &json!([expected[label]]),
                golden.tolerance,
            );
        }
    }
}

fn assert_close(got: &Value, expected: &Value, tolerance: f64) {
    let (got, expected) = (got.as_array().unwrap(), expected.as_array().unwrap());
    assert_eq!(got.len(), expected.len());
    for (got, expected) in got.iter().zip(expected) {
        let difference = got.as_f64().unwrap() - expected.as_f64().unwrap();
        assert!(difference.abs() <= tolerance, "{got} is not {expected} within {tolerance}");
    }
}

#[test]
fn logistic_regression_through_the_fast_door() {
    check(&iris(1, ""), &golden(1));
}

#[test]
fn logistic_regression_through_the_standard_door() {
    check(&iris(1, STANDARD_DOOR), &golden(1));
}

#[test]
fn random_forest_through_the_fast_door() {
    check(&iris(2, ""), &golden(2));
}

#[test]
fn random_forest_through_the_standard_door() {
    check(&iris(2, STANDARD_DOOR), &golden(2));
}
