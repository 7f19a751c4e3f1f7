use std::path::Path;

use spinfer_tests::{Launch, Manifest, Redis, Spinfer, run, wait_until};

use super::{BY_HEADER, ExperimentApp, GRANTS, experiment, treated, up};

fn admin(spinfer: &Spinfer) -> String {
    spinfer.admin_address().to_string()
}

/// The output of `spinfer experiment`, which must succeed.
pub(super) fn command(spinfer: &Spinfer, arguments: &[&str]) -> String {
    let admin = admin(spinfer);
    let (status, text) = run(&[&["experiment"], arguments, &["--admin", &admin]].concat());
    assert!(status.success(), "{arguments:?}: {text}");
    text
}

/// The output of `spinfer experiment`, which must fail.
pub(super) fn command_refused(spinfer: &Spinfer, arguments: &[&str]) -> String {
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
    assert!(output.contains("stopped: control serves all requests"), "{output}");
    wait_until("the experiment is stopped", || treated(&client, "x", USERS).is_empty());
    let output = command_refused(&spinfer, &["ramp", "x", "treatment=0.5"]);
    assert!(output.contains("is stopped; `spinfer experiment start`"), "{output}");
    command(&spinfer, &["stop", "x", "--winner", "treatment"]);
    wait_until("the winner serves all users", || treated(&client, "x", USERS).len() == USERS);
    command(&spinfer, &["ramp", "x", "treatment=0", "--resume"]);
    wait_until("the experiment resumes", || treated(&client, "x", USERS).is_empty());
}

#[test]
fn experiment_command_lists_experiments_and_rejects_invalid_ramps() {
    let spinfer = up(&experiment("x", BY_HEADER, 0.75));
    let list = command(&spinfer, &["list"]);
    let expected = "x           experiment  running  x      header x-user-id  control    ███████████████░░░░░   \
         75.0 %  0";
    assert!(list.lines().any(|line| line == expected), "{list}");
    let json: serde_json::Value =
        serde_json::from_str(&command(&spinfer, &["show", "x", "--json"])).unwrap();
    assert_eq!(json["variants"][1]["allocation"], 0.25);
    assert_eq!(json["router"], "ab-router");
    for (arguments, part) in [
        (&["show", "y"][..], "experiment `y` does not exist; available experiments: x"),
        (&["ramp", "y", "treatment=1"], "experiment `y` does not exist; available experiments: x"),
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
    assert!(command(&b, &["show", "x"]).contains("60.0 %"));
    // Without the Redis they keep their allocations, and log it.
    let before = treated(&on_b, "x", 10);
    redis.pause();
    wait_until("the unavailable store is logged", || {
        assert_eq!(treated(&on_b, "x", 10), before);
        b.log().contains("the last known allocations stay in effect")
    });
    redis.resume();
}

/// A host whose default store is in `redis`.
fn node(redis: &Redis, experiments: &str) -> Spinfer {
    let mut application = ExperimentApp::new(experiments, GRANTS);
    application.config =
        format!("[key_value_store.default]\ntype = \"redis\"\nurl = \"{}\"\n", redis.url());
    application.up()
}

/// The changes of an experiment stay in the store when it is restarted under its name.
#[test]
fn change_of_an_earlier_experiment_of_the_same_name_is_ignored() {
    const USERS: usize = 20;
    let redis = Redis::start();
    let node = |experiments: &str| node(&redis, experiments);
    let before = experiment("x", BY_HEADER, 1.0);
    let spinfer = node(&before);
    command(&spinfer, &["stop", "x", "--winner", "treatment"]);
    let client = spinfer.client();
    wait_until("the winner serves all users", || treated(&client, "x", USERS).len() == USERS);
    drop(spinfer);
    // The same variants: the change applies, whatever the allocations of the file.
    let spinfer = node(&experiment("x", BY_HEADER, 0.5));
    assert_eq!(treated(&spinfer.client(), "x", USERS).len(), USERS);
    drop(spinfer);
    // Another component: the experiment starts anew.
    let restarted = before.replace("component = \"two\"\n", "component = \"two\"\nmodel = \"y\"\n");
    let spinfer = node(&restarted);
    assert!(treated(&spinfer.client(), "x", USERS).is_empty());
    spinfer
        .wait_for_log("the variants, or the unit, are others than those of the earlier experiment");
    command(&spinfer, &["ramp", "x", "treatment=1"]);
    wait_until("its own change applies", || treated(&spinfer.client(), "x", USERS).len() == USERS);
}

/// As in a rolling restart with other variants.
#[test]
fn running_host_does_not_end_the_run_of_one_that_started_later_with_other_variants() {
    const USERS: usize = 20;
    let redis = Redis::start();
    let node = |experiments: &str| node(&redis, experiments);
    let before = experiment("x", BY_HEADER, 1.0);
    let old = node(&before);
    wait_until("the first look of the old host", || assessed(&old, "requests") == Some(0));
    let new =
        node(&before.replace("component = \"two\"\n", "component = \"two\"\nmodel = \"y\"\n"));
    new.wait_for_log("the variants, or the unit, are others than those of the earlier experiment");
    let is_refused = |found: Option<String>| {
        found.is_some_and(|found| found.contains("another host has started this experiment"))
    };
    wait_until("the old host reports the other run", || is_refused(problem(&old)));
    assert!(command(&old, &["show", "x"]).contains("restart this host"));
    let output = command_refused(&old, &["ramp", "x", "treatment=0.5"]);
    assert!(output.contains("restart this host with the same experiments.toml"), "{output}");
    command(&new, &["ramp", "x", "treatment=1"]);
    wait_until("the ramp applies", || treated(&new.client(), "x", USERS).len() == USERS);
    wait_until("the new host looks at the experiment", || {
        assessed(&new, "requests") >= Some(USERS as u64)
    });
    assert!(is_refused(problem(&old)) && problem(&new).is_none());
    let journal = new.admin().send("GET", "/experiments/x/journal", &[], b"").json();
    assert_eq!(journal.as_array().unwrap().len(), 2, "one start and one ramp: {journal}");
}

/// The assessed requests and units of an experiment, over its variants.
fn assessed(spinfer: &Spinfer, count: &str) -> Option<u64> {
    let shown = spinfer.admin().send("GET", "/experiments/x", &[], b"").json();
    let variants = shown["assessment"]["variants"].as_array()?.clone();
    variants.iter().map(|variant| variant[count].as_u64()).sum()
}

/// Without any stored change, too.
#[test]
fn numbers_of_an_experiment_with_other_variants_do_not_count() {
    const USERS: usize = 20;
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().to_str().unwrap();
    let node = |experiments: &str| {
        let mut application = ExperimentApp::new(experiments, GRANTS);
        application.config.clear();
        application.up_in(folder)
    };
    let before = experiment("x", BY_HEADER, 0.5);
    let requests = |spinfer: &Spinfer, count: u64| {
        wait_until("the requests are counted", || assessed(spinfer, "requests") == Some(count));
    };
    let spinfer = node(&before);
    // The first look, which records the variants.
    requests(&spinfer, 0);
    treated(&spinfer.client(), "x", USERS);
    requests(&spinfer, USERS as u64);
    drop(spinfer);
    let restarted = before.replace("component = \"two\"\n", "component = \"two\"\nmodel = \"y\"\n");
    let spinfer = node(&restarted);
    spinfer
        .wait_for_log("the variants, or the unit, are others than those of the earlier experiment");
    requests(&spinfer, 0);
    treated(&spinfer.client(), "x", 1);
    requests(&spinfer, 1);
    let journal = command(&spinfer, &["journal", "x"]);
    assert!(journal.contains("whose numbers do not count"), "{journal}");
    drop(spinfer);
    // Back at the first variants: their numbers are not found again.
    let spinfer = node(&before);
    spinfer
        .wait_for_log("the variants, or the unit, are others than those of the earlier experiment");
    requests(&spinfer, 0);
}

/// A host whose router has these `files`.
fn up_with_files(source: &Path, destination: &str) -> Spinfer {
    let files = format!(
        "files = [{{ source = \"{}\", destination = \"{destination}\" }}]\n{GRANTS}",
        source.display()
    );
    let manifest = Manifest::default()
        .with("/v2/models/...", "ab-router", "ab_router", &files)
        .with("/one/...", "one", "probe", "environment = { NAME = \"one\" }")
        .with("/two/...", "two", "probe", "environment = { NAME = \"two\" }");
    let config = "[key_value_store.default]\ntype = \"memory\"\n";
    Launch::new(&manifest).admin().runtime_config(config).up()
}

/// The problem of the first experiment.
fn problem(spinfer: &Spinfer) -> Option<String> {
    let listed = spinfer.admin().send("GET", "/experiments", &[], b"").json();
    listed[0]["problem"].as_str().map(str::to_owned)
}

/// A mounted folder is read in place: by router instances that start after an edit, not by the host.
#[test]
fn edit_of_the_mounted_file_is_a_problem_until_the_host_restarts() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("experiments.toml");
    let before = experiment("x", BY_HEADER, 0.5);
    std::fs::write(&file, &before).unwrap();
    let spinfer = up_with_files(folder.path(), "/");
    assert_eq!(problem(&spinfer), None);
    std::fs::write(&file, before.replace("component = \"two\"", "component = \"one\"")).unwrap();
    let found = problem(&spinfer).unwrap();
    assert!(found.contains("has changed since the host started"), "{found}");
    spinfer.wait_for_log("has changed since the host started");
    assert!(command(&spinfer, &["show", "x"]).contains("restart the host"));
    std::fs::write(&file, format!("# a comment\n{before}")).unwrap();
    assert_eq!(problem(&spinfer), None);
}

/// The router sees a copy of a file that is mounted alone. The file is a link to one of a folder, as
/// in a ConfigMap of Kubernetes, which is updated by another folder.
#[test]
fn edit_of_a_copied_file_is_a_problem_until_the_host_restarts() {
    const USERS: usize = 20;
    let folder = tempfile::tempdir().unwrap();
    let link = folder.path().join("experiments.toml");
    let before = experiment("x", BY_HEADER, 1.0);
    let publish = |version: &str, text: &str| {
        let file = folder.path().join(version);
        std::fs::write(&file, text).unwrap();
        // Replaced at once: the host looks at any time.
        let next = folder.path().join("next");
        std::os::unix::fs::symlink(&file, &next).unwrap();
        std::fs::rename(&next, &link).unwrap();
    };
    publish("1", &before);
    let spinfer = up_with_files(&link, "/experiments.toml");
    assert_eq!(problem(&spinfer), None);
    publish("2", &experiment("x", BY_HEADER, 0.0));
    std::fs::remove_file(folder.path().join("1")).unwrap();
    let found = problem(&spinfer).unwrap();
    assert!(found.contains("which uses a copy of it"), "{found}");
    assert!(found.starts_with(&*link.to_string_lossy()), "{found}");
    spinfer.wait_for_log("which uses a copy of it");
    assert!(treated(&spinfer.client(), "x", USERS).is_empty(), "the copy applies");
    publish("3", &format!("# a comment\n{before}"));
    assert_eq!(problem(&spinfer), None);
    std::fs::remove_file(&link).unwrap();
    let found = problem(&spinfer).unwrap();
    assert!(found.contains("It cannot be read: "), "{found}");
}
