//! Graphs of every datatype and of any axes, through the component that serves any model. The models are
//! made by `tests/models/make_datatypes.py`.

use serde_json::{Value, json};
use spinfer_tests::{Launch, Manifest, STANDARD_DOOR, Spinfer, root};

/// Each model at its own path, through `door`.
fn serving(models: &[&str], door: &str) -> Spinfer {
    let serve = |manifest: Manifest, model: &&str| {
        let folder = root().join("tests/models/datatypes").join(model);
        let files = format!(
            "files = [{{ source = \"{}\", destination = \"/models/{model}\" }}]\n{door}",
            folder.display()
        );
        manifest.with(&format!("/v2/models/{model}/..."), model, "generic_model", &files)
    };
    Launch::new(&models.iter().fold(Manifest::default(), serve)).up()
}

fn post(spinfer: &Spinfer, path: &str, body: &str) -> (u16, Value) {
    let response = spinfer.post(&format!("/v2/models/{path}"), body);
    (response.status, response.json())
}

#[test]
fn every_datatype_round_trips_through_a_graph() {
    let datatypes = [
        ("BOOL", json!([true, false])),
        ("INT8", json!([-128, 127])),
        ("INT16", json!([-32768, 32767])),
        ("UINT16", json!([0, 65535])),
        ("UINT32", json!([0, u32::MAX])),
        ("UINT64", json!([0, u64::MAX])),
        ("BYTES", json!(["R\u{f3}ma", ""])),
    ];
    for door in ["", STANDARD_DOOR] {
        let spinfer = serving(&["echo"], door);
        for rows in [2, 0] {
            let tensors = |name: &str| {
                let tensor = |(index, (datatype, data)): (usize, &(&str, Value))| {
                    let data = if rows == 0 { json!([]) } else { data.clone() };
                    json!({ "name": format!("{name}{index}"), "datatype": datatype,
                            "shape": [rows, 1], "data": data })
                };
                datatypes.iter().enumerate().map(tensor).collect::<Vec<_>>()
            };
            let body = json!({ "inputs": tensors("x") }).to_string();
            let (status, response) = post(&spinfer, "echo/infer", &body);
            assert_eq!((status, &response["outputs"]), (200, &json!(tensors("y"))), "{response}");
        }
        let metadata = spinfer.get("/v2/models/echo").json();
        for (input, (datatype, _)) in metadata["inputs"].as_array().unwrap().iter().zip(&datatypes)
        {
            assert_eq!(input["datatype"], *datatype);
        }
    }
}

#[test]
fn string_and_number_columns_are_matched_by_name() {
    let spinfer = serving(&["mixed", "words"], "");
    for (path, body, expected) in [
        (
            "mixed/predict",
            r#"{"instances": [{"age": 3, "city": "Rome", "n": 1}, [null, "Oslo", 1], [1, "Bern", 2]]}"#,
            json!([{"prediction": 14.0}, {"prediction": null}, {"prediction": 2.0}]),
        ),
        (
            "mixed/invocations",
            r#"{"dataframe_split": {"columns": ["n", "x", "city", "age"], "data": [[1, [], "Oslo", 3]]}}"#,
            json!([24.0]),
        ),
        ("mixed/invocations", "city,age,n\nRome,,1\nOslo,2,3\n", json!([null, 25.0])),
        (
            "words/predict",
            r#"{"instances": ["a", {"word": "b"}, ["c"]]}"#,
            json!([{"prediction": "first"}, {"prediction": "second"}, {"prediction": "other"}]),
        ),
        ("words/invocations", "word\nb\n", json!(["second"])),
    ] {
        let (status, response) = post(&spinfer, path, body);
        assert_eq!((status, &response["predictions"]), (200, &expected), "{body}: {response}");
    }
    let (status, response) =
        post(&spinfer, "mixed/predict", r#"{"features": {"age": 3, "city": "Rome", "n": 1}}"#);
    assert_eq!((status, &response["prediction"]), (200, &json!(14.0)));
    for (path, body, part) in [
        (
            "mixed/predict",
            r#"{"features": [3, "Oslo", null]}"#,
            "features[2] (n): null is a missing value",
        ),
        ("mixed/predict", r#"{"features": [3, 4, 5]}"#, "features[1] (city): 4 is not a string"),
        (
            "mixed/predict",
            r#"{"features": {"age": 3, "n": 1}}"#,
            r#""city" is missing; expected age, city, n"#,
        ),
        ("mixed/invocations", "city,age,n\n,1,1\n", "CSV row 1[0] (city): got an empty cell"),
    ] {
        let (status, response) = post(&spinfer, path, body);
        assert_eq!(status, 400, "{response}");
        assert!(response["error"].as_str().unwrap().contains(part), "{response}");
    }
}

#[test]
fn batch_and_free_axes_follow_the_graph() {
    let spinfer = serving(&["columns-of-rows", "fixed", "non-zero", "scalar"], "");
    // Rows are columns of the tensor.
    let (_, response) =
        post(&spinfer, "columns-of-rows/predict", r#"{"instances": [[1, 10], [2, 20], [3, 30]]}"#);
    let expected = json!([{"prediction": 11.0}, {"prediction": 22.0}, {"prediction": 33.0}]);
    assert_eq!(response["predictions"], expected, "{response}");
    // 40 kB of features are one row, not ten thousand.
    let features = vec![1.0; 10_000];
    let tensor = json!({ "name": "x", "datatype": "FP32", "shape": [10_000], "data": features });
    for (operation, body) in
        [("predict", json!({ "features": features })), ("infer", json!({ "inputs": [tensor] }))]
    {
        let (status, response) = post(&spinfer, &format!("fixed/{operation}"), &body.to_string());
        assert_eq!(status, 200, "{}", response["error"]);
    }
    // As many elements as the data has.
    for (data, shape) in
        [(json!([0, 1, 0, 0]), json!([2, 1])), (json!([0, 0, 0, 0]), json!([2, 0]))]
    {
        let input = json!({ "name": "x", "datatype": "FP32", "shape": [2, 2], "data": data });
        let body = json!({ "inputs": [input] }).to_string();
        let (status, response) = post(&spinfer, "non-zero/infer", &body);
        assert_eq!((status, &response["outputs"][0]["shape"]), (200, &shape), "{response}");
    }
    let (_, response) = post(&spinfer, "scalar/predict", r#"{"features": [true]}"#);
    assert_eq!(response["prediction"], false, "{response}");
    let log = spinfer.log();
    assert!(!log.contains("WARN") && !log.contains("ERROR"), "{log}");
}

#[test]
fn input_value_the_graph_rejects_is_400() {
    let spinfer = serving(&["gather"], "");
    let input = json!({ "name": "x", "datatype": "INT64", "shape": [1], "data": [9] });
    for (operation, body) in
        [("predict", json!({ "features": [5] })), ("infer", json!({ "inputs": [input] }))]
    {
        let (status, response) = post(&spinfer, &format!("gather/{operation}"), &body.to_string());
        assert_eq!(status, 400, "{response}");
    }
}
