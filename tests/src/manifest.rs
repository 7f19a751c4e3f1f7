//! The manifest of an application.

use std::fmt::Write as _;

use crate::{GUESTS, root};

/// A manifest builder. Paths are absolute, so that the file can be in any folder.
#[derive(Clone, Debug)]
pub struct Manifest(String);

impl Default for Manifest {
    fn default() -> Self {
        Self("spin_manifest_version = 2\n[application]\nname = \"test\"\n".into())
    }
}

impl Manifest {
    /// Adds `component` at `route` with the file of `guest`, and `more` in `[component.<id>]`.
    #[must_use]
    pub fn with(mut self, route: &str, component: &str, guest: &str, more: &str) -> Self {
        let _ = write!(
            self.0,
            "[[trigger.http]]\nroute = \"{route}\"\ncomponent = \"{component}\"\n\
             [component.{component}]\nsource = \"{GUESTS}/{guest}.wasm\"\n{more}\n"
        );
        self
    }

    /// Adds settings to `[application]`.
    #[must_use]
    pub fn with_settings(self, settings: &str) -> Self {
        Self(self.0.replacen("name = \"test\"\n", &format!("name = \"test\"\n{settings}\n"), 1))
    }

    /// Adds the iris classifier in `version`, with `more` in its table.
    #[must_use]
    pub fn with_iris(self, component: &str, version: u32, route: &str, more: &str) -> Self {
        self.with_model("iris-classifier", component, version, route, more)
    }

    /// Adds an example model in `version`, with `more` in its table.
    #[must_use]
    pub fn with_model(
        self,
        model: &str,
        component: &str,
        version: u32,
        route: &str,
        more: &str,
    ) -> Self {
        let folder = root().join(format!("models/{model}/{version}"));
        let files = format!(
            "files = [{{ source = \"{}\", destination = \"/models/{model}\" }}]\n{more}",
            folder.display()
        );
        self.with(route, component, &model.replace('-', "_"), &files)
    }

    /// Adds text at the end.
    #[must_use]
    pub fn and(mut self, more: &str) -> Self {
        self.0.push_str(more);
        self
    }

    #[must_use]
    pub fn text(&self) -> &str {
        &self.0
    }
}

/// The setting of a component whose requests all go through the standard door.
pub const STANDARD_DOOR: &str = "tool.spinfer.door = \"standard\"\n";
