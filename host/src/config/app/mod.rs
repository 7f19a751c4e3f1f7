//! An application as it will be served: the manifest with every path looked up, every limit
//! settled and every mistake found. Whatever can be wrong with configuration is wrong here,
//! before the socket is bound.

mod component;
mod dependencies;
mod logged_fields;
mod options;
mod routes;
mod values;

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow};
use indexmap::IndexMap;
use tracing::warn;

use crate::config::blocked_networks::BlockedNetworks;
use crate::cache;
use crate::server::connections::ConnectionLimits;
use crate::http::content_encoding::Compression;
use crate::http::cors::Cors;
use crate::drift::DriftSettings;
use crate::inference::BackendOptions;
use crate::storage::key_value::Bindings;
use crate::config::manifest::{Build, Manifest, names};
use crate::prediction_log;
use crate::storage::redis::CONNECTIONS;

pub use component::ComponentSpec;
use component::Settings;
pub use options::Options;
pub use routes::{Route, StaticAnswer, Target};

/// Instances of all components together, unless the manifest says otherwise. They cost nothing
/// before they are used, but for 5 kB each that the pool keeps of them.
const INSTANCES: usize = 2000;
/// Each is 4 GiB of addresses and some guard, of the 128 TiB a process has, and some of the memory
/// maps.
const MAX_INSTANCES: usize = 4000;

/// Where Spin keeps an application's state, beside its manifest.
const STATE: &str = ".spin";

/// Where the state of an application is whose manifest is in the folder `base`: `state_dir`, if one
/// is given.
#[must_use]
pub fn state_folder(state_dir: Option<&Path>, base: &Path) -> PathBuf {
    state_dir.map_or_else(|| base.join(STATE), Path::to_owned)
}

#[derive(Debug)]
pub struct App {
    pub name: String,
    pub version: Option<String>,
    pub routes: Vec<Route>,
    /// Instances of all components together.
    pub instances: usize,
    pub connections: ConnectionLimits,
    /// Whose bodies are decoded and compressed.
    pub compression: Compression,
    /// Which pages of other sites may call it.
    pub cors: Option<Cors>,
    /// What is kept of answers.
    pub cache: cache::Settings,
    /// Where what components print goes, beside the log.
    pub log_dir: Option<PathBuf>,
    /// What the backends may use.
    pub backends: BackendOptions,
    /// Where the application's state is: the prediction log, stores that are files.
    pub state_folder: PathBuf,
    /// What is logged of predictions, and for how long.
    pub prediction_log: prediction_log::Settings,
    /// What labels of key-value stores are bound to.
    pub key_value: Bindings,
    /// Connections to Redis of all components together.
    pub redis_connections: usize,
    /// Where no component may connect to.
    pub blocked_networks: BlockedNetworks,
    /// Those that a trigger names.
    pub components: IndexMap<String, ComponentSpec>,
}

/// Every mistake of a manifest at once, each with the key and what to write.
#[derive(Debug)]
struct Problems(Vec<String>);

impl Problems {
    fn add(&mut self, key: impl fmt::Display, problem: impl fmt::Display) {
        self.0.push(format!("{key}: {problem}"));
    }
}

impl App {
    /// Resolves `manifest`, which stands in the folder `base`.
    pub fn resolve(manifest: &Manifest, base: &Path) -> Result<Self> {
        Self::resolve_with(manifest, base, &Options::default())
    }

    /// The same with what the command line says beside it.
    pub fn resolve_with(manifest: &Manifest, base: &Path, options: &Options) -> Result<Self> {
        let mut problems = Problems(Vec::new());
        check_triggers(manifest, &mut problems);
        for id in manifest.component.keys() {
            if let Err(problem) = names::check_component_id(id) {
                problems.add("component", problem);
            }
        }
        let chosen = options.choose(manifest, &mut problems);
        let routes = routes::resolve(manifest, &chosen, &mut problems);
        let mut defaults = Settings::default();
        let mut instances = INSTANCES;
        let mut connections = ConnectionLimits::default();
        let mut compression = Compression::default();
        let mut cors = None;
        let mut drift = DriftSettings::default();
        if let Some(tool) = &manifest.application.tool.spinfer {
            let key = "application.tool.spinfer";
            defaults = defaults.with(&tool.limits, &tool.reuse, key, &mut problems);
            defaults.log(&tool.prediction_log, key, &mut problems);
            if let Some(count) = tool.instances {
                if !(1..=MAX_INSTANCES).contains(&count) {
                    let problem = format!("must be between 1 and {MAX_INSTANCES}");
                    problems.add(format!("{key}.instances"), problem);
                }
                instances = count;
            }
            compression = tool.compression;
            match tool.cors.as_ref().map(Cors::new).transpose() {
                Ok(resolved) => cors = resolved,
                Err((setting, problem)) => problems.add(format!("{key}.cors.{setting}"), problem),
            }
            match drift.with(&tool.drift) {
                Ok(settings) => drift = settings,
                Err(problem) => problems.add(key, problem),
            }
            if let Err((setting, problem)) = connections.set(tool.connections, tool.keep_alive) {
                problems.add(format!("{key}.{setting}"), problem);
            }
        }
        let values = values::resolve(manifest, options, &mut problems);
        let mut components = IndexMap::new();
        for (id, component) in &manifest.component {
            let context =
                component::Context { base, manifest, options, values: &values, drift: &drift };
            let spec = context.resolve(id, component, &defaults, &mut problems);
            if chosen.contains(&id.as_str()) {
                components.insert(id.clone(), spec);
            } else if options.components.is_empty() {
                warn!("component.{id}: no trigger names it; it is not served");
            }
        }
        match problems.0.as_slice() {
            [] => {
                let application = &manifest.application;
                let (name, version) = (application.name.clone(), application.version.clone());
                let log_dir = options.log_dir.clone();
                let state_folder = state_folder(options.state_dir.as_deref(), base);
                let folder = state_folder.clone();
                let key_value = Bindings { folder, stores: options.key_value.clone() };
                let redis_connections = options.redis_connections.unwrap_or(CONNECTIONS);
                let (cache, backends) = (options.cache.clone(), options.backends.clone());
                Ok(Self {
                    name,
                    version,
                    routes,
                    instances,
                    connections,
                    compression,
                    cors,
                    cache,
                    log_dir,
                    state_folder,
                    prediction_log: options.prediction_log,
                    key_value,
                    redis_connections,
                    blocked_networks: options.blocked_networks.clone(),
                    backends,
                    components,
                })
            }
            problems => Err(anyhow!(problems.join("\n"))),
        }
    }
}

/// What there is beside HTTP, and settings of HTTP that Spin has no more.
fn check_triggers(manifest: &Manifest, problems: &mut Problems) {
    for kind in &manifest.trigger.other {
        problems.add(
            format!("trigger.{kind}"),
            "this host serves HTTP triggers; remove it, or serve it with a host that has it",
        );
    }
    for (kind, settings) in &manifest.application.trigger {
        for (key, value) in settings.iter().filter(|_| kind == "http") {
            if key != "base" || value.as_str() != Some("/") {
                problems.add(
                    format!("application.trigger.http.{key}"),
                    "there is no such setting; a common beginning of paths stands in each route",
                );
            }
        }
    }
}

fn listed<'a>(names: impl Iterator<Item = &'a String>) -> String {
    let names: Vec<_> = names.map(|name| format!("`{name}`")).collect();
    if names.is_empty() { "none".into() } else { names.join(", ") }
}

/// What `spinfer build` runs, in manifest order.
pub fn builds(manifest: &Manifest) -> impl Iterator<Item = (&str, &Build)> {
    manifest.component.iter().filter_map(|(id, c)| Some((id.as_str(), c.build.as_ref()?)))
}
