//! The load states of mounted models.

use std::collections::{BTreeMap, HashSet};

use parking_lot::{Mutex, MutexGuard};
use serde::Serialize;

/// The load states of the models of all components.
#[derive(Debug, Default)]
pub struct ModelStates(Mutex<LoadStates>);

#[derive(Debug, Default)]
struct LoadStates {
    /// Components whose models have all been loaded or have failed.
    components: HashSet<String>,
    /// Why a model is unavailable, by component and model.
    failed: BTreeMap<(String, String), String>,
}

impl ModelStates {
    /// Records that the models of `component` are loaded, except those that `failed`.
    pub fn loaded(&self, component: &str, failed: impl IntoIterator<Item = (String, String)>) {
        let mut loaded = self.lock();
        loaded.components.insert(component.to_owned());
        let failed = failed.into_iter().map(|(model, why)| ((component.to_owned(), model), why));
        loaded.failed.extend(failed);
    }

    /// The state of a model, and why it is unavailable.
    pub fn of(&self, component: &str, model: &str) -> (VersionState, String) {
        let loaded = self.lock();
        let key = (component.to_owned(), model.to_owned());
        match loaded.failed.get(&key) {
            Some(why) => (VersionState::Unavailable, why.clone()),
            None if loaded.components.contains(component) => (VersionState::Ready, String::new()),
            None => (VersionState::Loading, String::new()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, LoadStates> {
        self.0.lock()
    }
}

/// State of a model version, in Triton's terms. If components have different states for a version, the
/// first in this order counts: the version is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum VersionState {
    Ready,
    Loading,
    Unavailable,
}
