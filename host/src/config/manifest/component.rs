//! `[component.<id>]`.

use std::path::PathBuf;

use indexmap::IndexMap;
use serde::Deserialize;

use super::Tools;
use super::text_or::TextOr;
use crate::drift::DriftConfig;
use crate::config::limits::LimitsConfig;
use crate::prediction_log::settings::LogConfig;
use crate::config::instance_reuse::ReuseConfig;

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Component {
    pub description: Option<String>,
    /// The component's file, relative to the manifest, or where it is to be had.
    pub source: TextOr<RemoteSource>,
    #[serde(default)]
    pub files: Vec<TextOr<Placement>>,
    #[serde(default)]
    pub exclude_files: Vec<String>,
    #[serde(default)]
    pub environment: IndexMap<String, String>,
    #[serde(default)]
    pub variables: IndexMap<String, String>,
    #[serde(default)]
    pub allowed_outbound_hosts: Vec<String>,
    /// What Spin had before `allowed_outbound_hosts`.
    #[serde(default)]
    pub allowed_http_hosts: Vec<String>,
    #[serde(default)]
    pub key_value_stores: Vec<String>,
    #[serde(default)]
    pub sqlite_databases: Vec<String>,
    #[serde(default)]
    pub ai_models: Vec<String>,
    /// What `spin build` checks a component against.
    #[serde(default)]
    pub targets: Vec<TextOr<toml::Table>>,
    #[serde(default)]
    pub dependencies: IndexMap<String, TextOr<Dependency>>,
    pub dependencies_inherit_configuration: Option<bool>,
    pub build: Option<Build>,
    #[serde(default)]
    pub profile: IndexMap<String, Profile>,
    #[serde(default)]
    pub tool: Tools<ComponentTool>,
}

/// `source` as a table: a file behind a URL, or a package of a registry.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemoteSource {
    pub url: Option<String>,
    pub digest: Option<String>,
    pub registry: Option<String>,
    pub package: Option<String>,
    pub version: Option<String>,
}

/// A folder or a file of the host, and where the component sees it, read-only.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Placement {
    pub source: PathBuf,
    pub destination: String,
}

/// A component that another is composed with. Which of the keys there are says where it is.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
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

/// All of what the component is granted, nothing, or some keys.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged, expecting = "true, false, or a list of keys")]
pub enum Inherit {
    All(bool),
    Some(Vec<String>),
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Build {
    pub command: Command,
    pub workdir: Option<PathBuf>,
    #[serde(default)]
    pub watch: Vec<String>,
}

/// One shell command, or several to run in order.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged, expecting = "a command, or a list of them")]
pub enum Command {
    One(String),
    Many(Vec<String>),
}

impl Command {
    #[must_use]
    pub fn lines(&self) -> &[String] {
        match self {
            Self::One(line) => std::slice::from_ref(line),
            Self::Many(lines) => lines,
        }
    }
}

/// `[component.<id>.profile.<name>]`: what is different under `--profile <name>`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    pub source: Option<TextOr<RemoteSource>>,
    #[serde(default)]
    pub environment: IndexMap<String, String>,
    #[serde(default)]
    pub dependencies: IndexMap<String, TextOr<Dependency>>,
    pub build: Option<ProfileBuild>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProfileBuild {
    pub command: Command,
}

impl Component {
    /// Puts what `profile` says over the rest.
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
                    self.build = Some(Build { command, workdir: None, watch: Vec::new() });
                }
            }
        }
    }
}

/// `[component.<id>.tool.spinfer]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ComponentTool {
    /// Which door small requests go through. Unset: the fast one, where the component exports it.
    pub door: Option<DoorChoice>,
    /// Whether the component may load graphs it brings itself (`wasi:nn` `load`).
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
    /// The fast door where the body fits, else the standard one.
    Fast,
    /// Always the standard door.
    Standard,
}
