//! Manifests of version 1, converted to version 2 as Spin converts them.

use anyhow::{Context, Result, bail};
use indexmap::IndexMap;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::component::{BuildSection, ComponentEntry, FilePlacement, RemoteSource};
use super::text_or::TextOr;
use super::trigger::{HttpTrigger, Triggers};
use super::{ApplicationSection, Manifest, ManifestVersion, Variable, names, table};
use crate::process::toml_text;

/// What a component without `allowed_outbound_hosts` may connect to: in version 1 that key did not
/// exist at first, and databases needed no permission.
const DATABASES: [&str; 3] = ["redis://*:*", "mysql://*:*", "postgres://*:*"];

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
struct ManifestV1 {
    #[serde(rename = "spin_manifest_version", alias = "spin_version")]
    _version: IgnoredAny,
    name: String,
    version: Option<String>,
    description: Option<String>,
    #[serde(default)]
    authors: Vec<String>,
    #[serde(deserialize_with = "table::only")]
    trigger: ApplicationTrigger,
    #[serde(default)]
    variables: IndexMap<String, Variable>,
    #[serde(default)]
    component: Vec<ComponentV1>,
}

/// `trigger`: the type of all triggers, and settings of that type.
#[derive(Deserialize)]
#[serde(expecting = "a table")]
struct ApplicationTrigger {
    #[serde(rename = "type")]
    kind: String,
    base: Option<String>,
}

/// `[[component]]`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
struct ComponentV1 {
    id: String,
    source: TextOr<RemoteSource>,
    trigger: toml::Table,
    description: Option<String>,
    #[serde(default)]
    config: IndexMap<String, String>,
    #[serde(default)]
    environment: IndexMap<String, String>,
    #[serde(default)]
    files: Vec<TextOr<FilePlacement>>,
    #[serde(default)]
    exclude_files: Vec<String>,
    #[serde(default)]
    allowed_http_hosts: Vec<String>,
    allowed_outbound_hosts: Option<Vec<String>>,
    #[serde(default)]
    key_value_stores: Vec<String>,
    #[serde(default)]
    sqlite_databases: Vec<String>,
    #[serde(default)]
    ai_models: Vec<String>,
    #[serde(default, deserialize_with = "table::optional")]
    build: Option<BuildSection>,
}

/// Parses a manifest of version 1.
///
/// # Errors
/// Names the line or the component, and the key.
pub(super) fn parse(text: &str) -> Result<Manifest> {
    let ManifestV1 {
        _version,
        name,
        version,
        description,
        authors,
        trigger: ApplicationTrigger { kind, base },
        variables,
        component,
    } = toml_text::parse(text)?;
    if base.is_some_and(|base| base != "/") {
        bail!(
            "trigger.base: only \"/\" is supported, as in Spin 2 and later; remove it, and write the \
             common path prefix into the route of each component"
        );
    }
    let mut triggers = Triggers::default();
    let mut components = IndexMap::new();
    for v1 in component {
        let id = component_id(&v1.id);
        let key = format!("component `{}`", v1.id);
        if kind == "http" {
            let trigger: HttpTrigger =
                v1.trigger.clone().try_into().with_context(|| format!("{key}: trigger"))?;
            let id = Some(TextOr::Text(id.clone()));
            triggers.http.push(HttpTrigger { component: id, ..trigger });
        } else {
            triggers.other.entry(kind.clone()).or_default().push(id.clone());
        }
        if components.insert(id, v1.into_entry()).is_some() {
            bail!("{key}: another component has the same id; rename one");
        }
    }
    Ok(Manifest {
        spin_manifest_version: ManifestVersion::One,
        application: ApplicationSection {
            name,
            version,
            description,
            authors,
            targets: Vec::new(),
            trigger: IndexMap::new(),
            tool: super::Tools::default(),
        },
        variables,
        trigger: triggers,
        component: components,
    })
}

/// The id in version 2: the frequent ids that are invalid there have underscores or mixed case.
fn component_id(id: &str) -> String {
    match names::check_component_id(id) {
        Ok(()) => id.to_owned(),
        Err(_) => id.replace('_', "-").to_lowercase(),
    }
}

impl ComponentV1 {
    fn into_entry(self) -> ComponentEntry {
        ComponentEntry {
            description: self.description,
            source: self.source,
            files: self.files,
            exclude_files: self.exclude_files,
            environment: self.environment,
            variables: self.config,
            allowed_outbound_hosts: self
                .allowed_outbound_hosts
                .unwrap_or_else(|| DATABASES.map(str::to_owned).into()),
            allowed_http_hosts: self.allowed_http_hosts,
            key_value_stores: self.key_value_stores,
            sqlite_databases: self.sqlite_databases,
            ai_models: self.ai_models,
            targets: Vec::new(),
            dependencies: IndexMap::new(),
            dependencies_inherit_configuration: None,
            build: self.build,
            profile: IndexMap::new(),
            tool: super::Tools::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "spin_version = '1'\nname = 'a'\ntrigger = { type = 'http', base = '/' }\n";

    #[test]
    fn component_ids_become_valid_in_version_2() {
        for (v1, v2) in [("a-b", "a-b"), ("spin_http", "spin-http"), ("Home", "home"), ("AB", "AB")]
        {
            assert_eq!(component_id(v1), v2);
        }
    }

    #[test]
    fn databases_are_allowed_unless_outbound_hosts_are_listed() {
        let component = |more: &str| {
            let text = format!(
                "{HEAD}[[component]]\nid = 'a'\nsource = 'a.wasm'\n{more}\n[component.trigger]\nroute = '/'"
            );
            parse(&text).unwrap().component["a"].allowed_outbound_hosts.clone()
        };
        assert_eq!(component(""), DATABASES);
        assert_eq!(component("allowed_http_hosts = ['b']"), DATABASES);
        assert_eq!(component("allowed_outbound_hosts = []"), [""; 0]);
    }

    #[test]
    fn problem_names_the_component_and_the_key() {
        let first = "[[component]]\nid = 'a_b'\nsource = 'a.wasm'\ntrigger = { route = '/' }\n";
        for (rest, part) in [
            (
                "[[component]]\nid = 'c'\nsource = 'c'\ntrigger = { rote = '/' }",
                "component `c`: trigger",
            ),
            (
                "[[component]]\nid = 'c'\nsource = 'c'\ntrigger = { rote = '/' }",
                "unknown field `rote`",
            ),
            (
                "[[component]]\nid = 'a-b'\nsource = 'c'\ntrigger = {}",
                "another component has the same id",
            ),
            ("[application]\nname = 'a'", "unknown field `application`"),
            (
                "[[component]]\nid = 'c'\nsource = 'c'\ntrigger = {}\nbuild = ['make']",
                "expected a table",
            ),
        ] {
            let error = format!("{:#}", parse(&format!("{HEAD}{first}{rest}")).unwrap_err());
            assert!(error.contains(part), "{rest}: {error}");
        }
    }
}
