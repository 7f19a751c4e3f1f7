//! The load states of the models of a component.

use std::collections::BTreeMap;

use parking_lot::{Mutex, MutexGuard};
use serde::Serialize;

/// The result of the last load of each model that was loaded at least once: `None`, or why it failed.
#[derive(Debug, Default)]
pub struct ModelStates(Mutex<BTreeMap<String, Option<String>>>);

impl ModelStates {
    /// Records that `model` was loaded, or that this failed.
    pub fn record<E: ToString>(&self, model: &str, error: Option<E>) {
        self.lock().insert(model.to_owned(), error.map(|error| error.to_string()));
    }

    /// The state of a model, and why it is unavailable. An idle model that was unloaded is ready: the next
    /// request loads it.
    #[must_use]
    pub fn of(&self, model: &str) -> (VersionState, String) {
        match self.lock().get(model) {
            Some(Some(why)) => (VersionState::Unavailable, why.clone()),
            Some(None) => (VersionState::Ready, String::new()),
            None => (VersionState::Loading, String::new()),
        }
    }

    /// The models that cannot be served, with the reason.
    #[must_use]
    pub fn failed(&self) -> Vec<(String, String)> {
        let states = self.lock();
        let failed = states.iter().filter_map(|(model, why)| Some((model.clone(), why.clone()?)));
        failed.collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Option<String>>> {
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
