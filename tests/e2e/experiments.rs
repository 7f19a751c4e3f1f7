//! Experiments: the router assigns each user to a variant permanently, ramps move users from control to a
//! treatment, and shadows receive copies without effect on responses.

use std::collections::BTreeSet;

use spinfer_tests::{
    Client, Launch, Manifest, Redis, Response, STANDARD_DOOR, Spinfer, root, run, wait_until,
};

/// The grants that a router needs.
const GRANTS: &str = "key_value_stores = [\"default\"]\n\
    allowed_outbound_hosts = [\"http://*.spin.internal\"]\n";

/// An experiment on the model `name`, assigned by `unit`.
fn experiment(name: &str, unit: &str, control: f64) -> String {
    format!(
        "[experiments.{name}]\nmodel = \"{name}\"\nunit = {unit}\nforce = \"x-variant\"\n\
         [[experiments.{name}.variants]]\nname = \"control\"\ncomponent = \"one\"\n\
         model = \"first\"\nallocation = {control}\n\
         [[experiments.{name}.variants]]\nname = \"treatment\"\ncomponent = \"two\"\n\
         allocation = {}\n",
        1.0 - control
    )
}

const BY_HEADER: &str = "{ header = \"x-user-id\" }";

/// A shadow for the preceding experiment.
fn shadow(name: &str, component: &str) -> String {
    format!(
        "[[experiments.{name}.variants]]\nname = \"candidate\"\ncomponent = \"{component}\"\n\
         shadow = true\n"
    )
}

/// A host with a router under `settings`, and the two components of its variants.
struct ExperimentApp {
    dir: tempfile::TempDir,
    manifest: Manifest,
    config: String,
}

impl ExperimentApp {
    fn new(experiments: &str, settings: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("experiments.toml");
        std::fs::write(&file, experiments).unwrap();
        let settings = format!(
            "files = [{{ source = \"{}\", destination = \"/experiments.toml\" }}]\n{settings}",
            file.display()
        );
        let manifest = Manifest::default()
            .with("/v2/models/...", "ab-router", "ab_router", &settings)
            .with("/one/...", "one", "probe", "environment = { NAME = \"one\" }")
            .with("/two/...", "two", "probe", "environment = { NAME = \"two\" }");
        let config = "[key_value_store.default]\ntype = \"memory\"\n".to_owned();
        Self { dir, manifest, config }
    }

    fn with(mut self, id: &str, settings: &str) -> Self {
        self.manifest = self.manifest.with(&format!("/{id}/..."), id, "probe", settings);
        self
    }

    fn up(self) -> Spinfer {
        let Self { dir, manifest, config } = self;
        Launch::new(&manifest).admin().runtime_config(&config).keep(dir).up()
    }

    /// The output of `spinfer check`, which must fail.
    fn refused(self) -> String {
        let (status, text) = Launch::new(&self.manifest).check();
        assert!(!status.success(), "no problem was found:\n{text}");
        text
    }
}

fn up(experiments: &str) -> Spinfer {
    ExperimentApp::new(experiments, GRANTS).up()
}

fn variant(response: &Response) -> &str {
    assert_eq!(response.status, 200, "{response:?}");
    response.header("spinfer-variant").unwrap_or_else(|| panic!("no variant in {response:?}"))
}

/// The users whom the treatment serves, of `users`.
fn treated(client: &Client, model: &str, users: usize) -> BTreeSet<usize> {
    let path = format!("/v2/models/{model}/environment?NAME");
    let treated = |user: &usize| {
        let user = format!("user-{user}");
        let response = client.send("GET", &path, &[("x-user-id", &user)], b"");
        let treated = variant(&response) == "treatment";
        assert_eq!(response.text(), if treated { "two" } else { "one" }, "its component serves it");
        assert_eq!(response.header("spinfer-experiment"), Some(model));
        treated
    };
    (0..users).filter(treated).collect()
}

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
    let output = "no experiment takes /v2/models/y/predict; there are `x` (/v2/models/x)";
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

fn admin(spinfer: &Spinfer) -> String {
    spinfer.admin_address().to_string()
}

/// The output of `spinfer experiment`, which must succeed.
fn command(spinfer: &Spinfer, arguments: &[&str]) -> String {
    let admin = admin(spinfer);
    let (status, text) = run(&[&["experiment"], arguments, &["--admin", &admin]].concat());
    assert!(status.success(), "{arguments:?}: {text}");
    text
}

/// The output of `spinfer experiment`, which must fail.
fn command_refused(spinfer: &Spinfer, arguments: &[&str]) -> String {
    let admin = admin(spinfer);
    let (status, text) = run(&[&["experiment"], arguments, &["--admin", &admin]].concat());
    assert!(!status.success(), "{arguments:?}: {text}");
    text
}

#[test]
fn ramp_moves_users_only_from_control_without_a_restart() {
    const USERS: usize = 200;
    let spinfer = up(&experiment("x", BY_HEADER, 0.9));
    let client = spinfer.client();
    let mut before = treated(&client, "x", USERS);
    for share in ["0.3", "0.5", "80%", "1"] {
        let output = command(&spinfer, &["ramp", "x", &format!("treatment={share}")]);
        assert!(output.contains("█") && output.contains("treatment"), "{output}");
        let mut after = before.clone();
        wait_until("the ramp takes effect", || {
            after = treated(&client, "x", USERS);
            // All of them were assigned after it took effect.
            after.len() > before.len() && after == treated(&client, "x", USERS)
        });
        assert!(after.is_superset(&before), "at {share} some went back to control");
        before = after;
    }
    assert_eq!(before.len(), USERS);

    let output = command(&spinfer, &["stop", "x"]);
    assert!(output.contains("stopped: control serves everybody"), "{output}");
    wait_until("the experiment is stopped", || treated(&client, "x", USERS).is_empty());
    let output = command_refused(&spinfer, &["ramp", "x", "treatment=0.5"]);
    assert!(output.contains("is stopped; `spinfer experiment ramp --resume`"), "{output}");
    command(&spinfer, &["stop", "x", "--winner", "treatment"]);
    wait_until("the winner serves all users", || treated(&client, "x", USERS).len() == USERS);
    command(&spinfer, &["ramp", "x", "treatment=0", "--resume"]);
    wait_until("the experiment resumes", || treated(&client, "x", USERS).is_empty());
}

#[test]
fn experiment_command_lists_experiments_and_rejects_invalid_ramps() {
    let spinfer = up(&experiment("x", BY_HEADER, 0.75));
    let list = command(&spinfer, &["list"]);
    let expected =
        "x           x      header x-user-id  control    ███████████████░░░░░   75.0 %  0";
    assert!(list.lines().any(|line| line == expected), "{list}");
    let json: serde_json::Value =
        serde_json::from_str(&command(&spinfer, &["show", "x", "--json"])).unwrap();
    assert_eq!(json["variants"][1]["allocation"], 0.25);
    assert_eq!(json["router"], "ab-router");
    for (arguments, part) in [
        (&["show", "y"][..], "there is no experiment `y`; there are: x"),
        (&["ramp", "y", "treatment=1"], "there is no experiment `y`; there are: x"),
        (&["ramp", "x", "other=0.1"], "assigns to no variant `other`; it has control, treatment"),
        (&["ramp", "x", "treatment=0.5", "control=0.6"], "sum to 1.1; they have to sum to 1"),
        (&["ramp", "x", "treatment=2"], "\"2\" is not a share"),
        (&["ramp", "x", "treatment=0.1", "treatment=0.2"], "`treatment` has two shares"),
        (&["ramp", "x"], "VARIANT=SHARE"),
        (&["stop", "x", "--winner", "other"], "no variant `other`"),
    ] {
        let output = command_refused(&spinfer, arguments);
        assert!(output.contains(part), "{arguments:?}: {output}");
    }
    let admin = spinfer.admin();
    for (method, path, body, status) in [
        ("PUT", "/experiments/x", "{", 400),
        ("PUT", "/experiments/x", "{}", 400),
        ("PUT", "/experiments/x", "{\"share\": 1}", 400),
        ("PUT", "/experiments/x?a=b", "{\"stopped\": true}", 400),
        ("PUT", "/experiments/y", "{\"stopped\": true}", 404),
        ("PUT", "/experiments", "{}", 405),
        ("DELETE", "/experiments/x", "", 405),
        ("GET", "/experiments", "", 200),
    ] {
        let response = admin.send(method, path, &[], body.as_bytes());
        assert_eq!(response.status, status, "{method} {path} {body}: {response:?}");
    }
    let listed = admin.send("GET", "/experiments", &[], b"").json();
    assert_eq!(listed[0]["variants"][0]["allocation"], 0.75, "unchanged");
}

#[test]
fn ramp_without_a_key_value_store_is_refused() {
    let grants = "allowed_outbound_hosts = [\"http://*.spin.internal\"]\n";
    let spinfer = ExperimentApp::new(&experiment("x", BY_HEADER, 1.0), grants).up();
    spinfer.wait_for_log("granted no key-value store `default`");
    assert!(
        treated(&spinfer.client(), "x", 5).is_empty(),
        "assigned by the allocations in the file"
    );
    let output = command_refused(&spinfer, &["ramp", "x", "treatment=0.5"]);
    assert!(output.contains("key_value_stores = [\"default\"]"), "{output}");
}

#[test]
fn hosts_sharing_a_redis_follow_one_ramp() {
    const USERS: usize = 100;
    let redis = Redis::start();
    let node = || {
        let mut application = ExperimentApp::new(&experiment("x", BY_HEADER, 1.0), GRANTS);
        application.config =
            format!("[key_value_store.default]\ntype = \"redis\"\nurl = \"{}\"\n", redis.url());
        application.up()
    };
    let (a, b) = (node(), node());
    let [on_a, on_b] = [a.client(), b.client()];
    assert!(treated(&on_a, "x", USERS).is_empty() && treated(&on_b, "x", USERS).is_empty());
    command(&a, &["ramp", "x", "treatment=0.4"]);
    wait_until("both hosts follow the ramp", || {
        let treated = [&on_a, &on_b].map(|client| treated(client, "x", USERS));
        treated[0] == treated[1] && treated[0].len() > 20
    });
    assert_eq!(command(&b, &["show", "x"]).matches("60.0 %").count(), 1);
    // Without the Redis they keep their allocations, and log it.
    let before = treated(&on_b, "x", 10);
    redis.pause();
    wait_until("the unavailable store is logged", || {
        assert_eq!(treated(&on_b, "x", 10), before);
        b.log().contains("the allocations known last stay in effect")
    });
    redis.resume();
}

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
            let status = |response: &Response| response.header("cache-status").unwrap().to_owned();
            assert!(status(&first).contains("fwd=miss"), "{first:?}");
            let second = send();
            assert!(status(&second).contains("hit; ttl="), "{second:?}");
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

/// Checks that an experiments file in which `find` is replaced is refused with `expected`.
fn check(find: &str, replace: &str, expected: &str) {
    let iris = root().join("models/iris-classifier");
    let text = "[experiments.iris]\nmodel = \"iris\"\nunit = { header = \"x-user-id\" }\n\
        [[experiments.iris.variants]]\nname = \"control\"\ncomponent = \"iris-1\"\n\
        model = \"iris-classifier\"\nallocation = 0.5\n\
        [[experiments.iris.variants]]\nname = \"treatment\"\ncomponent = \"iris-2\"\n\
        model = \"iris-classifier\"\nallocation = 0.5\n";
    assert!(text.contains(find) && iris.is_dir());
    let mut application = ExperimentApp::new(&text.replacen(find, replace, 1), GRANTS);
    application.manifest = application
        .manifest
        .with_iris("iris-1", 1, "/iris/1/...", "")
        .with_iris("iris-2", 2, "/iris/2/...", "")
        .with_model("diabetes-regressor", "diabetes", 1, "/diabetes/...", "");
    let output = application.refused();
    assert!(output.contains("component.ab-router: /experiments.toml: "), "{output}");
    assert!(output.contains(expected), "{replace}: expected {expected}\n{output}");
}

#[test]
fn invalid_experiments_are_refused_at_startup() {
    check(
        "allocation = 0.5",
        "allocation = 0.6",
        "experiments.iris.variants: the allocations 0.6 + 0.5 sum to 1.1; they have to sum to 1",
    );
    check(
        "component = \"iris-2\"",
        "component = \"iris-3\"",
        "experiments.iris.variants[1] (treatment).component: there is no [component.iris-3]",
    );
    check(
        "component = \"iris-2\"\nmodel = \"iris-classifier\"",
        "component = \"diabetes\"\nmodel = \"diabetes-regressor\"",
        "model diabetes-regressor/1 has another signature than iris-classifier/1 of variant \
         `control`: inputs[0].",
    );
    check(
        "component = \"iris-2\"\nmodel = \"iris-classifier\"",
        "component = \"iris-2\"",
        "experiments.iris.variants[1] (treatment).model: component `iris-2` mounts no model `iris`; \
         it mounts `iris-classifier`",
    );
    check(
        "component = \"iris-2\"",
        "component = \"ab-router\"",
        "routers assign requests to each other in a circle: ab-router -> ab-router",
    );
    check("unit", "units", "experiments.iris.units: unknown key");
}

#[test]
fn variant_the_router_may_not_call_is_refused() {
    let grants = "key_value_stores = [\"default\"]\n\
        allowed_outbound_hosts = [\"http://one.spin.internal\"]\n";
    let output = ExperimentApp::new(&experiment("x", BY_HEADER, 0.5), grants).refused();
    assert!(
        output.contains("variants[1] (treatment).component: `ab-router` may not call it"),
        "{output}"
    );
    assert!(!output.contains("(control)"), "{output}");
}

#[test]
fn example_application_with_its_experiment_passes_check() {
    let path = root().join("spin.toml");
    let built = std::fs::read_to_string(&path).unwrap();
    assert!(built.contains("/v2/models/iris/..."));
    let (status, text) = Launch::from_file(path).check();
    assert!(status.success(), "{text}");
}
