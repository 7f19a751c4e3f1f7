//! All metrics: name, type, unit, labels and help text. `tests/e2e/admin.rs` compares the
//! exposition of a host with this table, in both directions.
//!
//! Labels have few values: routes and components of the manifest, mounted models, and fixed words.
//! Nothing of a request is ever a label.

use super::histogram::Buckets;

/// A metric family: its metadata.
#[derive(Debug)]
pub struct Family {
    pub name: &'static str,
    pub kind: MetricKind,
    /// Base unit; empty for a count.
    pub unit: &'static str,
    pub labels: &'static [&'static str],
    pub help: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    Counter,
    Gauge,
    Histogram,
}

const MICROSECOND: u64 = 1_000;
const MILLISECOND: u64 = 1_000 * MICROSECOND;
const SECOND: u64 = 1_000 * MILLISECOND;

/// Buckets of durations. A cached response takes some 10 µs, a prediction some 20 µs, a cold start
/// 1 ms or more; the default deadline is 30 s.
pub static DURATIONS: Buckets = Buckets {
    bounds: &[
        10 * MICROSECOND,
        25 * MICROSECOND,
        50 * MICROSECOND,
        100 * MICROSECOND,
        250 * MICROSECOND,
        500 * MICROSECOND,
        MILLISECOND,
        2_500 * MICROSECOND,
        5 * MILLISECOND,
        10 * MILLISECOND,
        25 * MILLISECOND,
        50 * MILLISECOND,
        100 * MILLISECOND,
        250 * MILLISECOND,
        500 * MILLISECOND,
        SECOND,
        2_500 * MILLISECOND,
        5 * SECOND,
        10 * SECOND,
        30 * SECOND,
    ],
    steps: SECOND,
};

/// Buckets of inference durations: those of the lean backend take 1 or 2 µs.
pub static INFERENCES: Buckets = Buckets {
    bounds: &[
        MICROSECOND,
        2_500 * (MICROSECOND / 1_000),
        5 * MICROSECOND,
        10 * MICROSECOND,
        25 * MICROSECOND,
        50 * MICROSECOND,
        100 * MICROSECOND,
        250 * MICROSECOND,
        500 * MICROSECOND,
        MILLISECOND,
        2_500 * MICROSECOND,
        5 * MILLISECOND,
        10 * MILLISECOND,
        25 * MILLISECOND,
        50 * MILLISECOND,
        100 * MILLISECOND,
        250 * MILLISECOND,
        500 * MILLISECOND,
        SECOND,
        2_500 * MILLISECOND,
        5 * SECOND,
        10 * SECOND,
    ],
    steps: SECOND,
};

/// Buckets of rows per batch.
pub static ROWS: Buckets =
    Buckets { bounds: &[1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024], steps: 1 };

/// Defines a static for each family, and [`FAMILIES`], all of them in the order of the exposition.
macro_rules! families {
    ($($id:ident: $kind:ident $name:literal, $unit:literal, [$($label:literal),*], $help:literal;)*) => {
        $(
            pub static $id: Family = Family {
                name: $name,
                kind: MetricKind::$kind,
                unit: $unit,
                labels: &[$($label),*],
                help: $help,
            };
        )*
        pub static FAMILIES: &[&Family] = &[$(&$id),*];
    };
}

families! {
    BUILD_INFO: Gauge "spinfer_build_info", "", ["version"],
        "Always 1; the label is the version of spinfer.";
    READY: Gauge "spinfer_ready", "", [],
        "1 if /v2/health/ready responds with 200: all mounted models are loaded and the host is not \
         shutting down; else 0.";

    REQUESTS: Counter "spinfer_requests_total", "", ["component", "route", "status"],
        "Responses by status class, 2xx to 5xx. The route is the pattern in the manifest, \
         <component>.spin.internal for requests between components, or empty if no route matched. \
         The host's own paths are not counted.";
    REQUEST_DURATION: Histogram "spinfer_request_duration_seconds", "seconds", ["component", "route"],
        "Time from the request's head to the response's head.";
    REQUEST_FAILURES: Counter "spinfer_request_failures_total", "", ["component", "route", "reason"],
        "Requests that failed in the host, by reason: refused (queue_full, busy, \
         instance_pool_full, memory_budget_exhausted, body_too_large, ...) or failed (trap, \
         deadline, ...). Error responses of components are not counted.";
    RESPONSES_GIVEN_UP: Counter "spinfer_responses_given_up_total", "", ["component", "route"],
        "Responses whose connection was closed, or whose HTTP/2 stream was reset, since their client \
         did not read them while others needed the permit or the memory that they held.";
    CUT_OFF: Counter "spinfer_responses_cut_off_total", "", ["component", "route", "reason"],
        "Streamed responses that were cut off after their heads: trap, deadline, unfinished (the \
         component did not finish its body), error (it closed its body with an error), content_length \
         (it sent more or less), idle (limits.stream_idle), total (limits.stream_total), unread (the \
         client stopped reading), memory_budget, shutdown.";
    IN_FLIGHT: Gauge "spinfer_requests_in_flight", "", ["component"],
        "Requests that have a permit: an instance serves them.";
    QUEUED: Gauge "spinfer_requests_queued", "", ["component"],
        "Requests that wait for a permit (limits.instances, limits.queue).";

    INSTANCES: Gauge "spinfer_instances", "", ["component"],
        "Live instances.";
    INSTANCES_STARTED: Counter "spinfer_instances_started_total", "", ["component"],
        "Instances created.";
    INSTANCES_ENDED: Counter "spinfer_instances_ended_total", "", ["component", "reason"],
        "Instances that ended, by reason: idle timeout or evicted (idle), reuse.requests or \
         reuse.age reached (retired), trap (failed), deadline exceeded (deadline), client \
         disconnected (abandoned).";
    COLD_STARTS: Histogram "spinfer_cold_start_duration_seconds", "seconds", ["component"],
        "Time to the response of requests that found no live instance of their component.";
    LOADS: Histogram "spinfer_load_duration_seconds", "seconds", ["component", "stage"],
        "Time to load or create parts of a component: code (mapped and linked, after it was \
         unloaded), graph (read, compiled and run once as a trial), instance (created).";

    INFERENCE_DURATION: Histogram "spinfer_inference_duration_seconds", "seconds", ["model", "version", "placement"],
        "Time of inferences, without queueing, by placement: inline (on the thread of the \
         connection), compute (on a compute thread), batch (several requests together, counted \
         once). Graphs that components bring have an empty model.";
    BATCH_ROWS: Histogram "spinfer_inference_batch_rows", "", ["model", "version"],
        "Rows per batch, for models with [batching].";

    CACHE_REQUESTS: Counter "spinfer_cache_requests_total", "", ["component", "route", "outcome"],
        "Requests by outcome in the response cache: served from cache (hit), served the response to \
         another request in flight (collapsed), not in the cache (miss), not looked up (bypass).";
    CACHE_LOOKUPS: Counter "spinfer_cache_lookups_total", "", ["component", "route", "level", "result"],
        "Lookups in each level of the response cache: a fresh response (hit), a stale or nearly \
         stale response that was served and refreshed (stale), none that could be served (miss).";
    CACHE_ENTRIES: Gauge "spinfer_cache_entries", "", ["level"],
        "Cached responses.";
    CACHE_BYTES: Gauge "spinfer_cache_bytes", "bytes", ["level"],
        "Memory used by cached responses.";
    CACHE_CAPACITY: Gauge "spinfer_cache_capacity_bytes", "bytes", ["level"],
        "Maximum memory of cached responses ([cache] memory in the runtime config).";
    CACHE_EVICTIONS: Counter "spinfer_cache_evictions_total", "", ["level"],
        "Responses that were evicted, or too large for the memory.";
    CACHE_NOT_ADMITTED: Counter "spinfer_cache_not_admitted_total", "", [],
        "Responses that were not stored: the first with their keys ([cache] admission in the runtime \
         config).";

    REDIS_CONNECTED: Gauge "spinfer_cache_redis_connected", "", [],
        "1 if the shared Redis is in use, 0 if it does not respond in time.";
    REDIS_INVALIDATION_CONNECTED: Gauge "spinfer_cache_redis_invalidation_connected", "", [],
        "1 if this node receives the invalidations of other nodes, else 0; responses then live for \
         at most 5 s.";
    REDIS_LOOKUPS: Counter "spinfer_cache_redis_lookups_total", "", ["result"],
        "Lookups in Redis: found (hit), not found (miss), timeout or error (failed), not attempted \
         as Redis does not respond (skipped), value of another program or version (foreign).";
    REDIS_STORES: Counter "spinfer_cache_redis_stores_total", "", ["result"],
        "Responses for Redis: stored, or dropped as Redis is full, slow or unreachable (dropped).";

    DRIFT_SCORE: Gauge "spinfer_drift_score", "", ["model", "version", "field", "statistic"],
        "Distance of a feature or an output from the baseline of the model version: psi (population \
         stability index), ks (Kolmogorov-Smirnov, for numbers), js (Jensen-Shannon distance), \
         chi_squared, wasserstein (in standard deviations of the baseline, for numbers). Absent without enough data; for at most 100 fields of a version.";
    DRIFT_WINDOW: Gauge "spinfer_drift_window_records", "", ["model", "version"],
        "Records in the current window, which is compared with the baseline.";
    DRIFT_UNSEEN: Gauge "spinfer_drift_unseen_ratio", "", ["model", "version", "field"],
        "Share of values in the current window of categories that the baseline lacks.";
    DRIFT_ACCURACY: Gauge "spinfer_drift_expected_accuracy", "", ["model", "version"],
        "Accuracy in the current window, expected from calibrated probabilities.";
    DRIFT_ALERT: Gauge "spinfer_drift_alert", "", ["model", "version", "kind"],
        "1 if a feature (kind feature) or an output (kind prediction) is in alarm, else 0, also \
         without enough data.";

    LOG_ACCEPTED: Counter "spinfer_prediction_log_accepted_total", "", [],
        "Records that components appended to the prediction log, after sampling: the sum of the \
         written, dropped and pending ones.";
    LOG_RECORDS: Counter "spinfer_prediction_log_records_total", "", ["result"],
        "Records by result: written, or dropped because the queue was full (dropped_queue_full), \
         the file could not be written (dropped_storage), the log has a record of the same request \
         and row (dropped_duplicate), the host was shutting down (dropped_shutdown).";
    LOG_PENDING: Gauge "spinfer_prediction_log_pending", "", [],
        "Records that are queued or being written.";
    LOG_BYTES: Gauge "spinfer_prediction_log_size_bytes", "bytes", [],
        "Size of the prediction log's file and its write-ahead log.";
    LOG_DEGRADED: Gauge "spinfer_prediction_log_degraded", "", [],
        "1 if the prediction log cannot be written, else 0; /v2/health/ready has the reason.";
    LOG_WAITING: Gauge "spinfer_prediction_log_waiting_requests", "", [],
        "Requests that wait for space in the queue of the prediction log (mode durable), or until \
         their records are on disk (mode synchronous).";
    LOG_REFUSED: Counter "spinfer_prediction_log_refused_requests_total", "", ["reason"],
        "Requests that failed with 503 since their records could not be stored: no space in the \
         queue before the deadline (queue_full), the file could not be written (storage), the file \
         was known to be unwritable before the component was called (unwritable), not on disk \
         before the deadline (late), the host was shutting down (shutdown).";
    LOG_COMMITS: Histogram "spinfer_prediction_log_commit_duration_seconds", "seconds", [],
        "Time of transactions with records or feedback, with the wait for the disk.";
    LOG_SYNCS: Counter "spinfer_prediction_log_synced_commits_total", "", [],
        "Those transactions that were written through to the disk (fsync): with records of components \
         whose mode is durable or synchronous.";
    SINK_DELIVERED: Counter "spinfer_prediction_log_sink_delivered_total", "", ["sink"],
        "Records and feedback items that the sink has accepted.";
    SINK_PENDING: Gauge "spinfer_prediction_log_sink_pending", "", ["sink"],
        "Records and feedback items that the sink has not received yet.";
    SINK_RETRIES: Counter "spinfer_prediction_log_sink_retries_total", "", ["sink"],
        "Deliveries that failed, and are retried.";
    SINK_REFUSED: Counter "spinfer_prediction_log_sink_refused_total", "", ["sink"],
        "Records and feedback items that the sink has refused for good, and that are skipped.";
    SINK_LOST: Counter "spinfer_prediction_log_sink_lost_total", "", ["sink"],
        "Records and feedback items that max_age or max_size deleted before the sink received them, \
         since it was added.";
    SINK_DEGRADED: Gauge "spinfer_prediction_log_sink_degraded", "", ["sink"],
        "1 if the last delivery to the sink failed, else 0; /v2/health/ready has the reason.";
    SINK_LAG: Gauge "spinfer_prediction_log_sink_lag_seconds", "seconds", ["sink"],
        "Age of the oldest record or feedback item that the sink has not received.";
    FEEDBACK: Counter "spinfer_feedback_total", "", ["result"],
        "Feedback items: stored with their prediction in the log (matched), stored without it \
         (unknown), or rejected.";
    FEEDBACK_REPEATED: Counter "spinfer_feedback_repeated_total", "", ["effect"],
        "Stored feedback items for which the log had feedback: replaced, if they contradict it and \
         are later, else unchanged.";
    QUALITY: Gauge "spinfer_prediction_quality", "", ["model", "version", "experiment", "variant", "metric"],
        "Quality of the logged predictions that have feedback: accuracy, macro_precision, \
         macro_recall, brier_score; mean_absolute_error, root_mean_squared_error; mean_reward.";
    QUALITY_SAMPLES: Gauge "spinfer_prediction_quality_samples", "", ["model", "version", "experiment", "variant", "metric"],
        "Predictions that each value of spinfer_prediction_quality is computed from.";

    EXPERIMENT_ASSIGNMENTS: Counter "spinfer_experiment_assignments_total", "", ["experiment", "variant"],
        "Requests assigned to a variant, including forced assignments and requests without a unit.";
    EXPERIMENT_EXCLUDED: Counter "spinfer_experiment_excluded_requests_total", "", ["experiment", "reason"],
        "Requests that are not in the experiment and that control served: not_started, no_unit, \
         holdout, namespace, target.";
    EXPERIMENT_FAILED_OVER: Counter "spinfer_experiment_failed_over_requests_total", "", ["experiment", "variant"],
        "Requests of a variant that control served, since the variant could not.";
    EXPERIMENT_COMPARED: Counter "spinfer_experiment_shadow_comparisons_total", "", ["experiment", "variant", "result"],
        "Requests whose predictions by the shadow and by the variant that served the client were \
         compared, or could not be (incomparable).";
    EXPERIMENT_LABELS: Counter "spinfer_experiment_shadow_labels_total", "", ["experiment", "variant", "result"],
        "Compared rows with labels: equal or different.";
    EXPERIMENT_DIFFERENCE_MEAN: Gauge "spinfer_experiment_shadow_difference_mean", "", ["experiment", "variant"],
        "Mean absolute difference of the numbers that the shadow and the other variant predicted.";
    EXPERIMENT_DIFFERENCE_MAX: Gauge "spinfer_experiment_shadow_difference_max", "", ["experiment", "variant"],
        "Largest absolute difference of the numbers that the shadow and the other variant predicted.";
    EXPERIMENT_SHADOWS: Counter "spinfer_experiment_shadow_requests_total", "", ["experiment", "variant", "outcome"],
        "Copies of requests for a shadow: served, failed (no response, or 5xx), skipped (too many \
         in flight, or a streamed body).";

    EXPERIMENT_VERDICT: Gauge "spinfer_experiment_verdict", "", ["experiment", "state"],
        "1 for the present verdict of an experiment: not_started, running, winner, no_difference, invalid \
         (sample-ratio mismatch), rolled_back; 0 for the others.";
    EXPERIMENT_UNITS: Gauge "spinfer_experiment_units", "", ["experiment", "variant"],
        "Units that were assigned to a variant first, on all nodes.";
    EXPERIMENT_DIFFERENCE: Gauge "spinfer_experiment_difference", "", ["experiment", "variant", "bound"],
        "Difference of a treatment from control in the metric of the experiment: estimate, and lower and \
         upper bound at its alpha, which hold at every time.";
    EXPERIMENT_GUARDRAIL: Gauge "spinfer_experiment_guardrail_evidence", "", ["experiment", "variant", "guardrail"],
        "Evidence that a variant breaches a guardrail, as a share of what takes it out of traffic.";
    EXPERIMENT_ROLLED_BACK: Gauge "spinfer_experiment_rolled_back", "", ["experiment", "variant"],
        "1 if a guardrail took the variant out of traffic and no operator has brought it back, else 0.";
    EXPERIMENT_STEP: Gauge "spinfer_experiment_canary_step", "", ["experiment"],
        "The step that a canary is at, from 1.";

    RESIDENT_MEMORY: Gauge "process_resident_memory_bytes", "bytes", [],
        "Resident memory of the process; Linux only.";
    START_TIME: Gauge "process_start_time_seconds", "seconds", [],
        "Start time of the process, in seconds of Unix time.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_prometheus_conventions() {
        for family in FAMILIES {
            let Family { name, kind, unit, labels, help } = family;
            assert!(name.starts_with("spinfer_") || name.starts_with("process_"), "{name}");
            assert_eq!(*kind == MetricKind::Counter, name.ends_with("_total"), "{name}");
            assert!(unit.is_empty() || name.ends_with(&format!("_{unit}")), "{name}: {unit}");
            assert!(!help.is_empty() && !help.contains(['"', '\\', '\n']), "{name}: {help}");
            assert!(labels.iter().all(|label| !["le", "quantile"].contains(label)), "{name}");
            assert_eq!(FAMILIES.iter().filter(|other| other.name == *name).count(), 1, "{name}");
        }
    }

    #[test]
    fn buckets_ascend() {
        for buckets in [&DURATIONS, &INFERENCES, &ROWS] {
            assert!(buckets.bounds.is_sorted_by(|a, b| a < b));
        }
    }
}
