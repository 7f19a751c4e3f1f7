//! Drift: shifted rows over HTTP, and the reports in the admin plane, the metrics and the command line.

use serde_json::{Value, json};
use spinfer_tests::{Launch, Manifest, Spinfer, root, run, wait_until};

use super::metrics::metric;

/// The rows that the iris classifiers were trained on, which have no drift.
const TRAINING: &str = include_str!("../../host/src/cli/baseline/fixtures/iris-training.csv");

pub(crate) fn training() -> Vec<[f64; 4]> {
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
    assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
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

/// An iris classifier with these drift settings, whose state is in `state`.
fn iris(settings: &str, state: &std::path::Path) -> Spinfer {
    let manifest = Manifest::default().with_iris("iris", 1, "/v2/models/...", settings);
    Launch::new(&manifest).state_dir(state).admin().up()
}

/// The version, once it has `count` records.
fn with_records(spinfer: &Spinfer, count: u64) -> Value {
    let version = || drift(spinfer, "")["versions"][0].clone();
    wait_until(&format!("{count} records"), || version()["window"]["records"] == count);
    version()
}

#[test]
fn window_and_alarm_survive_a_restart_and_a_crash() {
    let state = tempfile::tempdir().unwrap();
    let settings = "tool.spinfer.drift.window = { half_life = \"12h\" }\n";
    let shifted: Vec<_> = training().iter().map(|[a, b, c, d]| [*a, b + 1.0, *c, *d]).collect();
    let mut spinfer = iris(settings, state.path());
    predict(&spinfer, &shifted);
    let before = with_records(&spinfer, 240);
    assert_eq!(before["window"]["half_life_seconds"], 43_200.0, "{before}");
    let effective = before["window"]["effective_records"].as_f64().unwrap();
    assert!((239.0..240.001).contains(&effective), "one sub-window: {effective}");
    assert_eq!(fields(&before, "features", "drift"), ["sepal_width"], "{before}");
    spinfer.terminate();
    assert!(spinfer.wait().success());

    let mut again = iris(settings, state.path());
    let after = with_records(&again, 240);
    assert_eq!(after["features"][1]["since"], before["features"][1]["since"]);
    let psi = |version: &Value| version["features"][1]["psi"].as_f64().unwrap();
    // The weights are those of a later time.
    assert!((psi(&after) - psi(&before)).abs() < 1e-9, "{after}");
    predict(&again, &training());
    with_records(&again, 480);
    let written = "spinfer_prediction_log_records_total{result=\"written\"}";
    wait_until("the records are stored", || metric(&again, written) == 240.0);
    // A crash: what was not saved is counted again from the log.
    let id = again.id().to_string();
    assert!(std::process::Command::new("kill").args(["-9", &id]).status().unwrap().success());
    assert!(!again.wait().success());
    with_records(&iris(settings, state.path()), 480);
}

#[test]
fn report_of_two_hosts_equals_that_of_one_with_all_records() {
    let states = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let [a, b, all] = states.each_ref().map(|state| iris("", state.path()));
    let rows = training();
    let (first, second) = rows.split_at(70);
    for (host, rows) in [(&a, first), (&b, second), (&all, first), (&all, second)] {
        predict(host, rows);
    }
    with_records(&a, 140);
    with_records(&b, 100);
    let expected = with_records(&all, 240);
    let merged = |arguments: &[&str]| {
        let hosts = format!("{},{}", a.admin_address(), b.admin_address());
        run(&[&["drift", "--admin", &hosts], arguments].concat())
    };
    let (status, text) = merged(&["--json"]);
    let report: Value = serde_json::from_str(&text).unwrap();
    let version = &report["versions"][0];
    assert!(status.success() && version["window"]["records"] == 240, "{text}");
    for kind in ["features", "outputs"] {
        let pairs =
            version[kind].as_array().unwrap().iter().zip(expected[kind].as_array().unwrap());
        for (merged, expected) in pairs {
            for key in ["name", "status", "n", "psi", "ks", "js", "chi_squared", "current"] {
                assert_eq!(merged[key], expected[key], "{merged} {expected}");
            }
        }
    }
    let reverse = format!("{},{}", b.admin_address(), a.admin_address());
    let (_, text) = run(&["drift", "--json", "--admin", &reverse]);
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), report, "in any order");
    let twice = format!("{0},{0}", a.admin_address());
    let (status, text) = run(&["drift", "--admin", &twice]);
    assert!(!status.success() && text.contains("are of one host"), "{text}");
    let (_, text) = merged(&["--model", "iris-classifier"]);
    assert!(text.contains("240 records of 2 hosts, ") && text.contains("sepal_width"), "{text}");
    for (body, status, part) in [
        ("[]", 200, ""),
        ("{}", 400, "the body: invalid type: map"),
        (r#"[{"format":9,"windows":[]}]"#, 400, "format 9 is of another version"),
    ] {
        let response = a.admin().send("POST", "/drift", &[], body.as_bytes());
        assert_eq!(response.status, status, "{}", response.text());
        assert!(response.text().contains(part), "{}", response.text());
    }
    let windows = a.admin().send("GET", "/drift/windows", &[], b"").text();
    let other = windows.replacen("\"baseline\":\"", "\"baseline\":\"0", 1);
    let response = b.admin().send("POST", "/drift", &[], format!("[{other}]").as_bytes());
    assert_eq!(response.status, 409, "{}", response.text());
    assert!(response.error().contains("another baseline.json on another host"));
}

#[test]
fn report_of_several_hosts_names_a_missing_one_and_has_the_models_of_each() {
    let states = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let [state, other] = states.each_ref().map(|state| state.path());
    let a = iris("", state);
    predict(&a, &training());
    with_records(&a, 240);
    let manifest = Manifest::default()
        .with_model("diabetes-regressor", "diabetes", 1, "/diabetes/...", "")
        .with_iris("off", 1, "/off/...", "tool.spinfer.drift.enabled = false\n");
    let b = Launch::new(&manifest).state_dir(other).admin().up();
    // Closed when it is dropped.
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let hosts = |all: &[String]| all.join(",");
    let [gone, a_address, b_address] =
        [gone.to_string(), a.admin_address().to_string(), b.admin_address().to_string()];
    let report = |addresses: &str, arguments: &[&str]| {
        run(&[&["drift", "--admin", addresses], arguments].concat())
    };

    // Whichever comes first.
    for order in [[&gone, &a_address, &b_address], [&b_address, &a_address, &gone]] {
        let all = hosts(&order.map(String::clone));
        let (status, text) = report(&all, &["--json"]);
        assert_eq!(status.code(), Some(1), "{text}");
        let (json, error) = text.split_once("\nError: ").unwrap();
        assert!(error.contains(&format!("the report lacks 1 of 3 hosts: {gone}")), "{error}");
        let found: Value = serde_json::from_str(json).unwrap();
        assert_eq!(found["missing_hosts"][0]["address"], gone.as_str(), "{text}");
        let reason = found["missing_hosts"][0]["reason"].as_str().unwrap();
        assert!(reason.contains("cannot be reached"), "{reason}");
        let versions = found["versions"].as_array().unwrap();
        let models: Vec<_> = versions.iter().map(|version| &version["model"]).collect();
        assert_eq!(models, ["diabetes-regressor", "iris-classifier"], "{text}");
        assert_eq!(versions[1]["window"]["records"], 240);
        let [off] = &found["unwatched"].as_array().unwrap()[..] else { panic!("{text}") };
        assert_eq!((&off["reason"], &off["hosts"]), (&json!("disabled"), &json!([b_address])));
        let (status, text) = report(&all, &[]);
        assert!(!status.success(), "{text}");
        let line = format!("Without the records of {gone}: cannot be reached");
        assert!(
            text.starts_with(&line) && text.contains("iris-classifier version 1: ok"),
            "{text}"
        );
        let line = format!("iris-classifier version 1, on {b_address}: disabled");
        assert!(text.contains(&line), "{text}");
    }

    let both = hosts(&[b_address, a_address]);
    let (status, text) = report(&both, &["--json", "--model", "iris-classifier"]);
    let found: Value = serde_json::from_str(&text).unwrap();
    assert!(status.success() && found["versions"].as_array().unwrap().len() == 1, "{text}");
    assert_eq!(
        (&found["versions"][0]["window"]["records"], &found["missing_hosts"]),
        (&json!(240), &json!([]))
    );
    let (status, text) = report(&both, &["--model", "wine"]);
    let part =
        "no host mounts the model `wine`; mounted models: diabetes-regressor, iris-classifier";
    assert!(!status.success() && text.contains(part), "{text}");
    let windows = a.admin().send("GET", "/drift/windows", &[], b"").text();
    for (model, status) in [("iris-classifier", 200), ("wine", 404)] {
        let path = format!("/drift?model={model}");
        let response = b.admin().send("POST", &path, &[], format!("[{windows}]").as_bytes());
        assert_eq!(response.status, status, "{}", response.text());
    }
    let (status, text) = report(&hosts(&[gone.clone(), gone]), &[]);
    assert!(!status.success() && text.contains("no host can be asked: 127.0.0.1:"), "{text}");
}

#[test]
fn expected_accuracy_is_shown_with_that_of_labels() {
    let dir = super::metrics::iris_with("");
    let source = dir.path().display();
    let files = format!(
        "files = [{{ source = \"{source}\", destination = \"/models/iris-classifier\" }}]\n"
    );
    let manifest = Manifest::default().with("/v2/models/...", "iris", "iris_classifier", &files);
    let folder = tempfile::tempdir().unwrap();
    let (toml, csv) = (folder.path().join("spin.toml"), folder.path().join("labelled.csv"));
    std::fs::write(&toml, manifest.text()).unwrap();
    // Sorted by petal width: nearly all labels are right.
    let label = |width: f64| match width {
        width if width < 0.8 => "setosa",
        width if width < 1.7 => "versicolor",
        _ => "virginica",
    };
    let rows = TRAINING.lines().skip(1).zip(training());
    let rows: String = rows.map(|(line, row)| format!("{line},{}\n", label(row[3]))).collect();
    let header = TRAINING.lines().next().unwrap();
    std::fs::write(&csv, format!("{header},species\n{rows}")).unwrap();
    let arguments = ["baseline", csv.to_str().unwrap(), "--model", "iris-classifier"];
    let from = ["--label", "species", "--from", toml.to_str().unwrap()];
    let (status, text) = run(&[arguments, from].concat());
    assert!(status.success() && text.contains("Calibrated on 120 rows with labels"), "{text}");

    let spinfer = Launch::new(&manifest).admin().up();
    predict(&spinfer, &training());
    let version = with_records(&spinfer, 240);
    let performance = &version["performance"];
    assert_eq!((&performance["n"], &performance["labelled"]), (&json!(240), &json!(0)));
    let expected = performance["expected_accuracy"].as_f64().unwrap();
    let baseline = performance["baseline_accuracy"].as_f64().unwrap();
    assert!((expected - baseline).abs() < 0.02 && expected > 0.9, "{performance}");
    let gauge = "spinfer_drift_expected_accuracy{model=\"iris-classifier\",version=\"2\"}";
    assert!((metric(&spinfer, gauge) - expected).abs() < 1e-9);

    let body = json!({ "instances": [[5.1, 3.5, 1.4, 0.2]] }).to_string();
    let response = spinfer.post("/v2/models/iris-classifier/predict", &body);
    let id = response.header("spinfer-prediction-id").unwrap();
    let feedback = json!({ "prediction_id": id, "label": "versicolor" }).to_string();
    assert_eq!(spinfer.post("/v2/feedback", &feedback).status, 200);
    let version = with_records(&spinfer, 241);
    assert_eq!(version["performance"]["labelled"], 1, "{version}");
    assert_eq!(version["performance"]["accuracy"], 0.0);
    let address = spinfer.admin_address().to_string();
    let (_, text) = run(&["drift", "--admin", &address]);
    let line = text.lines().find(|line| line.starts_with("accuracy: ")).unwrap();
    assert!(line.contains("expected of 241 predictions; 0.000 on 1 label; "), "{text}");
}
