//! An application as it will be served: the manifest with every path looked up, every limit
//! settled and every mistake found. Whatever can be wrong with configuration is wrong here,
//! before the socket is bound.

use std::collections::HashSet;
use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow};
use indexmap::IndexMap;
use tracing::warn;

use crate::inference::{Mounts, check_model_folder};
use crate::limits::{Limits, LimitsConfig};
use crate::manifest::{Build, Component, DoorChoice, Manifest};
use crate::request::{LIVE, READY};
use crate::reuse::{Reuse, ReuseConfig};
use crate::route::{Pattern, Router};

/// Instances of all components together, unless the manifest says otherwise. They cost nothing
/// before they are used, but for 5 kB each that the pool keeps of them.
const INSTANCES: usize = 2000;
/// Each is 4 GiB of addresses and some guard, of the 128 TiB a process has, and some of the memory
/// maps.
const INSTANCES_MOST: usize = 4000;

#[derive(Debug)]
pub struct App {
    pub name: String,
    pub routes: Vec<Route>,
    /// Instances of all components together.
    pub instances: usize,
    pub components: IndexMap<String, ComponentSpec>,
}

#[derive(Clone, Debug)]
pub struct Route {
    pub pattern: Pattern,
    /// Component id.
    pub component: String,
}

/// One `[component.<id>]`, resolved.
#[derive(Clone, Debug)]
pub struct ComponentSpec {
    pub id: String,
    pub source: PathBuf,
    pub mounts: Mounts,
    pub environment: Vec<(String, String)>,
    pub door: Option<DoorChoice>,
    pub load_graphs: bool,
    pub limits: Limits,
    pub reuse: Reuse,
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
        let mut problems = Problems(Vec::new());
        let routes = routes(manifest, &mut problems);
        let mut defaults = Settings::default();
        let mut instances = INSTANCES;
        if let Some(tool) = &manifest.application.tool.spinfer {
            let key = "application.tool.spinfer";
            defaults = defaults.with(&tool.limits, &tool.reuse, key, &mut problems);
            if let Some(count) = tool.instances {
                if !(1..=INSTANCES_MOST).contains(&count) {
                    let problem = format!("must be between 1 and {INSTANCES_MOST}");
                    problems.add(format!("{key}.instances"), problem);
                }
                instances = count;
            }
        }
        check_variables(manifest, &mut problems);
        let components = manifest
            .component
            .iter()
            .map(|(id, component)| {
                (id.clone(), resolve_component(id, component, base, &defaults, &mut problems))
            })
            .collect();
        match problems.0.as_slice() {
            [] => {
                let name = manifest.application.name.clone();
                Ok(Self { name, routes, instances, components })
            }
            problems => Err(anyhow!(problems.join("\n"))),
        }
    }
}

fn routes(manifest: &Manifest, problems: &mut Problems) -> Vec<Route> {
    let mut routes = Vec::new();
    for (index, trigger) in manifest.trigger.http.iter().enumerate() {
        let key = format!("trigger.http[{index}]");
        if !manifest.component.contains_key(&trigger.component) {
            problems.add(
                format!("{key}.component"),
                format!(
                    "there is no [component.{}]; the manifest has {}",
                    trigger.component,
                    names(manifest.component.keys())
                ),
            );
        }
        match Pattern::parse(&trigger.route) {
            Ok(pattern) if [LIVE, READY].contains(&pattern.to_string().as_str()) => {
                problems.add(format!("{key}.route"), "this path is the host's own; choose another");
            }
            Ok(pattern) => routes.push(Route { pattern, component: trigger.component.clone() }),
            Err(problem) => problems.add(format!("{key}.route"), problem),
        }
    }
    if let Err(twice) = Router::new(routes.iter().map(|r| (r.pattern.clone(), ()))) {
        problems.add("trigger.http", format!("the route \"{twice}\" stands twice; remove one"));
    }
    if manifest.trigger.http.is_empty() {
        problems.add("trigger.http", "no route: add [[trigger.http]] with `route` and `component`");
    }
    routes
}

/// Nothing supplies variables to components yet. One without a value would be missed: that is an
/// error. One with a value the component may do without: that is a warning.
fn check_variables(manifest: &Manifest, problems: &mut Problems) {
    for (name, variable) in &manifest.variables {
        if variable.required && variable.default.is_none() {
            let problem = "is required, and nothing sets variables yet; give it a `default`";
            problems.add(format!("variables.{name}"), problem);
        }
    }
    for (id, _) in manifest.component.iter().filter(|(_, c)| !c.variables.is_empty()) {
        let key = format!("component.{id}.variables");
        warn!("{key}: no interface supplies variables to components yet; they are not read");
    }
}

fn resolve_component(
    id: &str,
    component: &Component,
    base: &Path,
    defaults: &Settings,
    problems: &mut Problems,
) -> ComponentSpec {
    let key = format!("component.{id}");
    let source = base.join(&component.source);
    if !source.is_file() {
        let fix = match &component.build {
            Some(_) => "run `spinfer build`, or `spinfer up --build`",
            None => "give the path of a .wasm file, relative to the manifest",
        };
        problems.add(format!("{key}.source"), format!("no file {}; {fix}", source.display()));
    }
    let mounts = resolve_mounts(&key, component, base, problems);
    let (door, load_graphs, Settings { limits, reuse }) = match &component.tool.spinfer {
        None => (None, false, defaults.clone()),
        Some(tool) => {
            let key = format!("{key}.tool.spinfer");
            let settings = defaults.with(&tool.limits, &tool.reuse, &key, problems);
            (tool.door, tool.load_graphs, settings)
        }
    };
    let environment = component.environment.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
    let id = id.to_owned();
    ComponentSpec { id, source, mounts, environment, door, load_graphs, limits, reuse }
}

/// What a component inherits from the application.
#[derive(Clone, Default)]
struct Settings {
    limits: Limits,
    reuse: Reuse,
}

impl Settings {
    /// These with what stands under `key` put over them.
    fn with(
        &self,
        limits: &LimitsConfig,
        reuse: &ReuseConfig,
        key: &str,
        problems: &mut Problems,
    ) -> Self {
        let limits = self.limits.with(limits).unwrap_or_else(|e| {
            problems.add(key, e);
            self.limits.clone()
        });
        let reuse = self.reuse.with(reuse).unwrap_or_else(|e| {
            problems.add(key, e);
            self.reuse.clone()
        });
        Self { limits, reuse }
    }
}

fn resolve_mounts(
    key: &str,
    component: &Component,
    base: &Path,
    problems: &mut Problems,
) -> Mounts {
    let mut seen = HashSet::new();
    let mut mounts = Mounts::default();
    for (index, mount) in component.files.iter().enumerate() {
        let key = format!("{key}.files[{index}]");
        let source = base.join(&mount.source);
        if !source.is_dir() {
            problems.add(
                format!("{key}.source"),
                format!("no folder {}; give one, relative to the manifest", source.display()),
            );
        }
        if !mount.destination.starts_with('/') {
            problems.add(
                format!("{key}.destination"),
                format!("must be absolute: \"/{}\"", mount.destination),
            );
        }
        if mount.destination.split('/').any(|segment| segment == "..") {
            problems.add(format!("{key}.destination"), "must not hold `..`");
        }
        let destination = mount.destination.trim_end_matches('/').to_owned();
        if !seen.insert(destination.clone()) {
            problems.add(format!("{key}.destination"), format!("\"{destination}\" stands twice"));
        }
        mounts.add(destination, source);
    }
    for (_, folder) in mounts.models().filter(|(_, folder)| folder.is_dir()) {
        if let Err(problem) = check_model_folder(folder) {
            problems.add(format!("{key}.files"), format!("{problem:#}"));
        }
    }
    mounts
}

fn names<'a>(names: impl Iterator<Item = &'a String>) -> String {
    let names: Vec<_> = names.map(|name| format!("`{name}`")).collect();
    if names.is_empty() { "none".into() } else { names.join(", ") }
}

/// What `spinfer build` runs, in manifest order.
pub fn builds(manifest: &Manifest) -> impl Iterator<Item = (&str, &Build)> {
    manifest.component.iter().filter_map(|(id, c)| Some((id.as_str(), c.build.as_ref()?)))
}
