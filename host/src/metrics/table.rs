//! Every metric there is: its name, type, unit, labels and what it says. `tests/e2e/admin.rs` holds
//! what a host tells to this table, both ways.
//!
//! Labels have few values: routes and components are those of the manifest, models those that are
//! mounted, and the rest are words of this host. Nothing of a request is ever one.

use super::histogram::Buckets;

/// All that is told under one name.
#[derive(Debug)]
pub struct Family {
    pub name: &'static str,
    pub kind: Kind,
    /// Empty: it is a number of things.
    pub unit: &'static str,
    pub labels: &'static [&'static str],
    pub help: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

const MICROSECOND: u64 = 1_000;
const MILLISECOND: u64 = 1_000 * MICROSECOND;
const SECOND: u64 = 1_000 * MILLISECOND;

/// Of what takes time. A kept answer takes some 10 microseconds, a prediction some 20, a cold start a
/// millisecond or more; the longest deadline by default is 30 s.
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

/// Of inferences: the lean ones take one or two microseconds.
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

/// Of the rows of a batch.
pub static ROWS: Buckets =
    Buckets { bounds: &[1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024], steps: 1 };

/// The families by name, and [`FAMILIES`], all of them in the order they are told.
macro_rules! families {
    ($($id:ident: $kind:ident $name:literal, $unit:literal, [$($label:literal),*], $help:literal;)*) => {
        $(
            pub static $id: Family = Family {
                name: $name,
                kind: Kind::$kind,
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
        "1, and which spinfer this is.";
    READY: Gauge "spinfer_ready", "", [],
        "1 if all mounted models are loaded and the host is not shutting down, else 0.";

    REQUESTS: Counter "spinfer_requests_total", "", ["component", "route", "status"],
        "Requests answered, by class of status: 2xx to 5xx. The route is the manifest's pattern, \
         or <component>.spin.internal for requests of one component to another; empty where none \
         matched. The host's own paths are not counted.";
    REQUEST_DURATION: Histogram "spinfer_request_duration_seconds", "seconds", ["component", "route"],
        "From a request's head to the head of its answer.";
    REQUEST_FAILURES: Counter "spinfer_request_failures_total", "", ["component", "route", "reason"],
        "Requests that the host answered with an error, by reason: what it refused (queue_full, \
         busy, no_room, crowded, body_too_large, ...) and what went wrong (trap, deadline, ...). \
         Errors that a component answers are none.";
    IN_FLIGHT: Gauge "spinfer_requests_in_flight", "", ["component"],
        "Requests that have their turn: an instance serves them.";
    QUEUED: Gauge "spinfer_requests_queued", "", ["component"],
        "Requests that wait for their turn (limits.instances, limits.queue).";

    INSTANCES: Gauge "spinfer_instances", "", ["component"],
        "Instances there are.";
    INSTANCES_STARTED: Counter "spinfer_instances_started_total", "", ["component"],
        "Instances made.";
    INSTANCES_ENDED: Counter "spinfer_instances_ended_total", "", ["component", "reason"],
        "Instances that are gone: idle, or in the way of one that was needed (idle); served for \
         long enough (retired); trapped (failed); past the deadline (deadline); their client went \
         away (abandoned).";
    COLD_STARTS: Histogram "spinfer_cold_start_duration_seconds", "seconds", ["component"],
        "Requests that came when their component had no instance, until their answer.";
    STARTS: Histogram "spinfer_start_duration_seconds", "seconds", ["component", "stage"],
        "What was loaded or made for a component: code (mapped and linked again, after it was \
         dropped), graph (read, compiled and tried), instance.";

    INFERENCES_TOOK: Histogram "spinfer_inference_duration_seconds", "seconds", ["model", "version", "placement"],
        "Inferences by where they ran: inline (on the thread that polls connections), compute (on \
         a compute thread), batch (several requests' as one, counted once). The time in a queue \
         is not in it. Graphs that components bring themselves have no model.";
    BATCH_ROWS: Histogram "spinfer_inference_batch_rows", "", ["model", "version"],
        "Rows of each batch of a model that has [batching].";

    CACHE_REQUESTS: Counter "spinfer_cache_requests_total", "", ["component", "route", "outcome"],
        "Requests by what the response cache had for them: a kept answer (hit), one that was in \
         the making for another (collapsed), none (miss), or it was not looked up (bypass).";
    CACHE_LOOKUPS: Counter "spinfer_cache_lookups_total", "", ["component", "route", "level", "result"],
        "Look-ups in each level of the response cache: a fresh answer (hit), one that was given \
         and made again, as its time was over or nearly (stale), none that could be given (miss).";
    CACHE_ENTRIES: Gauge "spinfer_cache_entries", "", ["level"],
        "Answers that are kept.";
    CACHE_BYTES: Gauge "spinfer_cache_bytes", "bytes", ["level"],
        "What they take.";
    CACHE_CAPACITY: Gauge "spinfer_cache_capacity_bytes", "bytes", ["level"],
        "What they may take ([cache] in the runtime config).";
    CACHE_EVICTIONS: Counter "spinfer_cache_evictions_total", "", ["level"],
        "Answers that made room for others, or were not taken in.";

    REDIS_CONNECTED: Gauge "spinfer_cache_redis_connected", "", [],
        "1 if the Redis that nodes share is asked at present, else 0: it does not answer in time.";
    REDIS_WATCHED: Gauge "spinfer_cache_redis_watched", "", [],
        "1 if this node hears what others forget, else 0: answers last five seconds meanwhile.";
    REDIS_LOOKUPS: Counter "spinfer_cache_redis_lookups_total", "", ["result"],
        "Look-ups in the Redis: it had it (hit), or not (miss), gave no answer in time or an \
         error (failed), was not asked as it did not answer before (skipped), had a value that is \
         not what was stored (foreign).";
    REDIS_STORES: Counter "spinfer_cache_redis_stores_total", "", ["result"],
        "Answers for the Redis: it has them (stored), or is full, slow or away (dropped).";

    DRIFT_SCORE: Gauge "spinfer_drift_score", "", ["model", "version", "field", "statistic"],
        "How far a feature or an output is from the model version's baseline: psi (population \
         stability index), ks (Kolmogorov-Smirnov, of numbers), js (Jensen-Shannon distance). \
         Absent while there is not enough data; of at most 100 fields of a version.";
    DRIFT_WINDOW: Gauge "spinfer_drift_window_records", "", ["model", "version"],
        "Records in the window that is compared with the baseline.";
    DRIFT_ALERT: Gauge "spinfer_drift_alert", "", ["model", "version", "kind"],
        "1 if a feature (kind feature) or an output (kind prediction) drifted significantly, else \
         0, also while there is not enough data.";

    LOG_ACCEPTED: Counter "spinfer_prediction_log_accepted_total", "", [],
        "Records that components appended to the prediction log, after sampling: the sum of those \
         written, dropped and pending.";
    LOG_RECORDS: Counter "spinfer_prediction_log_records_total", "", ["result"],
        "What became of them: in the file (written), or dropped because the queue was full \
         (dropped_queue_full), the file could not be written (dropped_storage), a record of the same \
         request and row was there (dropped_duplicate), the host was shutting down \
         (dropped_shutdown).";
    LOG_PENDING: Gauge "spinfer_prediction_log_pending", "", [],
        "Records in the queue, or being written.";
    LOG_BYTES: Gauge "spinfer_prediction_log_size_bytes", "bytes", [],
        "The prediction log's file and its write-ahead log.";
    LOG_DEGRADED: Gauge "spinfer_prediction_log_degraded", "", [],
        "1 if the prediction log cannot be written at present, else 0; /v2/health/ready has the reason.";
    FEEDBACK: Counter "spinfer_feedback_total", "", ["result"],
        "Feedback items: stored, and their prediction is in the log (matched) or not, or not yet \
         (unknown); refused (rejected).";
    QUALITY: Gauge "spinfer_prediction_quality", "", ["model", "version", "experiment", "variant", "metric"],
        "Quality of the predictions in the log that have feedback: accuracy, macro_precision, \
         macro_recall, brier_score; mean_absolute_error, root_mean_squared_error; mean_reward.";
    QUALITY_SAMPLES: Gauge "spinfer_prediction_quality_samples", "", ["model", "version", "experiment", "variant", "metric"],
        "Predictions that each of them is computed from.";

    EXPERIMENT_ASSIGNMENTS: Counter "spinfer_experiment_assignments_total", "", ["experiment", "variant"],
        "Requests assigned to each variant, forced ones and those without a unit included.";
    EXPERIMENT_SHADOWS: Counter "spinfer_experiment_shadow_requests_total", "", ["experiment", "variant", "outcome"],
        "Copies of requests for each shadow: served, failed (no response, or 5xx), skipped (too \
         many under way, or a body that is streamed).";

    RESIDENT_MEMORY: Gauge "process_resident_memory_bytes", "bytes", [],
        "Memory of this process, resident; on Linux only.";
    START_TIME: Gauge "process_start_time_seconds", "seconds", [],
        "When this process began, in seconds of Unix time.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_what_they_are() {
        for family in FAMILIES {
            let Family { name, kind, unit, labels, help } = family;
            assert!(name.starts_with("spinfer_") || name.starts_with("process_"), "{name}");
            assert_eq!(*kind == Kind::Counter, name.ends_with("_total"), "{name}");
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
