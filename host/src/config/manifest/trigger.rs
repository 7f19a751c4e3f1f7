//! `[[trigger.http]]` as written: a route, and what serves it.

use std::fmt;

use indexmap::IndexMap;
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};

use super::component::{ComponentEntry, Dependency};
use super::table;
use super::text_or::TextOr;

/// `[[trigger.<type>]]`, by type.
#[derive(Debug, Default)]
pub struct Triggers {
    pub http: Vec<HttpTrigger>,
    /// Types that this host does not serve, with the components that their triggers refer to.
    pub other: IndexMap<String, Vec<String>>,
}

/// A trigger of another type.
#[derive(Deserialize)]
#[serde(expecting = "a table")]
struct OtherTrigger {
    /// The id of a component. An inline component is not served, and ignored.
    component: Option<TextOr<IgnoredAny>>,
}

impl<'de> Deserialize<'de> for Triggers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(TriggersVisitor)
    }
}

/// Reads the map by hand: with `#[serde(flatten)]` errors would lose their lines.
struct TriggersVisitor;

impl<'de> Visitor<'de> for TriggersVisitor {
    type Value = Triggers;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("triggers by type, [[trigger.http]]")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Triggers, A::Error> {
        let mut triggers = Triggers::default();
        while let Some(kind) = map.next_key::<String>()? {
            if kind == "http" {
                triggers.http = map.next_value()?;
            } else {
                let others: Vec<OtherTrigger> = map.next_value()?;
                let ids = others.into_iter().filter_map(|trigger| match trigger.component? {
                    TextOr::Text(id) => Some(id),
                    TextOr::Table(IgnoredAny) => None,
                });
                triggers.other.insert(kind, ids.collect());
            }
        }
        Ok(triggers)
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct HttpTrigger {
    pub id: Option<String>,
    pub route: Option<TextOr<Private>>,
    /// The id of a component, or an inline component.
    pub component: Option<TextOr<Box<ComponentEntry>>>,
    /// Components that Spin composes with the trigger's component; refused.
    #[serde(default)]
    pub components: IndexMap<String, toml::Value>,
    #[serde(default)]
    pub dependencies: IndexMap<String, Vec<Dependency>>,
    #[serde(default, deserialize_with = "table::optional")]
    pub static_response: Option<StaticResponse>,
    pub executor: Option<Executor>,
}

impl HttpTrigger {
    /// Whether the trigger's component is `[component.<id>]`.
    #[must_use]
    pub fn refers_to(&self, id: &str) -> bool {
        matches!(&self.component, Some(TextOr::Text(given)) if given == id)
    }
}

/// `{ private = true }`: reachable only for the application's own components.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct Private {
    pub private: bool,
}

/// A fixed response of the host.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct StaticResponse {
    pub status_code: Option<u16>,
    #[serde(default)]
    pub headers: IndexMap<String, String>,
    pub body: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct Executor {
    #[serde(rename = "type")]
    pub kind: String,
    /// Arguments of a command, for `wagi`.
    pub argv: Option<String>,
    /// The function that runs a command, for `wagi`.
    pub entrypoint: Option<String>,
}
