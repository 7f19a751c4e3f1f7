//! The models of a component: their loading, and whether they are ready.

use std::time::Instant;

use super::Component;
use crate::inference::model_states::VersionState;
use crate::inference::{ComponentModels, InferenceError};

impl Component {
    /// Its models.
    #[must_use]
    pub fn models(&self) -> &ComponentModels {
        self.stores.models()
    }

    /// Loads the models that are mounted one by one, except those whose last load succeeded. Returns those
    /// that failed, with the errors.
    pub async fn load_models(&self, deadline: Instant) -> Vec<(&str, InferenceError)> {
        let models = self.stores.models();
        let mut problems = Vec::new();
        let missing = |name: &&str| models.states().of(name).0 != VersionState::Ready;
        for name in models.names().filter(missing) {
            match models.load_by_name(name, deadline).await {
                Err(error) => problems.push((name, error)),
                Ok(_) if self.has_signature(name) => {}
                // Only the component knows whether it needs one.
                Ok(_) => {
                    let refusal = self.refusal_of(name).await;
                    models.states().record(name, refusal.as_ref());
                    problems.extend(refusal.map(|why| (name, InferenceError::NotFound(why))));
                }
            }
        }
        self.usage.touch();
        problems
    }

    /// Whether the version of `model` that is mounted has a `model.toml`.
    fn has_signature(&self, model: &str) -> bool {
        self.spec().models.iter().any(|mounted| mounted.name == model && mounted.declared.is_some())
    }

    /// The state of a mounted model, and why it is unavailable.
    #[must_use]
    pub fn model_state(&self, model: &str) -> (VersionState, String) {
        self.stores.models().states().of(model)
    }

    /// The models that are not ready, and why: those that are mounted one by one, and others whose last load
    /// failed.
    #[must_use]
    pub fn unready_models(&self) -> Vec<(String, String)> {
        let models = self.stores.models();
        let mut unready = models.states().failed();
        let loading =
            models.names().filter(|name| models.states().of(name).0 == VersionState::Loading);
        unready.extend(loading.map(|name| (name.to_owned(), "it is being loaded".to_owned())));
        unready
    }
}
