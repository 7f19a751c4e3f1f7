//! `spinfer add`: ONNX files as teams export them are served.

mod predictions; // of models with every kind of output

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use spinfer_tests::{Launch, Manifest, STANDARD_DOOR, Spinfer, root, run};
use tempfile::TempDir;

/// The ONNX files to add, and the outputs of ONNX Runtime for some rows (`expected.json`).
pub(crate) fn files() -> PathBuf {
    root().join("tests/models/add")
}

fn expected() -> Value {
    let text = fs::read_to_string(files().join("expected.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// The folder of an application that grows command by command.
pub(crate) struct AppFolder(pub(crate) TempDir);

impl AppFolder {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    /// `spinfer add` of a file: whether it succeeds, and its output.
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
        Launch::from_file(self.path("spin.toml")).keep(self.0).up()
    }

    pub(crate) fn manifest(&self) -> String {
        fs::read_to_string(self.path("spin.toml")).unwrap()
    }

    /// Every file and its content.
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

/// Equality, with a tolerance for numbers.
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

/// The predictions of `/predict` for the rows of `expected.json`.
fn predictions(spinfer: &Spinfer, name: &str, rows: &Value) -> Vec<Value> {
    let body = json!({ "instances": rows }).to_string();
    let response = spinfer.post(&format!("/v2/models/{name}/predict"), body);
    assert_eq!(response.status, 200, "{name}: {}", response.text());
    response.json()["predictions"].as_array().unwrap().clone()
}

/// The `curl` command that `spinfer add` printed.
fn line(printed: &str) -> String {
    printed.lines().last().unwrap().trim().to_owned()
}

/// The request that a `curl` command sends.
struct CurlRequest {
    path: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl CurlRequest {
    /// Of the command in `line`, as a shell reads it.
    fn of(line: &str) -> Self {
        let script = format!("curl() {{ printf '%s\\0' \"$@\"; }}; {line}");
        let output = Command::new("sh").args(["-c", &script]).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let mut arguments = text.split_terminator('\0');
        let path = arguments.next().unwrap().strip_prefix("localhost:3000").unwrap().to_owned();
        let mut asked = Self { path, headers: Vec::new(), body: Vec::new() };
        while let (Some(flag), Some(value)) = (arguments.next(), arguments.next()) {
            match (flag, value.strip_prefix('@')) {
                ("-H", _) => {
                    let (name, value) = value.split_once(": ").unwrap();
                    asked.headers.push((name.to_owned(), value.to_owned()));
                }
                ("-d" | "--data-binary", Some(file)) => asked.body = fs::read(file).unwrap(),
                ("-d", None) => asked.body = value.as_bytes().to_vec(),
                _ => panic!("{line}"),
            }
        }
        asked
    }

    /// Sends it to `spinfer`: the JSON of the response, which has status 200.
    fn send(&self, spinfer: &Spinfer) -> Value {
        let headers: Vec<(&str, &str)> =
            self.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let response = spinfer.send("POST", &self.path, &headers, &self.body);
        assert_eq!(response.status, 200, "{}: {}", self.path, response.text());
        response.json()
    }
}

/// The shape and the batch axis of a tensor in the `model.toml` of version 1.
fn tensor(application: &AppFolder, model: &str, tensors: &str, name: &str) -> (Vec<i64>, i64) {
    let path = application.path(&format!("models/{model}/1/model.toml"));
    let text = fs::read_to_string(path).unwrap();
    let signature: toml::Table = toml::from_str(&text).unwrap();
    let tensor = signature[tensors].as_array().unwrap().iter();
    let tensor = tensor.filter_map(|t| t.as_table()).find(|t| t["name"].as_str() == Some(name));
    let tensor = tensor.unwrap_or_else(|| panic!("no {name} in {text}"));
    let shape = tensor["shape"].as_array().unwrap().iter();
    let axis = tensor.get("batch_axis").and_then(toml::Value::as_integer).unwrap_or(0);
    (shape.map(|axis| axis.as_integer().unwrap()).collect(), axis)
}

/// The outputs of `/infer` for the inputs in `expected.json`, which are checked against the expected ones.
fn infer(spinfer: &Spinfer, model: &str, datatypes: &[(&str, &str)]) -> Vec<Value> {
    let of = &expected()[model];
    let shape = |mut value: &Value| {
        let mut shape = Vec::new();
        while let Value::Array(items) = value {
            shape.push(items.len());
            value = &items[0];
        }
        shape
    };
    let input = |&(name, datatype): &(&str, &str)| {
        let data = &of["inputs"][name];
        json!({ "name": name, "shape": shape(data), "datatype": datatype, "data": data })
    };
    let inputs: Vec<Value> = datatypes.iter().map(input).collect();
    let body = json!({ "inputs": inputs }).to_string();
    let response = spinfer.post(&format!("/v2/models/{model}/infer"), body);
    assert_eq!(response.status, 200, "{model}: {}", response.text());
    let outputs = response.json()["outputs"].as_array().unwrap().clone();
    for output in &outputs {
        let expected = &of["outputs"][output["name"].as_str().unwrap()];
        assert_eq!(output["shape"], json!(shape(expected)), "{model}");
        assert_near(&output["data"], &flat(expected), model);
    }
    outputs
}

fn flat(value: &Value) -> Value {
    fn fill(value: &Value, into: &mut Vec<Value>) {
        match value {
            Value::Array(items) => items.iter().for_each(|item| fill(item, into)),
            element => into.push(element.clone()),
        }
    }
    let mut elements = Vec::new();
    fill(value, &mut elements);
    json!(elements)
}

/// Graphs that fail on zeros, whose free axis is not the first, whose output shapes depend on input
/// values, and whose tensors are not floats.
#[test]
fn trial_run_uses_inputs_the_graph_accepts() {
    let application = AppFolder::new();
    let models = ["divides", "tokens", "time-first", "detections", "types", "countries", "mixed"];
    let mut lines = Vec::new();
    for name in models {
        let printed = application.added(name, &[]);
        assert!(!printed.contains("note"), "no axis was fixed: {printed}");
        lines.push(line(&printed));
    }
    let tensors = |model, tensors, name| tensor(&application, model, tensors, name);
    assert_eq!(tensors("divides", "outputs", "y"), (vec![-1], 0));
    assert_eq!(tensors("tokens", "inputs", "ids"), (vec![-1, -1], 0));
    assert_eq!(tensors("tokens", "outputs", "y"), (vec![-1, 4], 0));
    assert_eq!(tensors("time-first", "inputs", "x"), (vec![5, -1, 3], 1));
    assert_eq!(tensors("time-first", "outputs", "h"), (vec![1, -1, 4], 1));
    assert_eq!(tensors("detections", "inputs", "boxes"), (vec![1, -1, 4], 0));
    assert_eq!(tensors("detections", "outputs", "selected"), (vec![-1, 3], 0));
    assert_eq!(tensors("types", "outputs", "off"), (vec![-1, 2], 0));

    // The baseline of a table of numbers and text covers the numbers; the graph runs on both.
    let data = application.path("data.csv");
    fs::write(&data, "age,city\n51,Rome\n70,Oslo\n,Lima\n").unwrap();
    let from = application.path("spin.toml");
    let (data, from) = (data.to_str().unwrap(), from.to_str().unwrap());
    let (status, printed) = run(&["baseline", data, "--model", "mixed", "--from", from]);
    assert!(status.success() && printed.contains("3 rows, 1 features"), "{printed}");
    assert!(printed.contains("Skipped string columns: city"), "{printed}");
    let (status, printed) = run(&["baseline", data, "--model", "time-first", "--from", from]);
    assert!(!status.success() && printed.contains("along its axis 1"), "{printed}");

    let spinfer = application.up();
    for line in &lines {
        CurlRequest::of(line).send(&spinfer);
    }
    infer(&spinfer, "divides", &[("x", "INT64"), ("d", "INT64")]);
    infer(&spinfer, "tokens", &[("ids", "INT64"), ("mask", "INT64")]);
    infer(&spinfer, "time-first", &[("x", "FP32")]);
    infer(&spinfer, "detections", &[("boxes", "FP32"), ("scores", "FP32")]);
    infer(&spinfer, "types", &[("flags", "BOOL"), ("small", "INT8")]);
    // Strings without a list of labels are served unchanged.
    let outputs = infer(&spinfer, "countries", &[("city", "BYTES")]);
    assert_eq!(outputs[0]["datatype"], "BYTES");
    // A row of numbers and text by column name.
    let of = &expected()["mixed"];
    let (age, city) = (&of["inputs"]["age"][1][0], &of["inputs"]["city"][1][0]);
    let row = json!({ "features": { "city": city, "age": age } }).to_string();
    let response = spinfer.post("/v2/models/mixed/predict", row).json();
    assert_eq!(response["prediction"], of["outputs"]["output_label"][1], "{response}");
}

#[test]
fn add_reports_fixed_axes_and_contradicting_shapes() {
    let application = AppFolder::new();
    let printed = application.added("fixed-batch", &[]);
    assert!(printed.contains("`batch` is free in the file and fixed to 1 here"), "{printed}");
    assert_eq!(tensor(&application, "fixed-batch", "inputs", "x").0, [1, 2, 2]);
    let printed = application.added("declared-otherwise", &[]);
    let contradiction = "output `y` is declared as [-1, 7] and computed as [-1, 2]";
    assert_eq!(printed.matches(contradiction).count(), 1, "{printed}");
    assert_eq!(tensor(&application, "declared-otherwise", "outputs", "y").0, [-1, 2]);
}

#[test]
fn example_file_provides_the_inputs_of_the_trial_run() {
    let application = AppFolder::new();
    let file = files().join("needs-an-example.onnx");
    let (added, printed) = application.add(&file, &[]);
    assert!(!added && printed.contains("--example request.json"), "{printed}");
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let nested = write("nested.json", br#"{"x": [1003, 1000]}"#);
    let request = json!({ "name": "x", "shape": [1], "datatype": "INT64", "data": [1004] });
    let request = write("request.json", json!({ "inputs": [request] }).to_string().as_bytes());
    let mut lines = Vec::new();
    for (version, example) in [nested, request].iter().enumerate() {
        let printed = application.added("needs-an-example", &["--example", example, "--promote"]);
        assert!(printed.contains(&format!("version {}", version + 1)), "{printed}");
        lines.push(line(&printed));
    }
    assert_eq!(tensor(&application, "needs-an-example", "inputs", "x").0, [-1]);
    for (name, text, part) in [
        ("range.json", r#"{"x": [7]}"#, "--example: the graph does not run on it"),
        ("other.json", r#"{"z": [7]}"#, "unknown input `z`; the graph has `x`"),
        (
            "kind.json",
            r#"{"x": [0.5]}"#,
            "the input is INT64, but the example has floating-point numbers",
        ),
        ("text.npz", "text", "not a ZIP archive"),
    ] {
        let example = write(name, text.as_bytes());
        let (added, printed) = application.add(&file, &["--example", &example]);
        assert!(!added && printed.contains(part), "{printed}");
    }
    let spinfer = application.up();
    for line in &lines {
        CurlRequest::of(line).send(&spinfer);
    }
    infer(&spinfer, "needs-an-example", &[("x", "INT64")]);
}

#[test]
fn external_weights_are_bundled_into_the_graph() {
    let application = AppFolder::new();
    let folder = tempfile::tempdir().unwrap();
    let graph = folder.path().join("my_model.onnx");
    fs::copy(files().join("external.onnx"), &graph).unwrap();
    let (added, printed) = application.add(&graph, &[]);
    assert!(!added && printed.contains("its weights are in \"external.bin\""), "{printed}");
    fs::copy(files().join("external.bin"), folder.path().join("external.bin")).unwrap();
    // The model's name keeps its underscore; a component's id cannot have one.
    let (added, printed) = application.add(&graph, &["--backend", "onnxruntime", "--threads", "2"]);
    assert!(added && printed.contains("weights merged into the graph"), "{printed}");
    let signature = fs::read_to_string(application.path("models/my_model/1/model.toml")).unwrap();
    assert!(signature.contains("backend = \"onnxruntime\"\nthreads = 2\n"), "{signature}");
    assert!(signature.contains("file_sha256"), "{signature}");
    assert!(
        application.manifest().contains("[component.my-model-1]"),
        "{}",
        application.manifest()
    );
    let spinfer = application.up();
    CurlRequest::of(&line(&printed)).send(&spinfer);
    let rows = &expected()["softmax"];
    let response = predictions(&spinfer, "my_model", &rows["inputs"]["x"]);
    for (row, prediction) in response.iter().enumerate() {
        assert_near(&prediction["prediction"], &rows["outputs"]["y"][row], "my_model");
    }
}

/// The request of an image is in a file, which is binary if the request is large.
#[test]
fn printed_curl_command_reads_large_requests_from_a_file() {
    let application = AppFolder::new();
    let printed = application.added("picture", &[]);
    assert!(printed.contains("requests/picture-1.json"), "{printed}");
    let example = application.path("rows.json");
    let rows = vec![vec![vec![vec![0.123_456_789; 28]; 28]]; 40];
    fs::write(&example, json!({ "image": rows }).to_string()).unwrap();
    let example = example.to_str().unwrap();
    let many = application.added("picture", &["--example", example]);
    assert!(many.contains("requests/picture-2.bin"), "{many}");
    let spinfer = application.up();
    let response = CurlRequest::of(&line(&printed)).send(&spinfer);
    assert_eq!(response["prediction"].as_array().unwrap().len(), 10);
    let response = CurlRequest::of(&line(&many)).send(&spinfer);
    assert_eq!(response["outputs"][0]["shape"], json!([40, 10]));
}

#[test]
fn generic_component_serves_exactly_one_model() {
    let model = |name: &str| {
        let folder = root().join(format!("models/{name}/1"));
        format!("{{ source = \"{}\", destination = \"/models/{name}\" }}", folder.display())
    };
    let one = format!("files = [{}]\n", model("iris-classifier"));
    let two = format!("files = [{}, {}]\n", model("iris-classifier"), model("diabetes-regressor"));
    let manifest = Manifest::default()
        .with("/one/...", "one", "generic_model", &one)
        .with("/standard/...", "standard", "generic_model", &(one.clone() + STANDARD_DOOR))
        .with("/none/...", "none", "generic_model", "")
        .with("/two/...", "two", "generic_model", &two)
        .with_iris("iris", 1, "/iris/...", "");
    let spinfer = Launch::new(&manifest).up();
    let send = |path: &str| spinfer.post(path, r#"{"features": [5.1, 3.5, 1.4, 0.2]}"#);
    let own = send("/iris/predict");
    assert_eq!(own.status, 200);
    for path in ["/one/predict", "/standard/predict"] {
        assert_eq!(send(path).body, own.body, "as a component of its own responds");
    }
    for (path, part) in
        [("/none/predict", "no model is mounted"), ("/two/predict", "2 are mounted")]
    {
        let response = send(path);
        assert_eq!(response.status, 503);
        assert!(response.error().contains(part), "{}", response.error());
    }
}
