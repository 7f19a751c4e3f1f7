//! Resolves a manifest to the application that is served: paths are looked up, limits are settled,
//! and every invalid setting is reported before the host listens.

mod component;
mod dependencies;
mod logged_fields;
mod options;
mod routes;
mod settings;
mod values;

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow};
use indexmap::IndexMap;
use tracing::warn;

use crate::cache;
use crate::config::blocked_networks::BlockedNetworks;
use crate::config::manifest::{BuildSection, Manifest, ManifestVersion, names};
use crate::drift::WINDOWS_FILE;
use crate::http::content_encoding::Compression;
use crate::http::cors::Cors;
use crate::inference::BackendOptions;
use crate::prediction_log::{self, sinks::sink_files};
use crate::server::connections::ConnectionLimits;
use crate::storage::key_value::Bindings;
use crate::storage::redis::DEFAULT_MAX_CONNECTIONS;
use crate::storage::sqlite;

pub use component::ComponentSpec;
use component::InheritedSettings;
pub use options::Options;
pub use routes::{FixedResponse, Route, RouteAction};
use settings::ApplicationSettings;

/// Spin's folder for an application's state, next to its manifest.
const STATE_FOLDER: &str = ".spin";

/// The state folder of an application whose manifest is in the folder `base`: `state_dir`, if set,
/// else `.spin` next to the manifest.
#[must_use]
pub fn state_folder(state_dir: Option<&Path>, base: &Path) -> PathBuf {
    state_dir.map_or_else(|| base.join(STATE_FOLDER), Path::to_owned)
}

/// A resolved application.
#[derive(Debug)]
pub struct App {
    pub name: String,
    pub version: Option<String>,
    pub routes: Vec<Route>,
    /// Maximum number of instances of all components together.
    pub instances: usize,
    pub connections: ConnectionLimits,
    /// Maximum size of unread responses that are held for one client address, in bytes.
    pub unread_per_client: usize,
    /// Whether the host decodes request bodies and compresses response bodies.
    pub compression: Compression,
    /// The CORS policy.
    pub cors: Option<Cors>,
    /// Settings of the response cache.
    pub cache: cache::CacheSettings,
    /// Folder for the output of components, which goes to the log as well.
    pub log_dir: Option<PathBuf>,
    /// Ids of the components whose output is logged; all if empty.
    pub follow: Vec<String>,
    /// Whether the files in `log_dir` are emptied first.
    pub truncate_logs: bool,
    /// Resources of the inference backends.
    pub backends: BackendOptions,
    /// Folder of the application's state: the prediction log and key-value stores in files.
    pub state_folder: PathBuf,
    /// Whether predictions are logged, and their retention.
    pub prediction_log: prediction_log::PredictionLogSettings,
    /// The store that each label is bound to.
    pub key_value: Bindings,
    /// The SQLite database that each label is bound to.
    pub sqlite: sqlite::Bindings,
    /// Maximum number of Redis connections of all components together.
    pub redis_connections: usize,
    /// Networks that no component may connect to.
    pub blocked_networks: BlockedNetworks,
    /// The components that a trigger refers to, by id.
    pub components: IndexMap<String, ComponentSpec>,
}

/// Every problem of a manifest, each with its key and what to write instead.
#[derive(Debug)]
struct Problems(Vec<String>);

impl Problems {
    fn add(&mut self, key: impl fmt::Display, problem: impl fmt::Display) {
        self.0.push(format!("{key}: {problem}"));
    }
}

impl App {
    /// Resolves `manifest`, which is in the folder `base`.
    ///
    /// # Errors
    /// Lists every problem of the manifest, one a line.
    pub fn resolve(manifest: &Manifest, base: &Path) -> Result<Self> {
        Self::resolve_with(manifest, base, &Options::default())
    }

    /// Resolves `manifest` with the `options` of the command line.
    ///
    /// # Errors
    /// Lists every problem of the manifest and the options, one a line.
    pub fn resolve_with(manifest: &Manifest, base: &Path, options: &Options) -> Result<Self> {
        let mut problems = Problems(Vec::new());
        check_triggers(manifest, &mut problems);
        check_component_ids(manifest, &mut problems);
        let chosen = options.choose(manifest, &mut problems);
        let routes = routes::resolve(manifest, &chosen, &mut problems);
        let tool = manifest.application.tool.spinfer.as_ref();
        let settings = ApplicationSettings::resolve(tool, &mut problems);
        let values = values::resolve(manifest, options, &mut problems);
        let context =
            component::Context { base, manifest, options, values: &values, drift: &settings.drift };
        let components = resolve_components(&context, &chosen, &settings.inherited, &mut problems);
        let state_folder = state_folder(options.state_dir.as_deref(), base);
        let sinks = &options.prediction_log.sinks;
        if let Err(problem) = sink_files::check(sinks, &state_folder, &[WINDOWS_FILE]) {
            problems.add("runtime config: [prediction_log]", problem);
        }
        if !problems.0.is_empty() {
            return Err(anyhow!(problems.0.join("\n")));
        }
        let ApplicationSettings {
            instances,
            connections,
            unread_per_client,
            compression,
            cors,
            ..
        } = settings;
        Ok(Self {
            name: manifest.application.name.clone(),
            version: manifest.application.version.clone(),
            routes,
            instances,
            connections,
            unread_per_client,
            compression,
            cors,
            cache: options.cache.clone(),
            log_dir: options.log_dir.clone(),
            follow: options.follow.clone(),
            truncate_logs: options.truncate_logs,
            backends: options.backends.clone(),
            key_value: Bindings { folder: state_folder.clone(), stores: options.key_value.clone() },
            sqlite: sqlite::Bindings {
                folder: state_folder.clone(),
                databases: options.sqlite.clone(),
            },
            state_folder,
            prediction_log: options.prediction_log.clone(),
            redis_connections: options.redis_connections.unwrap_or(DEFAULT_MAX_CONNECTIONS),
            blocked_networks: options.blocked_networks.clone(),
            components,
        })
    }
}

/// Resolves every component, so that all problems are found, except those that only triggers of other
/// types refer to. Returns the `chosen` ones.
fn resolve_components(
    context: &component::Context<'_>,
    chosen: &[&str],
    inherited: &InheritedSettings,
    problems: &mut Problems,
) -> IndexMap<String, ComponentSpec> {
    let manifest = context.manifest;
    let mut components = IndexMap::new();
    for (id, component) in &manifest.component {
        let is_chosen = chosen.contains(&id.as_str());
        if !is_chosen {
            let mut others = manifest.trigger.other.iter();
            if let Some((kind, _)) = others.find(|(_, ids)| ids.contains(id))
                && !manifest.trigger.http.iter().any(|trigger| trigger.refers_to(id))
            {
                warn!("component.{id}: only a `{kind}` trigger refers to it, so it is not served");
                continue;
            }
        }
        let spec = context.resolve(id, component, inherited, problems);
        if is_chosen {
            components.insert(id.clone(), spec);
        } else if context.options.components.is_empty() {
            warn!("component.{id}: no trigger refers to it, so it is not served");
        }
    }
    components
}

fn check_component_ids(manifest: &Manifest, problems: &mut Problems) {
    for id in manifest.component.keys() {
        if let Err(problem) = names::check_component_id(id) {
            problems.add("component", problem);
        }
    }
}

/// Warns of triggers other than HTTP, and refuses HTTP settings that Spin has removed.
fn check_triggers(manifest: &Manifest, problems: &mut Problems) {
    if manifest.spin_manifest_version == ManifestVersion::One {
        warn!("manifest version 1: read as version 2; Spin's `spin doctor` rewrites the file");
    }
    for kind in manifest.trigger.other.keys() {
        warn!("trigger.{kind}: not served, as this host serves HTTP triggers only");
    }
    for (kind, settings) in &manifest.application.trigger {
        for (key, value) in settings.iter().filter(|_| kind == "http") {
            if key != "base" || value.as_str() != Some("/") {
                problems.add(
                    format!("application.trigger.http.{key}"),
                    "unsupported setting; remove it, and write a common path prefix into each route",
                );
            }
        }
    }
}

/// `names` in backticks, or "none", for a message.
fn listed<'a>(names: impl Iterator<Item = &'a String>) -> String {
    let names: Vec<_> = names.map(|name| format!("`{name}`")).collect();
    if names.is_empty() { "none".into() } else { names.join(", ") }
}

/// The components that `spinfer build` builds, in manifest order.
pub fn builds(manifest: &Manifest) -> impl Iterator<Item = (&str, &BuildSection)> {
    manifest.component.iter().filter_map(|(id, c)| Some((id.as_str(), c.build.as_ref()?)))
}
