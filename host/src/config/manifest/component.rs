//! `[component.<id>]` as written.

use std::path::PathBuf;

use indexmap::IndexMap;
use serde::Deserialize;

use super::text_or::TextOr;
use super::{Tools, table};
use crate::config::instance_reuse::ReuseConfig;
use crate::config::limits::LimitsConfig;
use crate::drift::DriftConfig;
use crate::prediction_log::settings::LogConfig;

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct ComponentEntry {
    pub description: Option<String>,
    /// Path of the component's file, relative to the manifest, or where to download it.
    pub source: TextOr<RemoteSource>,
    #[serde(default)]
    pub files: Vec<TextOr<FilePlacement>>,
    #[serde(default)]
    pub exclude_files: Vec<String>,
    #[serde(default)]
    pub environment: IndexMap<String, String>,
    #[serde(default)]
    pub variables: IndexMap<String, String>,
    #[serde(default)]
    pub allowed_outbound_hosts: Vec<String>,
    /// The predecessor of `allowed_outbound_hosts`, which Spin still accepts: `example.com:8080`.
    #[serde(default)]
    pub allowed_http_hosts: Vec<String>,
    #[serde(default)]
    pub key_value_stores: Vec<String>,
    #[serde(default)]
    pub sqlite_databases: Vec<String>,
    #[serde(default)]
    pub ai_models: Vec<String>,
    /// Environments that `spin build` checks a component against; ignored.
    #[serde(default)]
    pub targets: Vec<TextOr<toml::Table>>,
    #[serde(default)]
    pub dependencies: IndexMap<String, TextOr<Dependency>>,
    pub dependencies_inherit_configuration: Option<bool>,
    #[serde(default, deserialize_with = "table::optional")]
    pub build: Option<BuildSection>,
    #[serde(default)]
    pub profile: IndexMap<String, Profile>,
    #[serde(default)]
    pub tool: Tools<ComponentTool>,
}

/// `source` as a table: a file at a URL, or a package in a registry.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct RemoteSource {
    pub url: Option<String>,
    pub digest: Option<String>,
    pub registry: Option<String>,
    pub package: Option<String>,
    pub version: Option<String>,
}

/// A folder or a file of the host, and the path at which the component sees it, read-only.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct FilePlacement {
    pub source: PathBuf,
    pub destination: String,
}

/// A component that another one is composed with. The keys that are set determine where it comes
/// from.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct Dependency {
    pub version: Option<String>,
    pub registry: Option<String>,
    pub package: Option<String>,
    pub path: Option<PathBuf>,
    pub url: Option<String>,
    pub digest: Option<String>,
    pub component: Option<String>,
    pub export: Option<String>,
    #[serde(default)]
    pub environment: IndexMap<String, String>,
    pub inherit_configuration: Option<Inherit>,
}

/// Which of the component's grants a dependency inherits: all, none, or those of some keys.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged, expecting = "true, false, or a list of keys")]
pub enum Inherit {
    All(bool),
    Some(Vec<String>),
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct BuildSection {
    pub command: BuildCommand,
    pub workdir: Option<PathBuf>,
    #[serde(default)]
    pub watch: Vec<String>,
}

/// One shell command, or several that run in order.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged, expecting = "a command, or a list of them")]
pub enum BuildCommand {
    One(String),
    Many(Vec<String>),
}

impl BuildCommand {
    #[must_use]
    pub fn lines(&self) -> &[String] {
        match self {
            Self::One(line) => std::slice::from_ref(line),
            Self::Many(lines) => lines,
        }
    }
}

/// `[component.<id>.profile.<name>]`: overrides for `--profile <name>`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct Profile {
    pub source: Option<TextOr<RemoteSource>>,
    #[serde(default)]
    pub environment: IndexMap<String, String>,
    #[serde(default)]
    pub dependencies: IndexMap<String, TextOr<Dependency>>,
    #[serde(default, deserialize_with = "table::optional")]
    pub build: Option<ProfileBuild>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct ProfileBuild {
    pub command: BuildCommand,
}

impl ComponentEntry {
    /// Overrides this component's keys by those of `profile`.
    pub(super) fn apply(&mut self, profile: Profile) {
        let Profile { source, environment, dependencies, build } = profile;
        if let Some(source) = source {
            self.source = source;
        }
        self.environment.extend(environment);
        self.dependencies.extend(dependencies);
        if let Some(ProfileBuild { command }) = build {
            match &mut self.build {
                Some(build) => build.command = command,
                None => {
                    self.build = Some(BuildSection { command, workdir: None, watch: Vec::new() });
                }
            }
        }
    }
}

/// `[component.<id>.tool.spinfer]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct ComponentTool {
    /// The door for buffered requests; the fast door by default, if the component exports it.
    pub door: Option<DoorChoice>,
    /// Whether the component may load graphs of its own (`wasi:nn` `load`).
    #[serde(default)]
    pub load_graphs: bool,
    #[serde(default)]
    pub limits: LimitsConfig,
    #[serde(default)]
    pub reuse: ReuseConfig,
    #[serde(default)]
    pub drift: DriftConfig,
    #[serde(default)]
    pub prediction_log: LogConfig,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DoorChoice {
    /// The fast door if the body fits `limits.buffered_body`, else the standard door.
    Fast,
    /// The standard door for every request.
    Standard,
}
