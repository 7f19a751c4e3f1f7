//! What the prediction log records of assignments: units, propensities, failed variants. And how far
//! a shadow agrees.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use spinfer_tests::{Spinfer, run, wait_until};

use super::ramps::command;
use super::{ExperimentApp, GRANTS, wait_until_settled};

pub(super) const PREDICT: &str = "/v2/models/iris/predict";
pub(super) const SETOSA: &[u8] = br#"{"features": [5.1, 3.5, 1.4, 0.2]}"#;

/// An experiment of two versions of the iris classifier, with these keys, and variants in addition.
pub(super) fn iris(keys: &str, more: &str) -> ExperimentApp {
    let experiments = format!(
        "[experiments.iris]\nmodel = \"iris\"\nunit = {{ header = \"x-user-id\" }}\n\
         force = \"x-variant\"\n{keys}\n\
         [[experiments.iris.variants]]\nname = \"control\"\ncomponent = \"iris-1\"\n\
         model = \"iris-classifier\"\nallocation = 0.75\n\
         [[experiments.iris.variants]]\nname = \"treatment\"\ncomponent = \"iris-2\"\n\
         model = \"iris-classifier\"\nallocation = 0.25\n{more}"
    );
    let mut application = ExperimentApp::new(&experiments, GRANTS);
    application.manifest = application
        .manifest
        .with_iris("iris-1", 1, "/iris-1/...", "")
        .with_iris("iris-2", 2, "/iris-2/...", "");
    application
}

/// The records in the log of a host with this state, by their ids.
fn records(state: &str) -> BTreeMap<String, Value> {
    let (status, text) = run(&["log", "tail", "-n", "1000", "--state-dir", state]);
    if !status.success() {
        assert!(text.contains("no prediction was logged yet"), "{text}");
        return BTreeMap::new();
    }
    let records = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    records.map(|record| (record["id"].as_str().unwrap().to_owned(), record)).collect()
}

/// The records of predictions with these ids, once they are written.
fn records_of<const N: usize>(state: &str, ids: [&String; N]) -> [Value; N] {
    let mut all = BTreeMap::new();
    wait_until("they are written", || {
        all = records(state);
        ids.iter().all(|id| all.contains_key(*id))
    });
    ids.map(|id| all[id].clone())
}

/// The id of a prediction.
fn predict(spinfer: &Spinfer, headers: &[(&str, &str)]) -> String {
    let response = spinfer.send("POST", PREDICT, headers, SETOSA);
    assert_eq!(response.status, 200, "{response:?}");
    response.header("spinfer-prediction-id").expect("it is logged").to_owned()
}

#[test]
fn records_have_the_hashed_unit_and_the_propensity_of_their_variant() {
    let state = tempfile::tempdir().unwrap();
    let folder = state.path().to_str().unwrap();
    let spinfer = iris("", "").up_in(folder);
    let users: Vec<_> = (0..40).map(|user| format!("user-{user}@example.com")).collect();
    let ids: Vec<_> = users.iter().map(|user| predict(&spinfer, &[("x-user-id", user)])).collect();
    command(&spinfer, &["ramp", "iris", "treatment=1"]);
    let client = spinfer.client();
    wait_until("the ramp takes effect", || {
        let treated = |user: &String| {
            let response = client.send("POST", PREDICT, &[("x-user-id", user)], SETOSA);
            response.header("spinfer-variant") == Some("treatment")
        };
        users.iter().all(treated)
    });
    let ramped = predict(&spinfer, &[("x-user-id", &users[1])]);
    let forced = predict(&spinfer, &[("x-user-id", &users[1]), ("x-variant", "control")]);
    let without = predict(&spinfer, &[]);
    let [ramped, forced, without] = records_of(folder, [&ramped, &forced, &without]);
    let all = records(folder);
    let drawn: Vec<_> = ids.iter().map(|id| &all[id]).collect();
    let mut shares = BTreeMap::new();
    let mut units = BTreeSet::new();
    for record in &drawn {
        let unit = record["unit"].as_str().unwrap();
        assert!(unit.len() == 16 && unit.bytes().all(|digit| digit.is_ascii_hexdigit()), "{unit}");
        units.insert(unit);
        shares.insert(record["variant"].as_str().unwrap(), record["propensity"].clone());
        assert_eq!(record["failed_over"], Value::Null);
    }
    assert_eq!(units.len(), users.len(), "each user has its own");
    assert_eq!(shares, BTreeMap::from([("control", json!(0.75)), ("treatment", json!(0.25))]));
    let unit = &drawn[1]["unit"];
    assert_eq!((&ramped["unit"], &ramped["propensity"]), (unit, &json!(1.0)));
    assert_eq!((&ramped["variant"], &forced["variant"]), (&json!("treatment"), &json!("control")));
    assert_eq!((&forced["unit"], &forced["propensity"]), (unit, &Value::Null));
    assert_eq!((&without["unit"], &without["propensity"]), (&Value::Null, &Value::Null));
    let (_, csv) = run(&["log", "export", "-o", "-", "--format", "csv", "--state-dir", folder]);
    assert!(csv.contains("experiment,variant,unit,propensity,failed_over,cache"), "{csv}");
    let control = drawn.iter().find(|record| record["variant"] == "control").unwrap();
    let line = format!(",control,{},0.75,,", control["unit"].as_str().unwrap());
    assert!(csv.contains(&line), "{csv}");
    assert!(!csv.contains("@example.com"), "no unit is logged in plain text");
}

#[test]
fn units_of_an_earlier_experiment_of_the_same_name_count_anew() {
    const USERS: u64 = 30;
    let state = tempfile::tempdir().unwrap();
    let folder = state.path().to_str().unwrap();
    let node = |treatment: &str| {
        let mut application = iris("", "");
        application.config.clear();
        application.manifest = application.manifest.with_iris("iris-3", 2, "/iris-3/...", "");
        let component = format!("component = \"{treatment}\"");
        application.replace("component = \"iris-2\"", &component).up_in(folder)
    };
    let units = |spinfer: &Spinfer| {
        let shown = spinfer.admin().send("GET", "/experiments/iris", &[], b"").json();
        let variants = shown["assessment"]["variants"].as_array()?.clone();
        variants.iter().map(|variant| variant["units"].as_u64()).sum::<Option<u64>>()
    };
    let all_predict = |spinfer: &Spinfer| {
        for user in 0..USERS {
            predict(spinfer, &[("x-user-id", &format!("user-{user}"))]);
        }
        wait_until("each unit counts", || units(spinfer) == Some(USERS));
    };
    let started = |spinfer: &Spinfer, times: usize| {
        let journal = spinfer.admin().send("GET", "/experiments/iris/journal", &[], b"").json();
        let entries = journal.as_array().unwrap().iter();
        let entries: Vec<_> = entries.filter(|entry| entry["kind"] == "started").collect();
        (entries.len() == times).then(|| entries[times - 1]["time"].as_u64().unwrap())
    };
    let spinfer = node("iris-2");
    all_predict(&spinfer);
    drop(spinfer);
    // Other variants, and those of the beginning again.
    for (times, treatment) in [(1, "iris-3"), (2, "iris-2")] {
        let spinfer = node(treatment);
        wait_until("the experiment starts anew", || started(&spinfer, times).is_some());
        wait_until("nothing counts", || units(&spinfer) == Some(0));
        wait_until_settled(started(&spinfer, times).unwrap());
        all_predict(&spinfer);
    }
}

#[test]
fn request_outside_of_the_experiment_is_recorded_without_one() {
    let state = tempfile::tempdir().unwrap();
    let folder = state.path().to_str().unwrap();
    let spinfer = iris("target = { header = \"x-country\", values = [\"NL\"] }", "").up_in(folder);
    let id = predict(&spinfer, &[("x-user-id", "ann")]);
    let [record] = records_of(folder, [&id]);
    for key in ["experiment", "variant", "unit", "propensity", "failed_over"] {
        assert_eq!(record[key], Value::Null, "{key}");
    }
    assert_eq!(
        (&record["component"], &record["route"]),
        (&json!("iris-1"), &json!("/v2/models/..."))
    );
}

#[test]
fn failed_over_prediction_is_recorded_for_control_with_the_variant_that_failed() {
    let state = tempfile::tempdir().unwrap();
    let folder = state.path().to_str().unwrap();
    let keys = "unavailable = \"control\"";
    let mut application = iris(keys, "");
    // The probe traps on predictions.
    application = application.replace("component = \"iris-2\"", "component = \"probe\"");
    let spinfer = application.with("probe", "").up_in(folder);
    let users: Vec<_> = (0..40).map(|user| format!("user-{user}")).collect();
    for user in &users {
        predict(&spinfer, &[("x-user-id", user)]);
    }
    wait_until("they are written", || records(folder).len() == users.len());
    let (mut drawn, mut failed) = (0, 0);
    for record in records(folder).values() {
        assert_eq!(
            (&record["variant"], &record["component"]),
            (&json!("control"), &json!("iris-1"))
        );
        assert!(record["unit"].is_string());
        match (&record["failed_over"], &record["propensity"]) {
            (Value::Null, propensity) => {
                assert_eq!(*propensity, json!(0.75));
                drawn += 1;
            }
            (variant, propensity) => {
                assert_eq!((variant, propensity), (&json!("treatment"), &Value::Null));
                failed += 1;
            }
        }
    }
    assert!(drawn > 10 && failed > 2, "{drawn} {failed}");
    let output = command(&spinfer, &["show", "iris"]);
    let line = format!("treatment was unavailable: control served {failed} of its requests");
    assert!(output.contains(&line), "{output}");
}

#[test]
fn predictions_of_a_shadow_are_compared_with_those_of_the_client() {
    let shadow = "[[experiments.iris.variants]]\nname = \"candidate\"\ncomponent = \"iris-2\"\n\
                  model = \"iris-classifier\"\nshadow = true\n";
    let mut application = iris("kind = \"shadow\"", shadow);
    application = application.replace(
        "[[experiments.iris.variants]]\nname = \"treatment\"\ncomponent = \"iris-2\"\n\
         model = \"iris-classifier\"\nallocation = 0.25\n",
        "",
    );
    application = application.replace("allocation = 0.75\n", "");
    let spinfer = application.up();
    let client = spinfer.client();
    // The second is served from the cache; the third is an error of the client.
    for (body, status) in [(SETOSA, 200), (SETOSA, 200), (b"{}", 400)] {
        let response = client.send("POST", PREDICT, &[("x-user-id", "ann")], body);
        assert_eq!(response.status, status, "{response:?}");
    }
    let agreement = || {
        let all = spinfer.admin().send("GET", "/experiments", &[], b"").json();
        all[0]["variants"][1]["agreement"].clone()
    };
    wait_until("all are compared", || {
        let found = agreement();
        found["compared"].as_u64().unwrap() + found["incomparable"].as_u64().unwrap() == 3
    });
    let found = agreement();
    assert_eq!((&found["compared"], &found["incomparable"]), (&json!(2), &json!(1)), "{found}");
    // Both versions are sure of a setosa, with other probabilities.
    assert_eq!((&found["labelled"], &found["rate"]), (&json!(2), &json!(1.0)), "{found}");
    let [mean, max] = ["mean_difference", "difference_max"].map(|key| found[key].as_f64().unwrap());
    assert!(0.0 < mean && mean <= max && max < 0.1, "{found}");
    let output = command(&spinfer, &["show", "iris"]);
    assert!(output.starts_with("experiment iris (shadow)\n"), "{output}");
    assert!(output.contains("candidate: 2 requests compared, labels of 2 rows agree to 100.0 %"));
    let metrics = spinfer.admin().send("GET", "/metrics", &[], b"").text();
    for line in [
        "spinfer_experiment_shadow_comparisons_total{experiment=\"iris\",variant=\"candidate\",result=\"compared\"} 2",
        "spinfer_experiment_shadow_labels_total{experiment=\"iris\",variant=\"candidate\",result=\"different\"} 0",
    ] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }
}
