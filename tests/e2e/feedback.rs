//! Feedback and the prediction log through HTTP and the command line: what is stored, refused, counted and
//! shown.

use serde_json::{Value, json};
use spinfer_tests::{Launch, Manifest, Response, Spinfer, run, wait_until};

use super::admin::FEATURES;
use super::metrics::metric;

const FEEDBACK: &str = "/v2/feedback";
const UNKNOWN: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

/// An application with its own state directory.
struct LoggedApp {
    spinfer: Spinfer,
    state: tempfile::TempDir,
}

impl LoggedApp {
    fn up(manifest: &Manifest, runtime_config: &str) -> Self {
        Self::up_in(manifest, runtime_config, tempfile::tempdir().unwrap())
    }

    fn up_in(manifest: &Manifest, runtime_config: &str, state: tempfile::TempDir) -> Self {
        let launch = Launch::new(manifest).admin().state_dir(state.path());
        Self { spinfer: launch.runtime_config(runtime_config).up(), state }
    }

    /// `spinfer log` on its state directory: the output, as an error if it fails.
    fn log(&self, arguments: &[&str]) -> Result<String, String> {
        let state = self.state.path().to_str().unwrap();
        let (status, text) = run(&[&["log"], arguments, &["--state-dir", state]].concat());
        if status.success() { Ok(text) } else { Err(text) }
    }

    fn feed(&self, body: &Value) -> Response {
        self.spinfer.post(FEEDBACK, body.to_string())
    }

    fn feedback_total(&self, result: &str) -> f64 {
        metric(&self.spinfer, &format!("spinfer_feedback_total{{result=\"{result}\"}}"))
    }
}

fn iris() -> LoggedApp {
    LoggedApp::up(&Manifest::default().with_iris("iris", 1, "/...", ""), "")
}

#[test]
fn feedback_for_an_unknown_prediction_is_stored_and_reported() {
    let app = iris();
    let item = json!({ "prediction_id": UNKNOWN, "label": "setosa" });
    for (unchanged, body) in [item.clone(), json!([item]), json!({ "feedback": [item] })]
        .into_iter()
        .enumerate()
        .map(|(index, body)| (index.min(1), body))
    {
        let response = app.feed(&body);
        assert_eq!(response.status, 200, "{}", response.text());
        let expected = json!({
            "accepted": 1, "unknown": 1, "replaced": 0, "unchanged": unchanged, "rejected": [],
        });
        assert_eq!(response.json(), expected);
    }
    let mixed = json!([item, { "prediction_id": "x", "label": "setosa" }, 7]);
    let receipt = app.feed(&mixed).json();
    assert_eq!((&receipt["accepted"], &receipt["unknown"]), (&json!(1), &json!(1)));
    assert_eq!(receipt["rejected"][0]["index"], 1);
    assert!(receipt["rejected"][0]["error"].as_str().unwrap().contains("\"x\" is not a UUID"));
    assert_eq!(receipt["rejected"][1], json!({ "index": 2, "error": "is not an object" }));
    assert_eq!((app.feedback_total("unknown"), app.feedback_total("rejected")), (4.0, 2.0));
    let shown = app.log(&["show", UNKNOWN]).unwrap_err();
    assert!(shown.contains("\"label\": \"setosa\""), "{shown}");
    assert!(shown.contains("but no prediction"), "{shown}");
    let stats = app.log(&["stats"]).unwrap();
    assert!(stats.contains("feedback: 0 for records here, 1 for predictions"), "{stats}");
    let stats = app.spinfer.admin().send("GET", "/log/stats", &[], b"").json();
    assert_eq!(stats["feedback"], json!({ "matched": 0, "unknown": 1 }));
    assert_eq!(stats["host"]["feedback"]["unknown"], 4);
}

#[test]
fn invalid_feedback_is_refused_with_the_expected_form() {
    let app = iris();
    let item =
        |index: usize| format!(r#"{{"prediction_id": "{UNKNOWN}", "row": {index}, "value": 1}}"#);
    let many = |count: usize| format!("[{}]", (0..count).map(item).collect::<Vec<_>>().join(","));
    for (body, status, output) in [
        (String::new(), 400, "invalid body"),
        ("{".to_owned(), 400, "EOF"),
        ("[]".to_owned(), 400, "the body has no items"),
        (r#"{"label": "a"}"#.to_owned(), 400, "item 0: `prediction_id` is missing"),
        ("[1, 2]".to_owned(), 400, "all 2 items are rejected"),
        (format!("[{}0]", "0,".repeat(10_000)), 413, "more than 10000 items"),
        (" ".repeat((1 << 20) + 1), 413, "1048576 bytes"),
    ] {
        let response = app.spinfer.post(FEEDBACK, &body);
        assert_eq!(response.status, status, "{}", response.text());
        assert!(response.error().contains(output), "{}", response.error());
    }
    let most = app.spinfer.post(FEEDBACK, many(10_000)).json();
    assert_eq!(most["accepted"], 10_000);
    for method in ["GET", "PUT", "DELETE"] {
        let response = app.spinfer.send(method, FEEDBACK, &[], b"");
        assert_eq!((response.status, response.header("allow")), (405, Some("POST")), "{method}");
        assert!(response.error().contains("POST"));
    }
}

#[test]
fn feedback_without_a_prediction_log_is_503() {
    let manifest = Manifest::default().with_iris("iris", 1, "/...", "");
    let app = LoggedApp::up(&manifest, "[prediction_log]\nenabled = false\n");
    let response = app.feed(&json!({ "prediction_id": UNKNOWN, "label": "setosa" }));
    assert_eq!(response.status, 503);
    assert!(response.error().contains("enabled = false"), "{}", response.error());
    assert!(app.log(&["tail"]).unwrap_err().contains("there is no prediction log"));
    let response = app.spinfer.admin().send("GET", "/log/stats", &[], b"");
    assert_eq!(response.status, 404, "{}", response.text());
}

#[test]
fn unwritable_log_degrades_the_host_and_predictions_continue() {
    let state = tempfile::tempdir().unwrap();
    // A folder in place of the database file.
    let blocked = state.path().join("predictions.db");
    std::fs::create_dir(&blocked).unwrap();
    let manifest = Manifest::default().with_iris("iris", 1, "/...", "");
    let app = LoggedApp::up_in(&manifest, "", state);
    wait_until("it is ready", || app.spinfer.get("/v2/health/ready").status == 200);
    let response = app.feed(&json!({ "prediction_id": UNKNOWN, "label": "setosa" }));
    assert_eq!((response.status, response.header("retry-after")), (503, Some("1")));
    assert!(response.error().contains("predictions.db"), "{}", response.error());
    let predicted = app.spinfer.post("/v2/models/iris-classifier/predict", FEATURES);
    assert_eq!(predicted.status, 200, "{}", predicted.text());
    let ready = app.spinfer.get("/v2/health/ready");
    assert_eq!((ready.status, &ready.json()["ready"]), (200, &json!(true)));
    let degraded = ready.json()["degraded"][0].as_str().unwrap().to_owned();
    assert!(degraded.starts_with("prediction log: ") && degraded.contains("predictions.db"));
    assert_eq!(metric(&app.spinfer, "spinfer_prediction_log_degraded"), 1.0);
    let stats = app.spinfer.admin().send("GET", "/log/stats", &[], b"").json();
    assert!(stats["host"]["problem"].as_str().unwrap().contains("predictions.db"), "{stats}");
    std::fs::remove_dir(&blocked).unwrap();
    wait_until("it recovers", || {
        app.spinfer.get("/v2/health/ready").json() == json!({ "ready": true })
    });
    assert_eq!(app.feed(&json!({ "prediction_id": UNKNOWN, "reward": 1 })).status, 200);
}

/// The id of a prediction.
fn predict(app: &LoggedApp, body: &str) -> String {
    let response = app.spinfer.post("/v2/models/iris-classifier/predict", body);
    assert_eq!(response.status, 200, "{}", response.text());
    response.header("spinfer-prediction-id").expect("it is logged").to_owned()
}

#[test]
fn feedback_yields_quality_in_statistics_and_metrics() {
    let app = iris();
    let (one, two) =
        (predict(&app, FEATURES), predict(&app, r#"{"features": [6.7, 3.1, 4.7, 1.5]}"#));
    let rejected = app.feed(&json!({ "prediction_id": one, "label": "rose" }));
    assert_eq!(rejected.status, 400, "{}", rejected.text());
    assert!(rejected.error().contains("setosa, versicolor, virginica"), "{}", rejected.error());
    let rejected = app.feed(&json!({ "prediction_id": one, "value": 1 }));
    assert!(rejected.error().contains("write `label`"), "{}", rejected.error());
    let truth = json!([
        { "prediction_id": one, "label": "setosa" },
        { "prediction_id": two, "label": "virginica" },
        { "prediction_id": one, "reward": 0.25 },
    ]);
    for unchanged in [0, 3] {
        let receipt = app.feed(&truth).json();
        let expected = json!({
            "accepted": 3, "unknown": 0, "replaced": 0, "unchanged": unchanged, "rejected": [],
        });
        assert_eq!(receipt, expected);
    }
    let quality = |metric_name: &str| {
        let labels = "model=\"iris-classifier\",version=\"1\",experiment=\"\",variant=\"\"";
        let name = format!("spinfer_prediction_quality{{{labels},metric=\"{metric_name}\"}}");
        metric(&app.spinfer, &name)
    };
    assert_eq!((quality("accuracy"), quality("mean_reward")), (0.5, 0.25));
    assert!(quality("brier_score") > 0.0);
    let stats: Value = serde_json::from_str(&app.log(&["stats", "--json"]).unwrap()).unwrap();
    assert_eq!(stats["groups"][0]["quality"]["classification"]["accuracy"], 0.5);
    assert_eq!(stats["groups"][0]["quality"]["classification"]["brier_n"], 2);
    let admin = app.spinfer.admin().send("GET", "/log/stats", &[], b"").json();
    assert_eq!(admin["groups"], stats["groups"]);
    let accounting = &admin["host"]["accounting"];
    assert_eq!((&accounting["accepted"], &accounting["written"]), (&json!(2), &json!(2)));
    let text = app.log(&["stats"]).unwrap();
    assert!(text.contains("accuracy") && text.contains("recall of virginica"), "{text}");
    let shown: Value = serde_json::from_str(&app.log(&["show", &one]).unwrap()).unwrap();
    assert_eq!(shown["outputs"]["prediction"], "setosa");
    assert_eq!(shown["feedback"], json!({ "label": "setosa", "reward": 0.25 }));
    assert!(shown["feedback_times"]["label"].is_string(), "{shown}");
}

#[test]
fn failed_export_leaves_no_file() {
    let app = iris();
    let one = predict(&app, FEATURES);
    app.feed(&json!({ "prediction_id": one, "label": "setosa" }));
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let output = app.log(&["export", "-o", &file("log.csv")]).unwrap();
    assert!(output.starts_with("1 record in "), "{output}");
    let csv = std::fs::read_to_string(file("log.csv")).unwrap();
    assert!(csv.contains("input.sepal_length") && csv.contains(",5.1,3.5,1.4,0.2,"), "{csv}");
    app.log(&["export", "-o", &file("log.parquet")]).unwrap();
    assert!(std::fs::read(file("log.parquet")).unwrap().starts_with(b"PAR1"));
    let none = "no record matches; models in the log: iris-classifier/1";
    let other = ["--model", "other"];
    let log = file("log");
    let export = ["export", "--format", "jsonl", "-o", &log];
    let output = app.log(&[&export[..], &other].concat()).unwrap();
    assert!(output.starts_with("0 records in ") && output.contains(none), "{output}");
    for command in ["tail", "stats"] {
        let output = app.log(&[&[command], &other[..]].concat()).unwrap();
        assert!(output.contains(none), "{command}: {output}");
    }
    let output = app.log(&["tail", "--since", "1h", "--until", "2h"]).unwrap_err();
    assert!(output.contains("--since is later than --until"), "{output}");
    assert_eq!(std::fs::read(file("log")).unwrap(), b"");
    let lines = app.log(&["tail", "-n", "1"]).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&lines).unwrap()["id"], one);
    for (name, part) in [
        ("no/such/folder.csv", "/no/such: No such file or directory"),
        ("log.csv/log.csv", "/log.csv: Not a directory"),
        ("", ": is a folder; pass a file"),
        ("x.xlsx", "/x.xlsx: the extension does not determine the format"),
    ] {
        let output = app.log(&["export", "-o", &file(name)]).unwrap_err();
        assert!(output.contains(part) && !output.contains(".spinfer-export"), "{name}: {output}");
    }
    let output = app.log(&["show", "nonsense"]).unwrap_err();
    assert!(output.contains("\"nonsense\" is not a UUID; copy the value of"), "{output}");
    let mut names: Vec<_> =
        std::fs::read_dir(folder.path()).unwrap().map(|f| f.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["log", "log.csv", "log.parquet"], "no temporary files are left");
}

#[test]
fn application_without_predictions_creates_no_log_file() {
    let app = iris();
    assert_eq!(app.spinfer.get("/v2/models/iris-classifier").status, 200);
    assert_eq!(metric(&app.spinfer, "spinfer_prediction_log_accepted_total"), 0.0);
    assert!(!app.state.path().join("predictions.db").exists());
}
