use spinfer_tests::{STANDARD_DOOR, Spinfer, wait_until};

use super::{BY_HEADER, ExperimentApp, GRANTS, experiment, shadow, variant};

/// The number of a shadow's copies with this outcome.
fn copies(spinfer: &Spinfer, outcome: &str) -> u64 {
    let metrics = spinfer.admin().send("GET", "/metrics", &[], b"").text();
    let start = format!(
        "spinfer_experiment_shadow_requests_total{{experiment=\"x\",variant=\"candidate\",\
         outcome=\"{outcome}\"}} "
    );
    let line = metrics.lines().find_map(|line| line.strip_prefix(&start));
    line.unwrap_or_else(|| panic!("no {start}in {metrics}")).parse().unwrap()
}

#[test]
fn shadow_receives_a_copy_of_each_buffered_request() {
    let experiments = experiment("x", BY_HEADER, 0.5) + &shadow("x", "three");
    let spinfer = ExperimentApp::new(&experiments, GRANTS).with("three", "").up();
    for door in 0..2 {
        let path = format!("/v2/models/x/log?copy-{door}");
        assert!(spinfer.post(&path, "body").header("spinfer-variant").is_some());
        // Logged by the variant and by the shadow.
        spinfer.wait_for_log_times(&format!("copy-{door}"), 2);
    }
    wait_until("both are counted", || copies(&spinfer, "served") == 2);
    // Streamed bodies are not copied.
    assert_eq!(spinfer.post("/v2/models/x/echo", vec![b'x'; 3 << 20]).status, 200);
    assert_eq!((copies(&spinfer, "skipped"), copies(&spinfer, "failed")), (1, 0));
    // No request is assigned to it.
    let forced = spinfer.send("GET", "/v2/models/x/log", &[("x-variant", "candidate")], b"");
    assert_eq!(forced.status, 400);
}

#[test]
fn standard_door_sends_copies_to_the_shadow() {
    let experiments = experiment("x", BY_HEADER, 0.5) + &shadow("x", "three");
    let settings = format!("{GRANTS}{STANDARD_DOOR}");
    let spinfer = ExperimentApp::new(&experiments, &settings).with("three", "").up();
    let response = spinfer.post("/v2/models/x/log?copy", "body");
    assert_eq!(variant(&response), "control");
    spinfer.wait_for_log_times("copy", 2);
}

#[test]
fn failing_shadow_does_not_affect_responses() {
    for sick in ["trap", "loop"] {
        let experiments = experiment("x", BY_HEADER, 0.5) + &shadow("x", "three");
        let settings = format!(
            "environment = {{ SICK = \"{sick}\" }}\n\
             tool.spinfer.limits = {{ deadline = \"2s\", instances = 2, queue = 100 }}"
        );
        let spinfer = ExperimentApp::new(&experiments, GRANTS).with("three", &settings).up();
        let client = spinfer.client();
        let requests = 60;
        for _ in 0..requests {
            let response = client.send("POST", "/v2/models/x/sick", &[], b"body");
            assert_eq!((variant(&response), response.text().as_str()), ("control", "well"));
        }
        wait_until("every copy has failed or was skipped", || {
            copies(&spinfer, "failed") + copies(&spinfer, "skipped") == requests
        });
        assert!(copies(&spinfer, "failed") > 0);
    }
}
