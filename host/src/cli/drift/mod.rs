//! `spinfer drift`: prints the drift of the models that a running host serves.

mod hosts;

use std::io::Write;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::Args;
use http::uri::Authority;

use self::hosts::MissingHost;
use super::sparkline::sparklines;
use super::table::write_table;
use crate::drift::report::{
    FieldReport, UnseenCount, UnseenReport, Unwatched, UnwatchedReason, VersionReport, WindowReport,
};
use crate::drift::{Performance, Report, Status};

#[derive(Debug, Args)]
pub struct DriftOptions {
    /// Print only the versions of this model
    #[arg(long, value_name = "NAME")]
    model: Option<String>,

    /// Print JSON
    #[arg(long)]
    json: bool,

    /// Exit with 1 if a model has drifted
    #[arg(long)]
    fail_on_drift: bool,

    /// Address of the host's admin plane, or several separated by commas: their windows are merged. Exits
    /// with 1 if one of several is missing in the report. The token, if any, is read from
    /// SPINFER_ADMIN_TOKEN
    #[arg(
        long,
        value_name = "HOST:PORT",
        value_delimiter = ',',
        default_values_t = [Authority::from_static("127.0.0.1:3001")]
    )]
    admin: Vec<Authority>,
}

/// Prints the host's drift report to `out`.
///
/// # Errors
/// If the admin plane cannot be reached; after the report, if it is not of all hosts, or with
/// `--fail-on-drift` if a model has drifted.
pub fn run(drift: &DriftOptions, out: &mut impl Write) -> Result<()> {
    let DriftOptions { model, json, fail_on_drift, admin } = drift;
    let hosts = hosts::fetch(admin, model.as_deref())?;
    if *json {
        serde_json::to_writer_pretty(&mut *out, &hosts)?;
        writeln!(out)?;
    } else {
        for MissingHost { address, reason } in hosts.missing() {
            writeln!(out, "Without the records of {address}: {reason}\n")?;
        }
        write_report(&hosts.report, model.is_some(), out)?;
    }
    let drifted = hosts.report.versions.iter().filter(|v| v.status == Status::Drift);
    let drifted: Vec<_> = drifted.map(|v| format!("{} version {}", v.model, v.version)).collect();
    let missing: Vec<_> = hosts.missing().iter().map(|host| host.address.as_str()).collect();
    let mut problems = Vec::new();
    if *fail_on_drift && !drifted.is_empty() {
        problems.push(format!("drift: {}", drifted.join(", ")));
    }
    if !missing.is_empty() {
        let (lacking, all) = (missing.len(), admin.len());
        problems.push(format!("the report lacks {lacking} of {all} hosts: {}", missing.join(", ")));
    }
    ensure!(problems.is_empty(), "{}", problems.join("; "));
    Ok(())
}

/// Prints every version with its table. Versions without enough data get one only if the report is of
/// one model.
fn write_report(report: &Report, of_one_model: bool, out: &mut impl Write) -> Result<()> {
    let Report { versions, unwatched } = report;
    if versions.is_empty() && unwatched.is_empty() {
        writeln!(out, "No component of the application mounts a model.")?;
    }
    for (index, version) in versions.iter().enumerate() {
        if index > 0 {
            writeln!(out)?;
        }
        let whole = of_one_model || version.status != Status::NotEnoughData;
        write_version(version, whole, out)?;
    }
    if !versions.is_empty() && !unwatched.is_empty() {
        writeln!(out)?;
    }
    for Unwatched { model, version, reason, hosts } in unwatched {
        let mut which =
            version.as_ref().map_or_else(String::new, |version| format!(" version {version}"));
        let is_watched = version.as_ref().is_some_and(|version| report.has((model, version)));
        if is_watched && !hosts.is_empty() {
            which.push_str(", on ");
            which.push_str(&hosts.join(", "));
        }
        match reason {
            UnwatchedReason::NoBaseline => {
                let version = version
                    .as_ref()
                    .map_or_else(String::new, |version| format!(" --version {version}"));
                writeln!(
                    out,
                    "{model}{which}: no baseline.json; create one from reference data:\n  spinfer \
                     baseline data.csv --model {model}{version}"
                )?;
            }
            UnwatchedReason::Disabled => {
                writeln!(out, "{model}{which}: disabled (drift.enabled = false)")?;
            }
            UnwatchedReason::NotLogged => writeln!(
                out,
                "{model}{which}: drift needs records, and the prediction log is disabled \
                 (prediction_log.enabled = false) or has no sample of them (prediction_log.sample = 0)"
            )?,
            UnwatchedReason::OtherHost => writeln!(
                out,
                "{model}{which}: watched on another host only; its records are not in this report"
            )?,
        }
    }
    Ok(())
}

/// Prints the status of a version, and if `whole` a table that fits 100 columns.
fn write_version(version: &VersionReport, whole: bool, out: &mut impl Write) -> Result<()> {
    let VersionReport { model, version: number, status, window, baseline_rows, alpha, .. } =
        version;
    let WindowReport { hosts, records, effective_records, minimum, from, to, .. } = window;
    writeln!(out, "{model} version {number}: {}", status.name())?;
    let span = match from.as_ref().zip(to.as_ref()) {
        Some((from, to)) if from == to => format!(", of {from}"),
        Some((from, to)) => format!(", {from} to {to}"),
        None => String::new(),
    };
    let decayed = match window.half_life_seconds {
        Some(seconds) => {
            let half_life = humantime::format_duration(Duration::from_secs_f64(seconds));
            let precise = lossy(*records) - effective_records >= 1.0;
            let precise = if precise {
                format!(" as precise as {effective_records:.0}")
            } else {
                String::new()
            };
            format!(", with a half-life of {half_life}{precise}")
        }
        None => String::new(),
    };
    let short = if *effective_records < f64::from(*minimum) {
        format!(" (at least {minimum} needed)")
    } else {
        String::new()
    };
    let hosts = if *hosts > 1 { format!(" of {hosts} hosts") } else { String::new() };
    writeln!(out, "{}{hosts}{short}{span}{decayed}", counted(*records, "record"))?;
    if !whole {
        return Ok(());
    }
    writeln!(
        out,
        "against {}; chance of any false alarm, ever: {alpha}",
        counted(*baseline_rows, "reference row")
    )?;
    // The column of statuses has no title: the table is wide.
    let head = ["", "baseline", "current", "miss", "PSI", "KS", "JS", "chi2", "W1", "p", ""];
    let mut lines = vec![head.map(str::to_owned)];
    for (title, fields) in [("features", &version.features), ("outputs", &version.outputs)] {
        if !fields.is_empty() {
            let mut line = [const { String::new() }; COLUMNS];
            line[0] = title.to_owned();
            lines.push(line);
            lines.extend(fields.iter().map(line_of));
        }
    }
    let width = name_width(&lines);
    for line in &mut lines {
        line[0] = shorten(&line[0], width);
    }
    write_table(&lines, out)?;
    for field in version.fields() {
        let name = shorten(&field.name, width);
        write_unseen(field, &name, out)?;
        if let Some(since) = &field.since {
            writeln!(out, "{name}: in alarm since {since}")?;
        }
    }
    match &version.performance {
        Some(performance) => write_performance(performance, out),
        None => Ok(()),
    }
}

/// Prints the categories of a field that the baseline lacks.
fn write_unseen(field: &FieldReport, name: &str, out: &mut impl Write) -> Result<()> {
    let Some(UnseenReport { count, share, baseline_bound, most_frequent, .. }) = &field.unseen
    else {
        return Ok(());
    };
    if *count == 0 {
        return Ok(());
    }
    let named = most_frequent.iter().map(|UnseenCount { category, count }| {
        format!("{} ({count})", shorten(category, NAME_WIDTH))
    });
    writeln!(
        out,
        "{name}: {} ({}) of categories not in the baseline, which may have {} at most: {}",
        counted(*count, "value"),
        percent(*share),
        percent(*baseline_bound),
        named.collect::<Vec<_>>().join(", ")
    )?;
    Ok(())
}

/// Prints the expected accuracy, and the accuracy on predictions with labels.
fn write_performance(performance: &Performance, out: &mut impl Write) -> Result<()> {
    let Performance { expected_accuracy, standard_error, baseline_accuracy, .. } = performance;
    let number = |value: f64| format!("{value:.3}");
    let expected = match expected_accuracy.zip(*standard_error) {
        Some((accuracy, error)) => {
            let of = counted(performance.n, "prediction");
            format!("{accuracy:.3} +- {:.3} expected of {of}", 2.0 * error)
        }
        None => "no prediction with all probabilities".to_owned(),
    };
    let labelled = match performance.accuracy {
        Some(accuracy) => {
            format!("{} on {}", number(accuracy), counted(performance.labelled, "label"))
        }
        None => "no labels".to_owned(),
    };
    writeln!(
        out,
        "accuracy: {expected}; {labelled}; {} on the reference rows",
        number(*baseline_accuracy)
    )?;
    Ok(())
}

/// Number of columns of a table.
const COLUMNS: usize = 11;
/// Maximum width of a table, in characters.
const TABLE_WIDTH: usize = 100;
/// Characters between two columns.
const GAP: usize = 2;
/// Width of a field's name in the widest table, in characters.
const NAME_WIDTH: usize = 16;
/// Maximum number of bars of a sparkline: one per decile.
const BARS: usize = 10;

fn line_of(field: &FieldReport) -> [String; COLUMNS] {
    let FieldReport { name, status, missing, missing_share, psi, ks, js, p_value, n, .. } = field;
    let [baseline, current] = sparklines([&field.baseline, &field.current], BARS);
    let number = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), short_number);
    let observed = n + missing > 0;
    [
        format!(" {name}"),
        baseline,
        if *n > 0 { current } else { "-".to_owned() },
        if observed { percent(*missing_share) } else { "-".to_owned() },
        number(*psi),
        number(*ks),
        number(*js),
        number(field.chi_squared.map(|test| test.statistic)),
        number(field.wasserstein.map(|found| found.distance)),
        p_value.map_or_else(|| "-".to_owned(), short_p),
        match status {
            Status::NotEnoughData => "-".to_owned(),
            // Short for "not logged": the column is narrow.
            Status::NotLogged => "none".to_owned(),
            Status::Ok | Status::Drift => status.name().to_owned(),
        },
    ]
}

/// Three significant digits, or the whole integer part if it is longer.
fn short_number(number: f64) -> String {
    match number {
        number if number < 9.995 => format!("{number:.2}"),
        number if number < 99.95 => format!("{number:.1}"),
        number if number < 99_999.5 => format!("{number:.0}"),
        number => format!("{number:.0e}"),
    }
}

/// The width that the other columns leave to that of names.
fn name_width(lines: &[[String; COLUMNS]]) -> usize {
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max();
    let others: usize = (1..COLUMNS).map(|column| GAP + width(column).unwrap_or(0)).sum();
    TABLE_WIDTH.saturating_sub(others).max(NAME_WIDTH)
}

/// Shortens a long name in the middle: its start and its end distinguish it.
fn shorten(name: &str, width: usize) -> String {
    let length = name.chars().count();
    let name = name.chars().map(printable);
    if length <= width {
        return name.collect();
    }
    let end = width / 2;
    let start = width.saturating_sub(end + 1);
    let (head, tail) = (name.clone().take(start), name.skip(length - end));
    head.chain(['…']).chain(tail).collect()
}

/// A number of things, in the singular or the plural.
fn counted(number: u64, thing: &str) -> String {
    if number == 1 { format!("1 {thing}") } else { format!("{number} {thing}s") }
}

#[expect(clippy::cast_precision_loss, reason = "records are far below 2^53")]
fn lossy(records: u64) -> f64 {
    records as f64
}

/// Replaces control characters, which a file may put into a name.
fn printable(character: char) -> char {
    if character.is_control() { '?' } else { character }
}

fn percent(share: f64) -> String {
    match share * 100.0 {
        0.0 => "0%".to_owned(),
        percent if percent < 0.1 => "<.1%".to_owned(),
        percent if percent < 10.0 => format!("{percent:.1}%"),
        percent => format!("{percent:.0}%"),
    }
}

fn short_p(p: f64) -> String {
    if p < 0.001 { "<.001".to_owned() } else { format!("{p:.3}") }
}

#[cfg(test)]
mod tests;
