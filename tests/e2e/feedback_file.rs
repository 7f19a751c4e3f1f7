//! `spinfer log feedback`: files with and without a running host, and problems by line.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use serde_json::json;
use spinfer_tests::{Launch, Manifest, Spinfer, run, wait_until};

use super::admin::FEATURES;
use super::metrics::{find_metric, metric};

const UNKNOWN: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

/// An application whose state and files are in one folder.
struct FeedbackApp {
    folder: tempfile::TempDir,
}

impl FeedbackApp {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn up(&self) -> Spinfer {
        let manifest = Manifest::default().with_iris("iris", 1, "/...", "");
        Launch::new(&manifest).admin().state_dir(self.state()).up()
    }

    fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// `spinfer log feedback` on the file in the state folder: the output, as an error if it fails.
    fn feed(&self, file: &Path) -> Result<String, String> {
        feed(file, &["--state-dir", self.state().to_str().unwrap()])
    }
}

fn feed(file: &Path, more: &[&str]) -> Result<String, String> {
    let (status, text) = run(&[&["log", "feedback", file.to_str().unwrap()], more].concat());
    if status.success() { Ok(text) } else { Err(text) }
}

fn predict(spinfer: &Spinfer, body: &str) -> String {
    let response = spinfer.post("/v2/models/iris-classifier/predict", body);
    assert_eq!(response.status, 200, "{}", response.text());
    response.header("spinfer-prediction-id").expect("it is logged").to_owned()
}

/// Number of labels that the accuracy is computed from; 0 before the host has read its log.
fn labels(spinfer: &Spinfer) -> f64 {
    let labels = "model=\"iris-classifier\",version=\"1\",experiment=\"\",variant=\"\"";
    let name = format!("spinfer_prediction_quality_samples{{{labels},metric=\"accuracy\"}}");
    find_metric(spinfer, &name).unwrap_or(0.0)
}

fn accuracy(spinfer: &Spinfer) -> f64 {
    let labels = "model=\"iris-classifier\",version=\"1\",experiment=\"\",variant=\"\"";
    metric(spinfer, &format!("spinfer_prediction_quality{{{labels},metric=\"accuracy\"}}"))
}

#[test]
fn file_without_a_host_is_stored_in_the_log_and_counted_by_the_next_host() {
    let app = FeedbackApp::new();
    let mut spinfer = app.up();
    let (one, two) = (predict(&spinfer, FEATURES), predict(&spinfer, FEATURES));
    let csv = app.file(
        "labels.csv",
        &format!(
            "prediction_id,label,time\n{one},setosa,2024-11-30T12:00:00Z\n{two},setosa,\n\
             {UNKNOWN},setosa,\n"
        ),
    );
    let state = app.state();
    let show = ["log", "show", &two, "--state-dir", state.to_str().unwrap()];
    wait_until("the records are written", || run(&show).0.success());
    // The host would not count it.
    let refused = app.feed(&csv).unwrap_err();
    assert!(refused.contains("a host serves this log"), "{refused}");
    assert!(refused.contains("--url http://HOST:PORT"), "{refused}");
    spinfer.terminate();
    assert!(spinfer.wait().success());
    let stored = app.feed(&csv).unwrap();
    let expected = "3 accepted (1 for unknown predictions, 0 replaced, 0 unchanged), 0 rejected";
    assert!(stored.contains(expected), "{stored}");
    // A week later, one label is corrected; an older one changes nothing.
    let later = app.file(
        "later.jsonl",
        &format!(
            "{{\"prediction_id\": \"{one}\", \"label\": \"virginica\", \"time\": \"2024-12-07T12:00:00Z\"}}\n\
             {{\"prediction_id\": \"{one}\", \"label\": \"versicolor\", \"time\": \"2024-11-29T12:00:00Z\"}}\n"
        ),
    );
    let stored = app.feed(&later).unwrap();
    let expected = "2 accepted (0 for unknown predictions, 1 replaced, 1 unchanged), 0 rejected";
    assert!(stored.contains(expected), "{stored}");
    let spinfer = app.up();
    wait_until("the host has read its log", || labels(&spinfer) == 2.0);
    assert_eq!(accuracy(&spinfer), 0.5);
}

#[test]
fn file_through_a_host_is_counted_at_once() {
    let app = FeedbackApp::new();
    let spinfer = app.up();
    let (one, two) = (predict(&spinfer, FEATURES), predict(&spinfer, FEATURES));
    let url = format!("http://{}", spinfer.address());
    let through = |file: &Path| feed(file, &["--url", &url]);
    let csv = app.file("labels.csv", &format!("prediction_id,label\n{one},setosa\n{two},setosa\n"));
    assert!(through(&csv).unwrap().contains("2 accepted (0 for unknown"));
    assert_eq!((labels(&spinfer), accuracy(&spinfer)), (2.0, 1.0));
    let corrected = app.file(
        "corrected.csv",
        &format!(
            "prediction_id,label,time\n{one},virginica,\n{two},setosa,\n\
             {two},rose,\n{UNKNOWN},setosa,\n"
        ),
    );
    let refused = through(&corrected).unwrap_err();
    let expected = "3 accepted (1 for unknown predictions, 1 replaced, 1 unchanged), 1 rejected";
    assert!(refused.contains(expected), "{refused}");
    assert!(refused.contains("corrected.csv:4: `label`: \"rose\" is not a class"), "{refused}");
    // A file whose every line is rejected has its line numbers, too.
    let wrong = app.file("wrong.csv", &format!("prediction_id,label\n\n{one},rose\n{two},tulip\n"));
    let refused = through(&wrong).unwrap_err();
    for problem in ["wrong.csv:3: `label`: \"rose\"", "wrong.csv:4: `label`: \"tulip\""] {
        assert!(refused.contains(problem), "{refused}");
    }
    assert!(refused.contains("2 lines were rejected"), "{refused}");
    assert_eq!((labels(&spinfer), accuracy(&spinfer)), (2.0, 0.5));
    let repeated = |effect: &str| {
        metric(&spinfer, &format!("spinfer_feedback_repeated_total{{effect=\"{effect}\"}}"))
    };
    assert_eq!((repeated("replaced"), repeated("unchanged")), (1.0, 1.0));
    let stats = spinfer.admin().send("GET", "/log/stats", &[], b"").json();
    assert_eq!(stats["host"]["feedback"]["replaced"], json!(1));
    let admin = format!("http://{}", spinfer.admin_address());
    let refused = feed(&csv, &["--url", &admin]).unwrap_err();
    assert!(refused.contains("this is the admin plane of a host"), "{refused}");
    assert!(refused.contains("http://127.0.0.1:3000 by default"), "{refused}");
    let nobody = feed(&csv, &["--url", "http://127.0.0.1:1"]).unwrap_err();
    assert!(nobody.contains("http://127.0.0.1:1") && nobody.contains("from line 2 on"), "{nobody}");
}

#[test]
fn time_in_the_future_is_rejected_and_a_correction_stays_possible() {
    let app = FeedbackApp::new();
    let spinfer = app.up();
    let one = predict(&spinfer, FEATURES);
    let url = format!("http://{}", spinfer.address());
    let future = app.file(
        "future.csv",
        &format!("prediction_id,label,time\n{one},virginica,2099-01-01T00:00:00Z\n{one},setosa,\n"),
    );
    let refused = feed(&future, &["--url", &url]).unwrap_err();
    let problem = "future.csv:2: `time`: \"2099-01-01T00:00:00Z\" is in the future";
    assert!(refused.contains(problem), "{refused}");
    assert!(refused.contains("1 accepted (0 for unknown"), "{refused}");
    let item =
        json!({ "prediction_id": one, "label": "virginica", "time": "2099-01-01T00:00:00Z" });
    let response = spinfer.post("/v2/feedback", item.to_string());
    assert_eq!(response.status, 400, "{}", response.text());
    assert!(response.error().contains("item 0: `time`: "), "{}", response.error());
    assert_eq!((labels(&spinfer), accuracy(&spinfer)), (1.0, 1.0));
    let item = json!({ "prediction_id": one, "label": "virginica" });
    assert_eq!(spinfer.post("/v2/feedback", item.to_string()).json()["replaced"], 1);
    assert_eq!(accuracy(&spinfer), 0.0);
}

#[test]
fn invalid_lines_are_shown_up_to_a_limit_counted_and_fail_the_command() {
    let app = FeedbackApp::new();
    let mut spinfer = app.up();
    let one = predict(&spinfer, FEATURES);
    spinfer.terminate();
    assert!(spinfer.wait().success());
    let mut csv = String::from("prediction_id,label\n");
    for number in 0..5_000 {
        let _ = match number % 50 {
            0 => writeln!(csv, "nonsense,setosa"),
            _ => writeln!(csv, "{one},setosa"),
        };
    }
    let refused = app.feed(&app.file("labels.csv", &csv)).unwrap_err();
    assert!(
        refused.contains("4900 accepted (0 for unknown predictions, 0 replaced, "),
        "{refused}"
    );
    assert!(
        refused.contains("Error: ") && refused.contains("100 lines were rejected"),
        "{refused}"
    );
    assert!(refused.contains("labels.csv:2: `prediction_id`: \"nonsense\" is not a UUID"));
    assert!(refused.contains("labels.csv:52: ") && refused.contains("not shown"), "{refused}");
    assert_eq!(refused.matches("is not a UUID").count(), 20);
    // What precedes the end of a file that cannot be read any further is stored.
    let open = format!("prediction_id,label\n{UNKNOWN},a\n{UNKNOWN},\"{}", "x\n".repeat(100_000));
    let refused = app.feed(&app.file("open.csv", &open)).unwrap_err();
    assert!(refused.contains("1 accepted (1 for unknown"), "{refused}");
    assert!(refused.contains("line 3: a quote is not closed"), "{refused}");
    let refused = app.feed(&app.file("labels.txt", "")).unwrap_err();
    assert!(refused.contains("pass --format csv or jsonl"), "{refused}");
}
