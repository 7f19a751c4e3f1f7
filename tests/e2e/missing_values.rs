//! Missing values, NaN and infinity in requests and responses of every protocol, and columns by name.

use serde_json::{Value, json};

use super::protocol::{MODEL, iris};

const HEADER: &str = "sepal_length,sepal_width,petal_length,petal_width\n";

/// A linear model computes NaN for NaN.
#[test]
fn missing_value_is_nan_in_the_graph_and_null_in_the_response() {
    let spinfer = iris();
    let tensor = |value: &str| {
        format!(
            r#"{{"inputs":[{{"name":"features","shape":[1,4],"datatype":"FP32","data":[1,{value},3,4]}}]}}"#
        )
    };
    for body in [
        r#"{"features": [1, null, 3, 4]}"#,
        r#"{"features": [1, NaN, 3, 4]}"#,
        r#"{"features": {"petal_width": 4, "sepal_width": null, "petal_length": 3, "sepal_length": 1}}"#,
    ] {
        let response = spinfer.post(&format!("{MODEL}/predict"), body);
        assert_eq!(response.status, 200, "{body}: {}", response.text());
        let probabilities = &response.json()["probabilities"];
        assert_eq!(probabilities["setosa"], Value::Null, "{body}");
        assert_eq!(response.json()["probability"], Value::Null, "{body}");
    }
    for body in [
        r#"{"inputs": [[1, null, 3, 4], [5.1, 3.5, 1.4, 0.2]]}"#.to_owned(),
        r#"{"inputs": [[1, NaN, 3, 4], [5.1, 3.5, 1.4, 0.2]]}"#.to_owned(),
        format!("{HEADER}1,,3,4\n5.1,3.5,1.4,0.2\n"),
    ] {
        let response = spinfer.post(&format!("{MODEL}/invocations"), &body);
        assert_eq!(response.status, 200, "{body}: {}", response.text());
        assert_eq!(response.json()["predictions"][1], "setosa", "{body}");
    }
    for value in ["null", "NaN", "Infinity", "-Infinity"] {
        let response = spinfer.post(&format!("{MODEL}/infer"), tensor(value));
        assert_eq!(response.status, 400, "{}", response.text());
        assert!(response.error().contains(r#""binary_data": true"#), "{}", response.error());
        let binary =
            tensor(value).replacen('{', r#"{"parameters":{"binary_data_output":true},"#, 1);
        let response = spinfer.post(&format!("{MODEL}/infer"), binary);
        assert_eq!(response.status, 200, "{}", response.text());
    }
    let log = spinfer.log();
    assert!(!log.contains("WARN") && !log.contains("ERROR"), "{log}");
}

#[test]
fn nan_hint_appears_only_in_errors_about_nan() {
    let spinfer = iris();
    for (body, hint) in [
        (r#"{"features": [1, nan, 3, 4]}"#, true),
        (r#"{"features": [1, 2, 3, 4"#, false),
        (r#"{"features": [1, 2, 3, 4]} {}"#, false),
    ] {
        let response = spinfer.post(&format!("{MODEL}/predict"), body);
        assert_eq!(response.status, 400, "{body}");
        assert_eq!(response.error().contains("NaN"), hint, "{}", response.error());
    }
}

#[test]
fn missing_and_unknown_columns_are_named_in_errors() {
    let spinfer = iris();
    let response = spinfer.post(
        &format!("{MODEL}/predict"),
        json!({"features": {"sepal_length": 1, "colour": 2}}).to_string(),
    );
    assert_eq!(response.status, 400);
    for part in [
        r#""sepal_width" is missing, as are "petal_length", "petal_width""#,
        r#""colour" is not a column of this model"#,
        "expected sepal_length, sepal_width, petal_length, petal_width",
    ] {
        assert!(response.error().contains(part), "{}", response.error());
    }
}

#[test]
fn empty_batch_is_served() {
    let spinfer = iris();
    let body = json!({"inputs": [
        {"name": "features", "shape": [0, 4], "datatype": "FP32", "data": []},
    ]});
    let response = spinfer.post(&format!("{MODEL}/infer"), body.to_string());
    assert_eq!(response.status, 200, "{}", response.text());
    for (index, shape) in [json!([0]), json!([0, 3])].iter().enumerate() {
        let output = &response.json()["outputs"][index];
        assert_eq!((&output["shape"], &output["data"]), (shape, &json!([])));
    }
}
