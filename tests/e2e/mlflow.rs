//! `spinfer pull mlflow` against a real tracking server: every kind of source, and predictions equal to
//! those of ONNX Runtime.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use spinfer_tests::{Spinfer, root, run, run_in};
use tempfile::TempDir;

use super::add::AppFolder;

/// A tracking server with the models of `tests/python/mlflow_server.py`.
struct TrackingServer {
    process: Child,
    /// The output of that script: the server's URI, and its models.
    output: Value,
    _folder: TempDir,
}

impl TrackingServer {
    fn start() -> Self {
        let python = root().join("target/python-mlflow/bin/python");
        assert!(
            python.exists(),
            "MLflow is not installed at {}: run `make mlflow`, which needs the network once",
            python.display()
        );
        let folder = tempfile::tempdir().unwrap();
        let mut process = Command::new(python)
            .arg(root().join("tests/python/mlflow_server.py"))
            .arg(folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python starts");
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let output = serde_json::from_str(&line).expect("the script logs its models");
        Self { process, output, _folder: folder }
    }

    fn uri(&self) -> &str {
        self.output["uri"].as_str().unwrap()
    }

    fn cases(&self) -> &[Value] {
        self.output["cases"].as_array().unwrap()
    }
}

impl Drop for TrackingServer {
    fn drop(&mut self) {
        // It exits at the end of its standard input.
        drop(self.process.stdin.take());
        let _ = self.process.wait();
    }
}

impl AppFolder {
    /// `spinfer pull mlflow`: whether it succeeds, and its output.
    fn pull(&self, mlflow: &TrackingServer, source: &str, arguments: &[&str]) -> (bool, String) {
        let from = self.path("spin.toml");
        let start = ["pull", "mlflow", source, "--from", from.to_str().unwrap()];
        let uri = ["--tracking-uri", mlflow.uri()];
        let (status, text) = run(&[&start[..], &uri, arguments].concat());
        (status.success(), text)
    }

    fn pulled(&self, mlflow: &TrackingServer, source: &str, arguments: &[&str]) -> String {
        let (pulled, text) = self.pull(mlflow, source, arguments);
        assert!(pulled, "{source}: {text}");
        text
    }

    /// The `model.toml` of a version.
    fn signature(&self, name: &str, version: u64) -> Value {
        let path = self.path(&format!("models/{name}/{version}/model.toml"));
        toml::from_str(&fs::read_to_string(path).unwrap()).unwrap()
    }
}

/// Checks that the predictions for `rows` are those of the case.
fn assert_predicts(spinfer: &Spinfer, name: &str, rows: &Value, case: &Value) {
    let body = json!({ "instances": rows }).to_string();
    let response = spinfer.post(&format!("/v2/models/{name}/predict"), body);
    assert_eq!(response.status, 200, "{case}: {}", response.text());
    let response = response.json();
    let (got, expected) = (response["predictions"].as_array(), case["expected"].as_array());
    let (got, expected) = (got.unwrap(), expected.unwrap());
    assert_eq!(got.len(), expected.len());
    for (got, expected) in got.iter().zip(expected) {
        assert_eq!(got["prediction"], expected["prediction"], "{case}");
        let difference =
            got["probability"].as_f64().unwrap() - expected["probability"].as_f64().unwrap();
        assert!(difference.abs() < 1e-5, "{case}: {got}");
    }
}

/// One test for all, as the server takes longer to start than each of them.
#[test]
fn models_pulled_from_mlflow_are_served() {
    let mlflow = TrackingServer::start();
    every_source_is_served(&mlflow);
    names_and_versions_follow_the_registered_model(&mlflow);
    failed_pull_leaves_no_trace(&mlflow);
    tracking_uri_is_read_from_the_environment(&mlflow);
}

fn every_source_is_served(mlflow: &TrackingServer) {
    let application = AppFolder::new();
    for (index, case) in mlflow.cases().iter().enumerate() {
        let (source, name) = (case["source"].as_str().unwrap(), format!("case-{index}"));
        let text = application.pulled(mlflow, source, &["--name", &name, "--version", "1"]);
        let inlined = case["inlined"] == true;
        assert_eq!(text.contains("weights merged into the graph"), inlined, "{text}");

        let signature = application.signature(&name, 1);
        assert_eq!(signature["inputs"][0]["fields"], case["fields"], "{source}");
        let provenance = &signature["provenance"];
        assert_eq!(provenance["file_sha256"].is_string(), inlined, "{source}");
        assert_eq!(provenance["mlflow"]["source"], source);
        assert_eq!(provenance["mlflow"]["mlflow_version"], "3.17.2", "{source}");
        if !case["run"].is_null() {
            assert_eq!(provenance["mlflow"]["run_id"], case["run"], "{source}");
        }
        if !case["fields"].is_null() {
            let metrics = provenance["metrics"].as_object().unwrap();
            assert_eq!(metrics.keys().collect::<Vec<_>>(), ["val/accuracy"], "{source}");
            assert_eq!(provenance["tags"]["team"], "botany", "{source}");
            assert_eq!(provenance["tags"]["release/notes"], "one\n\"two\"", "{source}");
            assert!(provenance["tags"]["mlflow.user"].is_null(), "{source}");
        }
    }
    let spinfer = application.up();
    for (index, case) in mlflow.cases().iter().enumerate() {
        assert_predicts(&spinfer, &format!("case-{index}"), &mlflow.output["rows"], case);
    }
    // By the column names in the signature of the first model.
    let columns = &mlflow.cases()[0]["fields"];
    let body = json!({ "dataframe_split": { "columns": columns, "data": mlflow.output["rows"] } });
    let response = spinfer.post("/v2/models/case-0/invocations", body.to_string());
    assert_eq!(response.status, 200, "{}", response.text());
}

fn names_and_versions_follow_the_registered_model(mlflow: &TrackingServer) {
    let application = AppFolder::new();
    application.pulled(mlflow, "models:/iris@champion", &["--route", "/iris/..."]);
    let registered = &application.signature("iris", 1)["provenance"]["mlflow"];
    assert_eq!(registered["registered_model"], "iris");
    assert_eq!(registered["registered_version"], "1");
    assert_eq!(registered["alias"], "champion");

    let text = application.pulled(mlflow, "models:/iris/latest", &[]);
    assert!(text.contains("still routes to iris-1; to move it, use --promote"), "{text}");
    let before = application.tree();
    let (pulled, text) = application.pull(mlflow, "models:/iris/2", &[]);
    assert!(!pulled && text.contains("--version 3"), "{text}");
    assert_eq!(application.tree(), before);
    let text = application.pulled(
        mlflow,
        "models:/iris/2",
        &["--version", "7", "--promote", "--route", "/iris/..."],
    );
    assert!(
        text.contains("/v2/models/iris/..., /v2/models/iris/versions/7/..., /iris/..."),
        "{text}"
    );

    let named = mlflow.cases().iter().filter(|case| case["name"] != "iris");
    for case in named.filter(|case| !case["name"].is_null()) {
        let (source, name) = (case["source"].as_str().unwrap(), case["name"].as_str().unwrap());
        let application = AppFolder::new();
        application.pulled(mlflow, source, &[]);
        assert_eq!(application.signature(name, 1)["version"], "1", "{source}");
    }
    let spinfer = application.up();
    let second = &mlflow.cases()[1];
    assert_predicts(&spinfer, "iris", &mlflow.output["rows"], second);
    assert_predicts(&spinfer, "iris/versions/2", &mlflow.output["rows"], second);
    assert_predicts(&spinfer, "iris/versions/1", &mlflow.output["rows"], &mlflow.cases()[0]);
}

fn failed_pull_leaves_no_trace(mlflow: &TrackingServer) {
    let application = AppFolder::new();
    application.pulled(mlflow, "models:/iris/1", &[]);
    let before = application.tree();
    let run = mlflow.output["run"].as_str().unwrap();
    for (source, problems) in [
        (
            "models:/plain/1",
            vec![
                "python_function, sklearn, but only onnx can be served",
                "spinfer.mlflow.log_onnx",
            ],
        ),
        ("models:/iris/9", vec!["existing versions: 2, 1"]),
        ("models:/iris@best", vec!["champion (version 1)", "challenger (version 2)"]),
        ("models:/rose/1", vec!["registered models: direct, iris, net, plain"]),
        ("models:/rose/latest", vec!["registered models"]),
        ("models:/m-0", vec!["m-0"]),
        ("models:/iris/Production", vec!["stages such as", "deprecated"]),
        ("runs:/0/model", vec!["/api/2.0/mlflow/runs/get?run_id=0", "not found"]),
        (&format!("runs:/{run}"), vec!["in the run are: model"]),
        (&format!("runs:/{run}/rose"), vec!["in the run are: model"]),
        ("mlflow-artifacts:/nowhere", vec!["/api/2.0/mlflow-artifacts/artifacts/nowhere/MLmodel"]),
        ("s3://bucket/model", vec!["does not read s3:"]),
        ("no/such/folder", vec!["no such folder"]),
    ] {
        let (pulled, text) = application.pull(mlflow, source, &["--version", "5"]);
        assert!(!pulled, "{source}: {text}");
        for problem in problems {
            assert!(text.contains(problem), "{source}: {problem:?} is not in {text}");
        }
        assert_eq!(application.tree(), before, "{source}");
    }
}

fn tracking_uri_is_read_from_the_environment(mlflow: &TrackingServer) {
    let folder = tempfile::tempdir().unwrap();
    let pull = |environment: &[(&str, &str)], from: &Path| {
        let (status, text) = run_in(
            environment,
            &["pull", "mlflow", "models:/iris/1", "-f", from.to_str().unwrap()],
        );
        (status.success(), text)
    };
    let (pulled, text) = pull(&[], folder.path());
    assert!(!pulled && text.contains("MLFLOW_TRACKING_URI"), "{text}");
    let named = ("MLFLOW_TRACKING_URI", mlflow.uri());
    let (pulled, text) = pull(&[named, ("MLFLOW_TRACKING_INSECURE_TLS", "true")], folder.path());
    assert!(pulled && text.contains("is not honoured"), "{text}");
    let provenance = fs::read_to_string(folder.path().join("models/iris/1/model.toml")).unwrap();
    assert!(provenance.contains(mlflow.uri()), "{provenance}");
}
