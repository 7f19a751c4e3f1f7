//! What the response cache knows of a component.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use http::Method;

use super::key::KeyPrefix;
use super::vary::LearnedRules;

/// After this many consecutive responses to a method that could not be stored, requests with that
/// method are no longer looked up, until a response can be stored again. Paths that had such a response
/// are still looked up.
const MAX_UNCACHEABLE: u32 = 64;

/// The key prefix of a component, and what its responses so far have declared.
#[derive(Debug)]
pub struct ComponentCacheState {
    pub(super) key_prefix: KeyPrefix,
    pub(super) rules: LearnedRules,
    /// Consecutive responses that could not be stored: to POST, and to other methods, since requests for
    /// probes and metadata come between predictions.
    uncacheable: [AtomicU32; 2],
    /// See [`Self::is_cacheable`].
    cacheable: AtomicBool,
}

impl ComponentCacheState {
    /// The state of a component before its first response, which is `likely` to be storable or unknown.
    #[must_use]
    pub fn new(key_prefix: KeyPrefix, likely: bool) -> Self {
        let cacheable = AtomicBool::new(likely);
        Self {
            key_prefix,
            rules: LearnedRules::default(),
            uncacheable: Default::default(),
            cacheable,
        }
    }

    /// Whether a response was storable before, or is likely to be: then requests wait for one in flight.
    #[must_use]
    pub fn is_cacheable(&self) -> bool {
        self.cacheable.load(Ordering::Relaxed)
    }

    /// Whether requests for unknown paths are looked up.
    pub(super) fn is_worth_lookup(&self, method: &Method) -> bool {
        self.uncacheable(method).load(Ordering::Relaxed) < MAX_UNCACHEABLE
    }

    /// Records whether the latest response to `method` could be stored.
    pub(super) fn learn(&self, method: &Method, storable: bool) {
        let uncacheable = self.uncacheable(method);
        if storable && !self.cacheable.load(Ordering::Relaxed) {
            self.cacheable.store(true, Ordering::Relaxed);
        }
        if !storable {
            let more = |count: u32| (count < MAX_UNCACHEABLE).then_some(count + 1);
            let _ = uncacheable.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        } else if uncacheable.load(Ordering::Relaxed) > 0 {
            uncacheable.store(0, Ordering::Relaxed);
        }
    }

    fn uncacheable(&self, method: &Method) -> &AtomicU32 {
        &self.uncacheable[usize::from(*method == Method::POST)]
    }
}
