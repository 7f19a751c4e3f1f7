//! Drift: shifted rows over HTTP, and the reports in the admin plane, the metrics and the command line.

use serde_json::{Value, json};
use spinfer_tests::{Launch, Manifest, Spinfer, root, run, wait_until};

use super::metrics::metric;

/// The rows that the iris classifiers were trained on, which have no drift.
const TRAINING: &str = include_str!("../../host/src/cli/baseline/fixtures/iris-training.csv");

fn training() -> Vec<[f64; 4]> {
    let rows = TRAINING.lines().skip(1).map(|line| {
        let cells: Vec<f64> = line.split(',').map(|cell| cell.parse().unwrap()).collect();
        cells.try_into().unwrap()
    });
    rows.collect()
}

/// Sends all rows in one request, twice.
fn predict(spinfer: &Spinfer, rows: &[[f64; 4]]) {
    let body = json!({ "instances": rows }).to_string();
    for _ in 0..2 {
        assert_eq!(spinfer.post("/v2/models/iris-classifier/predict", &body).status, 200);
    }
}

fn drift(spinfer: &Spinfer, query: &str) -> Value {
    let response = spinfer.admin().send("GET", &format!("/drift{query}"), &[], b"");
    assert_eq!(response.status, 200, "{}", response.text());
    response.json()
}

/// The names of the fields of `kind` with this status.
fn fields(version: &Value, kind: &str, status: &str) -> Vec<String> {
    let fields = version[kind].as_array().unwrap().iter();
    let with_status = fields.filter(|field| field["status"] == status);
    with_status.map(|field| field["name"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn shifted_feature_is_reported_as_drift() {
    let manifest = Manifest::default()
        .with_iris("iris", 1, "/v2/models/...", "tool.spinfer.drift.window = 1000\n")
        .with_model("diabetes-regressor", "diabetes", 1, "/diabetes/...", "");
    let spinfer = Launch::new(&manifest).admin().up();
    let records = |count: u64| {
        let all = || drift(&spinfer, "?model=iris-classifier")["versions"][0].clone();
        wait_until(&format!("{count} records"), || all()["window"]["records"] == count);
        all()
    };
    let version = records(0);
    assert_eq!(version["status"], "not enough data");
    assert_eq!(version["feature_drift"], Value::Null);

    let rows = training();
    predict(&spinfer, &rows);
    let version = records(240);
    assert_eq!((&version["status"], &version["prediction_drift"]), (&json!("ok"), &json!(false)));
    assert_eq!(fields(&version, "features", "ok").len(), 4, "{version}");
    let alert = "spinfer_drift_alert{model=\"iris-classifier\",version=\"1\",kind=\"feature\"}";
    assert_eq!(metric(&spinfer, alert), 0.0);

    let shifted: Vec<_> = rows.iter().map(|[a, b, c, d]| [*a, b + 1.0, *c, *d]).collect();
    predict(&spinfer, &shifted);
    let version = records(480);
    assert_eq!((&version["status"], &version["feature_drift"]), (&json!("drift"), &json!(true)));
    assert_eq!(fields(&version, "features", "drift"), ["sepal_width"], "{version}");
    assert_eq!(metric(&spinfer, alert), 1.0);
    let score = "spinfer_drift_score{model=\"iris-classifier\",version=\"1\",field=\"sepal_width\",\
                 statistic=\"psi\"}";
    assert!(metric(&spinfer, score) > 0.25);

    let address = spinfer.admin_address().to_string();
    let (status, text) = run(&["drift", "--admin", &address, "--model", "iris-classifier"]);
    assert!(status.success() && text.starts_with("iris-classifier version 1: drift\n"), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    let line = text.lines().find(|line| line.contains("sepal_width")).unwrap();
    assert!(line.ends_with("drift") && line.contains("<.001"), "{text}");
    let (status, text) = run(&["drift", "--admin", &address, "--json"]);
    let report: Value = serde_json::from_str(&text).unwrap();
    assert!(status.success() && report["versions"].as_array().unwrap().len() == 2, "{text}");
    let (status, text) = run(&["drift", "--admin", &address, "--fail-on-drift"]);
    assert_eq!(status.code(), Some(1));
    assert!(text.contains("Error: drift: iris-classifier version 1"), "{text}");
}

#[test]
fn missing_baseline_is_reported_with_the_command_to_create_it() {
    let dir = super::metrics::iris_with("");
    let files = format!(
        "files = [{{ source = \"{}\", destination = \"/models/iris-classifier\" }}]\n",
        dir.path().display()
    );
    let manifest = Manifest::default()
        .with("/v2/models/...", "iris", "iris_classifier", &files)
        .with_iris("off", 1, "/off/...", "tool.spinfer.drift.enabled = false\n");
    let spinfer = Launch::new(&manifest).admin().up();
    let address = spinfer.admin_address().to_string();
    let (_, text) = run(&["drift", "--admin", &address]);
    let hint = "spinfer baseline data.csv --model iris-classifier --version 2";
    assert!(text.contains("no baseline.json") && text.contains(hint), "{text}");
    assert!(text.contains("iris-classifier version 1: disabled"), "{text}");
    for (query, status, output) in [
        ("?model=wine", 404, "no model `wine` is mounted; mounted models: iris-classifier"),
        ("?version=1", 400, "`version`: /drift takes model"),
        ("?model=a&model=b", 400, "only one"),
    ] {
        let response = spinfer.admin().send("GET", &format!("/drift{query}"), &[], b"");
        assert_eq!(response.status, status, "{query}");
        assert!(response.error().contains(output), "{}", response.text());
    }
}

#[test]
fn mismatched_baseline_is_refused_at_startup() {
    let dir = super::metrics::iris_with("");
    let manifest = Manifest::default().with(
        "/v2/models/...",
        "iris",
        "iris_classifier",
        &format!(
            "files = [{{ source = \"{}\", destination = \"/models/iris-classifier\" }}]\n",
            dir.path().display()
        ),
    );
    let golden = root().join("models/iris-classifier/2/baseline.json");
    let golden = std::fs::read_to_string(golden).unwrap();
    for (from, to, part) in [
        ("\"version\": \"2\"", "\"version\": \"1\"", "version: is \"1\", but model.toml"),
        ("\"sepal_width\"", "\"width\"", "features: `sepal_width` is missing"),
        ("\"edges\"", "\"edge\"", "missing field `edges`"),
        ("{", "[", "baseline.json"),
    ] {
        std::fs::write(dir.path().join("baseline.json"), golden.replacen(from, to, 1)).unwrap();
        let output = Launch::new(&manifest).admin().refused();
        assert!(output.contains("component.iris.files") && output.contains(part), "{output}");
    }
}
