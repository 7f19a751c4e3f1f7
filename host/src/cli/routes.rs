//! `spinfer routes`: lists the routes of an application, and what serves them.

use std::io::Write;

use anyhow::Result;
use clap::Args;
use serde::Serialize;

use super::check::use_scratch_state;
use super::flags::Flags;
use super::state_dir::StateDir;
use super::table::write_table;
use super::telemetry::{self, LogFormat, LogOptions};
use super::{FetchState, ManifestOptions};
use crate::config::app::{App, RouteAction};
use crate::config::manifest::{Manifest, Private, TextOr};
use crate::guest::artifact::PRIVATE;
use crate::host::Host;
use crate::registry::oci::progress::TransferProgress;

#[derive(Debug, Args)]
pub struct RoutesOptions {
    #[command(flatten)]
    from: ManifestOptions,

    #[command(flatten)]
    flags: Flags,

    #[command(flatten)]
    state: StateDir,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// A route, or a component that only other components reach.
#[derive(Debug, Serialize)]
struct RouteRow {
    /// As in the manifest; `None` for a private component.
    route: Option<String>,
    /// `None` for a static response.
    component: Option<String>,
    /// Status of a static response.
    status: Option<u16>,
    /// The door for small requests: fast, standard or assignment.
    door: Option<&'static str>,
    models: Vec<ServedModel>,
    cache: CacheUse,
}

#[derive(Debug, Serialize)]
struct ServedModel {
    name: String,
    version: Option<String>,
}

/// Whether responses are looked up in the response cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum CacheUse {
    /// Never.
    No,
    /// Once the component has returned a cacheable response.
    Declared,
    /// From the first request, as the component mounts a model.
    Yes,
}

/// Prints the routes of an application to `out`.
///
/// # Errors
/// Every problem that keeps the application from being served, except missing values of variables.
pub fn run(options: &RoutesOptions, out: &mut impl Write) -> Result<()> {
    let RoutesOptions { from, flags, state, json } = options;
    telemetry::init(LogFormat::Human, LogOptions { quiet: true, ..LogOptions::default() });
    let (mut manifest, base) = from.load()?;
    let (mut options, state_dir) = flags.read(&base)?;
    let state = state.or(state_dir);
    options.state_dir.clone_from(&state.state_dir);
    options.without_values = true;
    let progress = TransferProgress::new(true);
    from.fetch(&mut manifest, &base, &FetchState { dir: &state, mode: PRIVATE, progress })?;
    let mut app = from.resolve(&manifest, &base, &options)?;
    let _scratch = use_scratch_state(&mut app)?;
    let host = Host::without_log(&app, &state.open(&base, PRIVATE)?)
        .map_err(|error| from.unserved(error))?;
    let rows = rows(&app, &manifest, &host);
    host.remove_copies();
    if *json {
        serde_json::to_writer_pretty(&mut *out, &rows)?;
        writeln!(out)?;
    } else {
        let head = ["route", "component", "door", "model", "cache"].map(str::to_owned);
        let lines: Vec<_> = std::iter::once(head).chain(rows.iter().map(RouteRow::cells)).collect();
        write_table(&lines, out)?;
    }
    Ok(())
}

fn rows(app: &App, manifest: &Manifest, host: &Host) -> Vec<RouteRow> {
    let mut rows: Vec<_> = app
        .routes
        .iter()
        .map(|route| {
            let pattern = Some(route.pattern.to_string());
            match &route.target {
                RouteAction::Component(id) => RouteRow::of_component(pattern, id, app, host),
                RouteAction::Static(response) => RouteRow {
                    route: pattern,
                    component: None,
                    status: Some(response.status().as_u16()),
                    door: None,
                    models: Vec::new(),
                    cache: CacheUse::No,
                },
            }
        })
        .collect();
    for trigger in &manifest.trigger.http {
        if let (Some(TextOr::Table(Private { private: true })), Some(TextOr::Text(id))) =
            (&trigger.route, &trigger.component)
            && app.components.contains_key(id)
        {
            rows.push(RouteRow::of_component(None, id, app, host));
        }
    }
    rows
}

impl RouteRow {
    fn of_component(route: Option<String>, id: &str, app: &App, host: &Host) -> Self {
        let component = host.component(id);
        let models: Vec<_> = app.components.get(id).map_or_else(Vec::new, |spec| {
            let model = |model: &crate::inference::MountedModel| ServedModel {
                name: model.name.clone(),
                version: model.version.clone(),
            };
            spec.models.iter().map(model).collect()
        });
        let door = component.map(|component| component.door());
        let cache = match (app.cache.limits.memory, models.is_empty()) {
            (0, _) => CacheUse::No,
            (_, true) => CacheUse::Declared,
            (_, false) => CacheUse::Yes,
        };
        Self { route, component: Some(id.to_owned()), status: None, door, models, cache }
    }

    fn cells(&self) -> [String; 5] {
        let dash = || "-".to_owned();
        let models: Vec<_> = self
            .models
            .iter()
            .map(|ServedModel { name, version }| match version {
                Some(version) => format!("{name} {version}"),
                None => name.clone(),
            })
            .collect();
        [
            self.route.clone().unwrap_or_else(|| "(private)".into()),
            match (&self.component, self.status) {
                (Some(id), _) => id.clone(),
                (None, Some(status)) => format!("static response, {status}"),
                (None, None) => dash(),
            },
            self.door.map_or_else(dash, str::to_owned),
            if models.is_empty() { dash() } else { models.join(", ") },
            match self.cache {
                CacheUse::No => dash(),
                CacheUse::Declared => "if declared".into(),
                CacheUse::Yes => "yes".into(),
            },
        ]
    }
}
