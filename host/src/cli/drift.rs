//! `spinfer drift`: prints the drift of the models that a running host serves.

use std::io::Write;

use anyhow::{Context, Result, bail};
use clap::Args;
use http::Method;
use http::uri::Authority;

use super::admin_client::send;
use super::cache::UNEXPECTED;
use super::sparkline::sparklines;
use super::table::write_table;
use crate::admin::{DRIFT, MODEL};
use crate::drift::report::{FieldReport, Unwatched, UnwatchedReason, VersionReport, WindowReport};
use crate::drift::{Report, Status};

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

    /// Address of the host's admin plane; its token, if any, is read from SPINFER_ADMIN_TOKEN
    #[arg(long, value_name = "HOST:PORT", default_value_t = Authority::from_static("127.0.0.1:3001"))]
    admin: Authority,
}

/// Prints the host's drift report to `out`.
///
/// # Errors
/// If the admin plane cannot be reached, or with `--fail-on-drift` if a model has drifted.
pub fn run(drift: &DriftOptions, out: &mut impl Write) -> Result<()> {
    let DriftOptions { model, json, fail_on_drift, admin } = drift;
    let path = match model {
        Some(model) => {
            let mut query = form_urlencoded::Serializer::new(String::new());
            format!("{DRIFT}?{}", query.append_pair(MODEL, model).finish())
        }
        None => DRIFT.to_owned(),
    };
    let response = send(admin, &Method::GET, &path)?;
    let report: Report = serde_json::from_slice(&response).context(UNEXPECTED)?;
    if *json {
        serde_json::to_writer_pretty(&mut *out, &report)?;
        writeln!(out)?;
    } else {
        write_report(&report, model.is_some(), out)?;
    }
    let drifted: Vec<_> = report.versions.iter().filter(|v| v.status == Status::Drift).collect();
    if *fail_on_drift && !drifted.is_empty() {
        let drifted = drifted.iter().map(|v| format!("{} version {}", v.model, v.version));
        bail!("drift: {}", drifted.collect::<Vec<_>>().join(", "));
    }
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
    for Unwatched { model, version, reason } in unwatched {
        let which =
            version.as_ref().map_or_else(String::new, |version| format!(" version {version}"));
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
                "{model}{which}: drift needs the prediction log, which is disabled \
                 (prediction_log.enabled = false)"
            )?,
        }
    }
    Ok(())
}

/// Prints the status of a version, and if `whole` a table that fits 80 columns.
fn write_version(version: &VersionReport, whole: bool, out: &mut impl Write) -> Result<()> {
    let VersionReport { model, version: number, status, window, baseline_rows, alpha, .. } =
        version;
    let WindowReport { records, minimum, from, to, .. } = window;
    writeln!(out, "{model} version {number}: {}", status.name())?;
    let span = match from.as_ref().zip(to.as_ref()) {
        Some((from, to)) if from == to => format!(", of {from}"),
        Some((from, to)) => format!(", {from} to {to}"),
        None => String::new(),
    };
    let short = if *records < u64::from(*minimum) {
        format!(" (at least {minimum} needed)")
    } else {
        String::new()
    };
    writeln!(out, "{records} records{short}{span}")?;
    if !whole {
        return Ok(());
    }
    writeln!(out, "against {baseline_rows} reference rows, alpha {alpha}")?;
    // The column of statuses has no title: the table would exceed 80 columns.
    let head = ["", "baseline", "current", "miss", "PSI", "KS", "JS", "p", ""];
    let mut lines = vec![head.map(str::to_owned)];
    for (title, fields) in [("features", &version.features), ("outputs", &version.outputs)] {
        if !fields.is_empty() {
            let mut line = [const { String::new() }; 9];
            line[0] = title.to_owned();
            lines.push(line);
            lines.extend(fields.iter().map(line_of));
        }
    }
    write_table(&lines, out)
}

/// Maximum width of a field's name, in characters.
const NAME_WIDTH: usize = 16;
/// Maximum number of bars of a sparkline: one per decile.
const BARS: usize = 10;

fn line_of(field: &FieldReport) -> [String; 9] {
    let FieldReport { name, status, missing, missing_share, psi, ks, js, p_value, n, .. } = field;
    let [baseline, current] = sparklines([&field.baseline, &field.current], BARS);
    let number = |value: &Option<f64>| value.map_or_else(|| "-".to_owned(), |x| format!("{x:.2}"));
    let observed = n + missing > 0;
    [
        format!(" {}", shorten(name)),
        baseline,
        if *n > 0 { current } else { "-".to_owned() },
        if observed { percent(*missing_share) } else { "-".to_owned() },
        number(psi),
        number(ks),
        number(js),
        p_value.map_or_else(|| "-".to_owned(), short_p),
        match status {
            Status::NotEnoughData => "-".to_owned(),
            // Short for "not logged": the column is narrow.
            Status::NotLogged => "none".to_owned(),
            Status::Ok | Status::Drift => status.name().to_owned(),
        },
    ]
}

/// Keeps the end of a long name, which usually distinguishes it.
fn shorten(name: &str) -> String {
    let width = name.chars().count();
    if width <= NAME_WIDTH {
        return name.chars().map(printable).collect();
    }
    let end = name.chars().skip(width + 1 - NAME_WIDTH).map(printable);
    std::iter::once('…').chain(end).collect()
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
mod tests {
    use super::*;
    use crate::admin;
    use crate::drift::report::DriftKind;

    fn field(name: &str, status: Status) -> FieldReport {
        FieldReport {
            name: name.into(),
            kind: DriftKind::Number,
            status,
            n: 10_000,
            missing: 1234,
            missing_share: 0.1099,
            baseline_missing_share: 0.0,
            psi: Some(12.345),
            psi_reading: None,
            ks: Some(1.0),
            js: Some(0.987),
            p_value: Some(1e-9),
            bins: Vec::new(),
            baseline: vec![0.1; 10],
            current: vec![0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.25, 0.75],
        }
    }

    fn version() -> VersionReport {
        let absent = FieldReport {
            n: 0,
            missing: 0,
            psi: None,
            ks: None,
            js: None,
            p_value: None,
            ..field("b", Status::NotLogged)
        };
        VersionReport {
            model: "wine".into(),
            version: "1".into(),
            status: Status::Drift,
            feature_drift: Some(true),
            prediction_drift: Some(false),
            baseline_rows: 120,
            window: WindowReport {
                records: 10_000,
                max_records: 10_000,
                max_age_seconds: 86_400,
                minimum: 200,
                from: Some("2026-11-29T10:00:00Z".into()),
                to: Some("2026-11-29T11:00:00Z".into()),
            },
            alpha: 0.01,
            features: vec![field("a_name_that_is_far_too_long\u{1b}[2", Status::Drift), absent],
            outputs: vec![field("probabilities[2]", Status::Ok)],
        }
    }

    #[test]
    fn table_fits_80_columns() {
        let mut out = Vec::new();
        write_version(&version(), true, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        let head = "\
wine version 1: drift
10000 records, 2026-11-29T10:00:00Z to 2026-11-29T11:00:00Z
against 120 reference rows, alpha 0.01
";
        assert!(text.starts_with(head), "{text}");
        assert!(text.contains("▂▂▂▂▂▂▂▂▂▂") && text.contains("▁▁▁▁▁▁▁▁▃█"), "{text}");
        assert!(!text.contains('\u{1b}'), "{text}");
    }

    #[test]
    fn models_without_drift_detection_are_listed_with_the_fix() {
        let unwatched = |version: Option<&str>, reason| Unwatched {
            model: "wine".into(),
            version: version.map(Into::into),
            reason,
        };
        let report = Report {
            versions: Vec::new(),
            unwatched: vec![
                unwatched(Some("2"), UnwatchedReason::NoBaseline),
                unwatched(None, UnwatchedReason::Disabled),
            ],
        };
        let mut out = Vec::new();
        write_report(&report, false, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains("spinfer baseline data.csv --model wine --version 2"), "{text}");
        assert!(text.contains("wine: disabled"), "{text}");
    }

    #[test]
    fn default_address_is_that_of_the_admin_plane() {
        use clap::FromArgMatches;
        let command = DriftOptions::augment_args(clap::Command::new("drift"));
        let matches = command.get_matches_from(["drift"]);
        let drift = DriftOptions::from_arg_matches(&matches).unwrap();
        assert_eq!(drift.admin.as_str(), admin::DEFAULT.to_string());
    }
}
