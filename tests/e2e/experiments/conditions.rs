//! Which requests are in an experiment; control serves the others.

use std::collections::{BTreeMap, BTreeSet};

use spinfer_tests::{Client, Response, STANDARD_DOOR, Spinfer, wait_until};

use super::ramps::{command, command_refused};
use super::{BY_HEADER, ExperimentApp, GRANTS, experiment, shadow, up};

/// An experiment with these keys.
fn with(name: &str, keys: &str) -> String {
    let text = experiment(name, BY_HEADER, 0.5);
    text.replacen("unit = ", &format!("{keys}\nunit = "), 1)
}

/// Whether the response is of a request in the experiment; one that is not is served by control.
fn is_included(response: &Response) -> bool {
    assert_eq!(response.status, 200, "{response:?}");
    let names = ["spinfer-experiment", "spinfer-variant"].map(|name| response.header(name));
    match names {
        [Some(_), Some(_)] => true,
        [None, None] => {
            assert_eq!(response.text(), "one", "control serves it");
            false
        }
        _ => panic!("one of two headers: {response:?}"),
    }
}

/// Those of `users` that are in the experiment on `model`.
fn included(client: &Client, model: &str, users: usize) -> BTreeSet<usize> {
    let path = format!("/v2/models/{model}/environment?NAME");
    let is_in = |user: &usize| {
        let user = format!("user-{user}");
        is_included(&client.send("GET", &path, &[("x-user-id", &user)], b""))
    };
    (0..users).filter(is_in).collect()
}

fn excluded(spinfer: &Spinfer) -> BTreeMap<String, u64> {
    let metrics = spinfer.admin().send("GET", "/metrics", &[], b"").text();
    let start = "spinfer_experiment_excluded_requests_total{experiment=\"x\",reason=\"";
    let lines = metrics.lines().filter_map(|line| line.strip_prefix(start));
    let counts = lines.map(|line| {
        let (reason, count) = line.split_once("\"} ").unwrap();
        (reason.to_owned(), count.parse().unwrap())
    });
    counts.filter(|(_, count)| *count > 0).collect()
}

#[test]
fn holdout_is_served_by_control_and_not_in_the_experiment() {
    const USERS: usize = 1000;
    let experiments = with("x", "holdout = 0.3") + &shadow("x", "three");
    let spinfer = ExperimentApp::new(&experiments, GRANTS).with("three", "").up();
    let client = spinfer.client();
    let users = included(&client, "x", USERS);
    // Five standard deviations of a binomial: 1000 * 0.7, and the root of 1000 * 0.3 * 0.7.
    assert!((628..=772).contains(&users.len()), "{}", users.len());
    assert_eq!(included(&client, "x", USERS), users, "and always the same");
    let held_out = 2 * (USERS - users.len()) as u64;
    assert_eq!(excluded(&spinfer), BTreeMap::from([("holdout".to_owned(), held_out)]));
    let assigned = super::metric_sum(&spinfer, "spinfer_experiment_assignments_total");
    assert_eq!(assigned, 2 * users.len() as u64);
    let copies = || super::metric_sum(&spinfer, "spinfer_experiment_shadow_requests_total");
    wait_until("all copies are counted", || copies() == assigned);
}

#[test]
fn experiments_of_a_namespace_have_no_user_in_common() {
    const USERS: usize = 200;
    let part = |from: f64, to: f64| {
        format!("namespace = {{ name = \"ranking\", from = {from}, to = {to} }}")
    };
    let experiments = [with("x", &part(0.0, 0.4)), with("y", &part(0.4, 0.9))];
    for door in ["", STANDARD_DOOR] {
        let settings = format!("{GRANTS}{door}");
        let spinfer = ExperimentApp::new(&experiments.concat(), &settings).up();
        let client = spinfer.client();
        let [x, y] = ["x", "y"].map(|model| included(&client, model, USERS));
        assert!(x.is_disjoint(&y));
        assert!(x.len() > 40 && y.len() > 60 && x.len() + y.len() < USERS, "{x:?} {y:?}");
        // Without a unit there is no place in the namespace.
        assert!(!is_included(&spinfer.get("/v2/models/x/environment?NAME")));
    }
}

#[test]
fn request_outside_of_the_target_is_served_by_control() {
    let target = "target = { header = \"x-country\", values = [\"NL\", \"BE\"] }";
    for door in ["", STANDARD_DOOR] {
        let spinfer = ExperimentApp::new(&with("x", target), &format!("{GRANTS}{door}")).up();
        let is_in = |headers: &[(&str, &str)]| {
            let path = "/v2/models/x/environment?NAME";
            is_included(&spinfer.send("GET", path, headers, b""))
        };
        for user in ["ann", "ben", "eve"] {
            assert!(is_in(&[("x-user-id", user), ("x-country", "NL")]));
            assert!(is_in(&[("x-user-id", user), ("x-country", "DE"), ("x-country", "BE")]));
            assert!(!is_in(&[("x-user-id", user), ("x-country", "nl")]));
            assert!(!is_in(&[("x-user-id", user)]));
        }
        assert!(is_in(&[("x-variant", "treatment")]), "testers are not subject to it");
    }
}

#[test]
fn manual_experiment_starts_on_command_on_the_command_line_and_the_admin_plane() {
    let spinfer = up(&with("x", "start = \"manual\""));
    let client = spinfer.client();
    assert!(included(&client, "x", 20).is_empty());
    assert!(command(&spinfer, &["show", "x"]).contains("not started: control serves all requests"));
    command(&spinfer, &["start", "x"]);
    wait_until("it is started", || included(&client, "x", 20).len() == 20);
    let output = command_refused(&spinfer, &["start", "x"]);
    assert!(output.contains("experiment `x` is running already"), "{output}");
    let output = command(&spinfer, &["promote", "x", "treatment"]);
    for part in [
        "stopped: treatment serves all requests",
        "let it be the only variant of [experiments.x] in the experiments.toml of ab-router:",
        "component = \"two\"",
        "model = \"x\"",
    ] {
        assert!(output.contains(part), "{part}: {output}");
    }
    wait_until("the winner serves all users", || super::treated(&client, "x", 20).len() == 20);
    let body = b"{\"started\": true}";
    let restarted = spinfer.admin().send("PUT", "/experiments/x", &[], body);
    assert_eq!((restarted.status, &restarted.json()["stopped"]), (200, &false.into()));
    wait_until("it is started again", || super::treated(&client, "x", 20).len() < 20);
    for arguments in [&["start", "y"][..], &["promote", "y", "treatment"], &["stop", "y"]] {
        let output = command_refused(&spinfer, arguments);
        assert!(output.contains("`y` does not exist; available experiments: x"), "{output}");
    }
}
