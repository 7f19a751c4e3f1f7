//! Router components, and the counters of the variants they assign requests to.

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::Result;
use http::header::{CACHE_CONTROL, HeaderMap, HeaderName, HeaderValue};
use spinfer_experiment::{Experiment, Experiments};
use tokio::sync::Semaphore;

use crate::guest::component::Component;
use crate::http::reserved::INTERNAL;
use crate::metrics::counters::Counter;
use crate::prediction_log::record::Exposure;
use crate::storage::key_value::GrantedStore;

const EXPERIMENT: HeaderName = HeaderName::from_static("spinfer-experiment");
const VARIANT: HeaderName = HeaderName::from_static("spinfer-variant");
/// Replaces the `Cache-Control` of the variant's component: an assigned response is valid for its
/// unit only, and until a ramp. The host's response cache follows the component's header.
const NOT_FOR_CACHES: HeaderValue = HeaderValue::from_static("private, no-cache");

/// Maximum number of copies for one shadow in flight. More are skipped.
pub const MAX_COPIES: usize = 32;

/// A component that assigns requests to variants.
#[derive(Debug)]
pub struct ExperimentRouter {
    service: Arc<Component>,
    /// The experiments of the mounted file; none without a file.
    experiments: Experiments,
    /// The arms of each experiment, in file order.
    arms: HashMap<String, Vec<Arc<Arm>>>,
    /// The store with the changes, if granted.
    store: Option<Arc<GrantedStore>>,
}

/// A variant of an experiment, with its counters.
#[derive(Debug)]
pub struct Arm {
    pub exposure: Exposure,
    /// The component that serves it.
    pub component: String,
    headers: [HeaderValue; 2],
    /// Requests assigned to the variant.
    pub assignments: Counter,
    pub copies: ShadowCounts,
}

/// Counters of the copies for a shadow.
#[derive(Debug)]
pub struct ShadowCounts {
    /// A permit for each copy in flight.
    pub permits: Arc<Semaphore>,
    /// ShadowCounts with a response other than 5xx.
    pub served: Counter,
    /// ShadowCounts with a 5xx response, or without one.
    pub failed: Counter,
    /// ShadowCounts not sent: too many in flight, or a streamed body.
    pub skipped: Counter,
}

impl Default for ShadowCounts {
    fn default() -> Self {
        Self {
            permits: Arc::new(Semaphore::new(MAX_COPIES)),
            served: Counter::default(),
            failed: Counter::default(),
            skipped: Counter::default(),
        }
    }
}

impl Arm {
    /// An arm without counts.
    ///
    /// # Errors
    /// Fails if a name is not a valid header value.
    pub fn new(experiment: &str, variant: &str, component: &str) -> Result<Self> {
        let headers = [HeaderValue::try_from(experiment)?, HeaderValue::try_from(variant)?];
        Ok(Self {
            exposure: Exposure { experiment: experiment.into(), variant: variant.into() },
            component: component.to_owned(),
            headers,
            assignments: Counter::default(),
            copies: ShadowCounts::default(),
        })
    }

    /// Marks a response of the variant's component with the assignment.
    pub fn mark(&self, headers: &mut HeaderMap) {
        let [experiment, variant] = self.headers.clone();
        headers.insert(EXPERIMENT, experiment);
        headers.insert(VARIANT, variant);
        if let Some(allowed) = headers.get_mut(CACHE_CONTROL) {
            *allowed = NOT_FOR_CACHES;
        }
    }
}

impl ExperimentRouter {
    /// A router with the `experiments` it mounts. `store` is the one with the changes, if granted.
    ///
    /// # Errors
    /// Fails if a name is not a valid header value.
    pub fn new(
        service: Arc<Component>,
        experiments: Experiments,
        store: Option<Arc<GrantedStore>>,
    ) -> Result<Self> {
        let arms = |experiment: &Experiment| {
            let arms = experiment.variants.iter().map(|variant| {
                Ok(Arc::new(Arm::new(&experiment.name, &variant.name, &variant.component)?))
            });
            Ok((experiment.name.clone(), arms.collect::<Result<_>>()?))
        };
        let arms = experiments.iter().map(arms).collect::<Result<_>>()?;
        Ok(Self { service, experiments, arms, store })
    }

    #[must_use]
    pub fn service(&self) -> &Arc<Component> {
        &self.service
    }

    #[must_use]
    pub fn experiments(&self) -> &Experiments {
        &self.experiments
    }

    /// Whether `component` serves a variant of one of its experiments.
    #[must_use]
    pub fn assigns_to(&self, component: &str) -> bool {
        let mut variants = self.experiments.iter().flat_map(|experiment| &experiment.variants);
        variants.any(|variant| variant.component == component && !variant.shadow)
    }

    #[must_use]
    pub fn store(&self) -> Option<&Arc<GrantedStore>> {
        self.store.as_ref()
    }

    /// The arms of `experiment`, in file order.
    #[must_use]
    pub fn arms(&self, experiment: &str) -> &[Arc<Arm>] {
        self.arms.get(experiment).map_or(&[], Vec::as_slice)
    }

    /// The arm of this name and `component`. A router without a mounted file, or with another
    /// source of experiments, also assigns to other arms, which are not counted. `None` if the
    /// router may not call the component, or a name is not a valid header value.
    #[must_use]
    pub fn arm(&self, experiment: &str, variant: &str, component: &str) -> Option<Arc<Arm>> {
        let known = self.arms(experiment).iter();
        let mut known = known.filter(|arm| &*arm.exposure.variant == variant);
        if let Some(arm) = known.find(|arm| arm.component == component) {
            return Some(Arc::clone(arm));
        }
        let allowed = self.may_call(component);
        allowed.then(|| Arm::new(experiment, variant, component).ok().map(Arc::new)).flatten()
    }

    fn may_call(&self, component: &str) -> bool {
        let host = format!("{component}{INTERNAL}");
        self.service.spec().outbound_hosts.allows("http", &host, None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn assigned_response_is_marked_and_not_for_shared_caches() {
        let arm = Arm::new("iris", "treatment", "iris-classifier-2").unwrap();
        let mut headers = HeaderMap::new();
        arm.mark(&mut headers);
        assert_eq!(headers["spinfer-experiment"], "iris");
        assert_eq!(headers["spinfer-variant"], "treatment");
        assert!(!headers.contains_key(CACHE_CONTROL));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("max-age=60"));
        headers.insert(VARIANT, HeaderValue::from_static("of another router"));
        arm.mark(&mut headers);
        assert_eq!(headers[CACHE_CONTROL], "private, no-cache");
        assert_eq!(headers["spinfer-variant"], "treatment");
        assert!(Arm::new("a\nb", "c", "d").is_err());
    }
}
