//! `spin.toml`, version 2, as text says it: typed, unknown keys refused, nothing looked up yet.
//! [`crate::app`] resolves it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use indexmap::IndexMap;
use serde::Deserialize;

use crate::limits::LimitsConfig;
use crate::reuse::ReuseConfig;

/// The manifest's only version.
const VERSION: i64 = 2;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    #[expect(dead_code, reason = "checked by `parse` before the rest is read")]
    spin_manifest_version: i64,
    pub application: Application,
    #[serde(default)]
    pub variables: IndexMap<String, Variable>,
    #[serde(default)]
    pub trigger: Triggers,
    #[serde(default)]
    pub component: IndexMap<String, Component>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Application {
    pub name: String,
    #[serde(default)]
    pub version: Option<String>,
    #[serde(default)]
    pub description: Option<String>,
    #[serde(default)]
    pub authors: Vec<String>,
    #[serde(default)]
    pub tool: Tools<ApplicationTool>,
}

/// `[*.tool.<name>]`: only ours is read, others belong to other tools.
#[derive(Debug, Default, Deserialize)]
pub struct Tools<T> {
    pub spinfer: Option<T>,
}

/// `[application.tool.spinfer]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApplicationTool {
    /// Instances of all components together.
    pub instances: Option<usize>,
    #[serde(default)]
    pub limits: LimitsConfig,
    #[serde(default)]
    pub reuse: ReuseConfig,
}

/// A value the operator may set; components see it through templates.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Variable {
    pub default: Option<String>,
    #[serde(default)]
    pub required: bool,
    #[serde(default)]
    pub secret: bool,
    pub description: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Triggers {
    #[serde(default)]
    pub http: Vec<HttpTrigger>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpTrigger {
    pub id: Option<String>,
    pub route: String,
    pub component: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Component {
    pub description: Option<String>,
    /// The component's file, relative to the manifest.
    pub source: PathBuf,
    #[serde(default)]
    pub files: Vec<Mount>,
    #[serde(default)]
    pub environment: IndexMap<String, String>,
    #[serde(default)]
    pub variables: IndexMap<String, String>,
    pub build: Option<Build>,
    #[serde(default)]
    pub tool: Tools<ComponentTool>,
}

/// A folder of the host that the component sees, read-only.
#[derive(Clone, Debug, Deserialize)]
#[serde(
    deny_unknown_fields,
    expecting = "a folder as { source = \"...\", destination = \"/...\" } (patterns are not supported yet)"
)]
pub struct Mount {
    pub source: PathBuf,
    pub destination: String,
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
#[serde(untagged)]
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

/// `[component.<id>.tool.spinfer]`.
#[derive(Debug, Default, Deserialize)]
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
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DoorChoice {
    /// The fast door where the body fits, else the standard one.
    Fast,
    /// Always the standard door.
    Standard,
}

/// Reads and parses `path`. An error names the file, the line and the key.
pub fn read(path: &Path) -> Result<Manifest> {
    let text = std::fs::read_to_string(path).with_context(|| {
        format!(
            "{}: cannot read the manifest; `-f <path>` says where another one is",
            path.display()
        )
    })?;
    parse(&text).with_context(|| path.display().to_string())
}

/// Parses a manifest's text.
pub fn parse(text: &str) -> Result<Manifest> {
    let table: toml::Table = toml::from_str(text)?;
    match table.get("spin_manifest_version") {
        Some(toml::Value::Integer(VERSION)) => {}
        Some(other) => bail!(
            "spin_manifest_version: {other:?} is not supported; spinfer reads version {VERSION} \
             (`spin_manifest_version = {VERSION}`)"
        ),
        None => bail!("missing key: start the file with `spin_manifest_version = {VERSION}`"),
    }
    Ok(toml::from_str(text)?)
}
