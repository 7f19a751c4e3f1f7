//! `prediction_log.mode`: what a response waits for, and requests that are refused.

use std::path::Path;

use spinfer_tests::{Launch, Manifest, Response, STANDARD_DOOR, create_state_dir, run, wait_until};

use super::metrics::metric;

const ID: &str = "spinfer-prediction-id";
const FEATURES: &str = r#"{"features": [5.1, 3.5, 1.4, 0.2]}"#;

fn mode(mode: &str) -> String {
    format!("tool.spinfer.prediction_log.mode = \"{mode}\"\n")
}

/// Whether the file in `state` has the records of a response.
fn has_records(state: &Path, response: &Response) -> bool {
    assert_eq!(response.status, 200, "{}", response.text());
    let id = response.header(ID).expect("it is logged");
    let (status, text) = run(&["log", "show", id, "--state-dir", state.to_str().unwrap()]);
    status.success() && text.contains(id)
}

#[test]
fn synchronous_response_arrives_after_its_records() {
    for door in ["", STANDARD_DOOR] {
        let folder = tempfile::tempdir().unwrap();
        create_state_dir(folder.path());
        let manifest = Manifest::default().with_iris(
            "iris",
            1,
            "/...",
            &format!("{door}{}", mode("synchronous")),
        );
        let spinfer = Launch::new(&manifest).state_dir(folder.path()).admin().up();
        // A miss and a hit.
        for _ in 0..2 {
            assert!(has_records(folder.path(), &spinfer.post("/predict", FEATURES)), "{door}");
        }
        let synced = metric(&spinfer, "spinfer_prediction_log_synced_commits_total");
        assert_eq!(synced.to_bits(), 2_f64.to_bits());
        let stats = spinfer.admin().send("GET", "/log/stats", &[], b"").json();
        assert_eq!((&stats["host"]["syncs"], &stats["records"]), (&2.into(), &2.into()), "{stats}");
    }
}

/// A component can inherit the mode of the application, and override it.
#[test]
fn requests_are_refused_by_mode_while_the_log_cannot_be_written() {
    let folder = tempfile::tempdir().unwrap();
    create_state_dir(folder.path());
    // A folder in place of the file.
    let file = folder.path().join("predictions.db");
    std::fs::create_dir(&file).unwrap();
    let manifest = Manifest::default()
        .with_settings(&mode("synchronous"))
        .with_iris("sync", 1, "/sync/...", "")
        .with_iris("stream", 1, "/stream/...", STANDARD_DOOR)
        .with_iris("durable", 1, "/durable/...", &mode("durable"))
        .with_iris("best", 1, "/best/...", &mode("best-effort"));
    let spinfer = Launch::new(&manifest).state_dir(folder.path()).admin().up();
    // The file is opened at startup, next to the first requests.
    let degraded = || spinfer.get("/v2/health/ready").text().contains("prediction log");
    wait_until("the log is known to be unwritable", degraded);
    for path in ["/sync/predict", "/stream/predict", "/sync/predict"] {
        let response = spinfer.post(path, FEATURES);
        assert_eq!((response.status, response.header("retry-after")), (503, Some("1")));
        assert_eq!((response.header(ID), response.header("cache-status")), (None, None));
        let error = response.error();
        assert!(error.contains("cannot be stored in the prediction log"), "{error}");
        assert!(!error.contains("setosa"), "{error}");
    }
    let started = || metric(&spinfer, "spinfer_instances_started_total{component=\"sync\"}");
    assert_eq!(started().to_bits(), 0_f64.to_bits(), "the component is not called");
    // Requests that have no records are served.
    assert!(spinfer.get("/sync/predict").status < 500);
    assert!(started() > 0.5);
    let mut durable = Vec::new();
    for path in ["/durable/predict", "/best/predict"] {
        let response = spinfer.post(path, FEATURES);
        assert_eq!(response.status, 200, "{path}: {}", response.text());
        durable.push(response);
    }
    let ready = spinfer.get("/v2/health/ready");
    assert_eq!(ready.status, 200);
    assert!(ready.text().contains("\\\"synchronous\\\" are refused"), "{}", ready.text());
    let refused = "spinfer_prediction_log_refused_requests_total{reason=\"unwritable\"}";
    assert_eq!(metric(&spinfer, refused).to_bits(), 3_f64.to_bits());
    let failures = |component: &str, route: &str| {
        let labels = format!("component=\"{component}\",route=\"{route}\",reason=\"not_logged\"");
        metric(&spinfer, &format!("spinfer_request_failures_total{{{labels}}}"))
    };
    assert_eq!(failures("sync", "/sync/...").to_bits(), 2_f64.to_bits());
    std::fs::remove_dir(&file).unwrap();
    let mut last = None;
    wait_until("the log is written again", || {
        let response = spinfer.post("/sync/predict", FEATURES);
        let served = response.status == 200;
        last = Some(response);
        served
    });
    assert!(has_records(folder.path(), &last.unwrap()));
    assert!(has_records(folder.path(), &durable[0]), "it was kept");
    let best = durable[1].header(ID).unwrap();
    let (_, text) = run(&["log", "show", best, "--state-dir", folder.path().to_str().unwrap()]);
    assert!(!text.contains("setosa"), "it was dropped: {text}");
}

#[test]
fn mode_without_a_log_is_refused_at_startup() {
    let manifest = Manifest::default().with_iris("iris", 1, "/...", &mode("durable"));
    let text = Launch::new(&manifest).runtime_config("[prediction_log]\nenabled = false").refused();
    let problem = "component.iris.tool.spinfer.prediction_log.mode: \"durable\" needs the log";
    assert!(text.contains(problem), "{text}");
}
