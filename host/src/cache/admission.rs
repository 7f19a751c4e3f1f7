//! Which new responses are stored. Many requests are the only one with their key. To store their
//! responses costs processor time and memory, and evicts others; so a response is stored from the second
//! request for it on.
//!
//! ```text
//! key requested before, as far as the doorkeeper remembers ─> stored
//! requests wait for the response, too ──────────────────────> stored
//! adaptive: the cache is nearly empty, or it took long ─────> stored
//! otherwise ────────────────────────────────────────────────> served, and in neither level
//! ```
//!
//! This applies to both levels. Each node has a doorkeeper of its own: a response is shared once one node
//! has computed it twice.

use std::sync::OnceLock;
use std::time::Duration;

use super::doorkeeper::Doorkeeper;
use super::key::CacheKey;
use super::memory::{MemoryCache, assumed_entries};
use crate::metrics::counters::Counter;

/// `[cache] admission`: from which request on the response to a key is stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AdmissionPolicy {
    /// The second; the first while the memory is [nearly empty](MemoryCache::is_nearly_empty), and for
    /// responses that took [long](EXPENSIVE) to compute.
    #[default]
    Adaptive,
    First,
    Second,
}

impl AdmissionPolicy {
    pub const ALL: [Self; 3] = [Self::Adaptive, Self::First, Self::Second];

    /// The value in the runtime config.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Adaptive => "adaptive",
            Self::First => "first",
            Self::Second => "second",
        }
    }
}

/// A response that took this long is stored at once: storing it costs less than 0.1 % of that. A
/// shorter time would include cheap responses of a busy host, where a request waits for the processor.
pub const EXPENSIVE: Duration = Duration::from_millis(10);

/// Decides on new responses, and counts those that are not admitted.
#[derive(Debug)]
pub(super) struct Admission {
    policy: AdmissionPolicy,
    /// Number of keys that the doorkeeper remembers: that of the entries that fit in memory. With more,
    /// the hit rate is lower (benches/RESULTS.md).
    window: usize,
    /// Created when it is first needed: the memory of many hosts stays nearly empty.
    doorkeeper: OnceLock<Doorkeeper>,
    pub(super) not_admitted: Counter,
}

impl Admission {
    /// Admission to a cache with `memory` bytes.
    pub(super) fn new(policy: AdmissionPolicy, memory: u64) -> Self {
        Self {
            policy,
            window: assumed_entries(memory),
            doorkeeper: OnceLock::new(),
            not_admitted: Counter::default(),
        }
    }

    /// Whether to store a response that took `cost`, and that replaces none.
    pub(super) fn admits(&self, key: &CacheKey, cost: Duration, memory: &MemoryCache) -> bool {
        match self.policy {
            AdmissionPolicy::First => true,
            AdmissionPolicy::Adaptive if memory.is_nearly_empty() || cost >= EXPENSIVE => true,
            AdmissionPolicy::Adaptive | AdmissionPolicy::Second => {
                let doorkeeper = self.doorkeeper.get_or_init(|| Doorkeeper::new(self.window));
                doorkeeper.insert(key.last_bits())
            }
        }
    }
}
