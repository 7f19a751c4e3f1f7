//! Which of the mounted models are loaded.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::Serialize;

/// What became of loading the models, by component.
#[derive(Debug, Default)]
pub struct ModelStates(Mutex<Loaded>);

#[derive(Debug, Default)]
struct Loaded {
    /// Components whose models were all tried.
    components: HashSet<String>,
    /// Why a model of a component cannot be used.
    failed: BTreeMap<(String, String), String>,
}

impl ModelStates {
    /// The models of `component` were loaded, but for those that `failed`.
    pub fn loaded(&self, component: &str, failed: impl IntoIterator<Item = (String, String)>) {
        let mut loaded = self.lock();
        loaded.components.insert(component.to_owned());
        let failed = failed.into_iter().map(|(model, why)| ((component.to_owned(), model), why));
        loaded.failed.extend(failed);
    }

    pub fn of(&self, component: &str, model: &str) -> (State, String) {
        let loaded = self.lock();
        let key = (component.to_owned(), model.to_owned());
        match loaded.failed.get(&key) {
            Some(why) => (State::Unavailable, why.clone()),
            None if loaded.components.contains(component) => (State::Ready, String::new()),
            None => (State::Loading, String::new()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Loaded> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Triton's words. Of two components with one version the better counts: it is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum State {
    Ready,
    Loading,
    Unavailable,
}
