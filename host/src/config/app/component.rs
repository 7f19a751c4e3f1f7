//! `[component.<id>]`, resolved.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use tracing::warn;

use super::{Options, Problems, dependencies, listed, logged_fields};
use crate::drift::{DriftSettings, WatchedModel};
use crate::guest::files::Files;
use crate::inference::{MountedModel, check_model_folder};
use crate::storage::key_value;
use crate::config::limits::{Limits, LimitsConfig};
use crate::config::manifest::{Component, DoorChoice, Manifest, TextOr, names};
use crate::config::outbound_hosts::{OutboundHost, OutboundHosts};
use crate::prediction_log::settings::{LogConfig, LogSettings};
use crate::registry::oci::remote::Remote;
use crate::config::instance_reuse::{Reuse, ReuseConfig};
use crate::config::template::Template;
use crate::config::variables::Variables;

/// One `[component.<id>]`, resolved.
#[derive(Clone, Debug, Default)]
pub struct ComponentSpec {
    pub id: String,
    pub source: PathBuf,
    pub files: Files,
    pub models: Vec<MountedModel>,
    /// The same, and what their drift is told from.
    pub drift: Vec<WatchedModel>,
    pub environment: Vec<(String, String)>,
    pub variables: Variables,
    pub outbound_hosts: OutboundHosts,
    /// Labels of the stores it may open.
    pub key_value_stores: Vec<String>,
    /// Labels of the databases it may open.
    pub sqlite_databases: Vec<String>,
    /// Language models it may use.
    pub ai_models: Vec<String>,
    pub door: Option<DoorChoice>,
    pub load_graphs: bool,
    pub limits: Limits,
    pub reuse: Reuse,
    pub prediction_log: LogSettings,
}

/// What a component is resolved in.
pub(super) struct Context<'a> {
    pub(super) base: &'a Path,
    pub(super) manifest: &'a Manifest,
    pub(super) options: &'a Options,
    /// Of the application's variables.
    pub(super) values: &'a HashMap<&'a str, String>,
    /// Of the application.
    pub(super) drift: &'a DriftSettings,
}

impl Context<'_> {
    pub(super) fn resolve(
        &self,
        id: &str,
        component: &Component,
        defaults: &Settings,
        problems: &mut Problems,
    ) -> ComponentSpec {
        let key = format!("component.{id}");
        let source = self.source(&key, component, problems);
        let (files, models) = self.files(&key, component, problems);
        let drift = self.drift(&key, component, &files, &models, problems);
        dependencies::check(&key, component, self.manifest, self.base, problems);
        let (door, load_graphs, settings) = match &component.tool.spinfer {
            None => (None, false, defaults.clone()),
            Some(tool) => {
                let key = format!("{key}.tool.spinfer");
                let mut settings = defaults.with(&tool.limits, &tool.reuse, &key, problems);
                settings.log(&tool.prediction_log, &key, problems);
                (tool.door, tool.load_graphs, settings)
            }
        };
        let grants = [
            ("sqlite_databases", "SQLite databases", !component.sqlite_databases.is_empty()),
            ("ai_models", "large language models", !component.ai_models.is_empty()),
        ];
        for (grant, what, _) in grants.iter().filter(|(.., granted)| *granted) {
            warn!(
                "{key}.{grant}: {what} are not supported yet, and this grants nothing; a component \
                 that imports them is refused"
            );
        }
        let Options { limits, reuse, .. } = self.options;
        let Settings { limits, reuse, prediction_log } =
            settings.with(limits, reuse, "on the command line", problems);
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
            sqlite_databases: labels(
                &key,
                "sqlite_databases",
                &component.sqlite_databases,
                problems,
            ),
            ai_models: component.ai_models.clone(),
            door,
            load_graphs,
            limits,
            reuse,
            prediction_log,
        }
    }

    fn source(&self, key: &str, component: &Component, problems: &mut Problems) -> PathBuf {
        let key = format!("{key}.source");
        match &component.source {
            TextOr::Text(path) => {
                let source = self.base.join(path);
                if !source.is_file() {
                    let fix = match &component.build {
                        Some(_) => "run `spinfer build`, or `spinfer up --build`",
                        None => "give the path of a .wasm file, relative to the manifest",
                    };
                    problems.add(key, format!("no file {}; {fix}", source.display()));
                }
                source
            }
            TextOr::Table(source) => {
                // One that is valid was fetched before, and is a file here.
                let problem = Remote::parse(source).map_or_else(
                    |problem| problem,
                    |remote| {
                        format!("{remote} is not fetched; `spinfer up` and `spinfer check` do")
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
        component: &Component,
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
                Err(problem) => problems.add(format!("{key}.files"), format!("{problem:#}")),
            }
        }
        (files, models)
    }

    /// What the drift of each of the `models` in `files` is told from.
    fn drift(
        &self,
        key: &str,
        component: &Component,
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

    fn variables(&self, key: &str, component: &Component, problems: &mut Problems) -> Variables {
        let mut variables = Vec::new();
        for (name, text) in &component.variables {
            let key = format!("{key}.variables.{name}");
            if let Err(problem) = names::check_variable(name) {
                problems.add(&key, problem);
            }
            if let Some(value) = self.expand(&key, text, problems) {
                variables.push((name.clone(), value));
            }
        }
        variables.into_iter().collect()
    }

    fn key_value_stores(
        &self,
        key: &str,
        component: &Component,
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

    fn outbound_hosts(
        &self,
        key: &str,
        component: &Component,
        problems: &mut Problems,
    ) -> OutboundHosts {
        let mut hosts = OutboundHosts::default();
        if !component.allowed_http_hosts.is_empty() {
            problems.add(
                format!("{key}.allowed_http_hosts"),
                "Spin has replaced it; write `allowed_outbound_hosts = [\"https://example.com\"]`",
            );
        }
        for (index, text) in component.allowed_outbound_hosts.iter().enumerate() {
            let key = format!("{key}.allowed_outbound_hosts[{index}]");
            let Some(value) = self.expand(&key, text, problems) else { continue };
            match OutboundHost::parse(&value) {
                Ok(host) => hosts.add(host),
                // As written: its value may be secret.
                Err(problem) => problems.add(key, format!("\"{text}\" {problem}")),
            }
        }
        hosts
    }

    /// `text` with the values of its variables. `None` if it has none, or one is missing, which was
    /// said before.
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
            let there = listed(declared.keys());
            let problem = format!(
                "there is no variable `{name}`; add [variables.{name}], the manifest has {there}"
            );
            problems.add(key, problem);
        }
        template.resolve(self.values)
    }
}

fn labels(key: &str, of: &str, labels: &[String], problems: &mut Problems) -> Vec<String> {
    for label in labels {
        if let Err(problem) = names::check_label(label) {
            problems.add(format!("{key}.{of}"), problem);
        }
    }
    labels.to_vec()
}

/// What a component inherits from the application.
#[derive(Clone, Default)]
pub(super) struct Settings {
    limits: Limits,
    reuse: Reuse,
    prediction_log: LogSettings,
}

impl Settings {
    /// These with what stands under `key` put over them.
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

    /// Puts what stands under `key` for the prediction log over what was there.
    pub(super) fn log(&mut self, config: &LogConfig, key: &str, problems: &mut Problems) {
        match self.prediction_log.with(config) {
            Ok(settings) => self.prediction_log = settings,
            Err(error) => problems.add(key, error),
        }
    }
}
