//! `spinfer add`: ONNX files as people have them become URLs.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use spinfer_tests::{Manifest, STANDARD_DOOR, Spinfer, root, run};
use tempfile::TempDir;

/// The files to add, and what ONNX Runtime says of some rows.
pub(crate) fn files() -> PathBuf {
    root().join("tests/models/add")
}

fn expected() -> Value {
    let text = fs::read_to_string(files().join("expected.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// A folder with an application in the making.
pub(crate) struct Application(pub(crate) TempDir);

impl Application {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    /// `spinfer add` of a file of the test's; whether it was added, and what was said.
    pub(crate) fn add(&self, file: &Path, arguments: &[&str]) -> (bool, String) {
        let from = self.path("spin.toml");
        let start = ["add", file.to_str().unwrap(), "--from", from.to_str().unwrap()];
        let (status, text) = run(&[&start, arguments].concat());
        (status.success(), text)
    }

    pub(crate) fn added(&self, name: &str, arguments: &[&str]) -> String {
        let (added, text) = self.add(&files().join(format!("{name}.onnx")), arguments);
        assert!(added, "{name}: {text}");
        text
    }

    pub(crate) fn up(self) -> Spinfer {
        Spinfer::up_from(&self.path("spin.toml"), &[], self.0)
    }

    pub(crate) fn manifest(&self) -> String {
        fs::read_to_string(self.path("spin.toml")).unwrap()
    }

    /// Every file, and what it holds.
    pub(crate) fn tree(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        fn walk(folder: &Path, found: &mut BTreeMap<PathBuf, Vec<u8>>) {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    found.insert(path.clone(), Vec::new());
                    walk(&path, found);
                } else {
                    let bytes = fs::read(&path).unwrap();
                    found.insert(path, bytes);
                }
            }
        }
        let mut found = BTreeMap::new();
        walk(self.0.path(), &mut found);
        found
    }
}

/// Equal, but for the last digits of numbers.
fn assert_near(got: &Value, expected: &Value, what: &str) {
    match (got, expected) {
        (Value::Number(got), Value::Number(expected)) => {
            let (got, expected) = (got.as_f64().unwrap(), expected.as_f64().unwrap());
            let tolerance = 1e-5 * expected.abs().max(1.0);
            assert!((got - expected).abs() <= tolerance, "{what}: {got} is not {expected}");
        }
        (Value::Array(got), Value::Array(expected)) => {
            assert_eq!(got.len(), expected.len(), "{what}: {got:?}");
            for (got, expected) in got.iter().zip(expected) {
                assert_near(got, expected, what);
            }
        }
        _ => assert_eq!(got, expected, "{what}"),
    }
}

/// The short form's answers to the rows of `expected.json`.
fn predictions(spinfer: &Spinfer, name: &str, rows: &Value) -> Vec<Value> {
    let body = json!({ "instances": rows }).to_string();
    let answer = spinfer.post(&format!("/v2/models/{name}/predict"), body);
    assert_eq!(answer.status, 200, "{name}: {}", answer.text());
    answer.json()["predictions"].as_array().unwrap().clone()
}

/// What a shell would ask with a printed `curl`: the path and the body.
fn asked(line: &str) -> (String, String) {
    let script = format!("curl() {{ printf '%s\\n%s' \"$1\" \"$3\"; }}; {line}");
    let output = Command::new("sh").args(["-c", &script]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let (url, body) = text.split_once('\n').unwrap();
    (url.strip_prefix("localhost:3000").unwrap().to_owned(), body.to_owned())
}

#[test]
fn onnx_files_are_urls_at_once() {
    let application = Application::new();
    let mut lines = Vec::new();
    let classifiers =
        ["strings-linear", "strings-forest", "strings-bayes", "numbers-double", "columns"];
    let without_probabilities = ["margins", "distances"];
    let regressors = ["regressor", "two-targets", "picture"];
    let others = ["two-outputs"];
    for name in [&classifiers[..], &without_probabilities, &regressors, &others].concat() {
        lines.push(application.added(name, &[]).lines().last().unwrap().to_owned());
    }
    let softmax = application.added("softmax", &["--labels", "no,yes", "--fields", "a,b,c"]);
    lines.push(softmax.lines().last().unwrap().to_owned());
    let spinfer = application.up();

    for line in &lines {
        let (path, body) = asked(line.trim());
        let answer = spinfer.post(&path, &body);
        assert_eq!(answer.status, 200, "{line}: {}", answer.text());
    }

    let expected = expected();
    for name in classifiers.iter().chain(&without_probabilities) {
        let of = &expected[*name];
        let inputs = of["inputs"].as_object().unwrap();
        let rows: Vec<Vec<Value>> = (0..3)
            .map(|row| {
                inputs
                    .values()
                    .rev()
                    .flat_map(|rows| rows[row].as_array().unwrap().clone())
                    .collect()
            })
            .collect();
        let outputs: Vec<&Value> = of["outputs"].as_object().unwrap().values().collect();
        let [classes, scores] = outputs[..] else { panic!("{name}: {outputs:?}") };
        for (row, prediction) in predictions(&spinfer, name, &json!(rows)).iter().enumerate() {
            assert_eq!(prediction["prediction"], classes[row], "{name}");
            if without_probabilities.contains(name) {
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
    for name in regressors {
        let of = &expected[name];
        let rows = of["inputs"].as_object().unwrap().values().next().unwrap();
        let outputs = of["outputs"].as_object().unwrap().values().next().unwrap();
        for (row, prediction) in predictions(&spinfer, name, rows).iter().enumerate() {
            let [only] = outputs[row].as_array().unwrap().as_slice() else {
                assert_near(&prediction["prediction"], &outputs[row], name);
                continue;
            };
            assert_near(&prediction["prediction"], only, name);
        }
    }

    // Labels that were given name the greatest of the only output's numbers.
    let of = &expected["softmax"];
    for (row, prediction) in predictions(&spinfer, "softmax", &of["inputs"]["x"]).iter().enumerate()
    {
        let scores = &of["outputs"]["y"][row];
        let label = if scores[0].as_f64() >= scores[1].as_f64() { "no" } else { "yes" };
        assert_eq!(prediction["prediction"], label);
        assert_near(&prediction["probabilities"]["yes"], &scores[1], "softmax");
    }
    let by_name = r#"{"instances": [{"c": 3, "a": 1, "b": 2}]}"#;
    let answer = spinfer.post("/v2/models/softmax/predict", by_name).json();
    let probability = &answer["predictions"][0]["probabilities"]["yes"];
    assert_near(probability, &of["outputs"]["y"][0][1], "softmax");

    // Inputs of one column each are read from a table by their names.
    let of = &expected["columns"];
    let (length, count) = (&of["inputs"]["length"][1][0], &of["inputs"]["count"][1][0]);
    let body =
        json!({ "dataframe_split": { "columns": ["count", "length"], "data": [[count, length]] } });
    let answer = spinfer.post("/v2/models/columns/invocations", body.to_string());
    assert_eq!(answer.json()["predictions"], json!([of["outputs"]["output_label"][1]]));
    let half = json!({ "features": [length, 30.5] }).to_string();
    let answer = spinfer.post("/v2/models/columns/predict", half);
    assert_eq!(
        (answer.status, answer.error().as_str()),
        (400, "features[1] (count): 30.5 is not an integer of 64 bits (INT64)")
    );

    // Two outputs are no one prediction: the answer says what is.
    let of = &expected["two-outputs"];
    let answer = spinfer.post("/v2/models/two-outputs/predict", r#"{"features": [1, 2, 3]}"#);
    assert_eq!(answer.status, 400);
    assert!(answer.error().contains("POST /v2/models/two-outputs/infer"), "{}", answer.error());
    let body = json!({ "inputs": [{ "name": "x", "shape": [2, 3], "datatype": "FP32", "data": of["inputs"]["x"] }] });
    let outputs = spinfer.post("/v2/models/two-outputs/infer", body.to_string()).json();
    for (output, name) in outputs["outputs"].as_array().unwrap().iter().zip(["a", "b"]) {
        let rows = of["outputs"][name].as_array().unwrap();
        let flat: Vec<Value> =
            rows.iter().flat_map(|row| row.as_array().unwrap().clone()).collect();
        assert_eq!(output["name"], name);
        assert_near(&output["data"], &json!(flat), name);
    }
    let metadata = spinfer.get("/v2/models/two-outputs").json();
    assert_eq!(
        metadata["outputs"][0],
        json!({ "name": "a", "datatype": "FP32", "shape": [-1, 2] })
    );
    assert_eq!(spinfer.get("/v2/models/two-outputs/versions/1/ready").status, 200);
    assert_eq!(spinfer.get("/v2/models/two-outputs/versions/2/ready").status, 404);
}

#[test]
fn the_generic_component_serves_one_model() {
    let model = |name: &str| {
        let folder = root().join("models/iris-classifier/1");
        format!("{{ source = \"{}\", destination = \"/models/{name}\" }}", folder.display())
    };
    let one = format!("files = [{}]\n", model("iris-classifier"));
    let two = format!("files = [{}, {}]\n", model("iris-classifier"), model("other"));
    let manifest = Manifest::default()
        .with("/one/...", "one", "generic_model", &one)
        .with("/standard/...", "standard", "generic_model", &(one.clone() + STANDARD_DOOR))
        .with("/none/...", "none", "generic_model", "")
        .with("/two/...", "two", "generic_model", &two)
        .with_iris("iris", 1, "/iris/...", "");
    let spinfer = Spinfer::up(&manifest);
    let ask = |path: &str| spinfer.post(path, r#"{"features": [5.1, 3.5, 1.4, 0.2]}"#);
    let own = ask("/iris/predict");
    assert_eq!(own.status, 200);
    for path in ["/one/predict", "/standard/predict"] {
        assert_eq!(ask(path).body, own.body, "as a component of its own would");
    }
    for (path, part) in
        [("/none/predict", "no model is mounted"), ("/two/predict", "2 are mounted")]
    {
        let answer = ask(path);
        assert_eq!(answer.status, 503);
        assert!(answer.error().contains(part), "{}", answer.error());
    }
}
