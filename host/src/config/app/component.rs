//! Resolves `[component.<id>]` to a [`ComponentSpec`].

use std::collections::HashMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use tracing::warn;

use super::{Options, Problems, dependencies, listed, logged_fields, routes};
use crate::config::http_hosts;
use crate::config::instance_reuse::{Reuse, ReuseConfig};
use crate::config::limits::{ComponentLimits, LimitsConfig};
use crate::config::manifest::{
    ComponentEntry, DoorChoice, Manifest, ManifestVersion, TextOr, names,
};
use crate::config::outbound_hosts::{OutboundHost, OutboundHosts};
use crate::config::template::Template;
use crate::config::variables::Variables;
use crate::drift::{DriftSettings, WatchedModel};
use crate::guest::files::Files;
use crate::inference::{MountedModel, check_model_folder};
use crate::prediction_log::settings::{LogConfig, LogMode, LogSettings};
use crate::registry::oci::remote::RemoteComponent;
use crate::storage::{key_value, sqlite};

/// The resolved `[component.<id>]` section.
#[derive(Clone, Debug, Default)]
pub struct ComponentSpec {
    pub id: String,
    /// Path of the component's `.wasm` file.
    pub source: PathBuf,
    pub files: Files,
    pub models: Vec<MountedModel>,
    /// The mounted models, with the baselines of their drift detection.
    pub drift: Vec<WatchedModel>,
    pub environment: Vec<(String, String)>,
    pub variables: Variables,
    pub outbound_hosts: OutboundHosts,
    /// Labels of the granted key-value stores.
    pub key_value_stores: Vec<String>,
    /// Labels of the granted SQLite databases.
    pub sqlite_databases: Vec<String>,
    /// Names of the granted large language models.
    pub ai_models: Vec<String>,
    pub door: Option<DoorChoice>,
    /// Arguments of the command that the component is, if it is one (`executor = { type = "wagi" }`).
    pub wagi: Option<String>,
    pub load_graphs: bool,
    pub limits: ComponentLimits,
    pub reuse: Reuse,
    pub prediction_log: LogSettings,
}

/// The application that a component is resolved in.
pub(super) struct Context<'a> {
    /// The manifest's folder.
    pub(super) base: &'a Path,
    pub(super) manifest: &'a Manifest,
    pub(super) options: &'a Options,
    /// Values of the application's variables.
    pub(super) values: &'a HashMap<&'a str, String>,
    /// Drift settings of the application.
    pub(super) drift: &'a DriftSettings,
}

impl Context<'_> {
    pub(super) fn resolve(
        &self,
        id: &str,
        component: &ComponentEntry,
        inherited: &InheritedSettings,
        problems: &mut Problems,
    ) -> ComponentSpec {
        let key = format!("component.{id}");
        let source = self.source(&key, component, problems);
        let (files, models) = self.files(&key, component, problems);
        let drift = self.drift(&key, component, &files, &models, problems);
        dependencies::check(&key, component, self.manifest, self.base, problems);
        let (door, load_graphs, settings) = match &component.tool.spinfer {
            None => (None, false, inherited.clone()),
            Some(tool) => {
                let key = format!("{key}.tool.spinfer");
                if let Err(error) = tool.limits.check_component() {
                    problems.add(key.clone(), error);
                }
                let mut settings = inherited.with(&tool.limits, &tool.reuse, &key, problems);
                settings.log(&tool.prediction_log, &key, problems);
                (tool.door, tool.load_graphs, settings)
            }
        };
        warn_of_unsupported_grants(&key, component);
        let Options { limits, reuse, .. } = self.options;
        let InheritedSettings { limits, reuse, prediction_log } =
            settings.with(limits, reuse, "on the command line", problems);
        self.check_mode(id, &prediction_log, problems);
        let folders = files.folders.models().map(|(_, folder)| folder);
        logged_fields::check(id, &prediction_log, folders);
        let mut environment = component.environment.clone();
        environment.extend(self.options.environment.iter().cloned());
        ComponentSpec {
            id: id.to_owned(),
            source,
            files,
            models,
            drift,
            environment: environment.into_iter().collect(),
            variables: self.variables(&key, component, problems),
            outbound_hosts: self.outbound_hosts(&key, component, problems),
            key_value_stores: self.key_value_stores(&key, component, problems),
            sqlite_databases: self.sqlite_databases(&key, component, problems),
            ai_models: component.ai_models.clone(),
            door,
            wagi: routes::command_arguments(id, self.manifest, problems),
            load_graphs,
            limits,
            reuse,
            prediction_log,
        }
    }

    /// A response cannot wait for a log that the operator has disabled.
    fn check_mode(&self, id: &str, settings: &LogSettings, problems: &mut Problems) {
        let name = match settings.mode {
            LogMode::BestEffort => return,
            LogMode::Durable => "durable",
            LogMode::Synchronous => "synchronous",
        };
        if settings.enabled && !self.options.prediction_log.enabled {
            let problem = format!(
                "\"{name}\" needs the log, but the runtime config has [prediction_log] enabled = false; \
                 enable it, or write mode = \"best-effort\""
            );
            problems.add(format!("component.{id}.tool.spinfer.prediction_log.mode"), problem);
        }
    }

    fn source(&self, key: &str, component: &ComponentEntry, problems: &mut Problems) -> PathBuf {
        let key = format!("{key}.source");
        match &component.source {
            TextOr::Text(path) => {
                let source = self.base.join(path);
                if let Err(problem) = check_source(&source, component.build.is_some()) {
                    problems.add(key, format!("{} {problem}", source.display()));
                }
                source
            }
            TextOr::Table(source) => {
                // `up` and `check` replace a valid remote source by the downloaded file beforehand.
                let problem = RemoteComponent::parse(source).map_or_else(
                    |problem| problem,
                    |remote| {
                        format!(
                            "{remote} is not downloaded; run `spinfer up` or `spinfer check`, \
                             which download it"
                        )
                    },
                );
                problems.add(key, problem);
                PathBuf::new()
            }
        }
    }

    fn files(
        &self,
        key: &str,
        component: &ComponentEntry,
        problems: &mut Problems,
    ) -> (Files, Vec<MountedModel>) {
        let files = Files::resolve(component, self.base).unwrap_or_else(|found| {
            for (index, problem) in found {
                match index {
                    Some(index) => problems.add(format!("{key}.files[{index}]"), problem),
                    None => problems.add(key, problem),
                }
            }
            Files::default()
        });
        let mut models = Vec::new();
        for (name, folder) in files.folders.models().filter(|(_, folder)| folder.is_dir()) {
            match check_model_folder(name, folder) {
                Ok(model) => models.push(model),
                Err(found) => {
                    found
                        .into_iter()
                        .for_each(|problem| problems.add(format!("{key}.files"), problem));
                }
            }
        }
        (files, models)
    }

    /// The drift baseline of each of the `models` in `files`.
    fn drift(
        &self,
        key: &str,
        component: &ComponentEntry,
        files: &Files,
        models: &[MountedModel],
        problems: &mut Problems,
    ) -> Vec<WatchedModel> {
        let config = component.tool.spinfer.as_ref().map(|tool| &tool.drift);
        let settings = match config.map_or_else(|| Ok(self.drift.clone()), |c| self.drift.with(c)) {
            Ok(settings) => settings,
            Err(problem) => {
                problems.add(format!("{key}.tool.spinfer"), problem);
                return Vec::new();
            }
        };
        let mut watched = Vec::new();
        for MountedModel { name, version, .. } in models {
            let mut folders = files.folders.models();
            let Some((_, folder)) = folders.find(|(other, _)| other == name) else { continue };
            match WatchedModel::read(name, version.as_deref(), folder, &settings) {
                Ok(model) => watched.push(model),
                Err(problem) => problems.add(format!("{key}.files"), format!("{problem:#}")),
            }
        }
        watched
    }

    fn variables(
        &self,
        key: &str,
        component: &ComponentEntry,
        problems: &mut Problems,
    ) -> Variables {
        let mut variables = Vec::new();
        for (name, text) in &component.variables {
            let key = format!("{key}.variables.{name}");
            if let Err(problem) = names::check_variable(name) {
                problems.add(&key, problem);
            }
            // Without a value nothing is served, but checks know that there is such a variable.
            let value = self.expand(&key, text, problems).unwrap_or_default();
            variables.push((name.clone(), value));
        }
        variables.into_iter().collect()
    }

    fn key_value_stores(
        &self,
        key: &str,
        component: &ComponentEntry,
        problems: &mut Problems,
    ) -> Vec<String> {
        let labels = labels(key, "key_value_stores", &component.key_value_stores, problems);
        let Options { key_value: bound, without_values, .. } = self.options;
        for label in labels.iter().filter(|label| names::check_label(label).is_ok()) {
            if !(*without_values || label == key_value::DEFAULT || bound.contains_key(label)) {
                problems.add(format!("{key}.key_value_stores"), key_value::unbound(label));
            }
        }
        labels
    }

    fn sqlite_databases(
        &self,
        key: &str,
        component: &ComponentEntry,
        problems: &mut Problems,
    ) -> Vec<String> {
        let labels = labels(key, "sqlite_databases", &component.sqlite_databases, problems);
        let Options { sqlite: bound, without_values, .. } = self.options;
        for label in labels.iter().filter(|label| names::check_label(label).is_ok()) {
            if !(*without_values || label == sqlite::DEFAULT || bound.contains_key(label)) {
                problems.add(format!("{key}.sqlite_databases"), sqlite::unbound(label));
            }
        }
        labels
    }

    fn outbound_hosts(
        &self,
        key: &str,
        component: &ComponentEntry,
        problems: &mut Problems,
    ) -> OutboundHosts {
        let mut hosts = OutboundHosts::default();
        for (index, text) in component.allowed_outbound_hosts.iter().enumerate() {
            let key = format!("{key}.allowed_outbound_hosts[{index}]");
            let Some(value) = self.expand(&key, text, problems) else { continue };
            match OutboundHost::parse(&value) {
                Ok(host) => hosts.add(host),
                // The entry as written, as a variable's value may be secret.
                Err(problem) => problems.add(key, format!("\"{text}\" {problem}")),
            }
        }
        self.http_hosts(key, component, &mut hosts, problems);
        hosts
    }

    /// Adds the hosts of `allowed_http_hosts`.
    fn http_hosts(
        &self,
        key: &str,
        component: &ComponentEntry,
        hosts: &mut OutboundHosts,
        problems: &mut Problems,
    ) {
        let key = format!("{key}.allowed_http_hosts");
        let mut written = Vec::new();
        for (index, text) in component.allowed_http_hosts.iter().enumerate() {
            match http_hosts::outbound_entries(text) {
                Ok(entries) => written.extend(entries),
                Err(problem) => problems.add(format!("{key}[{index}]"), problem),
            }
        }
        let parsed = written.iter().filter_map(|entry| OutboundHost::parse(entry).ok());
        parsed.for_each(|host| hosts.add(host));
        if !written.is_empty() && self.manifest.spin_manifest_version == ManifestVersion::Two {
            let entries: Vec<_> = written.iter().map(|entry| format!("\"{entry}\"")).collect();
            warn!("{key}: deprecated; write allowed_outbound_hosts = [{}]", entries.join(", "));
        }
    }

    /// `text` with its variables replaced. `None` if it is no valid template (a problem is added),
    /// or a variable has no value (a problem exists already).
    fn expand(&self, key: &str, text: &str, problems: &mut Problems) -> Option<String> {
        let template = match Template::parse(text) {
            Ok(template) => template,
            Err(problem) => {
                problems.add(key, problem);
                return None;
            }
        };
        let declared = &self.manifest.variables;
        for name in template.variables().filter(|name| !declared.contains_key(*name)) {
            let available = listed(declared.keys());
            let problem = format!(
                "variable `{name}` is not declared; add [variables.{name}]; declared variables: \
                 {available}"
            );
            problems.add(key, problem);
        }
        template.resolve(self.values)
    }
}

/// Checks that `source` is a file. The problem follows its path in a message.
fn check_source(source: &Path, is_built: bool) -> Result<(), String> {
    let path = "write the path of a .wasm file, relative to the manifest";
    match source.metadata() {
        Ok(found) if found.is_file() => Ok(()),
        Ok(found) if found.is_dir() => Err(format!("is a folder; {path}")),
        Ok(_) => Err(format!("is not a file; {path}")),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let built = "run `spinfer build`, or `spinfer up --build`";
            Err(format!("does not exist; {}", if is_built { built } else { path }))
        }
        Err(error) => Err(format!("cannot be read: {error}")),
    }
}

/// Warns about grants of capabilities that this host does not support.
fn warn_of_unsupported_grants(key: &str, component: &ComponentEntry) {
    if !component.ai_models.is_empty() {
        warn!(
            "{key}.ai_models: large language models are not supported yet; this grant has no effect, \
             and calls of their interface are denied"
        );
    }
}

/// Checks the labels that the key `grant` lists.
fn labels(key: &str, grant: &str, labels: &[String], problems: &mut Problems) -> Vec<String> {
    for label in labels {
        if let Err(problem) = names::check_label(label) {
            problems.add(format!("{key}.{grant}"), problem);
        }
    }
    labels.to_vec()
}

/// Settings that a component inherits from the application.
#[derive(Clone, Default)]
pub(super) struct InheritedSettings {
    limits: ComponentLimits,
    reuse: Reuse,
    prediction_log: LogSettings,
}

impl InheritedSettings {
    /// These settings, overridden by those under `key`.
    pub(super) fn with(
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
        Self { limits, reuse, prediction_log: self.prediction_log.clone() }
    }

    /// Overrides the prediction log's settings by those under `key`.
    pub(super) fn log(&mut self, config: &LogConfig, key: &str, problems: &mut Problems) {
        match self.prediction_log.with(config) {
            Ok(settings) => self.prediction_log = settings,
            Err(error) => problems.add(key, error),
        }
    }
}
