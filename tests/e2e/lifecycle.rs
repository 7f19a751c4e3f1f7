//! Code, models and instances: when they are loaded, reused and unloaded, and how requests queue for
//! instances.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use spinfer_benches::application::distinct_model;
use spinfer_benches::process::Process;
use spinfer_tests::{Launch, Manifest, Response, STANDARD_DOOR, Spinfer, root, run, wait_until};

use super::metrics::metric;

const PREDICT: &str = "/v2/models/iris-classifier/predict";
const FEATURES: &str = r#"{"features": [5.1, 3.5, 1.4, 0.2]}"#;

fn predicts(spinfer: &Spinfer) {
    let response = spinfer.post(PREDICT, FEATURES);
    assert_eq!(response.status, 200, "{}", response.text());
    assert_eq!(response.json()["prediction"], "setosa");
}

#[test]
fn idle_instances_models_and_code_are_unloaded_and_loaded_again() {
    for door in ["", STANDARD_DOOR] {
        let settings = format!("{door}tool.spinfer.limits.idle = \"50ms\"\n");
        let manifest = Manifest::default().with_iris("iris", 1, "/v2/models/...", &settings);
        let spinfer = Launch::new(&manifest).uncached().admin().up();
        for start in 1..=3 {
            predicts(&spinfer);
            spinfer.wait_for_log_times("cold start", start);
            spinfer.wait_for_log_times("idle instances dropped", start);
            spinfer.wait_for_log_times("idle models unloaded", start);
            spinfer.wait_for_log_times("idle code unloaded", start);
            // An instance behind the standard door exits after the log line.
            let instances = r#"spinfer_instances{component="iris"}"#;
            wait_until("no instance is left", || metric(&spinfer, instances) == 0.0);
        }
    }
}

#[test]
fn request_after_the_last_instance_failed_is_a_cold_start() {
    let manifest = Manifest::default().with("/...", "probe", "probe", "");
    let spinfer = Launch::new(&manifest).uncached().up();
    for start in 1..=3 {
        assert_eq!(spinfer.get("/count").text(), "1");
        assert_eq!(spinfer.get("/count").text(), "2");
        spinfer.wait_for_log_times("cold start", start);
        assert_eq!(spinfer.get("/trap").status, 500);
    }
    assert_eq!(spinfer.log().matches("cold start").count(), 3);
}

/// Anonymous memory only: the system reclaims mapped files on its own.
#[test]
fn memory_is_released_after_the_idle_timeout() {
    const ROUTES: usize = 100;
    /// Memory after the idle timeout over that before the routes were used.
    const SHARE: f64 = 1.1;
    /// Memory that the first request of a process leaves whatever the number of routes, in MiB: stacks,
    /// buffers of threads, and pages that are partly used.
    const FIRST_USE: f64 = 2.0;
    let dir = tempfile::tempdir().unwrap();
    let settings = "tool.spinfer.limits.idle = \"200ms\"";
    let model = root().join("models/iris-classifier/1");
    let manifest = (0..ROUTES).fold(Manifest::default(), |manifest, n| {
        let id = format!("iris-{n}");
        let folder = distinct_model(&model, dir.path(), &id).unwrap();
        let files = format!(
            "files = [{{ source = \"{}\", destination = \"/models/iris-classifier\" }}]",
            folder.display()
        );
        manifest.with(&format!("/{id}/..."), &id, "iris_classifier", &files)
    });
    let spinfer = Launch::new(&manifest.with_settings(settings)).uncached().up();
    let own = || Process(spinfer.id()).resident().unwrap().anon;
    spinfer.wait_for_log_times("idle code unloaded", ROUTES);
    let before = own();
    for round in 2..=3 {
        for n in 0..ROUTES {
            let response = spinfer.post(&format!("/iris-{n}/predict"), FEATURES);
            assert_eq!(response.json()["prediction"], "setosa", "{}", response.text());
        }
        spinfer.wait_for_log_times("idle code unloaded", round * ROUTES);
        let mut after = 0.0;
        wait_until("memory is released", || {
            after = own();
            after < before * SHARE + FIRST_USE
        });
        eprintln!("before {before:.1} MiB, after {after:.1} MiB");
    }
}

#[test]
fn concurrent_first_requests_share_one_load() {
    let settings = "tool.spinfer.limits.idle = \"50ms\"";
    let manifest = Manifest::default().with_iris("iris", 1, "/v2/models/...", settings);
    let spinfer = Launch::new(&manifest).uncached().up();
    spinfer.wait_for_log_times("graph loaded", 1);
    spinfer.wait_for_log("idle code unloaded");
    std::thread::scope(|scope| {
        for _ in 0..32 {
            scope.spawn(|| predicts(&spinfer));
        }
    });
    assert_eq!(spinfer.log().matches("graph loaded").count(), 2, "at startup, and now");
    assert_eq!(spinfer.log().matches("cold start").count(), 1);
}

#[test]
fn reuse_limits_requests_and_age_of_an_instance() {
    for door in ["", STANDARD_DOOR] {
        for (reuse, counts) in [
            ("requests = 1", [1, 1, 1, 1, 1, 1]),
            ("requests = 3", [1, 2, 3, 1, 2, 3]),
            ("age = \"0s\"", [1, 1, 1, 1, 1, 1]),
            ("age = \"1h\"", [1, 2, 3, 4, 5, 6]),
        ] {
            // One request at a time, so that the counts identify the instances.
            let settings = format!("{door}tool.spinfer.reuse = {{ {reuse}, min_idle = 0 }}\n");
            let spinfer =
                Launch::new(&Manifest::default().with("/...", "probe", "probe", &settings)).up();
            let served = counts.map(|_| spinfer.get("/count").text().parse::<u32>().unwrap());
            assert_eq!(served, counts, "{door}{reuse}");
        }
    }
}

/// The age is checked before an instance serves a request, not only after.
#[test]
fn idle_instance_past_its_age_is_not_reused() {
    const AGE: Duration = Duration::from_millis(500);
    for door in ["", STANDARD_DOOR] {
        let settings = format!(
            "{door}tool.spinfer.reuse = {{ age = \"500ms\", min_idle = 0 }}\n\
             tool.spinfer.limits.idle = \"1h\"\n"
        );
        let spinfer =
            Launch::new(&Manifest::default().with("/...", "probe", "probe", &settings)).up();
        let count = || spinfer.get("/count").text();
        for _ in 0..2 {
            // On a slow machine a new instance may be too old at its second request.
            wait_until("an instance is reused", || count() != "1");
            let since = Instant::now();
            wait_until("the instance is too old", || since.elapsed() > AGE);
            assert_eq!(count(), "1", "{door}");
        }
    }
}

#[test]
fn idle_instances_are_created_ahead_of_requests() {
    let settings = "tool.spinfer.reuse = { requests = 1, min_idle = 2 }\n\
                    tool.spinfer.limits.idle = \"1s\"";
    let spinfer = Launch::new(&Manifest::default().with("/...", "probe", "probe", settings)).up();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..50 {
                    let response = spinfer.get("/count");
                    assert_eq!((response.status, response.text().as_str()), (200, "1"));
                }
            });
        }
    });
    // Instances that have served are not reused: these are the ones created ahead.
    spinfer.wait_for_log("idle instances dropped component=\"probe\" instances=2");
}

#[test]
fn trap_or_missed_deadline_discards_the_instance() {
    for door in ["", STANDARD_DOOR] {
        let settings = format!("{door}tool.spinfer.limits.deadline = \"500ms\"\n");
        let spinfer =
            Launch::new(&Manifest::default().with("/...", "probe", "probe", &settings)).up();
        for (path, status) in [("/trap", 500), ("/loop", 504)] {
            assert_eq!(spinfer.get("/count").text(), "1");
            assert_eq!(spinfer.get(path).status, status);
        }
        assert_eq!(spinfer.get("/count").text(), "1");
    }
}

#[test]
fn idle_instances_are_evicted_at_the_application_limit() {
    let manifest = (0..5).fold(Manifest::default(), |manifest, n| {
        let door = if n % 2 == 0 { "" } else { STANDARD_DOOR };
        let settings = format!("{door}tool.spinfer.limits.idle = \"1h\"\n");
        manifest.with(&format!("/{n}/..."), &format!("c{n}"), "probe", &settings)
    });
    let spinfer = Launch::new(&manifest.with_settings("tool.spinfer.instances = 2")).up();
    for _ in 0..3 {
        for n in 0..5 {
            let response = spinfer.get(&format!("/{n}/"));
            assert_eq!(response.status, 404, "{}", response.text());
        }
    }
    spinfer.wait_for_log("instance pool full; idle instances evicted");
}

/// Beyond the limit requests queue, up to the limit of the queue.
#[test]
fn instances_scale_with_the_load_up_to_the_limit() {
    for door in ["", STANDARD_DOOR] {
        let limits = "{ instances = 4, queue = 1, deadline = \"6s\", idle = \"100ms\" }";
        let settings = format!("{door}tool.spinfer.limits = {limits}\n");
        let manifest = Manifest::default().with("/...", "probe", "probe", &settings);
        let spinfer = Launch::new(&manifest).admin().up();
        let now = || {
            let of = |name| metric(&spinfer, &format!("spinfer_{name}{{component=\"probe\"}}"));
            (of("instances"), of("requests_in_flight"), of("requests_queued"))
        };
        std::thread::scope(|scope| {
            let mut requests = Vec::new();
            for load in 1..=4_u32 {
                requests.push(scope.spawn(|| spinfer.get("/loop").status));
                wait_until("the request has an instance", || {
                    let (instances, in_flight, _) = now();
                    // There may be one more, created ahead.
                    in_flight == f64::from(load)
                        && (load..=4).any(|count| instances == f64::from(count))
                });
            }
            let fifth = scope.spawn(|| spinfer.get("/count").status);
            wait_until("the next request queues", || now() == (4.0, 4.0, 1.0));
            let sixth = spinfer.get("/count");
            assert_eq!((sixth.status, sixth.header("retry-after")), (503, Some("1")));
            for request in requests {
                assert_eq!(request.join().unwrap(), 504);
            }
            assert_eq!(fifth.join().unwrap(), 200);
        });
        wait_until("no instances are left", || now() == (0.0, 0.0, 0.0));
    }
}

#[test]
fn full_queue_sheds_requests_and_queued_ones_are_served() {
    for door in ["", STANDARD_DOOR] {
        let settings = format!(
            "{door}tool.spinfer.limits = {{ instances = 1, queue = 2, deadline = \"2s\" }}\n"
        );
        let spinfer =
            Launch::new(&Manifest::default().with("/...", "probe", "probe", &settings)).up();
        // While the loop runs, two of six requests queue and the others are refused. If the loop starts
        // after them, none is refused: another try.
        let refused = (0..20).map(|_| beside_a_loop(&spinfer)).find(|refused| !refused.is_empty());
        for response in refused.expect("the queue was never full") {
            assert_eq!(response.status, 503);
            assert_eq!(response.header("retry-after"), Some("1"));
            assert_eq!(
                response.error(),
                "all 1 instances of component `probe` are busy and 2 requests wait; try again"
            );
        }
        assert_eq!(spinfer.post("/echo", "x").text(), "x");
    }
}

/// The refused ones of six requests during an endless loop.
fn beside_a_loop(spinfer: &Spinfer) -> Vec<Response> {
    std::thread::scope(|scope| {
        scope.spawn(|| spinfer.get("/loop"));
        let others: Vec<_> = (0..6).map(|_| scope.spawn(|| spinfer.post("/echo", "x"))).collect();
        let responses = others.into_iter().map(|other| other.join().unwrap());
        responses.filter(|response| response.text().contains("requests wait")).collect()
    })
}

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o777
}

fn artifacts(state: &Path) -> Vec<PathBuf> {
    let files = state.join("compiled").read_dir().unwrap();
    files.map(|file| file.unwrap().path()).collect()
}

#[test]
fn precompiled_artifact_is_used_unless_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let state_text = state.to_str().unwrap().to_owned();
    let manifest = Manifest::default().with("/...", "probe", "probe", "");
    let path = dir.path().join("spin.toml");
    std::fs::write(&path, manifest.text()).unwrap();
    let from = path.to_str().unwrap();
    let native = ["build", "--aot", "--native", "--from", from, "--state-dir", &state_text];
    let (status, output) = run(&native);
    assert!(status.success() && output.contains("1 components compiled"), "{output}");
    let [artifact] = <[PathBuf; 1]>::try_from(artifacts(&state)).unwrap();
    // Other users may execute it, and only the owner may write it.
    let modes = [&state, &state.join("compiled"), &artifact].map(|path| mode(path));
    assert_eq!(modes, [0o755, 0o755, 0o644]);

    let up = || {
        let spinfer = Launch::new(&manifest).state_dir(&state).up();
        assert_eq!(spinfer.get("/count").text(), "1");
        spinfer.log()
    };
    assert!(!up().contains("compiling"));
    let mut bytes = std::fs::read(&artifact).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&artifact, bytes).unwrap();
    let log = up();
    assert!(log.contains("artifact not used") && log.contains("is damaged"), "{log}");
    assert!(!up().contains("compiling"), "it was compiled again");
}

/// A model component, which the fast door calls in a form of its own.
#[test]
fn both_forms_of_a_component_are_compiled_ahead_of_time() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let manifest = Manifest::default().with_iris("iris", 1, "/iris/...", "");
    let path = dir.path().join("spin.toml");
    std::fs::write(&path, manifest.text()).unwrap();
    let (from, state_text) = (path.to_str().unwrap(), state.to_str().unwrap());
    let (status, output) = run(&["build", "--aot", "--from", from, "--state-dir", state_text]);
    assert!(status.success(), "{output}");
    let mut compiled = artifacts(&state);
    assert_eq!(compiled.len(), 2);
    // The standard door serves what is too large for the fast one.
    let large = format!(r#"{{"instances": [{}[5.1, 3.5, 1.4, 0.2]]}}"#, " ".repeat(2 << 20));
    let up = || {
        let launch = Launch::new(&manifest).state_dir(&state);
        let spinfer = launch.env("RUST_LOG", "info,spinfer::guest=debug").up();
        for body in [r#"{"instances": [[5.1, 3.5, 1.4, 0.2]]}"#, &large] {
            let response = spinfer.post("/iris/predict", body);
            assert_eq!(response.json()["predictions"][0]["prediction"], "setosa");
        }
        spinfer.log()
    };
    let log = up();
    assert!(!log.contains("compiling"), "{log}");
    for artifact in compiled.drain(..) {
        std::fs::write(&artifact, b"damaged").unwrap();
        let log = up();
        assert!(log.contains("artifact not used") && log.contains("compiling"), "{log}");
    }
    assert!(!up().contains("compiling"), "compiled again");
}

/// Such as in an image that is built on another machine.
#[test]
fn portable_artifact_is_used_if_there_is_no_native_one() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let state_text = state.to_str().unwrap().to_owned();
    let manifest = Manifest::default().with("/...", "probe", "probe", "");
    let path = dir.path().join("spin.toml");
    std::fs::write(&path, manifest.text()).unwrap();
    let from = path.to_str().unwrap();
    let (status, output) = run(&["build", "--native", "--from", from]);
    assert!(!status.success() && output.contains("--aot"), "{output}");
    let build = run(&["build", "--aot", "--from", from, "--state-dir", &state_text]);
    assert!(build.0.success(), "{}", build.1);
    let compiled = artifacts(&state);
    let spinfer = Launch::new(&manifest).state_dir(&state).up();
    assert_eq!(spinfer.get("/count").text(), "1");
    assert!(!spinfer.log().contains("compiling"), "{}", spinfer.log());
    assert_eq!(artifacts(&state), compiled);
}

#[test]
fn batched_calls_are_computed_together_and_get_their_own_results() {
    let dir = tempfile::tempdir().unwrap();
    let from = root().join("models/iris-classifier/2");
    for file in ["model.onnx", "model.toml"] {
        std::fs::copy(from.join(file), dir.path().join(file)).unwrap();
    }
    let text = std::fs::read_to_string(from.join("model.toml")).unwrap();
    let batching = "[batching]\nmax_batch_size = 8\nmax_queue_delay = \"20ms\"\n";
    let text = format!("cache_seconds = 0\n{text}\n{batching}");
    std::fs::write(dir.path().join("model.toml"), text).unwrap();
    let settings = format!(
        "files = [{{ source = \"{}\", destination = \"/models/iris-classifier\" }}]",
        dir.path().display()
    );
    let manifest = Manifest::default().with("/v2/models/...", "iris", "iris_classifier", &settings);
    let spinfer = Launch::new(&manifest).env("SPINFER_LOG", "spinfer=debug").up();
    let flowers = [
        ("[5.1, 3.5, 1.4, 0.2]", "setosa"),
        ("[6.0, 2.9, 4.5, 1.5]", "versicolor"),
        ("[6.3, 3.3, 6.0, 2.5]", "virginica"),
    ];
    std::thread::scope(|scope| {
        for (features, expected) in flowers.iter().cycle().take(24) {
            let spinfer = &spinfer;
            scope.spawn(move || {
                let body = format!("{{\"features\": {features}}}");
                for _ in 0..10 {
                    let response = spinfer.post(PREDICT, &body);
                    assert_eq!(response.json()["prediction"], *expected, "{}", response.text());
                }
            });
        }
    });
    // The rest were computed alone: there are fewer runs of the graph than requests.
    let log = spinfer.log();
    let batches = log.lines().filter_map(|line| line.split_once("batch computed calls="));
    let calls: Vec<u32> = batches.map(|(_, calls)| calls.trim().parse().unwrap()).collect();
    assert!(!calls.is_empty() && calls.iter().all(|calls| (2..=8).contains(calls)), "{calls:?}");
    assert!(calls.iter().sum::<u32>() <= 24 * 10, "{calls:?}");
}
