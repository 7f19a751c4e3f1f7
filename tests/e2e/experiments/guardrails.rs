//! Guardrails of predictions: accuracy with feedback that arrives late, and drift by the drift
//! monitor.

use serde_json::{Value, json};
use spinfer_tests::{Spinfer, wait_until};

use super::ramps::command;
use super::records::{PREDICT, SETOSA, iris};
use super::{ExperimentApp, wait_until_settled};
use crate::drift::training;

/// An experiment of two versions with equal shares and a guardrail.
fn app(guardrail: &str) -> ExperimentApp {
    let keys = format!("guardrails = [{{ {guardrail} }}]");
    let app = iris(&keys, "");
    app.replace("allocation = 0.75", "allocation = 0.5")
        .replace("allocation = 0.25", "allocation = 0.5")
}

fn shown(host: &Spinfer) -> Value {
    host.admin().send("GET", "/experiments/iris", &[], b"").json()
}

fn journal(host: &Spinfer, kind: &str) -> Vec<Value> {
    let journal = host.admin().send("GET", "/experiments/iris/journal", &[], b"").json();
    let entries = journal.as_array().unwrap().iter();
    entries.filter(|entry| entry["kind"] == kind).cloned().collect()
}

/// The state of the guardrail; empty while the treatment is out of traffic.
fn state(host: &Spinfer) -> String {
    let state = shown(host)["assessment"]["guardrails"][0]["state"].clone();
    state.as_str().unwrap_or_default().to_owned()
}

/// A prediction: its id, and whether the treatment made it.
struct Prediction {
    id: String,
    is_treated: bool,
}

/// A prediction of each of many users.
fn predictions(host: &Spinfer, users: &str) -> Vec<Prediction> {
    let client = host.client();
    let predict = |user| {
        let user = format!("{users}-{user}");
        let response = client.send("POST", PREDICT, &[("x-user-id", &user)], SETOSA);
        assert_eq!(response.status, 200, "{response:?}");
        let id = response.header("spinfer-prediction-id").expect("it is logged").to_owned();
        Prediction { id, is_treated: response.header("spinfer-variant") == Some("treatment") }
    };
    (0..120).map(predict).collect()
}

/// Labels for `predictions`: those of control are right, and of the treatment if `right`.
fn feed<'a>(host: &Spinfer, predictions: impl Iterator<Item = &'a Prediction>, right: bool) {
    let items = predictions.map(|Prediction { id, is_treated }| {
        let label = if right || !is_treated { "setosa" } else { "virginica" };
        json!({ "prediction_id": id, "label": label })
    });
    let body = Value::from(items.collect::<Vec<_>>()).to_string();
    let response = host.post("/v2/feedback", body);
    assert_eq!(response.json()["rejected"], json!([]), "{response:?}");
}

#[test]
fn accuracy_counts_units_since_the_resume_and_no_late_feedback_of_earlier_ones() {
    let host = app("metric = \"accuracy\", max_decrease = 0.2, minimum = 20").up();
    let first = predictions(&host, "first");
    let treated = first.iter().filter(|one| one.is_treated).count();
    assert!((40..80).contains(&treated), "{treated}");
    // Half of the treatment's feedback arrives after the resume.
    let mut late: Vec<_> = first.iter().filter(|one| one.is_treated).collect();
    let early = late.split_off(treated / 2);
    feed(&host, first.iter().filter(|one| !one.is_treated).chain(early), false);
    wait_until("the treatment is rolled back", || journal(&host, "rolled_back").len() == 1);
    let rollback = journal(&host, "rolled_back")[0]["detail"].clone();
    assert!(rollback.as_str().unwrap().ends_with("over all units"), "{rollback}");

    command(&host, &["ramp", "iris", "treatment=0.5", "--resume"]);
    feed(&host, late.into_iter(), false);
    wait_until("the late feedback is known", || {
        let means = &shown(&host)["assessment"]["variants"][1]["means"];
        means["accuracy"]["units"].as_u64() == u64::try_from(treated).ok()
    });
    wait_until("the guardrail waits for units", || state(&host) == "waiting");
    wait_until_settled(journal(&host, "started")[0]["time"].as_u64().unwrap());
    feed(&host, predictions(&host, "second").iter(), true);
    wait_until("the guardrail holds", || state(&host) == "holds");
    assert_eq!(journal(&host, "rolled_back").len(), 1);

    feed(&host, predictions(&host, "third").iter(), false);
    wait_until("the treatment is rolled back again", || journal(&host, "rolled_back").len() == 2);
    let rollback = journal(&host, "rolled_back")[1]["detail"].clone();
    assert!(rollback.as_str().unwrap().contains("over all units since "), "{rollback}");
}

/// Users of control and of the treatment, by a request that is no prediction.
fn users(host: &Spinfer) -> [String; 2] {
    let find = |variant: &str| {
        let mut users = (0..100).map(|user| format!("user-{user}"));
        let is_of = |user: &String| {
            let response = host.send("GET", "/v2/models/iris", &[("x-user-id", user)], b"");
            response.header("spinfer-variant") == Some(variant)
        };
        users.find(is_of).expect("each variant has users")
    };
    ["control", "treatment"].map(find)
}

/// Sends the rows on which both versions were trained, with `shift` in one feature, as predictions of
/// `user`.
fn send_rows(host: &Spinfer, user: &str, shift: f64) {
    let rows = training().into_iter().map(|[a, b, c, d]| [a, b + shift, c, d]);
    let body = json!({ "instances": rows.collect::<Vec<_>>() }).to_string();
    for _ in 0..2 {
        let response = host.send("POST", PREDICT, &[("x-user-id", user)], body.as_bytes());
        assert_eq!(response.status, 200, "{response:?}");
    }
}

fn drift_app() -> ExperimentApp {
    app("metric = \"drift\", max_increase = 0.1")
}

#[test]
fn drift_of_one_variant_is_a_rollback_and_earlier_records_are_none_after_a_resume() {
    let host = drift_app().up();
    let [control, treated] = users(&host);
    send_rows(&host, &control, 0.0);
    send_rows(&host, &treated, 0.0);
    wait_until("the guardrail holds", || state(&host) == "holds");
    send_rows(&host, &treated, 2.0);
    wait_until("the treatment is rolled back", || journal(&host, "rolled_back").len() == 1);
    let rollback = journal(&host, "rolled_back")[0]["detail"].clone();
    let rollback = rollback.as_str().unwrap();
    assert!(rollback.contains("guardrail drift max_increase 0.1: treatment "), "{rollback}");
    assert!(rollback.ends_with("over the drift window"), "{rollback}");

    command(&host, &["ramp", "iris", "treatment=0.5", "--resume"]);
    wait_until("the guardrail waits for a new window", || state(&host) == "waiting");
    assert_eq!(journal(&host, "rolled_back").len(), 1);
}

#[test]
fn drift_of_both_variants_is_no_rollback() {
    let host = drift_app().up();
    let users = users(&host);
    users.iter().for_each(|user| send_rows(&host, user, 0.0));
    users.iter().for_each(|user| send_rows(&host, user, 2.0));
    wait_until("both have drifted", || {
        let guardrail = &shown(&host)["assessment"]["guardrails"][0];
        let scores = [0, 1].map(|arm: usize| guardrail["values"][arm].as_f64());
        let have_drifted = scores.iter().all(|score| *score > Some(0.25));
        assert!(!have_drifted || guardrail["state"] != "breached", "{guardrail}");
        have_drifted
    });
    assert!(journal(&host, "rolled_back").is_empty());
}
