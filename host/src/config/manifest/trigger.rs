//! `[[trigger.http]]`: a route, and who answers on it.

use std::fmt;

use indexmap::IndexMap;
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};

use super::component::{Component, Dependency};
use super::text_or::TextOr;

/// `[[trigger.<type>]]`, by type.
#[derive(Debug, Default)]
pub struct Triggers {
    pub http: Vec<HttpTrigger>,
    /// Types this host does not serve.
    pub other: Vec<String>,
}

impl<'de> Deserialize<'de> for Triggers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(TriggersVisitor)
    }
}

/// A flattened map would lose the lines of what is wrong.
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
                map.next_value::<IgnoredAny>()?;
                triggers.other.push(kind);
            }
        }
        Ok(triggers)
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpTrigger {
    pub id: Option<String>,
    pub route: Option<TextOr<Private>>,
    /// The id of a component, or a component.
    pub component: Option<TextOr<Box<Component>>>,
    /// Components that Spin puts in front of the first.
    #[serde(default)]
    pub components: IndexMap<String, toml::Value>,
    #[serde(default)]
    pub dependencies: IndexMap<String, Vec<Dependency>>,
    pub static_response: Option<StaticResponse>,
    pub executor: Option<Executor>,
}

/// `{ private = true }`: only the application's own components get here.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Private {
    pub private: bool,
}

/// What the host answers by itself.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StaticResponse {
    pub status_code: Option<u16>,
    #[serde(default)]
    pub headers: IndexMap<String, String>,
    pub body: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Executor {
    #[serde(rename = "type")]
    pub kind: String,
}
