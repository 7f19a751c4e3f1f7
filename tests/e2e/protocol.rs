//! A model component's short form (`/predict`) and Open Inference Protocol (`/infer`). An invalid request is
//! a 4xx with the expected form, and leaves no line in the log.

use serde_json::{Value, json};
use spinfer_tests::{Launch, Manifest, Spinfer};

pub(crate) const MODEL: &str = "/v2/models/iris-classifier";

pub(crate) fn iris() -> Spinfer {
    Launch::new(&Manifest::default().with_iris("iris", 1, "/...", "")).up()
}

#[test]
fn predict_returns_class_and_probabilities() {
    let spinfer = iris();
    let response =
        spinfer.post(&format!("{MODEL}/predict"), r#"{"features": [5.1, 3.5, 1.4, 0.2]}"#);
    assert_eq!(response.status, 200);
    let response = response.json();
    for (key, value) in [("model", "iris-classifier"), ("version", "1"), ("prediction", "setosa")] {
        assert_eq!(response[key], value);
    }
    let probability = response["probability"].as_f64().unwrap();
    assert_eq!(response["probabilities"]["setosa"].as_f64(), Some(probability));
    let sum: f64 =
        response["probabilities"].as_object().unwrap().values().flat_map(Value::as_f64).sum();
    assert!((sum - 1.0).abs() < 1e-5, "{response}");

    let response = spinfer.post("/any/prefix/predict", r#"{"id": "x7", "features": [6, 3, 5, 2]}"#);
    assert_eq!(response.json()["id"], "x7");
}

/// `curl -d` sends another type, and many clients send none.
#[test]
fn predict_reads_json_whatever_the_content_type() {
    let spinfer = iris();
    let path = format!("{MODEL}/predict");
    for content_type in
        ["application/json", "application/x-www-form-urlencoded", "text/csv", "\u{fc}"]
    {
        let headers = [("content-type", content_type)];
        let response =
            spinfer.send("POST", &path, &headers, br#"{"features": [5.1, 3.5, 1.4, 0.2]}"#);
        assert_eq!(
            (response.status, &response.json()["prediction"]),
            (200, &"setosa".into()),
            "{content_type}"
        );
        let response = spinfer.send("POST", &path, &headers, b"5.1,3.5,1.4,0.2");
        assert_eq!(response.status, 400, "{content_type}: {}", response.text());
        assert!(response.error().contains("the body: "), "{content_type}: {}", response.error());
    }
}

#[test]
fn predict_of_instances_equals_single_predictions() {
    for version in [1, 2] {
        let spinfer = Launch::new(&Manifest::default().with_iris("iris", version, "/...", "")).up();
        let rows = [[5.1, 3.5, 1.4, 0.2], [6.7, 3.0, 5.2, 2.3], [5.9, 3.0, 4.2, 1.5]];
        let body = json!({"id": "x7", "instances": rows}).to_string();
        let response = spinfer.post(&format!("{MODEL}/predict"), body).json();
        assert_eq!(
            (&response["id"], &response["model"]),
            (&json!("x7"), &json!("iris-classifier"))
        );
        let predictions = response["predictions"].as_array().unwrap();
        assert_eq!(predictions.len(), rows.len());
        let species: Vec<_> = predictions.iter().map(|one| &one["prediction"]).collect();
        assert_eq!(species, ["setosa", "virginica", "versicolor"]);
        for (row, prediction) in rows.iter().zip(predictions) {
            let body = json!({"features": row}).to_string();
            let mut alone = spinfer.post(&format!("{MODEL}/predict"), body).json();
            let fields = alone.as_object_mut().unwrap();
            assert!(fields.remove("model").is_some() && fields.remove("version").is_some());
            assert_eq!(*prediction, alone);
        }
    }
}

#[test]
fn infer_follows_the_open_inference_protocol() {
    let spinfer = iris();
    let row = [5.1, 3.5, 1.4, 0.2];
    let infer = |data: Value, shape: [u32; 2], more: Value| {
        let input = json!({"name": "features", "shape": shape, "datatype": "FP32", "data": data});
        let mut body = json!({"inputs": [input]});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let response = spinfer.post(&format!("{MODEL}/infer"), body.to_string());
        assert_eq!(response.status, 200, "{}", response.text());
        response.json()
    };
    let flat = infer(json!(row), [1, 4], json!({"id": "42"}));
    assert_eq!(flat["id"], "42");
    assert_eq!(
        (&flat["model_name"], &flat["model_version"]),
        (&json!("iris-classifier"), &json!("1"))
    );
    assert_eq!(flat["outputs"][0]["name"], "label");
    assert_eq!(flat["outputs"][0]["datatype"], "INT64");
    assert_eq!(flat["outputs"][0]["data"], json!([0]));
    assert_eq!(flat["outputs"][1]["shape"], json!([1, 3]));

    let nested = infer(json!([row]), [1, 4], json!({}));
    assert_eq!(nested["outputs"], flat["outputs"]);

    let batch =
        infer(json!([row, row, row]), [3, 4], json!({"outputs": [{"name": "probabilities"}]}));
    assert_eq!(batch["outputs"].as_array().unwrap().len(), 1, "only the requested output");
    assert_eq!(batch["outputs"][0]["shape"], json!([3, 3]));

    let odd =
        infer(json!(row), [1, 4], json!({"parameters": {"x": [1, {"y": null}]}, "unknown": 1}));
    assert_eq!(odd["outputs"], flat["outputs"]);
}

#[test]
fn metadata_and_readiness_describe_the_model() {
    let spinfer = iris();
    // The metadata of the server is the host's, whatever the routes.
    let server = spinfer.get("/v2").json();
    assert_eq!(server["name"], "spinfer");
    assert_eq!(server["extensions"], json!(["binary_tensor_data"]));
    assert!(server["version"].is_string());
    assert_eq!(spinfer.post("/v2", "").status, 405);
    for model in [MODEL.to_owned(), format!("{MODEL}/versions/1")] {
        let metadata = spinfer.get(&model).json();
        assert_eq!(metadata["name"], "iris-classifier");
        assert_eq!(metadata["versions"], json!(["1"]));
        let input = json!({"name": "features", "datatype": "FP32", "shape": [-1, 4]});
        assert_eq!(metadata["inputs"], json!([input]));
        let ready = spinfer.get(&format!("{model}/ready"));
        assert_eq!((ready.status, ready.json()["ready"].as_bool()), (200, Some(true)));
    }
}

#[test]
fn invalid_request_is_400_with_the_expected_form() {
    let spinfer = iris();
    let infer = |name: &str, shape: &str, datatype: &str, data: &str| {
        format!(
            r#"{{"inputs":[{{"name":"{name}","shape":{shape},"datatype":"{datatype}","data":{data}}}]}}"#
        )
    };
    let four = "[1,2,3,4]";
    let fields = "sepal_length, sepal_width, petal_length, petal_width";
    let cases: Vec<(&str, String, u16, Vec<&str>)> = vec![
        ("predict", "".into(), 400, vec!["body"]),
        ("predict", "{".into(), 400, vec!["body", "column"]),
        ("predict", "[]".into(), 400, vec!["object"]),
        ("predict", "{}".into(), 400, vec!["features", "instances"]),
        ("predict", r#"{"instances": []}"#.into(), 400, vec!["at least one row"]),
        ("predict", r#"{"instances": [[1,2,3,4],[1,2,3]]}"#.into(), 400, vec!["instances[1]: expected 4", fields]),
        ("predict", r#"{"instances": [[1,2,3,4],[1,"2",3,4]]}"#.into(), 400, vec!["instances[1][1]"]),
        ("predict", r#"{"features": [1,2,3]}"#.into(), 400, vec!["expected 4 numbers", fields, "got 3"]),
        ("predict", r#"{"features": [1,2,3,4,5]}"#.into(), 400, vec!["got 5"]),
        ("predict", r#"{"features": [1,"2",3,4]}"#.into(), 400, vec!["features[1]", "expected a number"]),
        ("predict", r#"{"features": [1,1e39,3,4]}"#.into(), 400, vec!["1e39 is out of range for FP32"]),
        ("predict", r#"{"features": 5}"#.into(), 400, vec!["features: expected an array of numbers"]),
        ("predict", "[".repeat(100_000), 400, vec!["body"]),
        ("predict", format!("{{\"features\": {}", "[".repeat(100_000)), 400, vec!["body"]),
        ("infer", r#"{"inputs":[]}"#.into(), 400, vec!["features"]),
        ("infer", infer("wrong", "[1,4]", "FP32", four), 400, vec!["wrong", "features"]),
        ("infer", infer("features", "[1,4]", "FP64", four), 400, vec!["FP64", "FP32"]),
        ("infer", infer("features", "[1,4]", "STRING", four), 400, vec!["STRING", "FP32"]),
        ("infer", infer("features", "[4]", "FP32", four), 400, vec!["[-1, 4]"]),
        ("infer", infer("features", "[1,5]", "FP32", four), 400, vec!["[-1, 4]"]),
        ("infer", infer("features", "[-1,4]", "FP32", four), 400, vec!["shape[0]: -1 is not the size of an axis"]),
        ("infer", infer("features", "[2,4]", "FP32", four), 400, vec!["8", "4"]),
        ("infer", infer("features", "[4294967295,4]", "FP32", four), 400, vec!["features"]),
        ("infer", infer("features", "[1,4]", "FP32", "[[1,2],[3,4]]"), 400, vec!["nested"]),
        ("infer", infer("features", "[1,4]", "FP32", "[1,2,3,1e999]"), 400, vec!["out of range"]),
        (
            "infer",
            r#"{"inputs":[{"name":"features","shape":[1,4],"datatype":"FP32","data":[1,2,3,4]}],"outputs":[{"name":"x"}]}"#.into(),
            400,
            vec!["\"x\"", "probabilities"],
        ),
    ];
    for (operation, body, status, parts) in cases {
        let response = spinfer.post(&format!("{MODEL}/{operation}"), &body);
        let shown = &body[..body.len().min(100)];
        assert_eq!(response.status, status, "{operation} {shown}: {}", response.text());
        let error = response.error();
        for part in parts {
            assert!(error.contains(part), "{operation} {shown}: {part:?} is not in {error:?}");
        }
    }
    let invalid_utf8 = spinfer.post(&format!("{MODEL}/predict"), b"{\"features\": [\xff]}");
    assert_eq!(invalid_utf8.status, 400);
    let log = spinfer.log();
    assert!(!log.contains("WARN") && !log.contains("ERROR"), "{log}");
}

#[test]
fn unknown_path_is_404_and_wrong_method_405_with_the_alternatives() {
    let spinfer = iris();
    for (method, path, status, part) in [
        ("POST", "/v2/models/wine/predict", 404, "model \"wine\" not found"),
        (
            "GET",
            "/v2/models/iris-classifier/versions/9",
            404,
            "this component serves version \"1\"",
        ),
        ("GET", "/v2/models/iris-classifier/explain", 404, "no operation at"),
        ("GET", "/v2/models/iris-classifier/predict", 405, "accepts POST"),
        ("DELETE", "/v2/models/iris-classifier", 405, "accepts GET, HEAD"),
    ] {
        let response = spinfer.send(method, path, &[], b"");
        assert_eq!(response.status, status, "{method} {path}");
        assert!(response.error().contains(part), "{}", response.error());
        assert_eq!(response.header("allow").is_some(), status == 405);
    }
}

#[test]
fn unmounted_model_is_503() {
    let manifest = Manifest::default().with("/...", "iris", "iris_classifier", "");
    let spinfer = Launch::new(&manifest).up();
    let response = spinfer.post(&format!("{MODEL}/predict"), r#"{"features": [1, 2, 3, 4]}"#);
    assert_eq!(response.status, 503);
    assert!(
        response.error().contains("/models/iris-classifier/model.toml"),
        "{}",
        response.error()
    );
    let ready = spinfer.get(&format!("{MODEL}/ready"));
    assert_eq!((ready.status, ready.json()["ready"].as_bool()), (503, Some(false)));
}
