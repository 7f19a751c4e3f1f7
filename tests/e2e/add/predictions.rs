use serde_json::{Value, json};
use spinfer_tests::Spinfer;

use super::{AppFolder, CurlRequest, assert_near, expected, flat, line, predictions};

const CLASSIFIERS: [&str; 5] =
    ["strings-linear", "strings-forest", "strings-bayes", "numbers-double", "columns"];
const WITHOUT_PROBABILITIES: [&str; 2] = ["margins", "distances"];
const REGRESSORS: [&str; 3] = ["regressor", "two-targets", "picture"];

#[test]
fn added_onnx_files_are_served_with_onnx_runtimes_numbers() {
    let application = AppFolder::new();
    let mut lines = Vec::new();
    for name in [&CLASSIFIERS[..], &WITHOUT_PROBABILITIES, &REGRESSORS, &["two-outputs"]].concat() {
        lines.push(line(&application.added(name, &[])));
    }
    let softmax = application.added("softmax", &["--labels", "no,yes", "--fields", "a,b,c"]);
    lines.push(line(&softmax));
    let spinfer = application.up();

    for line in &lines {
        CurlRequest::of(line).send(&spinfer);
    }
    let expected = expected();
    for name in CLASSIFIERS.iter().chain(&WITHOUT_PROBABILITIES) {
        check_classifier(&spinfer, name, &expected[*name]);
    }
    for name in REGRESSORS {
        check_regressor(&spinfer, name, &expected[name]);
    }
    labels_name_the_largest_number(&spinfer, &expected["softmax"]);
    inputs_of_one_column_are_read_by_name(&spinfer, &expected["columns"]);
    several_outputs_have_no_single_prediction(&spinfer, &expected["two-outputs"]);
}

fn check_classifier(spinfer: &Spinfer, name: &str, expected: &Value) {
    let inputs = expected["inputs"].as_object().unwrap();
    let row = |row: usize| {
        let columns = inputs.values().rev();
        columns.flat_map(|rows| rows[row].as_array().unwrap().clone()).collect()
    };
    let rows: Vec<Vec<Value>> = (0..3).map(row).collect();
    let outputs: Vec<&Value> = expected["outputs"].as_object().unwrap().values().collect();
    let [classes, scores] = outputs[..] else { panic!("{name}: {outputs:?}") };
    for (row, prediction) in predictions(spinfer, name, &json!(rows)).iter().enumerate() {
        assert_eq!(prediction["prediction"], classes[row], "{name}");
        if WITHOUT_PROBABILITIES.contains(&name) {
            assert_eq!(prediction.as_object().unwrap().len(), 1, "{name}: {prediction}");
            continue;
        }
        let probabilities = prediction["probabilities"].as_object().unwrap();
        let values: Vec<Value> = probabilities.values().cloned().collect();
        assert_near(&json!(values), &scores[row], name);
        let class = classes[row].as_str().map_or(classes[row].to_string(), str::to_owned);
        assert_eq!(prediction["probability"], probabilities[&class], "{name}");
    }
}

fn check_regressor(spinfer: &Spinfer, name: &str, expected: &Value) {
    let rows = expected["inputs"].as_object().unwrap().values().next().unwrap();
    let outputs = expected["outputs"].as_object().unwrap().values().next().unwrap();
    for (row, prediction) in predictions(spinfer, name, rows).iter().enumerate() {
        let [only] = outputs[row].as_array().unwrap().as_slice() else {
            assert_near(&prediction["prediction"], &outputs[row], name);
            continue;
        };
        assert_near(&prediction["prediction"], only, name);
    }
}

/// Of the only output.
fn labels_name_the_largest_number(spinfer: &Spinfer, expected: &Value) {
    let rows = &expected["inputs"]["x"];
    for (row, prediction) in predictions(spinfer, "softmax", rows).iter().enumerate() {
        let scores = &expected["outputs"]["y"][row];
        let label = if scores[0].as_f64() >= scores[1].as_f64() { "no" } else { "yes" };
        assert_eq!(prediction["prediction"], label);
        assert_near(&prediction["probabilities"]["yes"], &scores[1], "softmax");
    }
    let by_name = r#"{"instances": [{"c": 3, "a": 1, "b": 2}]}"#;
    let response = spinfer.post("/v2/models/softmax/predict", by_name).json();
    let probability = &response["predictions"][0]["probabilities"]["yes"];
    assert_near(probability, &expected["outputs"]["y"][0][1], "softmax");
}

fn inputs_of_one_column_are_read_by_name(spinfer: &Spinfer, expected: &Value) {
    let (length, count) = (&expected["inputs"]["length"][1][0], &expected["inputs"]["count"][1][0]);
    let table = json!({ "columns": ["count", "length"], "data": [[count, length]] });
    let body = json!({ "dataframe_split": table }).to_string();
    let response = spinfer.post("/v2/models/columns/invocations", body);
    assert_eq!(response.json()["predictions"], json!([expected["outputs"]["output_label"][1]]));
    let half = json!({ "features": [length, 30.5] }).to_string();
    let response = spinfer.post("/v2/models/columns/predict", half);
    assert_eq!(
        (response.status, response.error().as_str()),
        (400, "features[1] (count): 30.5 is not a 64-bit integer (INT64)")
    );
}

/// The error points to `/infer`.
fn several_outputs_have_no_single_prediction(spinfer: &Spinfer, expected: &Value) {
    let response = spinfer.post("/v2/models/two-outputs/predict", r#"{"features": [1, 2, 3]}"#);
    assert_eq!(response.status, 400);
    assert!(response.error().contains("POST /v2/models/two-outputs/infer"), "{}", response.error());
    let input = json!({ "name": "x", "shape": [2, 3], "datatype": "FP32", "data": expected["inputs"]["x"] });
    let body = json!({ "inputs": [input] }).to_string();
    let outputs = spinfer.post("/v2/models/two-outputs/infer", body).json();
    for (output, name) in outputs["outputs"].as_array().unwrap().iter().zip(["a", "b"]) {
        assert_eq!(output["name"], name);
        assert_near(&output["data"], &flat(&expected["outputs"][name]), name);
    }
    let metadata = spinfer.get("/v2/models/two-outputs").json();
    assert_eq!(
        metadata["outputs"][0],
        json!({ "name": "a", "datatype": "FP32", "shape": [-1, 2] })
    );
    assert_eq!(spinfer.get("/v2/models/two-outputs/versions/1/ready").status, 200);
    assert_eq!(spinfer.get("/v2/models/two-outputs/versions/2/ready").status, 404);
}
