//! A prediction through the A/B router, from end to end: its record, the record of the cache hit after it,
//! its feedback, and the quality of its variant.

use std::net::TcpListener;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use spinfer_tests::{Launch, Spinfer, root, run};

use super::admin::FEATURES;
use super::metrics::metric;

const ID: &str = "spinfer-prediction-id";

/// The example application with its own state directory.
fn example() -> (Spinfer, String, tempfile::TempDir) {
    let state = tempfile::tempdir().unwrap();
    let folder = state.path().to_str().unwrap().to_owned();
    (example_in(&folder), folder, state)
}

fn example_in(state: &str) -> Spinfer {
    Launch::from_file(root().join("spin.toml")).admin().state_dir(state).up()
}

fn records(state: &str) -> Vec<Value> {
    let (status, text) = run(&["log", "tail", "-n", "100", "--state-dir", state]);
    assert!(status.success(), "{text}");
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn records_and_quality_are_kept_per_variant() {
    let (spinfer, state, _folder) = example();
    let send = |variant: &str| {
        let headers = [("x-spinfer-variant", variant)];
        let response =
            spinfer.send("POST", "/v2/models/iris/predict", &headers, FEATURES.as_bytes());
        assert_eq!((response.status, response.header("spinfer-variant")), (200, Some(variant)));
        response.header(ID).expect("it is logged").to_owned()
    };
    let mut expected = Vec::new();
    for (variant, label) in [("control", "setosa"), ("treatment", "virginica")] {
        let ids = [send(variant), send(variant)];
        assert_ne!(ids[0], ids[1]);
        let truth: Vec<_> =
            ids.iter().map(|id| json!({ "prediction_id": id, "label": label })).collect();
        let receipt = spinfer.post("/v2/feedback", json!(truth).to_string()).json();
        assert_eq!(receipt["accepted"], 2, "{receipt}");
        let [first, hit] = ids;
        expected.extend([(first, variant, "miss", label), (hit, variant, "hit", label)]);
    }
    let records = records(&state);
    assert_eq!(records.len(), expected.len());
    for (record, (id, variant, cache, label)) in records.iter().zip(&expected) {
        assert_eq!(record["id"], *id);
        assert_eq!((&record["experiment"], &record["variant"]), (&json!("iris"), &json!(variant)));
        assert_eq!(record["route"], "/v2/models/iris/...");
        assert_eq!(
            (&record["cache"], &record["model"]),
            (&json!(cache), &json!("iris-classifier"))
        );
        assert_eq!(record["outputs"]["prediction"], "setosa");
        assert_eq!(record["feedback"]["label"], *label);
    }
    let stats = spinfer.admin().send("GET", "/log/stats", &[], b"").json();
    for (version, variant, accuracy) in [("1", "control", 1.0), ("2", "treatment", 0.0)] {
        let groups = stats["groups"].as_array().unwrap();
        let group = groups.iter().find(|group| group["variant"] == variant).unwrap();
        assert_eq!(group["quality"]["classification"]["accuracy"], accuracy, "{group}");
        let labels = format!(
            "model=\"iris-classifier\",version=\"{version}\",experiment=\"iris\",variant=\"{variant}\""
        );
        let of =
            |family: &str| metric(&spinfer, &format!("{family}{{{labels},metric=\"accuracy\"}}"));
        assert_eq!(of("spinfer_prediction_quality").to_bits(), f64::to_bits(accuracy));
        assert_eq!(of("spinfer_prediction_quality_samples").to_bits(), f64::to_bits(2.0));
    }
}

/// A response with an id has a record, also if the host exits right after it.
#[test]
fn predictions_served_before_shutdown_are_logged() {
    let (mut spinfer, state, _folder) = example();
    let mut ids = Vec::new();
    for number in 0..200 {
        let body = format!(r#"{{"features": [5.1, 3.5, 1.4, {}]}}"#, f64::from(number) / 100.0);
        let response = spinfer.post("/v2/models/iris-classifier/predict", body);
        ids.push(response.header(ID).expect("it is logged").to_owned());
    }
    spinfer.terminate();
    assert!(spinfer.wait().success());
    let (status, text) = run(&["log", "tail", "-n", "1000", "--state-dir", &state]);
    assert!(status.success(), "{text}");
    let logged: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    // Within a millisecond they are not ordered.
    let mut logged: Vec<_> = logged.iter().filter_map(|record| record["id"].as_str()).collect();
    logged.sort_unstable();
    ids.sort_unstable();
    assert_eq!(logged, ids);
}

#[test]
fn drift_window_survives_a_restart() {
    let (mut spinfer, state, _folder) = example();
    for _ in 0..5 {
        assert_eq!(spinfer.post("/v2/models/iris-classifier/predict", FEATURES).status, 200);
    }
    spinfer.terminate();
    assert!(spinfer.wait().success());
    let again = example_in(&state);
    spinfer_tests::wait_until("the window is restored", || {
        let drift = again.admin().send("GET", "/drift?model=iris-classifier", &[], b"").json();
        let versions = drift["versions"].as_array().unwrap();
        let first = versions.iter().find(|version| version["version"] == "1").unwrap();
        first["window"]["records"] == 5
    });
}

/// Names and sizes of the files in a folder, except for those that a serving host writes.
fn tree(folder: &Path) -> Vec<(PathBuf, u64)> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(&next).unwrap().map(Result::unwrap) {
            let (path, metadata) = (entry.path(), entry.metadata().unwrap());
            if metadata.is_dir() && !path.ends_with(".spin") {
                folders.push(path);
            } else if metadata.is_file() {
                files.push((path, metadata.len()));
            }
        }
    }
    files.sort();
    files
}

/// From a registry and a tracking server that cannot be reached, and from a server that is neither.
#[test]
fn failed_pull_leaves_a_serving_application_unchanged() {
    let dir = tempfile::tempdir().unwrap();
    let manifest = dir.path().join("spin.toml");
    let from = manifest.to_str().unwrap().to_owned();
    let graph = root().join("models/iris-classifier/1/model.onnx");
    let (status, text) =
        run(&["add", graph.to_str().unwrap(), "--name", "iris-classifier", "--from", &from]);
    assert!(status.success(), "{text}");
    let folder = dir.path().to_owned();
    let spinfer = Launch::from_file(&manifest).keep(dir).up();
    let before = tree(&folder);
    // A port that was free a moment ago, and this host.
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for address in [closed, spinfer.address()] {
        let reference = format!("{address}/models/wine:1");
        let (status, text) = run(&["registry", "pull", &reference, "--from", &from]);
        assert!(!status.success() && text.contains(&address.to_string()), "{text}");
        let uri = format!("http://{address}");
        let source = ["pull", "mlflow", "models:/wine/1", "--tracking-uri", &uri, "--from", &from];
        let (status, text) = run(&source);
        assert!(!status.success() && text.contains(&address.to_string()), "{text}");
        assert_eq!(tree(&folder), before);
        let response = spinfer.post("/v2/models/iris-classifier/predict", FEATURES);
        assert_eq!(response.status, 200, "{}", response.text());
    }
}
