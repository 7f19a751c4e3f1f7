//! Metrics of the prediction log, its sinks, feedback and the quality of predictions.

use std::sync::atomic::Ordering;

use crate::host::Host;
use crate::metrics::exposition::Exposition;
use crate::metrics::table;
use crate::prediction_log::quality::QualityGroup;
use crate::prediction_log::queue::Dropped;
use crate::prediction_log::sinks::SinkStats;

pub(super) fn expose(host: &Host, text: &mut Exposition) {
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
