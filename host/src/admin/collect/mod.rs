//! Reads the counters of a host and writes them as an exposition.

mod cache;
mod drift;
mod experiments;
mod prediction_log;

use crate::host::Host;
use crate::http::body::cut_off::CutOffReason;
use crate::http::error::Reason;
use crate::metrics::exposition::{Exposition, ExpositionFormat};
use crate::metrics::table;
use crate::metrics::{Ended, RouteMetrics, STATUSES};

/// The exposition of all metrics of `host`.
#[must_use]
pub(super) fn expose(host: &Host, format: ExpositionFormat) -> String {
    let mut text = Exposition::new(format);
    this_host(host, &mut text);
    requests(host, &mut text);
    instances(host, &mut text);
    inferences(host, &mut text);
    cache::expose(host, &mut text);
    drift::expose(host, &mut text);
    prediction_log::expose(host, &mut text);
    experiments::expose(host, &mut text);
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
