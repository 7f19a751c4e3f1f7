//! Experiments: the router assigns each user to a variant permanently, ramps move users from control to a
//! treatment, and shadows receive copies without effect on responses.

mod assignment; // which variant serves a request, and what clients see of it
mod conditions; // requests that are not in an experiment
mod cookies; // units that the router assigns
mod disconnects; // requests whose clients disconnect
mod guardrails; // guardrails of accuracy and drift
mod invalid; // experiments that are refused at startup
mod ramps; // `spinfer experiment`, on one host and on several
mod records; // what the prediction log has of assignments
mod rollback; // guardrails of errors, and what hosts change on their own
mod shadows; // copies of requests
mod unavailable; // variants that cannot serve

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use spinfer_tests::{Client, Launch, Manifest, Response, Spinfer, wait_until};

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

    /// With other experiments: `find` is replaced in the file.
    fn replace(self, find: &str, by: &str) -> Self {
        let file = self.dir.path().join("experiments.toml");
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(text.contains(find), "{text}");
        std::fs::write(&file, text.replacen(find, by, 1)).unwrap();
        self
    }

    fn up(self) -> Spinfer {
        self.launch().up()
    }

    /// With the state in `folder`.
    fn up_in(self, folder: &str) -> Spinfer {
        self.launch().state_dir(folder).up()
    }

    fn launch(self) -> Launch {
        let Self { dir, manifest, config } = self;
        Launch::new(&manifest).admin().runtime_config(&config).keep(dir)
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

/// The sum of the values of a metric on a host.
fn metric_sum(spinfer: &Spinfer, name: &str) -> u64 {
    let metrics = spinfer.admin().send("GET", "/metrics", &[], b"").text();
    let start = format!("{name}{{");
    let values = metrics.lines().filter(|line| line.starts_with(&start)).map(|line| {
        let (_, value) = line.rsplit_once(' ').unwrap();
        value.parse::<u64>().unwrap()
    });
    values.sum()
}

/// Waits until the change at `time`, in milliseconds of Unix time, is settled: units that are first seen
/// before are in no comparison.
fn wait_until_settled(time: u64) {
    let settled = UNIX_EPOCH + Duration::from_millis(time + 5_000);
    wait_until("the allocations are settled", || SystemTime::now() > settled);
}

fn variant(response: &Response) -> &str {
    assert_eq!(response.status, 200, "{response:?}");
    response.header("spinfer-variant").unwrap_or_else(|| panic!("no variant in {response:?}"))
}

/// Those of `users` that the treatment serves.
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
