//! `model.toml` is checked against its graph and its component before a client sees it.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;
use spinfer_tests::{Launch, Manifest, Spinfer, root, run, wait_until};
use tempfile::TempDir;

const PREDICT: &str = "/v2/models/iris-classifier/predict";
const FLOWER: &str = r#"{"features": [5.1, 3.5, 1.4, 0.2]}"#;

/// A copy of version 1 of the iris classifier.
struct Iris {
    folder: TempDir,
}

impl Iris {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for file in ["model.onnx", "model.toml"] {
            let from = root().join("models/iris-classifier/1").join(file);
            fs::copy(from, folder.path().join(file)).unwrap();
        }
        Self { folder }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn file(&self) -> PathBuf {
        self.path().join("model.toml")
    }

    /// Replaces each text in `model.toml`.
    fn edited(self, edits: &[(&str, &str)]) -> Self {
        let mut text = fs::read_to_string(self.file()).unwrap();
        for (from, to) in edits {
            assert!(text.contains(from), "{from}");
            text = text.replacen(from, to, 1);
        }
        fs::write(self.file(), text).unwrap();
        self
    }

    /// Served by the component `guest`.
    fn manifest(&self, guest: &str) -> Manifest {
        let files = format!(
            "files = [{{ source = \"{}\", destination = \"/models/iris-classifier\" }}]",
            self.path().display()
        );
        Manifest::default().with("/v2/models/iris-classifier/...", "iris", guest, &files)
    }
}

const FIELDS: &str =
    "\nfields = [\"sepal_length\", \"sepal_width\", \"petal_length\", \"petal_width\"]";

/// By `up` before its socket is bound, by `check` and by `models`.
#[test]
fn mistakes_in_model_toml_are_refused_before_serving() {
    for (edits, expected) in [
        (
            &[(", \"virginica\"", "")][..],
            "`labels`: has 2 of them, but outputs[1], \"probabilities\", has 3 scores",
        ),
        (
            &[("labels =", "lables =")],
            "line 5: `lables` is not a key of model.toml; did you mean `labels`?",
        ),
        (&[("FP32", "FP23")], "line 9: `inputs[0].datatype`: expected one of BOOL, INT8, "),
        (
            &[("\"features\"", "\"measurements\"")],
            "`inputs[0].name`: is \"measurements\", but the graph's inputs are \"features\"; write name = \
             \"features\"",
        ),
        (
            &[("FP32", "FP64")],
            "`inputs[0].datatype`: is \"FP64\", but \"features\" of the graph is FP32",
        ),
        (&[("[-1, 4]", "[-1, 5]"), (FIELDS, "")], "write shape = [-1, 4]"),
        (
            &[("\"label\"", "\"class\"")],
            "`outputs[0].name`: is \"class\", but the graph's outputs are",
        ),
        (&[("sha256 = \"44", "sha256 = \"45")], "a version is immutable"),
        (&[("\"iris-classifier\"", "\"wine\"")], "the name is \"wine\", but this component serves"),
        (
            &[("labels =", "placement = 'gpu'\nlabels =")],
            "line 5: `placement = 'gpu'`: unknown variant",
        ),
    ] {
        let iris = Iris::new().edited(edits);
        let manifest = iris.manifest("generic_model");
        let file = iris.file();
        let (status, checked) = Launch::new(&manifest).check();
        assert!(!status.success(), "{edits:?}: {checked}");
        for output in [checked, Launch::new(&manifest).refused()] {
            assert!(output.contains(expected), "{edits:?}: {expected:?} is not in\n{output}");
            assert!(output.contains(file.to_str().unwrap()), "the file is named: {output}");
            assert!(output.contains("component.iris.files"), "the key is named: {output}");
            assert!(!output.contains("Serving"), "{output}");
        }
        let path = iris.path().join("spin.toml");
        fs::write(&path, manifest.text()).unwrap();
        let (status, output) = run(&["models", "--from", path.to_str().unwrap()]);
        assert!(!status.success() && output.contains(expected), "{output}");
        assert!(output.contains("1 of 1 models cannot be served"), "{output}");
    }
}

#[test]
fn every_problem_of_a_version_is_listed() {
    let iris = Iris::new().edited(&[
        ("labels =", "lables =\nthreads = 0\nx ="),
        ("FP32", "FP64"),
        ("\"label\"", "\"class\""),
    ]);
    // A key without a value is no TOML: the first problem is the only one.
    let output = Launch::new(&iris.manifest("generic_model")).refused();
    assert_eq!(output.matches("model.toml: line").count(), 1, "{output}");
    let iris = Iris::new().edited(&[
        ("labels =", "lables = []\nthreads = 0\nlabels ="),
        ("FP32", "FP23"),
        ("\"INT64\"", "5"),
    ]);
    let output = Launch::new(&iris.manifest("generic_model")).refused();
    for part in ["`lables`", "from 1 to 64", "`inputs[0].datatype`", "`outputs[0].datatype`"] {
        assert!(output.contains(part), "{part} is not in\n{output}");
    }
}

/// The files are copied at startup, into a folder that did not exist before.
#[test]
fn mistakes_in_copied_files_are_refused_before_serving() {
    let iris = Iris::new().edited(&[("labels =", "lables =")]);
    let files = ["model.onnx", "model.toml"].map(|file| {
        let path = iris.path().join(file);
        format!(
            "{{ source = \"{}\", destination = \"/models/iris-classifier/{file}\" }}",
            path.display()
        )
    });
    let files = format!("files = [{}]", files.join(", "));
    let manifest = Manifest::default().with("/...", "iris", "generic_model", &files);
    let output = Launch::new(&manifest).refused();
    assert!(output.contains("component `iris`"), "{output}");
    assert!(output.contains("did you mean `labels`?"), "{output}");
}

#[test]
fn missing_graph_is_refused() {
    let iris = Iris::new();
    fs::remove_file(iris.path().join("model.onnx")).unwrap();
    let output = Launch::new(&iris.manifest("generic_model")).refused();
    assert!(output.contains("a model folder contains model.onnx"), "{output}");
}

/// The file leaves the number of scores open; a run of the graph shows it.
#[test]
fn too_few_labels_for_a_free_axis_are_found_by_a_run() {
    let iris = Iris::new().edited(&[(", \"virginica\"", ""), ("[-1, 3]", "[-1, -1]")]);
    let (status, output) = Launch::new(&iris.manifest("generic_model")).check();
    let expected = "`labels`: has 2 of them, but outputs[1], \"probabilities\", has 3 scores";
    assert!(!status.success() && output.contains(expected), "{output}");
    let spinfer = Launch::new(&iris.manifest("generic_model")).up();
    wait_until("the model is refused", || {
        spinfer.get("/v2/health/ready").error().contains(expected)
    });
    let response = spinfer.post(PREDICT, FLOWER);
    assert_eq!(response.status, 503, "{}", response.text());
    assert!(response.error().contains(expected), "{}", response.error());
}

#[test]
fn readiness_recovers_once_the_model_can_be_loaded() {
    let iris = Iris::new();
    let manifest = iris.manifest("generic_model");
    let good = fs::read_to_string(iris.file()).unwrap();
    let idle = "tool.spinfer.limits.idle = \"50ms\"";
    let spinfer = Launch::new(&manifest.and(idle)).uncached().up();
    wait_until("it is ready", || spinfer.get("/v2/health/ready").status == 200);
    // The model is unloaded once it is idle, and then cannot be loaded again.
    spinfer.wait_for_log("idle code unloaded");
    fs::write(iris.file(), good.replace("labels", "lables")).unwrap();
    assert_eq!(spinfer.post(PREDICT, FLOWER).status, 503);
    let ready = spinfer.get("/v2/health/ready");
    assert_eq!(ready.status, 503);
    assert!(ready.error().contains("did you mean `labels`?"), "{}", ready.error());
    let state =
        |spinfer: &Spinfer| spinfer.post("/v2/repository/index", "{}").json()[0]["state"].clone();
    assert_eq!(state(&spinfer), "UNAVAILABLE");
    // Without a request.
    fs::write(iris.file(), good).unwrap();
    wait_until("it is ready again", || spinfer.get("/v2/health/ready").status == 200);
    assert_eq!(state(&spinfer), "READY");
    assert_eq!(spinfer.post(PREDICT, FLOWER).json()["prediction"], "setosa");
}

/// Components of `model-sdk` need a `model.toml`; others do not.
#[test]
fn missing_model_toml_is_reported_by_the_component() {
    let iris = Iris::new();
    let signature = fs::read(iris.file()).unwrap();
    fs::remove_file(iris.file()).unwrap();
    let (status, output) = Launch::new(&iris.manifest("probe")).check();
    assert!(status.success(), "{output}");
    let manifest = iris.manifest("iris_classifier");
    let (status, output) = Launch::new(&manifest).check();
    let expected = format!("{} is missing", iris.file().display());
    assert!(!status.success() && output.contains(&expected), "{output}");
    assert!(!output.contains("os error"), "{output}");
    let spinfer = Launch::new(&manifest).up();
    wait_until("the component refuses the model", || {
        let ready = spinfer.get("/v2/health/ready");
        ready.status == 503 && ready.error().contains(&expected)
    });
    fs::write(iris.file(), signature).unwrap();
    wait_until("it is ready", || spinfer.get("/v2/health/ready").status == 200);
    assert_eq!(spinfer.post(PREDICT, FLOWER).json()["prediction"], "setosa");
}

#[test]
fn model_of_another_component_is_refused() {
    let iris = Iris::new();
    let manifest = iris.manifest("digits_classifier");
    let (status, output) = Launch::new(&manifest).check();
    let expected = "this component serves \"digits-classifier\"";
    assert!(!status.success() && output.contains(expected), "{output}");
}

/// A component with a mapping has inputs and outputs of its own.
#[test]
fn mapped_model_declares_its_own_tensors() {
    let from = root().join("models/language-identifier/1");
    let dir = tempfile::tempdir().unwrap();
    fs::copy(from.join("model.onnx"), dir.path().join("model.onnx")).unwrap();
    let text = fs::read_to_string(from.join("model.toml")).unwrap();
    fs::write(dir.path().join("model.toml"), text.replace("mapped = true\n", "")).unwrap();
    let files = format!(
        "files = [{{ source = \"{}\", destination = \"/models/language-identifier\" }}]",
        dir.path().display()
    );
    let manifest = Manifest::default().with("/...", "language", "language_identifier", &files);
    let output = Launch::new(&manifest).refused();
    assert!(output.contains("`mapped = true` at the top of the file"), "{output}");
    fs::write(dir.path().join("model.toml"), text).unwrap();
    let (status, output) = Launch::new(&manifest).check();
    assert!(status.success(), "{output}");
}

#[test]
fn models_are_listed_with_their_routes() {
    let manifest = Manifest::default()
        .with_iris("first", 1, "/v2/models/iris-classifier/...", "")
        .with_iris("second", 2, "/v2/models/iris-classifier/versions/2/...", "")
        .and("[[trigger.http]]\nroute = \"/iris/...\"\ncomponent = \"first\"\n");
    let spinfer = Launch::new(&manifest).up();
    wait_until("it is ready", || spinfer.get("/v2/health/ready").status == 200);
    let expected = json!({
        "models": ["iris-classifier"],
        "versions": [
            {
                "name": "iris-classifier",
                "version": "1",
                "ready": true,
                "routes": ["/v2/models/iris-classifier/...", "/iris/..."],
            },
            {
                "name": "iris-classifier",
                "version": "2",
                "ready": true,
                "routes": ["/v2/models/iris-classifier/versions/2/..."],
            },
        ],
    });
    assert_eq!(spinfer.get("/v2/models").json(), expected);
    assert_eq!(spinfer.get("/").json(), expected);
    let accept = [("accept", "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8")];
    for path in ["/", "/v2/models"] {
        let page = spinfer.send("GET", path, &accept, b"");
        assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
        let policy = page.header("content-security-policy").unwrap();
        assert!(policy.starts_with("default-src 'none'"), "{policy}");
        let text = page.text();
        for part in [
            "<h1>test</h1>",
            "<code>/v2/models/iris-classifier/...</code>",
            "action=\"/v2/models/iris-classifier/infer\"",
            "action=\"/v2/models/iris-classifier/versions/2/infer\"",
        ] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
        // The form's request is one that the model accepts.
        let body = text.split("spellcheck=\"false\">\n").nth(1).unwrap();
        let body = &body[..body.find("</textarea>").unwrap()];
        assert_eq!(body.lines().count(), 3, "one line for each input: {body}");
        let response = spinfer.post("/v2/models/iris-classifier/infer", body);
        assert_eq!(response.status, 200, "{body}: {}", response.text());
    }
    assert_eq!(spinfer.send("HEAD", "/", &[], b"").status, 200);
    assert_eq!(spinfer.post("/", "{}").status, 404);
}

#[test]
fn root_belongs_to_the_application() {
    let with_route = Manifest::default().with_iris("iris", 1, "/...", "");
    let spinfer = Launch::new(&with_route).up();
    assert_eq!(spinfer.get("/").status, 404);
    assert!(spinfer.get("/").error().contains("no operation at"), "{}", spinfer.get("/").text());
    let without_models = Manifest::default().with("/echo", "probe", "probe", "");
    assert_eq!(Launch::new(&without_models).up().get("/").status, 404);
}

#[test]
fn unknown_path_is_404_with_the_nearest_routes() {
    let manifest = Manifest::default()
        .with_iris("iris", 1, "/v2/models/iris-classifier/...", "")
        .with("/echo/...", "probe", "probe", "");
    let spinfer = Launch::new(&manifest).admin().up();
    for (path, expected) in [
        ("/ehco", "no route matches /ehco; did you mean /echo/...?"),
        (
            "/v2/models/iris-clasifier/infer",
            "no route matches /v2/models/iris-clasifier/infer; did you mean /v2/models/iris-classifier/...?",
        ),
        ("/v2/health/redy", "no route matches /v2/health/redy; did you mean /v2/health/ready?"),
        // The admin plane is not public.
        ("/metrics", "no route matches /metrics"),
        ("/cache/stats", "no route matches /cache/stats"),
    ] {
        let response = spinfer.get(path);
        assert_eq!((response.status, response.error().as_str()), (404, expected));
    }
}

#[test]
fn log_names_the_model_and_version_of_a_graph() {
    let manifest = Manifest::default().with_iris("iris", 2, "/...", "");
    let spinfer = Launch::new(&manifest).up();
    wait_until("it is ready", || spinfer.get("/v2/health/ready").status == 200);
    let log = spinfer.log();
    let line = log.lines().find(|line| line.contains("graph loaded")).unwrap();
    for part in ["model=\"iris-classifier/2\"", "backend=\"lean\""] {
        assert!(line.contains(part), "{line}");
    }
}
