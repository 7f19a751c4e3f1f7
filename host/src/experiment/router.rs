//! A router component, and what is counted of the variants it assigns requests to.

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::Result;
use http::header::{CACHE_CONTROL, HeaderMap, HeaderName, HeaderValue};
use spinfer_experiment::{Experiment, Experiments};
use tokio::sync::Semaphore;

use crate::storage::key_value::Store;
use crate::metrics::counters::Counter;
use crate::prediction_log::record::Exposure;
use crate::http::reserved::INTERNAL;
use crate::guest::component::Service;

const EXPERIMENT: HeaderName = HeaderName::from_static("spinfer-experiment");
const VARIANT: HeaderName = HeaderName::from_static("spinfer-variant");
/// Instead of what the variant's component allows: what was assigned is for its unit, until a ramp.
/// The host's own cache lies below, and keeps what the component allows.
const NOT_FOR_CACHES: HeaderValue = HeaderValue::from_static("private, no-cache");

/// Copies to one shadow under way at a time; more are not sent.
pub const MAX_COPIES: usize = 32;

/// A component that assigns requests to variants.
#[derive(Debug)]
pub struct ExperimentRouter {
    service: Arc<Service>,
    /// Of the file it mounts, if it mounts one.
    experiments: Experiments,
    /// Of each experiment, in the file's order.
    arms: HashMap<String, Vec<Arc<Arm>>>,
    /// In which changes are, if it is granted.
    store: Option<Arc<Store>>,
}

/// A variant of an experiment.
#[derive(Debug)]
pub struct Arm {
    pub exposure: Exposure,
    /// The component that serves it.
    pub component: String,
    headers: [HeaderValue; 2],
    /// Requests that were assigned to it.
    pub assignments: Counter,
    pub copies: Copies,
}

/// What became of the copies for a shadow.
#[derive(Debug)]
pub struct Copies {
    /// One for each under way.
    pub(super) permits: Arc<Semaphore>,
    /// The shadow's response was no error of a server.
    pub served: Counter,
    pub failed: Counter,
    /// Too many were under way, or the body was a stream.
    pub skipped: Counter,
}

impl Default for Copies {
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
    /// Fails if a header cannot hold the names.
    pub fn new(experiment: &str, variant: &str, component: &str) -> Result<Self> {
        let headers = [HeaderValue::try_from(experiment)?, HeaderValue::try_from(variant)?];
        Ok(Self {
            exposure: Exposure { experiment: experiment.into(), variant: variant.into() },
            component: component.to_owned(),
            headers,
            assignments: Counter::default(),
            copies: Copies::default(),
        })
    }

    /// Marks a response of its component.
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
    /// `store` is the one that changes are in, if `service` is granted it.
    pub fn new(
        service: Arc<Service>,
        experiments: Experiments,
        store: Option<Arc<Store>>,
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
    pub fn service(&self) -> &Arc<Service> {
        &self.service
    }

    #[must_use]
    pub fn experiments(&self) -> &Experiments {
        &self.experiments
    }

    #[must_use]
    pub fn store(&self) -> Option<&Arc<Store>> {
        self.store.as_ref()
    }

    /// The arms of `experiment`, in the file's order.
    #[must_use]
    pub fn arms(&self, experiment: &str) -> &[Arc<Arm>] {
        self.arms.get(experiment).map_or(&[], Vec::as_slice)
    }

    /// The arm of that name whose component is `component`; a router that mounts no file, or has
    /// another of its own, assigns to others too, which are not counted. `None` if the router may not
    /// call that component, or no header holds the names.
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
    fn a_response_says_whose_it_is_and_is_for_no_cache_above() {
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
