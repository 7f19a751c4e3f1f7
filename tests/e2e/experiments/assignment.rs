use std::collections::BTreeSet;

use serde_json::json;
use spinfer_tests::{Launch, Manifest, Response, STANDARD_DOOR};

use super::{BY_HEADER, ExperimentApp, GRANTS, experiment, treated, up, variant};

#[test]
fn assignment_is_stable_by_header_cookie_and_json_field() {
    let experiments = [
        experiment("a", BY_HEADER, 0.5),
        experiment("b", "{ cookie = \"uid\" }", 0.5),
        experiment("c", "{ json = \"user.id\" }", 0.5),
    ];
    let spinfer = up(&experiments.concat());
    let client = spinfer.client();
    let mut seen = BTreeSet::new();
    for user in 0..20 {
        let (header, cookie) = (format!("user-{user}"), format!("a=b; uid=user-{user}"));
        let body = format!("{{\"user\": {{\"id\": \"user-{user}\"}}, \"features\": [1]}}");
        for (model, headers) in [
            ("a", &[("x-user-id", header.as_str())][..]),
            ("b", &[("cookie", cookie.as_str())]),
            ("c", &[]),
        ] {
            let send = || {
                let path = format!("/v2/models/{model}/echo");
                client.send("POST", &path, headers, body.as_bytes())
            };
            let first = send();
            assert_eq!(first.text(), body, "the body with the unit arrives too");
            assert_eq!(variant(&first), variant(&send()), "{model} {user}");
            seen.insert((model, variant(&first).to_owned()));
        }
    }
    assert_eq!(seen.len(), 6, "each experiment uses both variants: {seen:?}");
}

#[test]
fn assignments_match_the_allocations() {
    const USERS: usize = 2000;
    let spinfer = up(&experiment("x", BY_HEADER, 0.7));
    let count = treated(&spinfer.client(), "x", USERS).len();
    // Five standard deviations of a binomial: 2000 * 0.3, and the root of 2000 * 0.3 * 0.7.
    assert!((498..=702).contains(&count), "{count}");
    let metrics = spinfer.admin().send("GET", "/metrics", &[], b"").text();
    for (variant, count) in [("control", USERS - count), ("treatment", count)] {
        let line = format!(
            "spinfer_experiment_assignments_total{{experiment=\"x\",variant=\"{variant}\"}} {count}"
        );
        assert!(metrics.contains(&line), "{line}\n{metrics}");
    }
}

#[test]
fn models_are_listed_with_the_routes_of_their_router() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("experiments.toml");
    let experiments = experiment("iris-classifier", BY_HEADER, 0.5);
    std::fs::write(&file, experiments.replace("model = \"first\"\n", "")).unwrap();
    let settings = format!(
        "files = [{{ source = \"{}\", destination = \"/experiments.toml\" }}]\n{GRANTS}",
        file.display()
    );
    let manifest = Manifest::default()
        .with("/v2/models/...", "ab-router", "ab_router", &settings)
        .with_iris("one", 1, "/one/...", "")
        .with_iris("two", 2, "/two/...", "");
    let config = "[key_value_store.default]\ntype = \"memory\"\n";
    let spinfer = Launch::new(&manifest).runtime_config(config).keep(dir).up();
    let listing = spinfer.get("/v2/models").json();
    let versions = &listing["versions"];
    assert_eq!(versions[0]["routes"], json!(["/v2/models/...", "/one/..."]));
    assert_eq!(versions[1]["routes"], json!(["/v2/models/...", "/two/..."]));
}

/// The headers and errors that clients receive from a router under `settings`.
fn check_clients(settings: &str) {
    let experiments = experiment("x", BY_HEADER, 0.5);
    let spinfer = ExperimentApp::new(&experiments, &format!("{GRANTS}{settings}")).up();
    let send = |path: &str, headers: &[(&str, &str)]| spinfer.send("GET", path, headers, b"");
    let path = "/v2/models/x/environment?NAME";
    assert_eq!(variant(&send(path, &[])), "control", "a request without a unit");
    for (forced, name) in [("control", "one"), ("treatment", "two")] {
        let response = send(path, &[("x-variant", forced)]);
        assert_eq!((variant(&response), response.text().as_str()), (forced, name));
    }
    let unknown = send(path, &[("x-variant", "other")]);
    assert_eq!(unknown.status, 400);
    let output = "x-variant: experiment `x` has no variant `other`; it has control, treatment";
    assert_eq!(unknown.error(), output);
    assert_eq!(unknown.header("spinfer-variant"), None);
    let unknown = send("/v2/models/y/predict?a", &[]);
    assert_eq!(unknown.status, 404);
    let output = "no experiment takes /v2/models/y/predict; the experiments are `x` (/v2/models/x)";
    assert_eq!(unknown.error(), output);
    // The path that the component receives, and its error.
    let failed = send("/v2/models/x/nothing", &[("x-variant", "control")]);
    assert_eq!((failed.status, failed.text().as_str()), (404, "/nothing"));
    assert_eq!(failed.header("spinfer-variant"), Some("control"), "errors name their variant too");
    // A long body is streamed.
    let body = vec![b'x'; 3 << 20];
    let response = spinfer.send("POST", "/v2/models/x/echo", &[("x-variant", "treatment")], &body);
    assert_eq!((variant(&response), response.body.len()), ("treatment", body.len()));
}

#[test]
fn response_names_its_variant() {
    check_clients("");
}

#[test]
fn response_names_its_variant_behind_the_standard_door() {
    check_clients(STANDARD_DOOR);
}

#[test]
fn both_doors_assign_the_same_variants() {
    let experiments = experiment("x", BY_HEADER, 0.4);
    let fast = up(&experiments);
    let standard = ExperimentApp::new(&experiments, &format!("{GRANTS}{STANDARD_DOOR}")).up();
    fast.wait_for_output("(assignment door)");
    standard.wait_for_output("/v2/models/...  ab-router (standard door)");
    let [fast, standard] = [fast, standard].map(|host| treated(&host.client(), "x", 100));
    assert_eq!(fast, standard);
    assert!((30..90).contains(&fast.len()), "{}", fast.len());
}

#[test]
fn responses_are_cached_per_variant() {
    for door in ["", STANDARD_DOOR] {
        let experiments = experiment("x", BY_HEADER, 0.5);
        let spinfer = ExperimentApp::new(&experiments, &format!("{GRANTS}{door}")).up();
        let path = "/v2/models/x/cache/a?max-age=60";
        let mut bodies = Vec::new();
        for forced in ["control", "treatment"] {
            let send = || spinfer.send("GET", path, &[("x-variant", forced)], b"");
            let first = send();
            let second = send();
            if door.is_empty() {
                let status =
                    |response: &Response| response.header("cache-status").unwrap().to_owned();
                assert!(status(&first).contains("fwd=miss"), "{first:?}");
                assert!(status(&second).contains("hit; ttl="), "{second:?}");
            } else {
                // The router received it from another component.
                assert_eq!(second.header("cache-status"), None, "{second:?}");
            }
            assert_eq!((variant(&second), &second.body), (forced, &first.body));
            assert_eq!(second.header("cache-control"), Some("private, no-cache"));
            bodies.push(first.body);
        }
        // Responses name their variant, whether they are cached or not.
        let direct = spinfer.send("GET", path, &[("x-user-id", "any")], b"");
        assert!(direct.header("spinfer-variant").is_some());
    }
}

#[test]
fn two_model_versions_are_served_under_one_url() {
    let experiments = "[experiments.iris]\nmodel = \"iris\"\nunit = { header = \"x-user-id\" }\n\
        force = \"x-variant\"\n\
        [[experiments.iris.variants]]\nname = \"control\"\ncomponent = \"iris-1\"\n\
        model = \"iris-classifier\"\nallocation = 0.5\n\
        [[experiments.iris.variants]]\nname = \"treatment\"\ncomponent = \"iris-2\"\n\
        model = \"iris-classifier\"\nallocation = 0.5\n";
    let mut application = ExperimentApp::new(experiments, GRANTS);
    application.manifest = application
        .manifest
        .with_iris("iris-1", 1, "/v2/models/iris-classifier/versions/1/...", "")
        .with_iris("iris-2", 2, "/v2/models/iris-classifier/versions/2/...", "");
    let spinfer = application.up();
    for (forced, version) in [("control", "1"), ("treatment", "2")] {
        let body = br#"{"features": [5.1, 3.5, 1.4, 0.2]}"#;
        let headers = [("x-variant", forced)];
        let response = spinfer.send("POST", "/v2/models/iris/predict", &headers, body);
        assert_eq!(variant(&response), forced);
        let response = response.json();
        assert_eq!(
            (&response["prediction"], &response["version"]),
            (&"setosa".into(), &version.into())
        );
        let metadata = spinfer.send("GET", "/v2/models/iris", &headers, b"").json();
        assert_eq!(metadata["versions"][0], version);
    }
}
