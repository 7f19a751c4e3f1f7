//! Metrics of requests, instances, inferences and the response cache.

use std::collections::BTreeSet;
use std::io::Write;
use std::process::Command;

use serde_json::Value;
use spinfer::metrics::table::{FAMILIES, Family, MetricKind};
use spinfer_tests::{Launch, Manifest, STANDARD_DOOR, Spinfer, root, run, wait_until};

use super::admin::{FEATURES, probe};

/// The metric families as Prometheus' parsers read them: in its own format, and in OpenMetrics.
fn read(spinfer: &Spinfer) -> [Vec<Value>; 2] {
    let output = Command::new(root().join("target/python/bin/python"))
        .arg(root().join("tests/python/metrics.py"))
        .arg(spinfer.admin_address().to_string())
        .output()
        .expect("python starts: `make clients` installs it");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The value of a metric by its exposed name, `name{label="value"}`.
pub(crate) fn metric(spinfer: &Spinfer, name: &str) -> f64 {
    find_metric(spinfer, name).unwrap_or_else(|text| panic!("no {name} in\n{text}"))
}

/// As [`metric`], or all metrics if it is not among them.
pub(crate) fn find_metric(spinfer: &Spinfer, name: &str) -> Result<f64, String> {
    let text = spinfer.admin().send("GET", "/metrics", &[], b"").text();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.map(|value| value.parse().unwrap()).ok_or(text)
}

/// A copy of version 2 of the iris classifier, with `more` in its `model.toml`.
pub(crate) fn iris_with(more: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let from = root().join("models/iris-classifier/2");
    std::fs::copy(from.join("model.onnx"), dir.path().join("model.onnx")).unwrap();
    let text = std::fs::read_to_string(from.join("model.toml")).unwrap();
    std::fs::write(dir.path().join("model.toml"), format!("{more}\n{text}")).unwrap();
    dir
}

fn mounted(dir: &tempfile::TempDir) -> String {
    let source = dir.path().display();
    format!("files = [{{ source = \"{source}\", destination = \"/models/iris-classifier\" }}]\n")
}

/// Exposed only for batched models.
pub(crate) const BATCH: &str = "spinfer_inference_batch_rows";
/// Exposed only for models with a baseline; the first only with enough data, the second only with a
/// calibration.
pub(crate) const DRIFT: [&str; 5] = [
    "spinfer_drift_score",
    "spinfer_drift_expected_accuracy",
    "spinfer_drift_unseen_ratio",
    "spinfer_drift_window_records",
    "spinfer_drift_alert",
];
const REDIS: [&str; 4] = [
    "spinfer_cache_redis_connected",
    "spinfer_cache_redis_invalidation_connected",
    "spinfer_cache_redis_lookups_total",
    "spinfer_cache_redis_stores_total",
];

/// Exposed only for predictions with feedback (feedback.rs).
const FEEDBACK: [&str; 2] = ["spinfer_prediction_quality", "spinfer_prediction_quality_samples"];
/// Exposed only with sinks of the prediction log.
const SINKS: [&str; 7] = [
    "spinfer_prediction_log_sink_delivered_total",
    "spinfer_prediction_log_sink_pending",
    "spinfer_prediction_log_sink_retries_total",
    "spinfer_prediction_log_sink_refused_total",
    "spinfer_prediction_log_sink_lost_total",
    "spinfer_prediction_log_sink_degraded",
    "spinfer_prediction_log_sink_lag_seconds",
];
/// Exposed only with experiments; from [`SHADOWS`] on only for shadows.
pub(crate) const EXPERIMENTS: [&str; 8] = [
    "spinfer_experiment_assignments_total",
    "spinfer_experiment_excluded_requests_total",
    "spinfer_experiment_failed_over_requests_total",
    "spinfer_experiment_shadow_requests_total",
    "spinfer_experiment_shadow_comparisons_total",
    "spinfer_experiment_shadow_labels_total",
    "spinfer_experiment_shadow_difference_mean",
    "spinfer_experiment_shadow_difference_max",
];
const SHADOWS: usize = 3;
/// Exposed only once the host has looked at an experiment, which it does every second.
const VERDICTS: [&str; 6] = [
    "spinfer_experiment_verdict",
    "spinfer_experiment_units",
    "spinfer_experiment_difference",
    "spinfer_experiment_guardrail_evidence",
    "spinfer_experiment_rolled_back",
    "spinfer_experiment_canary_step",
];

/// Checks that the exposed families are those of the table, and that each has samples, except for those in
/// `without`.
pub(crate) fn check_against_table(spinfer: &Spinfer, without: &[&str]) {
    for (exposed, open) in read(spinfer).into_iter().zip([false, true]) {
        let names: BTreeSet<_> = exposed.iter().map(|family| text(&family["name"])).collect();
        assert_eq!(names.len(), exposed.len(), "each family is exposed once");
        let documented: BTreeSet<_> = FAMILIES.iter().map(|family| stem(family)).collect();
        assert_eq!(names, documented);
        for Family { name, kind, unit, labels, help } in FAMILIES {
            let stem = name.strip_suffix("_total").unwrap_or(name);
            let family = exposed.iter().find(|exposed| exposed["name"] == *stem).unwrap();
            let kind = match kind {
                MetricKind::Counter => "counter",
                MetricKind::Gauge => "gauge",
                MetricKind::Histogram => "histogram",
            };
            assert_eq!((text(&family["type"]), text(&family["help"])), (kind, *help), "{name}");
            // Prometheus' own format has no units.
            assert_eq!(text(&family["unit"]), if open { unit } else { "" }, "{name}");
            let samples = family["samples"].as_array().unwrap();
            let is_without = without.contains(name) || FEEDBACK.contains(name);
            let is_either = VERDICTS.contains(name);
            assert!(is_either || samples.is_empty() == is_without, "{name}: {samples:?}");
            for sample in samples {
                let given: BTreeSet<_> = sample[1].as_object().unwrap().keys().collect();
                let bucket = text(&sample[0]).ends_with("_bucket").then_some("le");
                let expected = labels.iter().copied().chain(bucket);
                assert!(given.iter().copied().eq(&expected.collect::<BTreeSet<_>>()), "{sample}");
                let value = sample[2].as_f64().unwrap();
                let is_signed = *name == "spinfer_experiment_difference";
                assert!(value.is_finite() && (value >= 0.0 || is_signed), "{sample}");
            }
        }
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

fn stem(family: &Family) -> &'static str {
    family.name.strip_suffix("_total").unwrap_or(family.name)
}

#[test]
fn exposed_metrics_match_the_table() {
    let spinfer = Launch::from_file(root().join("spin.toml")).admin().up();
    let ready = || spinfer.get("/v2/health/ready").status == 200;
    wait_until("its models are loaded", ready);
    for model in ["iris-classifier", "iris-classifier/versions/2"] {
        assert_eq!(spinfer.post(&format!("/v2/models/{model}/predict"), FEATURES).status, 200);
    }
    assert_eq!(spinfer.get("/nowhere").status, 404);
    // It has no batched model, and its experiment has no shadow.
    check_against_table(
        &spinfer,
        &[&[BATCH, DRIFT[0], DRIFT[1]], &REDIS[..], &SINKS, &EXPERIMENTS[SHADOWS..]].concat(),
    );
    let iris = r#"component="iris-classifier-1",route="/v2/models/iris-classifier/...""#;
    for (name, expected) in [
        ("spinfer_ready", 1.0),
        (&format!("spinfer_requests_total{{{iris},status=\"2xx\"}}"), 1.0),
        (&format!("spinfer_request_duration_seconds_count{{{iris}}}"), 1.0),
        (r#"spinfer_requests_total{component="",route="",status="4xx"}"#, 1.0),
        (r#"spinfer_request_failures_total{component="",route="",reason="no_route"}"#, 1.0),
        (r#"spinfer_instances{component="iris-classifier-1"}"#, 1.0),
        (r#"spinfer_cold_start_duration_seconds_count{component="iris-classifier-1"}"#, 1.0),
        (
            r#"spinfer_load_duration_seconds_count{component="iris-classifier-1",stage="graph"}"#,
            1.0,
        ),
        (r#"spinfer_cache_capacity_bytes{level="memory"}"#, 67_108_864.0),
    ] {
        // The client has its response before the request is counted.
        wait_until(&format!("{name} is {expected}"), || metric(&spinfer, name) == expected);
    }
    // The placement depends on how long earlier inferences took.
    let inferences = ["inline", "compute", "batch"].map(|placement| {
        let of = r#"model="iris-classifier",version="2""#;
        let of = format!("{{{of},placement=\"{placement}\"}}");
        metric(&spinfer, &format!("spinfer_inference_duration_seconds_count{of}"))
    });
    assert_eq!(inferences.iter().sum::<f64>(), 1.0, "{inferences:?}");
    let memory = metric(&spinfer, "process_resident_memory_bytes");
    assert!((1e6..1e10).contains(&memory), "{memory}");
}

#[test]
fn label_values_are_escaped() {
    let dir = iris_with("");
    let toml = dir.path().join("model.toml");
    let with_version = std::fs::read_to_string(&toml).unwrap();
    let with_version = with_version.replace("version = \"2\"", "version = 'a \"b\" \\ é'");
    std::fs::write(&toml, with_version).unwrap();
    let manifest = Manifest::default()
        .with("/v2/models/...", "iris", "iris_classifier", &mounted(&dir))
        .with("/say-\\\"\\\\/:name", "probe", "probe", "");
    let spinfer = Launch::new(&manifest).admin().up();
    assert_eq!(spinfer.post("/v2/models/iris-classifier/predict", FEATURES).status, 200);
    for exposed in read(&spinfer) {
        let of = |name: &str| exposed.iter().find(|family| family["name"] == name).unwrap();
        let has = |name: &str, label: &str, value: &str| {
            let samples = of(name)["samples"].as_array().unwrap();
            assert!(samples.iter().any(|sample| sample[1][label] == value), "{samples:?}");
        };
        has("spinfer_requests", "route", "/say-\"\\/:name");
        has("spinfer_inference_duration_seconds", "version", "a \"b\" \\ é");
    }
}

#[test]
fn requests_are_counted_by_status_and_failure_reason() {
    for door in ["", STANDARD_DOOR] {
        let limits = "tool.spinfer.limits.deadline = \"1s\"\ntool.spinfer.reuse.min_idle = 0\n\
                      tool.spinfer.limits.request_body = \"2KiB\"\n";
        let spinfer = probe(&format!("{door}{limits}"));
        for path in ["/status?200", "/status?204", "/status?304", "/status?418", "/status?503"] {
            assert_eq!(spinfer.get(path).status, path[8..].parse::<u16>().unwrap());
        }
        assert_eq!(spinfer.get("/trap").status, 500);
        assert_eq!(spinfer.get("/loop").status, 504);
        assert_eq!(spinfer.post("/echo", [0; 3000]).status, 413);
        let route = |name: &str, label: &str| {
            let of = format!("component=\"probe\",route=\"/...\",{label}");
            metric(&spinfer, &format!("{name}{{{of}}}"))
        };
        let statuses = ["2xx", "3xx", "4xx", "5xx"];
        let statuses =
            statuses.map(|class| route("spinfer_requests_total", &format!("status=\"{class}\"")));
        assert_eq!(statuses, [2.0, 1.0, 2.0, 3.0]);
        for (reason, times) in [("trap", 1.0), ("deadline", 1.0), ("body_too_large", 1.0)] {
            let reason = format!("reason=\"{reason}\"");
            assert_eq!(route("spinfer_request_failures_total", &reason), times, "{reason}");
        }
        let ended = |reason: &str| {
            let of = format!("component=\"probe\",reason=\"{reason}\"");
            metric(&spinfer, &format!("spinfer_instances_ended_total{{{of}}}"))
        };
        wait_until("the instance that trapped is discarded", || ended("failed") == 1.0);
        wait_until("the instance past its deadline is discarded", || ended("deadline") == 1.0);
        let live = || metric(&spinfer, "spinfer_instances{component=\"probe\"}");
        let started = metric(&spinfer, "spinfer_instances_started_total{component=\"probe\"}");
        assert_eq!(live(), started - ended("failed") - ended("deadline"), "{door}");
    }
}

#[test]
fn chained_requests_are_counted_separately() {
    let hosts = "allowed_outbound_hosts = [\"http://*.spin.internal\"]\n";
    let spinfer = probe(&format!("{STANDARD_DOOR}{hosts}"));
    for _ in 0..2 {
        assert_eq!(spinfer.post("/fetch?http://probe.spin.internal/echo", "x").status, 200);
    }
    for (route, times) in [("/...", 2.0), ("probe.spin.internal", 2.0)] {
        let of = format!("component=\"probe\",route=\"{route}\",status=\"2xx\"");
        assert_eq!(metric(&spinfer, &format!("spinfer_requests_total{{{of}}}")), times);
    }
}

#[test]
fn instances_are_counted_by_start_and_end_reason() {
    for door in ["", STANDARD_DOOR] {
        let settings = format!(
            "{door}tool.spinfer.limits.idle = \"50ms\"\ntool.spinfer.reuse = {{ requests = 2, min_idle = 0 }}\n"
        );
        let spinfer = probe(&settings);
        let of = |name: &str| metric(&spinfer, &format!("{name}{{component=\"probe\"}}"));
        let ended = |reason: &str| {
            let of = format!("component=\"probe\",reason=\"{reason}\"");
            metric(&spinfer, &format!("spinfer_instances_ended_total{{{of}}}"))
        };
        let client = spinfer.client();
        for _ in 0..3 {
            assert_eq!(client.send("GET", "/count", &[], b"").status, 200);
        }
        wait_until("the instance is retired", || ended("retired") >= 1.0);
        wait_until("no instances are left", || of("spinfer_instances") == 0.0);
        let all = ["idle", "retired", "failed", "deadline", "abandoned"].map(ended);
        assert_eq!(all.iter().sum::<f64>(), of("spinfer_instances_started_total"), "{all:?}");
        assert!(all[0] >= 1.0 && all[2..] == [0.0; 3], "{all:?}");
        // An instance whose client disconnects.
        let mut client = spinfer.connect();
        client.write_all(b"GET /loop HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
        wait_until("the guest computes", || of("spinfer_instances") == 1.0);
        assert_eq!(of("spinfer_requests_in_flight"), 1.0);
        drop(client);
        wait_until("the guest is terminated", || ended("abandoned") == 1.0);
        // The code is unloaded, and loaded for the next request.
        let before = spinfer.log().matches("idle code unloaded").count();
        spinfer.wait_for_log_times("idle code unloaded", before + 1);
        assert_eq!(spinfer.get("/count").status, 200);
        let code = r#"spinfer_load_duration_seconds_count{component="probe",stage="code"}"#;
        assert!(metric(&spinfer, code) >= 1.0);
        assert!(of("spinfer_cold_start_duration_seconds_count") >= 2.0);
    }
}

#[test]
fn inferences_are_counted_by_placement() {
    let plain = iris_with("");
    let (inline, compute) =
        (iris_with("placement = \"inline\"\n"), iris_with("placement = \"compute-thread\"\n"));
    let batched = iris_with("");
    let toml = batched.path().join("model.toml");
    let text = std::fs::read_to_string(&toml).unwrap();
    std::fs::write(&toml, format!("{text}\n[batching]\nmax_batch_size = 8\n")).unwrap();
    for (dir, placement) in
        [(inline, "inline"), (compute, "compute"), (batched, "batch"), (plain, "")]
    {
        let manifest =
            Manifest::default().with("/v2/models/...", "iris", "iris_classifier", &mounted(&dir));
        let spinfer = Launch::new(&manifest).admin().up();
        for row in 1..=3 {
            // Different inputs, as a repeated request would be served from cache.
            let features = format!("{{\"features\": [{row}, 3.5, 1.4, 0.2]}}");
            assert_eq!(spinfer.post("/v2/models/iris-classifier/predict", features).status, 200);
        }
        let model = r#"model="iris-classifier",version="2""#;
        let counts = ["inline", "compute", "batch"].map(|placement| {
            let of = format!("{{{model},placement=\"{placement}\"}}");
            let sum = metric(&spinfer, &format!("spinfer_inference_duration_seconds_sum{of}"));
            let count = metric(&spinfer, &format!("spinfer_inference_duration_seconds_count{of}"));
            assert_eq!(sum > 0.0, count > 0.0);
            (placement, count)
        });
        assert_eq!(counts.iter().map(|(_, count)| count).sum::<f64>(), 3.0, "{counts:?}");
        if !placement.is_empty() {
            assert!(counts.contains(&(placement, 3.0)), "{counts:?}");
        }
        if placement == "batch" {
            let rows = metric(&spinfer, &format!("spinfer_inference_batch_rows_sum{{{model}}}"));
            assert_eq!(rows, 3.0);
            check_against_table(&spinfer, &[&DRIFT[..], &REDIS, &SINKS, &EXPERIMENTS].concat());
        }
    }
}

#[test]
fn cache_hits_and_misses_are_reported() {
    let spinfer = probe("");
    let path = "/cache/a?max-age=60";
    for control in ["max-age=60", "max-age=60", "max-age=60", "no-store", "no-cache"] {
        let response = spinfer.send("GET", path, &[("cache-control", control)], b"");
        assert_eq!(response.status, 200);
    }
    let response = spinfer.admin().send("GET", "/cache/stats", &[], b"");
    assert_eq!(response.header("cache-control"), Some("no-store"));
    let stats = response.json();
    let route = &stats["routes"][0];
    let expected = serde_json::json!({
        "route": "/...", "component": "probe", "requests": 5, "hits": 2, "collapsed": 0,
        "misses": 2, "bypassed": 1, "hit_rate": 0.5,
        "levels": {"memory": {"hits": 2, "stale": 0, "misses": 2, "hit_rate": 0.5}},
    });
    assert_eq!(*route, expected);
    assert_eq!((&stats["total"]["hits"], &stats["redis"]), (&2.into(), &Value::Null));
    let application = spinfer.get("/.well-known/spin/info").json()["name"].clone();
    assert_eq!(stats["application"], application);
    let memory = &stats["memory"];
    assert_eq!((&memory["entries"], &memory["evictions"]), (&1.into(), &0.into()));
    assert!(memory["bytes"].as_u64().is_some_and(|bytes| (100..10_000).contains(&bytes)));
    for (label, expected) in [("hit", 2.0), ("collapsed", 0.0), ("miss", 2.0), ("bypass", 1.0)] {
        let of = format!("component=\"probe\",route=\"/...\",outcome=\"{label}\"");
        assert_eq!(metric(&spinfer, &format!("spinfer_cache_requests_total{{{of}}}")), expected);
    }

    let address = spinfer.admin_address().to_string();
    let (status, text) = run(&["cache", "stats", "--admin", &address]);
    assert!(status.success(), "{text}");
    assert_eq!(
        text.lines().next(),
        Some(&*format!("application: {}", application.as_str().unwrap()))
    );
    let line = text.lines().find(|line| line.starts_with("/...")).unwrap();
    let cells: Vec<_> = line.split_whitespace().collect();
    assert_eq!(cells, ["/...", "probe", "5", "2", "50.0", "%", "0", "2", "1"], "{text}");
    assert!(text.contains("memory: 1 responses, ") && text.contains("of 64.0 MiB"), "{text}");
    let (status, text) = run(&["cache", "stats", "--json", "--admin", &address]);
    assert!(status.success(), "{text}");
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap()["routes"][0], *route);
}

#[test]
fn collapsed_requests_are_counted_separately() {
    let spinfer = probe("");
    assert_eq!(spinfer.get("/cache/first?max-age=60").status, 200);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| assert_eq!(spinfer.get("/cache/slow?max-age=60").status, 200));
        }
    });
    let stats = spinfer.admin().send("GET", "/cache/stats", &[], b"").json();
    let [hits, collapsed, misses] =
        ["hits", "collapsed", "misses"].map(|name| stats["total"][name].as_u64().unwrap());
    assert_eq!((misses, hits + collapsed), (2, 3), "{stats}");
}

#[test]
fn cache_evictions_are_counted() {
    let manifest = Manifest::default().with("/...", "probe", "probe", "");
    let launch = Launch::new(&manifest).admin();
    let config = "[cache]\nmemory = \"16KiB\"\nadmission = \"first\"";
    let spinfer = launch.runtime_config(config).up();
    let client = spinfer.client();
    for n in 0..200 {
        let path = format!("/cache/{n}?max-age=60");
        assert_eq!(client.send("GET", &path, &[], b"").status, 200);
    }
    let of = |name: &str| metric(&spinfer, &format!("{name}{{level=\"memory\"}}"));
    let (entries, evicted) = (of("spinfer_cache_entries"), of("spinfer_cache_evictions_total"));
    assert!(entries > 0.0 && evicted > 0.0);
    assert_eq!(entries + evicted, 200.0);
    assert!(of("spinfer_cache_bytes") <= of("spinfer_cache_capacity_bytes"));
}
