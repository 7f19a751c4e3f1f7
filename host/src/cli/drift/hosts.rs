//! The report of one host, or of several.

use std::panic::resume_unwind;
use std::thread::{self, ScopedJoinHandle};

use anyhow::{Context, Result, anyhow, bail, ensure};
use bytes::Bytes;
use http::Method;
use http::uri::Authority;
use serde::Serialize;

use crate::admin::{DRIFT, DRIFT_WINDOWS, MODEL};
use crate::cli::admin_client::{send, send_json};
use crate::cli::cache::UNEXPECTED;
use crate::drift::report::UnwatchedReason;
use crate::drift::{Report, SavedWindows};

/// The report of all hosts that responded.
#[derive(Debug, Serialize)]
pub(super) struct HostsReport {
    #[serde(flatten)]
    pub(super) report: Report,
    /// The other hosts. `None` if only one was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) missing_hosts: Option<Vec<MissingHost>>,
}

/// A host whose records are not in the report.
#[derive(Debug, Serialize)]
pub(super) struct MissingHost {
    pub(super) address: String,
    pub(super) reason: String,
}

/// A host that responded.
struct PresentHost<'a> {
    address: &'a Authority,
    windows: SavedWindows,
    /// The same as JSON.
    json: Bytes,
}

impl HostsReport {
    pub(super) fn missing(&self) -> &[MissingHost] {
        self.missing_hosts.as_deref().unwrap_or_default()
    }
}

/// The report of the hosts with these admin planes, of all models or of one.
///
/// # Errors
/// The only host, or each of several, cannot be reached; the hosts cannot be merged; or none of them
/// mounts the model.
pub(super) fn fetch(admin: &[Authority], model: Option<&str>) -> Result<HostsReport> {
    match admin {
        [] => bail!("--admin: is empty; write HOST:PORT"),
        [host] => {
            let report = parse(&send(host, &Method::GET, &path(model))?)?;
            Ok(HostsReport { report, missing_hosts: None })
        }
        hosts => of_several(hosts, model),
    }
}

/// The path of the report of all models, or of one.
fn path(model: Option<&str>) -> String {
    let Some(model) = model else { return DRIFT.to_owned() };
    let mut query = form_urlencoded::Serializer::new(String::new());
    format!("{DRIFT}?{}", query.append_pair(MODEL, model).finish())
}

/// One report of the merged windows. A host merges only versions that it watches itself, so each version is
/// taken from the report of the first host that does.
fn of_several(hosts: &[Authority], model: Option<&str>) -> Result<HostsReport> {
    let (mut present, mut missing) = (Vec::new(), Vec::new());
    for (address, found) in hosts.iter().zip(windows_of(hosts)) {
        match found {
            Ok((windows, json)) => present.push(PresentHost { address, windows, json }),
            Err(error) => {
                let reason = error.root_cause().to_string();
                missing.push(MissingHost { address: address.to_string(), reason });
            }
        }
    }
    if present.is_empty() {
        let hosts =
            missing.iter().map(|MissingHost { address, reason }| format!("{address}: {reason}"));
        bail!("no host can be asked: {}", hosts.collect::<Vec<_>>().join("; "));
    }
    let mut report = Report::default();
    for (index, host) in present.iter().enumerate() {
        let is_new = |(name, version): (&str, &str)| {
            model.is_none_or(|model| model == name) && !report.has((name, version))
        };
        let of_host = if host.windows.versions().any(is_new) {
            let others = present.iter().enumerate().filter(|(other, _)| *other != index);
            let others: Vec<&[u8]> = others.map(|(_, other)| &*other.json).collect();
            let array = [b"[", &*others.join(&b','), b"]"].concat();
            send_json(host.address, &Method::POST, &path(model), array.into())?
        } else {
            send(host.address, &Method::GET, DRIFT)?
        };
        let mut of_host = parse(&of_host)?;
        // Another host watches them, which is asked, too.
        of_host.unwatched.retain(|other| other.reason != UnwatchedReason::OtherHost);
        for other in &mut of_host.unwatched {
            other.hosts.push(host.address.to_string());
        }
        report.add(of_host);
    }
    if let Some(model) = model {
        select(&mut report, model, &missing)?;
    }
    Ok(HostsReport { report, missing_hosts: Some(missing) })
}

/// The windows of each host, parsed and as JSON. The hosts are asked at the same time: one that does not
/// respond takes the whole timeout.
fn windows_of(hosts: &[Authority]) -> Vec<Result<(SavedWindows, Bytes)>> {
    thread::scope(|scope| {
        let asked: Vec<_> = hosts.iter().map(|host| scope.spawn(move || windows(host))).collect();
        let found = asked.into_iter().map(ScopedJoinHandle::join);
        found.map(|found| found.unwrap_or_else(|panic| resume_unwind(panic))).collect()
    })
}

fn windows(host: &Authority) -> Result<(SavedWindows, Bytes)> {
    let json = send(host, &Method::GET, DRIFT_WINDOWS)?;
    let windows = SavedWindows::parse(&json).map_err(|error| {
        anyhow!("{UNEXPECTED}: {error:#}; merged hosts run the same version of spinfer")
    })?;
    Ok((windows, json))
}

/// Reduces the report to one model.
fn select(report: &mut Report, model: &str, missing: &[MissingHost]) -> Result<()> {
    let models = report.models().join(", ");
    report.versions.retain(|version| version.model == model);
    report.unwatched.retain(|other| other.model == model);
    let absent =
        missing.iter().map(|host| format!("; {} is not known: {}", host.address, host.reason));
    ensure!(
        !(report.versions.is_empty() && report.unwatched.is_empty()),
        "no host mounts the model `{model}`; mounted models: {}{}",
        if models.is_empty() { "none" } else { models.as_str() },
        absent.collect::<String>()
    );
    Ok(())
}

fn parse(response: &[u8]) -> Result<Report> {
    serde_json::from_slice(response).context(UNEXPECTED)
}
