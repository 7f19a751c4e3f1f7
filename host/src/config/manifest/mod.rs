//! `spin.toml`, version 2, as text says it: typed, unknown keys refused, nothing looked up yet.
//! [`crate::config::app`] resolves it.

mod component;
pub mod names;
mod text_or;
mod trigger;

use std::fmt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use indexmap::IndexMap;
use serde::Deserialize;

pub use component::{
    Build, Command, Component, ComponentTool, Dependency, DoorChoice, Inherit, Placement, Profile,
    RemoteSource,
};
pub use text_or::TextOr;
pub use trigger::{Executor, HttpTrigger, Private, StaticResponse, Triggers};

use crate::http::content_encoding::Compression;
use crate::http::cors::CorsConfig;
use crate::drift::DriftConfig;
use crate::config::limits::{LimitsConfig, some_duration};
use crate::prediction_log::settings::LogConfig;
use crate::config::instance_reuse::ReuseConfig;

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
    /// What `spin build` checks components against.
    #[serde(default)]
    pub targets: Vec<TextOr<toml::Table>>,
    /// Settings of all triggers of a type.
    #[serde(default)]
    pub trigger: IndexMap<String, toml::Table>,
    #[serde(default)]
    pub tool: Tools<ApplicationTool>,
}

/// `[*.tool.<name>]`: only ours is read, others belong to other tools.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Tools<T> {
    pub spinfer: Option<T>,
}

/// `[application.tool.spinfer]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApplicationTool {
    /// Instances of all components together.
    pub instances: Option<usize>,
    /// Connections at a time.
    pub connections: Option<usize>,
    /// How long a connection may be without a request.
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

/// A value the operator may set; components see it through templates.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
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

/// Parses a manifest's text. Components that stand in a trigger are moved to the others.
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
    let mut manifest: Manifest = toml::from_str(text)?;
    manifest.name_inline_components();
    Ok(manifest)
}

impl Manifest {
    /// Puts the profile `name` of each component that has it over the rest.
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

    /// Gives components that stand in a trigger an id, as Spin does, and puts it in their place.
    fn name_inline_components(&mut self) {
        for index in 0..self.trigger.http.len() {
            let trigger = &mut self.trigger.http[index];
            let inline = trigger.component.take_if(|given| matches!(given, TextOr::Table(_)));
            let Some(TextOr::Table(component)) = inline else { continue };
            let natural = trigger.id.as_ref().map(|id| format!("{id}-component"));
            let numbered = (1..).map(|n| format!("inline-component{n}"));
            let free = natural
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

    /// Every key there is.
    const WHOLE: &str = include_str!("../../../tests/manifests/valid/maximal.toml");

    proptest! {
        #[test]
        fn a_damaged_manifest_is_taken_or_refused(
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
    fn what_is_wrong_in_a_table_that_may_be_a_string_is_said() {
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
    fn what_is_secret_is_not_shown() {
        let manifest =
            parse("[variables]\na = { default = 'hush', secret = true }\nb = { default = 'seen' }");
        let shown = format!("{manifest:?}");
        assert!(shown.contains("seen") && !shown.contains("hush"), "{shown}");
    }

    #[test]
    fn a_component_in_a_trigger_gets_an_id_that_is_free() {
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
    fn a_profile_overrides_what_it_names() {
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
