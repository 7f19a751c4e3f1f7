//! Sinks of the prediction log: a real Redis, an HTTP collector and files, which fail while the host
//! serves, and hosts that are killed.

mod collector;
mod refused;
mod streams;

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use spinfer_tests::{Launch, Manifest, Spinfer, create_state_dir, run, wait_until};

use super::metrics::metric;
use collector::{Behaviour, Collector};

const ID: &str = "spinfer-prediction-id";
const PREDICT: &str = "/v2/models/iris-classifier/predict";
const SETOSA: &str = r#"{"features": [5.1, 3.5, 1.4, 0.2]}"#;

/// The iris classifier with sinks, in a state folder that survives the host.
struct App {
    state: tempfile::TempDir,
    sinks: String,
}

impl App {
    fn new(sinks: &str) -> Self {
        let state = tempfile::tempdir().unwrap();
        create_state_dir(state.path());
        Self { state, sinks: sinks.to_owned() }
    }

    fn collecting(collector: &Collector, more: &str) -> Self {
        let url = collector.url();
        Self::new(&format!(
            "[[prediction_log.sinks]]\ntype = 'cloudevents'\nname = 'events'\nurl = '{url}'\n{more}"
        ))
    }

    fn up(&self) -> Spinfer {
        self.without_sinks().runtime_config(&self.sinks).admin().up()
    }

    fn without_sinks(&self) -> Launch {
        let manifest = Manifest::default().with_iris("iris", 1, "/...", "");
        Launch::new(&manifest).state_dir(self.state.path())
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.state.path().join(name)
    }
}

/// Sends `count` predictions on one connection. Returns their ids.
fn predict(spinfer: &Spinfer, count: usize) -> Vec<String> {
    let client = spinfer.client();
    let ids = (0..count).map(|_| {
        let response = client.send("POST", PREDICT, &[], SETOSA.as_bytes());
        assert_eq!(response.status, 200, "{}", response.text());
        response.header(ID).expect("it is logged").to_owned()
    });
    ids.collect()
}

/// A number of a sink, from the statistics of the log.
fn sink(spinfer: &Spinfer, name: &str, key: &str) -> Value {
    let stats = spinfer.admin().send("GET", "/log/stats", &[], b"").json();
    let sinks = stats["host"]["sinks"].as_array().unwrap();
    let sink = sinks.iter().find(|sink| sink["name"] == name);
    sink.unwrap_or_else(|| panic!("no {name} in {stats}"))[key].clone()
}

fn wait_for(spinfer: &Spinfer, name: &str, key: &str, value: impl Into<Value>) {
    let value = value.into();
    wait_until(&format!("{key} of {name} is {value}"), || sink(spinfer, name, key) == value);
}

/// Waits until the log has written `count` records.
fn wait_until_written(spinfer: &Spinfer, count: usize) {
    wait_until("the records are written", || {
        let stats = spinfer.admin().send("GET", "/log/stats", &[], b"").json();
        stats["host"]["accounting"]["written"] == count
    });
}

/// Waits until the log has written `records`, and the sink `name` has received all of them.
fn wait_until_delivered(spinfer: &Spinfer, name: &str, records: usize) {
    wait_until_written(spinfer, records);
    wait_for(spinfer, name, "pending", 0);
}

fn degraded(spinfer: &Spinfer) -> Vec<String> {
    let ready = spinfer.get("/v2/health/ready");
    assert_eq!(ready.status, 200, "a sink does not make the host unready");
    let problems = ready.json()["degraded"].clone();
    serde_json::from_value(problems).unwrap_or_default()
}

/// The lines of a file, each of which must be complete.
fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    assert!(text.is_empty() || text.ends_with('\n'), "a torn line: {text}");
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn events_have_the_shape_of_kserve() {
    let collector = Collector::start(Behaviour::Accept);
    let app = App::collecting(&collector, "source = '/nodes/7'\nauthorization = 'Bearer t'");
    let spinfer = app.up();
    let rows = r#"{"inputs": [[5.1, 3.5, 1.4, 0.2], [6.7, 3.0, 5.2, 2.3]]}"#;
    let response = spinfer.post("/v2/models/iris-classifier/invocations", rows);
    let id = response.header(ID).expect("it is logged").to_owned();
    wait_until("both events arrive", || collector.events().len() == 2);
    let item = json!({ "prediction_id": id, "row": 1, "label": "virginica" });
    assert_eq!(spinfer.post("/v2/feedback", item.to_string()).json()["accepted"], 1);
    wait_until("the feedback arrives", || collector.events().len() == 3);
    let events = collector.events();
    let [request, response, feedback] = &events[..] else { panic!("{events:?}") };
    for (event, kind) in [(request, "request"), (response, "response")] {
        let kind = format!("org.kubeflow.serving.inference.{kind}");
        for (name, value) in [
            ("ce-specversion", "1.0"),
            ("ce-id", &id),
            ("ce-type", &kind),
            ("ce-source", "/nodes/7"),
            ("ce-inferenceservicename", "iris-classifier"),
            ("ce-namespace", "default"),
            ("ce-component", "predictor"),
            ("ce-endpoint", "default"),
            ("content-type", "application/json"),
            ("authorization", "Bearer t"),
        ] {
            assert_eq!(event.header(name), value, "{name} of {event:?}");
        }
        assert!(event.header("ce-time").ends_with('Z'), "{event:?}");
        assert_eq!(event.body["id"], id);
    }
    let inputs = request.body["inputs"].as_array().unwrap();
    let sepal = json!({
        "name": "sepal_length", "shape": [2], "datatype": "FP64", "data": [5.1, 6.7],
    });
    assert_eq!((inputs.len(), &inputs[0]), (4, &sepal));
    assert_eq!(response.body["model_name"], "iris-classifier");
    let outputs = response.body["outputs"].as_array().unwrap();
    let output = |name: &str| outputs.iter().find(|output| output["name"] == name).unwrap();
    assert_eq!(output("prediction")["data"], json!(["setosa", "virginica"]));
    assert_eq!(output("probabilities")["shape"], json!([2, 3]));
    assert_eq!(feedback.header("ce-type"), "spinfer.prediction.feedback");
    assert_eq!((&feedback.body["label"], &feedback.body["row"]), (&json!("virginica"), &json!(1)));
}

#[test]
fn collector_that_fails_receives_everything_in_order_and_nothing_twice() {
    let collector = Collector::start(Behaviour::Status(503));
    let app = App::collecting(&collector, "timeout = '500ms'");
    let spinfer = app.up();
    let mut ids = predict(&spinfer, 20);
    // Not only at the start: each in the middle of the log.
    for behaviour in [
        Behaviour::Status(503),
        Behaviour::Status(401),
        Behaviour::Status(307),
        Behaviour::Status(429),
        Behaviour::Hang,
        Behaviour::Break,
    ] {
        let before = collector.requests();
        collector.behave(behaviour);
        ids.extend(predict(&spinfer, 10));
        wait_until("the collector fails", || collector.requests() > before);
        wait_until("it is reported", || !degraded(&spinfer).is_empty());
        let problems = degraded(&spinfer);
        assert!(problems[0].starts_with("sink `events`: "), "{problems:?}");
        assert!(metric(&spinfer, "spinfer_prediction_log_sink_degraded{sink=\"events\"}") > 0.5);
        collector.behave(Behaviour::Accept);
        wait_until_delivered(&spinfer, "events", ids.len());
        assert_eq!(collector.ids(), ids, "after {behaviour:?}");
        wait_until("it is not reported any more", || degraded(&spinfer).is_empty());
    }
    // Each request event is followed by its response event.
    let events = collector.events();
    assert_eq!(events.len(), 2 * ids.len());
    for pair in events.chunks(2) {
        assert_eq!(pair[0].header("ce-id"), pair[1].header("ce-id"));
    }
    assert!(sink(&spinfer, "events", "retries").as_u64().unwrap() >= 6);
}

/// At least once: a collector that keeps an event without a response receives it again, with the same
/// id.
#[test]
fn event_without_a_response_is_sent_again_with_its_id() {
    let collector = Collector::start(Behaviour::KeepAndBreak);
    let app = App::collecting(&collector, "");
    let spinfer = app.up();
    let ids = predict(&spinfer, 2);
    wait_until("the first event is sent", || !collector.events().is_empty());
    collector.behave(Behaviour::Accept);
    wait_until_delivered(&spinfer, "events", 2);
    let mut received = collector.ids();
    assert!(received.len() > 2, "{received:?}");
    received.dedup();
    assert_eq!(received, ids);
}

#[test]
fn event_that_the_collector_refuses_is_skipped_and_counted() {
    let collector = Collector::start(Behaviour::Refuse("7.75"));
    let spinfer = App::collecting(&collector, "").up();
    let mut ids = predict(&spinfer, 3);
    let refused = spinfer.post(PREDICT, r#"{"features": [7.75, 3.5, 1.4, 0.2]}"#);
    assert_eq!(refused.status, 200);
    ids.extend(predict(&spinfer, 3));
    wait_until_delivered(&spinfer, "events", 7);
    assert_eq!(collector.ids(), ids);
    assert_eq!(sink(&spinfer, "events", "refused"), 1);
    spinfer.wait_for_log("the sink refuses these predictions");
}

#[test]
fn hanging_sink_affects_neither_requests_nor_the_log_nor_other_sinks() {
    let collector = Collector::start(Behaviour::Hang);
    let app = App::collecting(&collector, "timeout = '60s'");
    let path = app.path("log.jsonl");
    let file = format!("[[prediction_log.sinks]]\ntype = 'file'\npath = '{}'", path.display());
    let app = App { sinks: format!("{}\n{file}", app.sinks), ..app };
    let mut spinfer = app.up();
    let mut ids = predict(&spinfer, 1);
    wait_until("the collector hangs", || collector.requests() == 1);
    let start = Instant::now();
    ids.extend(predict(&spinfer, 200));
    wait_until_written(&spinfer, 201);
    wait_for(&spinfer, "file", "pending", 0);
    assert!(start.elapsed() < Duration::from_secs(30), "the collector's timeout is longer");
    let of_file: Vec<_> = lines(&path).iter().map(|line| line["id"].clone()).collect();
    assert_eq!(of_file, ids);
    assert_eq!(sink(&spinfer, "events", "pending"), 201);
    wait_until("the stall is reported", || {
        degraded(&spinfer).iter().any(|problem| problem.contains("no progress of a delivery"))
    });
    // It does not delay the shutdown beyond the limit, and nothing of it is lost.
    spinfer.terminate();
    assert!(spinfer.wait().success());
    assert!(start.elapsed() < Duration::from_secs(50));
    collector.behave(Behaviour::Accept);
    let spinfer = app.up();
    wait_for(&spinfer, "events", "delivered", 201);
    assert_eq!(collector.ids(), ids);
}

#[test]
fn killed_host_delivers_the_rest_after_its_restart() {
    let collector = Collector::start(Behaviour::AcceptIn(Duration::from_millis(10)));
    let app = App::collecting(&collector, "");
    let path = app.path("log.jsonl");
    let file = format!("[[prediction_log.sinks]]\ntype = 'file'\npath = '{}'", path.display());
    let app = App { sinks: format!("{}\n{file}", app.sinks), ..app };
    let spinfer = app.up();
    let mut ids = predict(&spinfer, 300);
    wait_until_written(&spinfer, 300);
    wait_until("a part is delivered", || collector.events().len() > 100);
    // SIGKILL.
    drop(spinfer);
    let delivered = collector.ids().len();
    assert!(delivered < 300, "it was killed in the middle");
    collector.behave(Behaviour::Accept);
    // What a power failure leaves at the end of the file.
    let torn = [std::fs::read(&path).unwrap(), b"{\"id\": \"torn".to_vec()].concat();
    std::fs::write(&path, torn).unwrap();
    let spinfer = app.up();
    ids.extend(predict(&spinfer, 5));
    wait_until_delivered(&spinfer, "events", 5);
    wait_for(&spinfer, "file", "pending", 0);
    let received = collector.ids();
    let unique: BTreeSet<_> = received.iter().collect();
    assert_eq!(unique, ids.iter().collect(), "at least once");
    let repeated = received.len() - unique.len();
    assert!(repeated <= 64, "{repeated} were repeated");
    // Without the repetition everything is in order.
    let mut seen = BTreeSet::new();
    let first: Vec<_> = received.iter().filter(|id| seen.insert(*id)).collect();
    assert_eq!(first, ids.iter().collect::<Vec<_>>());
    let of_file: BTreeSet<_> =
        lines(&path).iter().map(|line| line["id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(of_file, ids.into_iter().collect());
}

#[test]
fn command_without_the_sinks_of_a_running_host_takes_nothing_from_them() {
    let collector = Collector::start(Behaviour::Status(503));
    let app = App::collecting(&collector, "");
    let spinfer = app.up();
    let mut ids = predict(&spinfer, 5);
    wait_until_written(&spinfer, 5);
    wait_until("the collector fails", || !degraded(&spinfer).is_empty());
    let (status, text) = app.without_sinks().check();
    assert!(status.success() && !text.contains("sink"), "{text}");
    let other = app.without_sinks().up();
    other.wait_for_log("the sink is not configured any more");
    drop(other);
    collector.behave(Behaviour::Accept);
    ids.extend(predict(&spinfer, 2));
    wait_until_delivered(&spinfer, "events", 7);
    assert_eq!(collector.ids(), ids);
    assert_eq!(sink(&spinfer, "events", "lost"), 0);
}

#[test]
fn sink_that_is_removed_and_added_again_receives_what_it_had_not_received() {
    let collector = Collector::start(Behaviour::Status(503));
    let app = App::collecting(&collector, "");
    let spinfer = app.up();
    let ids = predict(&spinfer, 3);
    wait_until_written(&spinfer, 3);
    drop(spinfer);
    let without = app.without_sinks().up();
    without.wait_for_log("configure a sink of this name to deliver it");
    drop(without);
    collector.behave(Behaviour::Accept);
    let spinfer = app.up();
    wait_for(&spinfer, "events", "delivered", 3);
    assert_eq!(collector.ids(), ids);
}

#[test]
fn check_and_routes_create_no_state() {
    let state = tempfile::tempdir().unwrap();
    create_state_dir(state.path());
    let settings = "key_value_stores = [\"default\"]\nsqlite_databases = [\"default\"]\n\
                    tool.spinfer.prediction_log.hash = [\"id\"]\n";
    let manifest = Manifest::default().with_iris("iris", 1, "/...", settings);
    let launch = Launch::new(&manifest);
    let from = launch.folder().join("spin.toml");
    for command in ["check", "routes"] {
        let paths = [from.as_path(), state.path()].map(|path| path.to_str().unwrap());
        let (status, text) = run(&[command, "--from", paths[0], "--state-dir", paths[1]]);
        assert!(status.success(), "{text}");
        for name in [
            "predictions.db",
            "predictions.lock",
            "predictions.sinks.lock",
            "prediction_log.key",
            "sqlite_key_value.db",
            "sqlite_db.db",
        ] {
            assert!(!state.path().join(name).exists(), "{command} created {name}");
        }
    }
}

#[test]
fn standard_output_has_a_line_per_record() {
    let app = App::new("[[prediction_log.sinks]]\ntype = 'stdout'");
    let spinfer = app.up();
    let ids = predict(&spinfer, 3);
    for id in &ids {
        spinfer.wait_for_output(id);
    }
    let output = spinfer.output();
    let records = output.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let printed: Vec<_> = records.map(|record| record["id"].clone()).collect();
    assert_eq!(printed, ids);
}

#[test]
fn records_deleted_before_a_sink_received_them_are_counted_as_lost() {
    let collector = Collector::start(Behaviour::Status(503));
    let app = App::collecting(&collector, "[prediction_log]\nmax_age = '1s'");
    let spinfer = app.up();
    predict(&spinfer, 5);
    wait_until_written(&spinfer, 5);
    wait_until("they are too old", || {
        sink(&spinfer, "events", "lag_seconds").as_f64().unwrap() > 1.5
    });
    drop(spinfer);
    // Retention runs when the log is opened.
    let spinfer = app.up();
    wait_until("they are lost", || sink(&spinfer, "events", "lost") == 5);
    assert!(metric(&spinfer, "spinfer_prediction_log_sink_lost_total{sink=\"events\"}") > 4.5);
    spinfer.wait_for_log("before the sink received them");
    collector.behave(Behaviour::Accept);
    let ids = predict(&spinfer, 2);
    wait_until_delivered(&spinfer, "events", 2);
    assert_eq!(collector.ids(), ids);
}
