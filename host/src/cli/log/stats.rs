//! `spinfer log stats`: prints counts, latencies and quality by group.

use std::collections::BTreeMap;
use std::io::Write;

use anyhow::{Context, Result};
use bytesize::ByteSize;
use clap::Args;
use http::Method;
use http::uri::Authority;

use super::super::admin_client::send;
use super::super::cache::UNEXPECTED;
use super::super::table::write_table;
use super::{FilterOptions, Foreign, LogLocation, plural, report_no_match};
use crate::admin::LOG_STATS;
use crate::prediction_log::quality::{QualityGroup, Results};
use crate::prediction_log::queue::Dropped;
use crate::prediction_log::reader::Filter;
use crate::prediction_log::sinks::SinkStats;
use crate::prediction_log::stats::{FeedbackTotals, GroupStats, HostStats, Latency, LogStats};

#[derive(Debug, Args)]
pub(super) struct StatsOptions {
    /// Read the statistics from the admin plane of a running host, with the records accepted, written
    /// and dropped; takes no filters. The token, if any, is read from SPINFER_ADMIN_TOKEN
    #[arg(long, value_name = "HOST:PORT", conflicts_with_all = ["from", "state_dir", "redis"])]
    admin: Option<Authority>,

    /// Print JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    filters: FilterOptions,

    #[command(flatten)]
    location: LogLocation,
}

pub(super) fn run(options: &StatsOptions, out: &mut impl Write) -> Result<()> {
    let StatsOptions { admin, json, filters, location } = options;
    let filter = filters.filter()?;
    let stats = match admin {
        Some(address) => {
            anyhow::ensure!(
                filter == Filter::default(),
                "--admin: a host reports all records; omit --model, --since, ..."
            );
            let body = send(address, &Method::GET, LOG_STATS)?;
            serde_json::from_slice(&body).context(UNEXPECTED)?
        }
        None => {
            let mut reader = location.open(Foreign::Fail)?;
            let (path, bytes) = (reader.shown(), reader.bytes());
            let snapshot = reader.snapshot()?;
            let stats = LogStats::of(&snapshot, &filter)?;
            if stats.records == 0 {
                report_no_match(&snapshot, &filter)?;
            }
            LogStats { bytes, path, ..stats }
        }
    };
    if *json {
        serde_json::to_writer_pretty(&mut *out, &stats)?;
        return Ok(writeln!(out)?);
    }
    print_stats(&stats, out)
}

fn print_stats(stats: &LogStats, out: &mut impl Write) -> Result<()> {
    let LogStats { path, bytes, records, oldest, newest, feedback, groups, host } = stats;
    let size = ByteSize(*bytes).display().iec().to_string();
    let FeedbackTotals { matched, unknown } = feedback;
    match unknown {
        Some(_) => writeln!(out, "{path}: {}, {size}", plural(*records, "record"))?,
        // The size is that of all records.
        None => {
            let matches = if *records == 1 { "matches" } else { "match" };
            writeln!(out, "{path} ({size}): {} {matches}", plural(*records, "record"))?;
        }
    }
    if let (Some(oldest), Some(newest)) = (oldest, newest) {
        writeln!(out, "from {oldest} to {newest}")?;
    }
    match unknown {
        Some(unknown) => writeln!(
            out,
            "feedback: {matched} for records here, {unknown} for predictions not in this log"
        )?,
        None => writeln!(out, "feedback: {matched} for these records")?,
    }
    if let Some(host) = host {
        let HostStats { accounting, problem, feedback, waiting, refused, syncs, sinks } = host;
        let dropped = Dropped::ALL
            .map(|reason| (reason.name(), accounting.dropped.get(reason)))
            .into_iter()
            .filter(|(_, count)| *count > 0)
            .map(|(name, count)| format!("{count} {name}"));
        let dropped: Vec<_> = dropped.collect();
        let reasons =
            if dropped.is_empty() { String::new() } else { format!(" ({})", dropped.join(", ")) };
        writeln!(
            out,
            "since the host started: {} accepted = {} written + {} dropped{reasons} + {} pending",
            accounting.accepted,
            accounting.written,
            accounting.dropped.total(),
            accounting.pending
        )?;
        let requests: u64 = refused.values().sum();
        if *waiting > 0 || requests > 0 || *syncs > 0 {
            writeln!(
                out,
                "requests: {waiting} wait for the log, {requests} refused because of it; {syncs} \
                 transactions written through to the disk"
            )?;
        }
        if feedback.values().any(|count| *count > 0) {
            writeln!(out, "feedback since the host started: {}", feedback_counts(feedback))?;
        }
        if let Some(problem) = problem {
            writeln!(out, "the log cannot be written: {problem}")?;
        }
        print_sinks(sinks, out)?;
    }
    if groups.is_empty() {
        return Ok(());
    }
    writeln!(out)?;
    let head = [
        "model",
        "version",
        "experiment",
        "variant",
        "records",
        "cache",
        "status",
        "p50 us",
        "p90 us",
        "p99 us",
    ];
    let mut lines = vec![head.map(str::to_owned)];
    lines.extend(groups.iter().map(line));
    write_table(&lines, out)?;
    let mut lines = vec![
        ["model", "version", "experiment", "variant", "metric", "value", "n"].map(str::to_owned),
    ];
    for GroupStats { group, quality, .. } in groups {
        lines.extend(quality_lines(group, quality));
    }
    if lines.len() > 1 {
        writeln!(out)?;
        write_table(&lines, out)?;
    }
    Ok(())
}

/// The counts of a host: accepted items are matched or unknown, and some of them replace others or
/// change nothing.
fn feedback_counts(counts: &BTreeMap<String, u64>) -> String {
    let count = |name: &str| counts.get(name).copied().unwrap_or(0);
    let [matched, unknown, replaced, unchanged, rejected] =
        ["matched", "unknown", "replaced", "unchanged", "rejected"].map(count);
    let accepted = matched + unknown;
    format!(
        "{accepted} accepted = {matched} matched + {unknown} unknown (of these {replaced} replaced, \
         {unchanged} unchanged), {rejected} rejected"
    )
}

fn print_sinks(sinks: &[SinkStats], out: &mut impl Write) -> Result<()> {
    if sinks.is_empty() {
        return Ok(());
    }
    writeln!(out)?;
    let head =
        ["sink", "type", "delivered", "pending", "lag s", "retries", "refused", "lost", "problem"];
    let mut lines = vec![head.map(str::to_owned)];
    lines.extend(sinks.iter().map(|sink| {
        let SinkStats { name, kind, delivered, pending, retries, refused, lost, .. } = sink;
        let [delivered, pending, retries, refused, lost] =
            [delivered, pending, retries, refused, lost].map(u64::to_string);
        let lag = format!("{:.1}", sink.lag_seconds);
        let problem = sink.problem.clone().unwrap_or_else(|| "-".into());
        [name.clone(), kind.clone(), delivered, pending, lag, retries, refused, lost, problem]
    }));
    write_table(&lines, out)
}

fn line(stats: &GroupStats) -> [String; 10] {
    let GroupStats { group, records, cache, statuses, latency_us, quality: _ } = stats;
    let [model, version, experiment, variant] = names(group);
    let Latency { p50, p90, p99, max: _ } = latency_us.unwrap_or_default();
    [
        model,
        version,
        experiment,
        variant,
        records.to_string(),
        counts(cache),
        counts(statuses),
        p50.to_string(),
        p90.to_string(),
        p99.to_string(),
    ]
}

fn names(group: &QualityGroup) -> [String; 4] {
    let QualityGroup { model, version, experiment, variant } = group;
    let or_none = |text: &String| if text.is_empty() { "-".to_owned() } else { text.clone() };
    [model.clone(), or_none(version), or_none(experiment), or_none(variant)]
}

fn counts<K: std::fmt::Display>(counts: &BTreeMap<K, u64>) -> String {
    let counts: Vec<_> = counts.iter().map(|(name, count)| format!("{name} {count}")).collect();
    counts.join(", ")
}

fn quality_lines(group: &QualityGroup, quality: &Results) -> Vec<[String; 7]> {
    let [model, version, experiment, variant] = names(group);
    let line = |metric: &str, value: Option<f64>, n: u64| {
        let value = value.map_or_else(|| "-".to_owned(), |value| format!("{value:.4}"));
        let of = [&model, &version, &experiment, &variant].map(String::clone);
        let [model, version, experiment, variant] = of;
        [model, version, experiment, variant, metric.to_owned(), value, n.to_string()]
    };
    let mut lines: Vec<_> =
        quality.named().into_iter().map(|(name, value, n)| line(name, Some(value), n)).collect();
    for class in quality.classification.iter().flat_map(|results| &results.classes) {
        lines.push(line(
            &format!("precision of {}", class.class),
            class.precision,
            class.predicted,
        ));
        lines.push(line(&format!("recall of {}", class.class), class.recall, class.support));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(stats: &LogStats) -> String {
        let mut text = Vec::new();
        print_stats(stats, &mut text).unwrap();
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn counts_of_feedback_add_up() {
        let counts = [("matched", 1223), ("unknown", 6), ("replaced", 2), ("unchanged", 4)];
        let counts = BTreeMap::from(counts.map(|(name, count)| (name.to_owned(), count)));
        let expected = "1229 accepted = 1223 matched + 6 unknown (of these 2 replaced, 4 unchanged), \
                        0 rejected";
        assert_eq!(feedback_counts(&counts), expected);
    }

    #[test]
    fn filtered_statistics_do_not_show_the_size_of_the_file_as_theirs() {
        let path = ".spin/predictions.db".to_owned();
        let all = LogStats { path, bytes: 1024, records: 1, ..LogStats::default() };
        let feedback = FeedbackTotals { matched: 1, unknown: Some(2) };
        let expected = ".spin/predictions.db: 1 record, 1.0 KiB\n\
                        feedback: 1 for records here, 2 for predictions not in this log\n";
        assert_eq!(text(&LogStats { feedback, ..all.clone() }), expected);
        let feedback = FeedbackTotals { matched: 1, unknown: None };
        let expected = ".spin/predictions.db (1.0 KiB): 1 record matches\n\
                        feedback: 1 for these records\n";
        assert_eq!(text(&LogStats { feedback, ..all.clone() }), expected);
        let feedback = FeedbackTotals { matched: 0, unknown: None };
        let none = LogStats { records: 0, feedback, ..all };
        assert!(text(&none).starts_with(".spin/predictions.db (1.0 KiB): 0 records match\n"));
    }
}
