//! Variants that cannot serve: control does, if the experiment is set so.

use spinfer_tests::{Launch, Manifest, Response, STANDARD_DOOR, Spinfer};

use super::{BY_HEADER, ExperimentApp, GRANTS, experiment, metric_sum, variant};

/// A host whose treatment fails in the way of `sick`, with `unavailable` in the experiment.
fn up(unavailable: &str, sick: &str, door: &str) -> Spinfer {
    let experiments = experiment("x", BY_HEADER, 0.5).replacen(
        "unit = ",
        &format!("unavailable = \"{unavailable}\"\nunit = "),
        1,
    );
    let experiments = experiments.replace("component = \"two\"", "component = \"three\"");
    let settings = format!(
        "environment = {{ SICK = \"{sick}\" }}\ntool.spinfer.limits = {{ deadline = \"2s\" }}"
    );
    ExperimentApp::new(&experiments, &format!("{GRANTS}{door}")).with("three", &settings).up()
}

/// Sends a request of each of `users`.
fn send(spinfer: &Spinfer, users: usize) -> Vec<Response> {
    let client = spinfer.client();
    let send = |user| {
        let id = format!("user-{user}");
        client.send("POST", &format!("/v2/models/x/sick?{user}"), &[("x-user-id", &id)], b"body")
    };
    (0..users).map(send).collect()
}

#[test]
fn no_client_sees_an_error_of_a_variant_that_traps_on_some_requests() {
    const USERS: usize = 60;
    for door in ["", STANDARD_DOOR] {
        let spinfer = up("control", "trap-fifth", door);
        let responses = send(&spinfer, USERS);
        let mut failed_over = 0;
        for (user, response) in responses.iter().enumerate() {
            assert_eq!((response.status, response.text().as_str()), (200, "well"), "{user}");
            if user % 5 != 0 {
                assert_eq!(response.header("spinfer-failed-over"), None);
                continue;
            }
            assert_eq!(variant(response), "control", "{user}");
            failed_over += u64::from(response.header("spinfer-failed-over").is_some());
        }
        assert!(responses.iter().any(|response| variant(response) == "treatment"));
        if door.is_empty() {
            assert!(failed_over > 2, "{failed_over}");
            let metric = "spinfer_experiment_failed_over_requests_total";
            assert_eq!(metric_sum(&spinfer, metric), failed_over);
        }
    }
}

#[test]
fn client_sees_the_failure_without_a_fallback_and_of_a_forced_variant() {
    let spinfer = up("fail", "trap", "");
    let failed = send(&spinfer, 40).iter().filter(|response| response.status == 500).count();
    assert!((8..32).contains(&failed), "{failed}");
    let spinfer = up("control", "trap", "");
    let forced = [("x-variant", "treatment")];
    let response = spinfer.send("POST", "/v2/models/x/sick", &forced, b"body");
    assert_eq!((response.status, response.header("spinfer-variant")), (500, Some("treatment")));
}

/// At the deadline no time is left for control.
#[test]
fn deadline_is_not_failed_over() {
    let spinfer = up("control", "loop", "");
    let client = spinfer.client();
    let statuses = (0..6).map(|user| {
        let id = format!("user-{user}");
        let response = client.send("POST", "/v2/models/x/sick", &[("x-user-id", &id)], b"body");
        (response.header("spinfer-variant").unwrap().to_owned(), response.status)
    });
    let statuses: Vec<_> = statuses.collect();
    assert!(statuses.contains(&("treatment".to_owned(), 504)), "{statuses:?}");
    for (variant, status) in statuses {
        assert_eq!(status, if variant == "control" { 200 } else { 504 });
    }
}

/// A body that is too long to be sent twice.
#[test]
fn streamed_body_is_not_failed_over() {
    let spinfer = up("control", "trap", "");
    let client = spinfer.client();
    let body = vec![b'x'; 3 << 20];
    let statuses = (0..20).map(|user| {
        let id = format!("user-{user}");
        let response = client.send("POST", "/v2/models/x/sick", &[("x-user-id", &id)], &body);
        (response.header("spinfer-variant").unwrap().to_owned(), response.status)
    });
    let statuses: Vec<_> = statuses.collect();
    assert!(statuses.contains(&("treatment".to_owned(), 500)), "{statuses:?}");
    assert!(!statuses.contains(&("control".to_owned(), 500)), "{statuses:?}");
}

/// Of the assignment door before units, conditions and fallbacks.
#[test]
fn router_of_version_0_1_assigns_requests() {
    let manifest = Manifest::default()
        .with("/v2/models/...", "router", "router_0_1", GRANTS)
        .with("/one/...", "one", "probe", "environment = { NAME = \"one\" }")
        .with("/two/...", "two", "probe", "environment = { NAME = \"two\" }");
    let config = "[key_value_store.default]\ntype = \"memory\"\n";
    let spinfer = Launch::new(&manifest).runtime_config(config).up();
    spinfer.wait_for_output("(assignment door)");
    for name in ["one", "two"] {
        let path = "/v2/models/x/environment?NAME";
        let response = spinfer.send("GET", path, &[("x-variant", name)], b"");
        assert_eq!((variant(&response), response.text().as_str()), (name, name));
        assert_eq!(response.header("spinfer-experiment"), Some("older"));
    }
    let refused = spinfer.get("/v2/models/x/environment?NAME");
    assert_eq!((refused.status, refused.error().as_str()), (422, "no header x-variant"));
}
