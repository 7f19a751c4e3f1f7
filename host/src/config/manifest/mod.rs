//! `spin.toml`, parsed: typed, with unknown keys refused and no path looked up. Version 1 is converted
//! to version 2.
//! [`crate::config::app`] resolves it.

mod component;
pub mod names;
mod renamed;
mod table;
mod text_or;
mod trigger;
mod v1;

use std::fmt;
use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use indexmap::IndexMap;
use serde::Deserialize;
use serde::de::{Deserializer, Error as _};

pub use component::{
    BuildCommand, BuildSection, ComponentEntry, ComponentTool, Dependency, DoorChoice,
    FilePlacement, Inherit, Profile, RemoteSource,
};
pub use text_or::TextOr;
pub use trigger::{Executor, HttpTrigger, Private, StaticResponse, Triggers};

use crate::config::instance_reuse::ReuseConfig;
use crate::config::limits::{LimitsConfig, some_duration};
use crate::drift::DriftConfig;
use crate::http::content_encoding::Compression;
use crate::http::cors::CorsConfig;
use crate::prediction_log::settings::LogConfig;
use crate::process::toml_text;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct Manifest {
    pub spin_manifest_version: ManifestVersion,
    #[serde(deserialize_with = "table::only")]
    pub application: ApplicationSection,
    #[serde(default)]
    pub variables: IndexMap<String, Variable>,
    #[serde(default)]
    pub trigger: Triggers,
    #[serde(default)]
    pub component: IndexMap<String, ComponentEntry>,
}

/// The version in which a manifest is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ManifestVersion {
    /// Converted to version 2.
    One,
    Two,
}

impl ManifestVersion {
    fn parse(value: &toml::Value) -> Result<Self, &'static str> {
        match value {
            toml::Value::Integer(2) => Ok(Self::Two),
            toml::Value::Integer(1) => Ok(Self::One),
            toml::Value::String(text) if text == "1" => Ok(Self::One),
            _ => Err("unsupported version; write `spin_manifest_version = 2`"),
        }
    }

    /// The version of a whole manifest.
    fn of(manifest: &toml::Table) -> Result<Self> {
        for key in ["spin_manifest_version", "spin_version"] {
            if let Some(value) = manifest.get(key) {
                return Self::parse(value).map_err(|problem| anyhow!("{key}: {problem}"));
            }
        }
        bail!("spin_manifest_version: missing key; start the file with `spin_manifest_version = 2`")
    }
}

impl<'de> Deserialize<'de> for ManifestVersion {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = toml::Value::deserialize(deserializer)?;
        Self::parse(&value).map_err(D::Error::custom)
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct ApplicationSection {
    pub name: String,
    #[serde(default)]
    pub version: Option<String>,
    #[serde(default)]
    pub description: Option<String>,
    #[serde(default)]
    pub authors: Vec<String>,
    /// Environments that `spin build` checks components against; ignored.
    #[serde(default)]
    pub targets: Vec<TextOr<toml::Table>>,
    /// Settings common to all triggers of a type.
    #[serde(default)]
    pub trigger: IndexMap<String, toml::Table>,
    #[serde(default)]
    pub tool: Tools<ApplicationTool>,
}

/// `[*.tool.<name>]`: only `spinfer` is read, as the others belong to other tools.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Tools<T> {
    pub spinfer: Option<T>,
}

/// `[application.tool.spinfer]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct ApplicationTool {
    /// Maximum number of instances of all components together.
    pub instances: Option<usize>,
    /// Maximum number of concurrent client connections.
    pub connections: Option<usize>,
    /// Idle timeout of a client connection.
    #[serde(default, with = "some_duration")]
    pub keep_alive: Option<Duration>,
    #[serde(default)]
    pub compression: Compression,
    pub cors: Option<CorsConfig>,
    #[serde(default)]
    pub limits: LimitsConfig,
    #[serde(default)]
    pub reuse: ReuseConfig,
    #[serde(default)]
    pub drift: DriftConfig,
    #[serde(default)]
    pub prediction_log: LogConfig,
}

/// A variable, whose value the operator may set and which templates refer to.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct Variable {
    pub default: Option<String>,
    #[serde(default)]
    pub required: bool,
    #[serde(default)]
    pub secret: bool,
    pub description: Option<String>,
}

impl fmt::Debug for Variable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { default, required, secret, description } = self;
        let shown = default.as_ref().filter(|_| !secret);
        f.debug_struct("Variable")
            .field("default", &shown)
            .field("required", required)
            .field("secret", secret)
            .field("description", description)
            .finish()
    }
}

/// The error of a manifest that does not exist, with what to do.
pub(crate) fn missing(path: &Path) -> anyhow::Error {
    anyhow!(
        "there is no {}: `spinfer add model.onnx` makes one for a model, `spinfer new` one for a \
         component in Rust; `-f PATH` names another manifest, or its folder",
        path.display()
    )
}

/// Reads and parses the manifest at `path`.
///
/// # Errors
/// Names the file, the line and the key.
pub fn read(path: &Path) -> Result<Manifest> {
    let text = std::fs::read_to_string(path).map_err(|error| match error.kind() {
        ErrorKind::NotFound => missing(path),
        ErrorKind::InvalidData => {
            anyhow!("{} is not a manifest: it is not text (UTF-8)", path.display())
        }
        _ => anyhow!("{}: cannot read the manifest: {error}", path.display()),
    })?;
    parse(&text).with_context(|| path.display().to_string())
}

/// Parses a manifest. A component that is inline in a trigger is moved to `component`.
///
/// # Errors
/// Names the line and the key.
pub fn parse(text: &str) -> Result<Manifest> {
    let table: toml::Table = toml_text::parse(text)?;
    let mut manifest = match ManifestVersion::of(&table)? {
        ManifestVersion::One => v1::parse(text)?,
        ManifestVersion::Two => {
            let renamed = renamed::problems(&table);
            if !renamed.is_empty() {
                bail!(renamed.join("\n"));
            }
            toml_text::parse(text)?
        }
    };
    manifest.name_inline_components();
    Ok(manifest)
}

impl Manifest {
    /// Applies the profile `name` to each component that has it.
    ///
    /// # Errors
    /// Fails if no component has it.
    pub fn apply_profile(&mut self, name: &str) -> Result<()> {
        let mut found = false;
        for component in self.component.values_mut() {
            if let Some(profile) = component.profile.shift_remove(name) {
                component.apply(profile);
                found = true;
            }
        }
        if !found {
            bail!(
                "--profile: no component has a profile `{name}`; add [component.<id>.profile.{name}]"
            );
        }
        Ok(())
    }

    /// Moves each component that is inline in a trigger to `component`, under an id that is formed
    /// like Spin's, and refers to it by this id.
    fn name_inline_components(&mut self) {
        for index in 0..self.trigger.http.len() {
            let trigger = &mut self.trigger.http[index];
            let inline = trigger.component.take_if(|given| matches!(given, TextOr::Table(_)));
            let Some(TextOr::Table(component)) = inline else { continue };
            let preferred = trigger.id.as_ref().map(|id| format!("{id}-component"));
            let numbered = (1..).map(|n| format!("inline-component{n}"));
            let free = preferred
                .filter(|id| names::check_component_id(id).is_ok())
                .into_iter()
                .chain(numbered)
                .find(|id| !self.component.contains_key(id));
            if let Some(id) = free {
                self.component.insert(id.clone(), *component);
                self.trigger.http[index].component = Some(TextOr::Text(id));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A manifest with every key.
    const WHOLE: &str = include_str!("../../../../tests/manifests/valid/maximal.toml");

    proptest! {
        #[test]
        fn damaged_manifest_is_parsed_or_rejected(
            at in 0..WHOLE.len(),
            length in 0_usize..60,
            with in "[ -~]{0,10}",
        ) {
            let end = WHOLE.len().min(at + length);
            let damaged = format!("{}{with}{}", &WHOLE[..at], &WHOLE[end..]);
            let _ = super::parse(&damaged);
        }
    }

    const HEAD: &str = "spin_manifest_version = 2\n[application]\nname = 'a'\n";

    fn parse(rest: &str) -> Manifest {
        super::parse(&format!("{HEAD}{rest}")).unwrap()
    }

    #[test]
    fn unknown_field_in_a_text_or_table_value_is_named() {
        for (rest, part) in [
            ("[[trigger.http]]\ncomponent = { sorce = 'x' }", "unknown field `sorce`"),
            ("[[trigger.http]]\nroute = 1", "expected a string or a table"),
            ("[component.a]\nsource = { uri = 'x' }", "unknown field `uri`"),
        ] {
            let error = super::parse(&format!("{HEAD}{rest}")).unwrap_err().to_string();
            assert!(error.contains(part), "{rest}: {error}");
        }
    }

    #[test]
    fn version_1_is_a_text_or_a_number() {
        let rest = "name = 'a'\ntrigger = { type = 'http', base = '/' }";
        for version in
            ["spin_manifest_version = 1", "spin_manifest_version = '1'", "spin_version = 1"]
        {
            let manifest = super::parse(&format!("{version}\n{rest}")).unwrap();
            assert_eq!(manifest.spin_manifest_version, ManifestVersion::One, "{version}");
        }
    }

    #[test]
    fn secret_default_is_not_in_debug_output() {
        let manifest =
            parse("[variables]\na = { default = 'hush', secret = true }\nb = { default = 'seen' }");
        let shown = format!("{manifest:?}");
        assert!(shown.contains("seen") && !shown.contains("hush"), "{shown}");
    }

    #[test]
    fn inline_component_gets_a_free_id() {
        let inline = "[[trigger.http]]\nroute = '/'\ncomponent = { source = 'x.wasm' }\n";
        let named = format!("{inline}id = 'first'\n");
        let manifest =
            parse(&format!("{named}{inline}{named}[component.inline-component1]\nsource = 'y'"));
        let ids: Vec<_> = manifest.component.keys().collect();
        assert_eq!(
            ids,
            ["inline-component1", "first-component", "inline-component2", "inline-component3"]
        );
        for (trigger, id) in manifest.trigger.http.iter().zip(&ids[1..]) {
            assert!(matches!(&trigger.component, Some(TextOr::Text(given)) if given == *id));
        }
    }

    #[test]
    fn profile_overrides_the_keys_it_sets() {
        let mut manifest = parse(
            "[component.a]\nsource = 'a.wasm'\nenvironment = { X = '1', Y = '1' }\n\
             build.command = 'one'\nbuild.workdir = 'w'\n\
             [component.a.profile.debug]\nsource = 'b.wasm'\nenvironment = { X = '2', Z = '2' }\n\
             build.command = ['two', 'three']\n[component.b]\nsource = 'c.wasm'",
        );
        manifest.apply_profile("debug").unwrap();
        let component = &manifest.component["a"];
        assert!(matches!(&component.source, TextOr::Text(path) if path == "b.wasm"));
        let environment: Vec<_> = component.environment.iter().map(|(k, v)| (&**k, &**v)).collect();
        assert_eq!(environment, [("X", "2"), ("Y", "1"), ("Z", "2")]);
        let build = component.build.as_ref().unwrap();
        assert_eq!(build.command.lines(), ["two", "three"]);
        assert_eq!(build.workdir.as_deref(), Some(Path::new("w")));
        let error = manifest.apply_profile("release").unwrap_err().to_string();
        assert!(error.contains("no component has a profile `release`"), "{error}");
    }
}
