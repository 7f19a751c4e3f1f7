//! Requests whose clients disconnect.

use std::io::Write;

use serde_json::Value;
use spinfer_tests::{STANDARD_DOOR, Spinfer, wait_until};

use super::{BY_HEADER, ExperimentApp, GRANTS, experiment, metric_sum, variant};
use crate::metrics::metric;

fn shown(host: &Spinfer) -> Value {
    host.admin().send("GET", "/experiments/x", &[], b"").json()
}

/// Number of requests that were assigned to the treatment.
fn assigned(host: &Spinfer) -> Option<u64> {
    shown(host)["variants"][1]["requests"].as_u64()
}

/// Numbers of requests and errors of the treatment, as assessed.
fn assessed(host: &Spinfer) -> [Option<u64>; 2] {
    let treatment = &shown(host)["assessment"]["variants"][1];
    ["requests", "errors"].map(|count| treatment[count].as_u64())
}

/// Otherwise a variant that never responds would have no errors.
#[test]
fn request_whose_client_disconnects_before_the_response_is_an_error_of_its_variant() {
    const REQUESTS: u64 = 3;
    for door in ["", STANDARD_DOOR] {
        let experiments = experiment("x", BY_HEADER, 0.0)
            .replacen("unit = ", "unavailable = \"control\"\nunit = ", 1)
            .replace("component = \"two\"", "component = \"three\"");
        let settings = format!(
            "environment = {{ SICK = \"loop\", NAME = \"three\" }}\n\
             tool.spinfer.limits = {{ deadline = \"1h\" }}\n{door}"
        );
        let host = ExperimentApp::new(&experiments, GRANTS).with("three", &settings).up();
        let instances = || metric(&host, "spinfer_instances{component=\"three\"}");
        for request in 1..=REQUESTS {
            let mut client = host.connect();
            let head = format!(
                "POST /v2/models/x/sick HTTP/1.1\r\nhost: x\r\nx-user-id: user-{request}\r\n\
                 content-length: 0\r\n\r\n"
            );
            client.write_all(head.as_bytes()).unwrap();
            wait_until("the guest computes", || {
                assigned(&host) == Some(request) && instances() >= 1.0
            });
            drop(client);
            wait_until("the request is an error", || assessed(&host) == [Some(request); 2]);
            wait_until("the guest has ended", || instances() == 0.0);
        }
        // A response whose client disconnects afterwards is none.
        let client = host.client();
        let user = [("x-user-id", "user-0")];
        let response = client.send("GET", "/v2/models/x/environment?NAME", &user, b"");
        assert_eq!((variant(&response), &*response.text()), ("treatment", "three"));
        drop(client);
        let expected = [Some(REQUESTS + 1), Some(REQUESTS)];
        wait_until("the response is counted", || assessed(&host) == expected);
        let failed_over = metric_sum(&host, "spinfer_experiment_failed_over_requests_total");
        assert_eq!(failed_over, 0, "no client waits for control");
    }
}
