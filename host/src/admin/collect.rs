//! Reads the counters of a host and writes them as an exposition.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use spinfer_experiment::Exclusion;

use spinfer_experiment::CONTROL;
use spinfer_statistics::confidence_sequence::Interval;

use crate::cache::counts::{Level, LookupResult, Outcome};
use crate::cache::redis::RedisCache;
use crate::drift::report::{FieldReport, UnseenReport, VersionReport};
use crate::experiment::Arm;
use crate::experiment::agreement::AgreementCounts;
use crate::experiment::assessment::VerdictState;
use crate::host::Host;
use crate::http::body::cut_off::CutOffReason;
use crate::http::error::Reason;
use crate::metrics::exposition::{Exposition, ExpositionFormat};
use crate::metrics::table;
use crate::metrics::{Ended, RouteMetrics, STATUSES};
use crate::prediction_log::quality::QualityGroup;
use crate::prediction_log::queue::Dropped;
use crate::prediction_log::sinks::SinkStats;

/// The exposition of all metrics of `host`.
#[must_use]
pub(super) fn expose(host: &Host, format: ExpositionFormat) -> String {
    let mut text = Exposition::new(format);
    this_host(host, &mut text);
    requests(host, &mut text);
    instances(host, &mut text);
    inferences(host, &mut text);
    cache(host, &mut text);
    drift(host, &mut text);
    prediction_log(host, &mut text);
    experiments(host, &mut text);
    assessments(host, &mut text);
    process(host, &mut text);
    text.finish()
}

/// The routes of the manifest, and those of service chaining that were used.
pub(crate) fn counted_routes(host: &Host) -> impl Iterator<Item = &RouteMetrics> {
    let routes = host.metrics().routes.iter().map(|route| &**route);
    routes.filter(|metrics| metrics.route.starts_with('/') || metrics.duration.count() > 0)
}

fn this_host(host: &Host, text: &mut Exposition) {
    text.family(&table::BUILD_INFO).value(&[env!("CARGO_PKG_VERSION")], 1);
    text.family(&table::READY).value(&[], u8::from(host.ready().is_ok()));
}

fn requests(host: &Host, text: &mut Exposition) {
    let unrouted = &host.metrics().unrouted;
    let all = || counted_routes(host).chain([unrouted]);
    let mut requests = text.family(&table::REQUESTS);
    for RouteMetrics { component, route, statuses, .. } in all() {
        for (status, count) in STATUSES.iter().zip(statuses) {
            requests.value(&[component, route, status], count.get());
        }
    }
    let mut durations = text.family(&table::REQUEST_DURATION);
    for RouteMetrics { component, route, duration, .. } in all() {
        durations.histogram(&[component, route], duration);
    }
    let mut failures = text.family(&table::REQUEST_FAILURES);
    let of_routes = counted_routes(host).map(|metrics| (metrics, Reason::on_route()));
    for (metrics, reasons) in of_routes.chain([(unrouted, Reason::without_route())]) {
        let RouteMetrics { component, route, failures: counts, .. } = metrics;
        for &reason in reasons {
            let count = counts[reason as usize].get();
            failures.value(&[component, route, reason.name()], count);
        }
    }
    let mut given_up = text.family(&table::RESPONSES_GIVEN_UP);
    for RouteMetrics { component, route, given_up: count, .. } in counted_routes(host) {
        given_up.value(&[component, route], count.get());
    }
    let mut cut_off = text.family(&table::CUT_OFF);
    let of_components = counted_routes(host).filter(|metrics| !metrics.component.is_empty());
    for RouteMetrics { component, route, cut_off: counts, .. } in of_components {
        for (reason, count) in CutOffReason::ALL.iter().zip(counts) {
            cut_off.value(&[component, route, reason.name()], count.get());
        }
    }
    let mut in_flight = text.family(&table::IN_FLIGHT);
    for (id, service) in host.components() {
        in_flight.value(&[id], service.in_flight());
    }
    let mut queued = text.family(&table::QUEUED);
    for (id, service) in host.components() {
        queued.value(&[id], service.queued());
    }
}

fn instances(host: &Host, text: &mut Exposition) {
    let mut live = text.family(&table::INSTANCES);
    for (id, service) in host.components() {
        live.value(&[id], service.instances().live());
    }
    let mut started = text.family(&table::INSTANCES_STARTED);
    for (id, service) in host.components() {
        started.value(&[id], service.instances().started.count());
    }
    let mut ended = text.family(&table::INSTANCES_ENDED);
    for (id, service) in host.components() {
        for reason in Ended::ALL {
            let count = service.instances().ended[reason as usize].get();
            ended.value(&[id, reason.name()], count);
        }
    }
    let mut cold = text.family(&table::COLD_STARTS);
    for (id, service) in host.components() {
        cold.histogram(&[id], &service.starts().cold);
    }
    let mut loads = text.family(&table::LOADS);
    for (id, service) in host.components() {
        loads.histogram(&[id, "code"], &service.starts().code);
        loads.histogram(&[id, "graph"], service.models().load_times());
        loads.histogram(&[id, "instance"], &service.instances().started);
    }
}

fn inferences(host: &Host, text: &mut Exposition) {
    let models = host.graphs().metrics();
    let mut durations = text.family(&table::INFERENCE_DURATION);
    for ((model, version), metrics) in &models {
        for (placement, times) in
            [("inline", &metrics.inline), ("compute", &metrics.compute), ("batch", &metrics.batch)]
        {
            durations.histogram(&[model, version, placement], times);
        }
    }
    let mut rows = text.family(&table::BATCH_ROWS);
    for ((model, version), metrics) in models.iter().filter(|(_, m)| m.batch_rows.count() > 0) {
        rows.histogram(&[model, version], &metrics.batch_rows);
    }
}

fn cache(host: &Host, text: &mut Exposition) {
    let of_components = || counted_routes(host).filter(|metrics| !metrics.component.is_empty());
    let mut requests = text.family(&table::CACHE_REQUESTS);
    for RouteMetrics { component, route, cache, .. } in of_components() {
        for outcome in Outcome::ALL {
            requests.value(&[component, route, outcome.name()], cache.outcome(outcome));
        }
    }
    let mut lookups = text.family(&table::CACHE_LOOKUPS);
    for RouteMetrics { component, route, cache, .. } in of_components() {
        for &level in host.cache().levels() {
            for found in LookupResult::ALL {
                let labels = [component, route, level.name(), found.name()];
                lookups.value(&labels, cache.lookup(level, found));
            }
        }
    }
    let cache = host.cache();
    let (entries, bytes) = cache.memory().usage();
    let memory = [Level::Memory.name()];
    text.family(&table::CACHE_ENTRIES).value(&memory, entries);
    text.family(&table::CACHE_BYTES).value(&memory, bytes);
    text.family(&table::CACHE_CAPACITY).value(&memory, cache.limits().memory);
    text.family(&table::CACHE_EVICTIONS).value(&memory, cache.memory().evicted());
    text.family(&table::CACHE_NOT_ADMITTED).value(&[], cache.not_admitted());
    redis(cache.redis(), text);
}

/// The shared part of the response cache. Without it the families have no samples.
fn redis(shared: Option<&RedisCache>, text: &mut Exposition) {
    let mut connected = text.family(&table::REDIS_CONNECTED);
    if let Some(shared) = shared {
        connected.value(&[], u8::from(shared.is_connected()));
    }
    let mut watched = text.family(&table::REDIS_INVALIDATION_CONNECTED);
    if let Some(shared) = shared {
        watched.value(&[], u8::from(shared.receives_invalidations()));
    }
    let mut lookups = text.family(&table::REDIS_LOOKUPS);
    if let Some(counts) = shared.map(RedisCache::counts) {
        for (result, count) in [
            ("hit", &counts.hits),
            ("miss", &counts.misses),
            ("failed", &counts.failures),
            ("skipped", &counts.skipped),
            ("foreign", &counts.foreign),
        ] {
            lookups.value(&[result], count.load(Ordering::Relaxed));
        }
    }
    let mut stores = text.family(&table::REDIS_STORES);
    if let Some(counts) = shared.map(RedisCache::counts) {
        for (result, count) in [("stored", &counts.stored), ("dropped", &counts.not_stored)] {
            stores.value(&[result], count.load(Ordering::Relaxed));
        }
    }
}

/// Maximum number of fields of a model version whose scores are exposed, features before outputs.
/// Each has up to six time series.
const MAX_DRIFT_FIELDS: usize = 100;

/// The first fields of a version with their labels.
fn labelled(version: &VersionReport) -> impl Iterator<Item = (String, &FieldReport)> {
    let features: HashSet<&str> =
        version.features.iter().map(|field| field.name.as_str()).collect();
    let outputs = version.outputs.iter().map(move |field| {
        // An output may have the name of a feature.
        let ambiguous = features.contains(field.name.as_str());
        let label = if ambiguous { format!("outputs.{}", field.name) } else { field.name.clone() };
        (label, field)
    });
    let features = version.features.iter().map(|field| (field.name.clone(), field));
    features.chain(outputs).take(MAX_DRIFT_FIELDS)
}

fn drift(host: &Host, text: &mut Exposition) {
    let report = host.drift().report(SystemTime::now(), None);
    let mut scores = text.family(&table::DRIFT_SCORE);
    for version in &report.versions {
        for (label, field) in labelled(version) {
            let FieldReport { psi, ks, js, chi_squared, wasserstein, .. } = field;
            for (statistic, score) in [
                ("psi", *psi),
                ("ks", *ks),
                ("js", *js),
                ("chi_squared", chi_squared.map(|test| test.statistic)),
                ("wasserstein", wasserstein.map(|found| found.distance)),
            ] {
                if let Some(score) = score {
                    scores.value(&[&version.model, &version.version, &label, statistic], score);
                }
            }
        }
    }
    let mut unseen = text.family(&table::DRIFT_UNSEEN);
    for version in &report.versions {
        for (label, field) in labelled(version) {
            if let Some(UnseenReport { share, .. }) = &field.unseen {
                unseen.value(&[&version.model, &version.version, &label], share);
            }
        }
    }
    let mut accuracies = text.family(&table::DRIFT_ACCURACY);
    for version in &report.versions {
        let accuracy = version.performance.as_ref().and_then(|p| p.expected_accuracy);
        if let Some(accuracy) = accuracy {
            accuracies.value(&[&version.model, &version.version], accuracy);
        }
    }
    let mut windows = text.family(&table::DRIFT_WINDOW);
    for version in &report.versions {
        windows.value(&[&version.model, &version.version], version.window.records);
    }
    let mut alerts = text.family(&table::DRIFT_ALERT);
    for version in &report.versions {
        let kinds = [("feature", version.feature_drift), ("prediction", version.prediction_drift)];
        for (kind, drift) in kinds {
            let labels = [&version.model, &version.version, kind];
            alerts.value(&labels, u8::from(drift == Some(true)));
        }
    }
}

fn sinks(sinks: &[SinkStats], text: &mut Exposition) {
    type Count = fn(&SinkStats) -> u64;
    let counts: [(_, Count); 6] = [
        (&table::SINK_DELIVERED, |sink| sink.delivered),
        (&table::SINK_PENDING, |sink| sink.pending),
        (&table::SINK_RETRIES, |sink| sink.retries),
        (&table::SINK_REFUSED, |sink| sink.refused),
        (&table::SINK_LOST, |sink| sink.lost),
        (&table::SINK_DEGRADED, |sink| u64::from(sink.problem.is_some())),
    ];
    for (family, count) in counts {
        let mut family = text.family(family);
        for sink in sinks {
            family.value(&[&sink.name], count(sink));
        }
    }
    let mut lag = text.family(&table::SINK_LAG);
    for sink in sinks {
        lag.value(&[&sink.name], sink.lag_seconds);
    }
}

fn prediction_log(host: &Host, text: &mut Exposition) {
    let log = host.prediction_log();
    let accounting = log.map(|log| log.accounting());
    let mut accepted = text.family(&table::LOG_ACCEPTED);
    if let Some(accounting) = accounting {
        accepted.value(&[], accounting.accepted);
    }
    let mut records = text.family(&table::LOG_RECORDS);
    if let Some(accounting) = accounting {
        records.value(&["written"], accounting.written);
        for reason in Dropped::ALL {
            let result = format!("dropped_{}", reason.name());
            records.value(&[&result], accounting.dropped.get(reason));
        }
    }
    let mut pending = text.family(&table::LOG_PENDING);
    if let Some(accounting) = accounting {
        pending.value(&[], accounting.pending);
    }
    let mut bytes = text.family(&table::LOG_BYTES);
    if let Some(log) = log {
        bytes.value(&[], log.file_size());
    }
    let mut degraded = text.family(&table::LOG_DEGRADED);
    if let Some(log) = log {
        degraded.value(&[], u8::from(log.problem().is_some()));
    }
    let mut waiting = text.family(&table::LOG_WAITING);
    if let Some(log) = log {
        waiting.value(&[], log.awaited_counts().waiting());
    }
    let mut refused = text.family(&table::LOG_REFUSED);
    for (reason, count) in log.iter().flat_map(|log| log.awaited_counts().refused()) {
        refused.value(&[reason], count);
    }
    let mut commits = text.family(&table::LOG_COMMITS);
    if let Some(log) = log {
        commits.histogram(&[], &log.commits().durations);
    }
    let mut syncs = text.family(&table::LOG_SYNCS);
    if let Some(log) = log {
        syncs.value(&[], log.commits().synced.load(Ordering::Relaxed));
    }
    sinks(&log.map(|log| log.sinks()).unwrap_or_default(), text);
    let mut feedback = text.family(&table::FEEDBACK);
    for (result, count) in log.iter().flat_map(|log| log.feedback_counts().get()) {
        feedback.value(&[result], count);
    }
    let mut repeated = text.family(&table::FEEDBACK_REPEATED);
    for (effect, count) in log.iter().flat_map(|log| log.feedback_counts().repeated()) {
        repeated.value(&[effect], count);
    }
    let quality = log.map(|log| log.quality()).unwrap_or_default();
    let mut values = text.family(&table::QUALITY);
    for (QualityGroup { model, version, experiment, variant }, results) in &quality {
        for (metric, value, _) in results.named() {
            values.value(&[model, version, experiment, variant, metric], value);
        }
    }
    let mut samples = text.family(&table::QUALITY_SAMPLES);
    for (QualityGroup { model, version, experiment, variant }, results) in &quality {
        for (metric, _, n) in results.named() {
            samples.value(&[model, version, experiment, variant, metric], n);
        }
    }
}

fn experiments(host: &Host, text: &mut Exposition) {
    let experiments = || {
        host.experiments().flat_map(|router| {
            let experiments = router.experiments().iter();
            experiments.map(|experiment| (experiment, router.arms(&experiment.name)))
        })
    };
    let arms = |shadow: bool| {
        experiments().flat_map(move |(experiment, arms)| {
            let arms = experiment.variants.iter().zip(arms);
            arms.filter(move |(variant, _)| variant.shadow == shadow)
                .map(|(variant, arm)| (experiment.name.as_str(), variant.name.as_str(), arm))
        })
    };
    let mut assignments = text.family(&table::EXPERIMENT_ASSIGNMENTS);
    for (experiment, variant, arm) in arms(false) {
        assignments.value(&[experiment, variant], arm.assignments.get());
    }
    let mut excluded = text.family(&table::EXPERIMENT_EXCLUDED);
    for router in host.experiments() {
        for experiment in router.experiments() {
            for exclusion in Exclusion::ALL {
                if let Some(count) = router.excluded(&experiment.name, exclusion) {
                    excluded.value(&[&experiment.name, exclusion.name()], count.get());
                }
            }
        }
    }
    let mut failed_over = text.family(&table::EXPERIMENT_FAILED_OVER);
    for (experiment, variant, arm) in arms(false) {
        failed_over.value(&[experiment, variant], arm.failed_over.get());
    }
    agreement(arms(true), text);
    let mut shadows = text.family(&table::EXPERIMENT_SHADOWS);
    for (experiment, variant, arm) in arms(true) {
        let copies = &arm.copies;
        for (outcome, count) in
            [("served", &copies.served), ("failed", &copies.failed), ("skipped", &copies.skipped)]
        {
            shadows.value(&[experiment, variant, outcome], count.get());
        }
    }
}

/// How far shadows agree with the variants that serve the clients.
fn agreement<'a>(
    shadows: impl Iterator<Item = (&'a str, &'a str, &'a Arc<Arm>)> + Clone,
    text: &mut Exposition,
) {
    let counts = |arm: &Arm| arm.copies.agreement.counts();
    let mut compared = text.family(&table::EXPERIMENT_COMPARED);
    for (experiment, variant, arm) in shadows.clone() {
        let AgreementCounts { compared: count, incomparable, .. } = counts(arm);
        compared.value(&[experiment, variant, "compared"], count);
        compared.value(&[experiment, variant, "incomparable"], incomparable);
    }
    let mut labels = text.family(&table::EXPERIMENT_LABELS);
    for (experiment, variant, arm) in shadows.clone() {
        let AgreementCounts { labelled, agreeing, .. } = counts(arm);
        labels.value(&[experiment, variant, "equal"], agreeing);
        labels.value(&[experiment, variant, "different"], labelled - agreeing);
    }
    let mut mean = text.family(&table::EXPERIMENT_DIFFERENCE_MEAN);
    for (experiment, variant, arm) in shadows.clone() {
        if let Some(difference) = counts(arm).mean_difference() {
            mean.value(&[experiment, variant], difference);
        }
    }
    let mut max = text.family(&table::EXPERIMENT_DIFFERENCE_MAX);
    for (experiment, variant, arm) in shadows {
        let counts = counts(arm);
        if counts.numbers > 0 {
            max.value(&[experiment, variant], counts.difference_max);
        }
    }
}

/// What the last look at each experiment found.
fn assessments(host: &Host, text: &mut Exposition) {
    let all: Vec<_> = host
        .experiments()
        .flat_map(|router| router.experiments().iter().map(move |experiment| (router, experiment)))
        .filter_map(|(router, experiment)| {
            Some((experiment.name.as_str(), router.assessment(&experiment.name)?))
        })
        .collect();
    let mut verdicts = text.family(&table::EXPERIMENT_VERDICT);
    for (experiment, found) in &all {
        for state in VerdictState::ALL {
            let is_present = u8::from(found.verdict.state == state);
            verdicts.value(&[experiment, state.name()], is_present);
        }
    }
    let mut units = text.family(&table::EXPERIMENT_UNITS);
    for (experiment, found) in &all {
        for variant in &found.variants {
            units.value(&[experiment, &variant.name], variant.units);
        }
    }
    let mut differences = text.family(&table::EXPERIMENT_DIFFERENCE);
    for (experiment, found) in &all {
        for variant in &found.variants {
            let Some(comparison) = &variant.comparison else { continue };
            let Interval { estimate, lower, upper } = comparison.difference;
            for (bound, value) in [("estimate", estimate), ("lower", lower), ("upper", upper)] {
                differences.value(&[experiment, &variant.name, bound], value);
            }
        }
    }
    let mut guardrails = text.family(&table::EXPERIMENT_GUARDRAIL);
    for (experiment, found) in &all {
        for status in &found.guardrails {
            let labels = [*experiment, &status.variant, &status.guardrail];
            guardrails.value(&labels, status.evidence);
        }
    }
    let mut rolled_back = text.family(&table::EXPERIMENT_ROLLED_BACK);
    for (experiment, found) in &all {
        for variant in found.variants.iter().filter(|variant| variant.name != CONTROL) {
            let is_out = u8::from(found.rolled_back.contains(&variant.name));
            rolled_back.value(&[experiment, &variant.name], is_out);
        }
    }
    let mut steps = text.family(&table::EXPERIMENT_STEP);
    for (experiment, found) in &all {
        if let Some([step, _]) = found.step {
            steps.value(&[experiment], step as u64);
        }
    }
}

fn process(host: &Host, text: &mut Exposition) {
    let mut resident = text.family(&table::RESIDENT_MEMORY);
    if let Some(bytes) = resident_bytes() {
        resident.value(&[], bytes);
    }
    let started = host.metrics().started.duration_since(std::time::UNIX_EPOCH);
    text.family(&table::START_TIME).value(&[], started.unwrap_or_default().as_secs_f64());
}

/// Resident memory of this process, in bytes; `None` if `/proc` does not report it.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}
