//! The response cache: a shared HTTP cache (RFC 9111) of components' responses, also of those to
//! requests with a body, which is part of the key.
//!
//! A response depends on its component's code, models and variables, and on the request. All of that is
//! in the [`key`], so a new version of a component never serves responses of an earlier one. A response is
//! stored only if its component allows that by `Cache-Control` ([`control`]). The component declares,
//! too, which request headers it depends on, and how bodies are compared (`vary`).
//!
//! There are two levels: the memory of this process, and optionally a [`redis`] that nodes share. A
//! lookup goes through them in this order:
//!
//! ```text
//! memory ─ fresh ────────────> Hit
//!   │      stale, or soon ───> RefreshAhead: served, and refreshed in the background
//!   v
//! flight ─ in flight ────────> wait for its response: Collapsed
//!   │ none: this request leads
//!   v
//! Redis ── found ────────────> copied to memory; as from memory
//!   │
//!   v
//! Miss(Pending) ─> the component is invoked ─> store
//!   │ admitted ─────────────────> memory, Redis, and the flight's followers
//!   └ the first with its key ───> served, and not stored
//! ```
//!
//! - `lookup`: the path above.
//! - `pending`: a request without a usable response, and where its response is stored.
//! - [`admission`]: which new responses are stored; the `doorkeeper` remembers recent keys.
//! - `flight`: concurrent requests with one key wait for one response.
//! - [`generation`]: purging, on this node and the others.
//! - [`entry`]: a cached response and its freshness.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::{Response, StatusCode};
use http_body::Body as _;
use serde::{Deserialize, Serialize};

use crate::http::body::Body;
use crate::http::error::Failure;
use crate::prediction_log::Appended;

pub mod admission;
mod body_key;
pub mod canonical;
mod component_state;
pub mod control;
pub mod counts;
mod doorkeeper;
pub mod entry;
mod flight;
pub mod generation;
pub mod key;
mod lookup;
pub mod memory;
mod pending;
pub mod redis;
mod status;
mod stored;
#[cfg(test)]
mod tests;
mod vary;

use admission::{Admission, AdmissionPolicy};
pub use body_key::BodyKey;
pub use component_state::ComponentCacheState;
use control::{ResponseDirectives, response_directives};
use counts::Level;
use entry::CacheEntry;
use flight::{Flights, Landed};
use generation::{Generations, PurgeScope, PurgeScopes};
pub use key::KeyPrefix;
use memory::MemoryCache;
use pending::PendingStore;
pub use pending::{Lookup, Pending, copied};
use redis::RedisCache;
pub use status::CacheStatus;
use status::Forwarded;
use vary::VaryRule;

/// Maximum sizes, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct CacheLimits {
    /// All cached responses in memory; 0 disables the cache.
    pub memory: u64,
    /// One cached response.
    pub max_entry: usize,
}

impl Default for CacheLimits {
    fn default() -> Self {
        Self { memory: 64 << 20, max_entry: 1 << 20 }
    }
}

/// `[cache]` in the runtime config.
#[derive(Clone, Debug)]
pub struct CacheSettings {
    pub limits: CacheLimits,
    /// Which new responses are stored.
    pub admission: AdmissionPolicy,
    /// Whether responses have a `Cache-Status` header.
    pub status_header: bool,
    /// The level that nodes share, if any.
    pub redis: Option<redis::RedisSettings>,
}

impl Default for CacheSettings {
    fn default() -> Self {
        let (limits, admission) = (CacheLimits::default(), AdmissionPolicy::default());
        Self { limits, admission, status_header: true, redis: None }
    }
}

/// The cached responses of all components.
#[derive(Debug)]
pub struct ResponseCache {
    limits: CacheLimits,
    status_header: bool,
    admission: Admission,
    memory: Arc<MemoryCache>,
    redis: Option<RedisCache>,
    flights: Arc<Flights>,
    generations: Generations,
}

/// How far a purge has propagated to other nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Propagation {
    /// Only this node has cached responses: no Redis is configured.
    Local,
    /// To all nodes that share the Redis.
    All,
    /// Other nodes follow when the Redis accepts the purge: it is unreachable or full.
    Pending,
}

impl ResponseCache {
    /// A cache without responses. `redis` is the level that nodes share, if any.
    #[must_use]
    pub fn new(settings: &CacheSettings, redis: Option<RedisCache>) -> Self {
        let CacheSettings { limits, admission, status_header, redis: _ } = *settings;
        Self {
            limits,
            status_header,
            admission: Admission::new(admission, limits.memory),
            memory: Arc::new(MemoryCache::new(limits.memory, limits.max_entry)),
            redis,
            flights: Arc::default(),
            generations: Generations::default(),
        }
    }

    /// Maintains the connections to Redis, exchanges generations and stores responses there, forever.
    pub async fn run_redis(&self) {
        if let Some(redis) = &self.redis {
            redis.run(&self.generations, &self.memory).await;
        }
    }

    /// The level that nodes share, if any.
    #[must_use]
    pub fn redis(&self) -> Option<&RedisCache> {
        self.redis.as_ref()
    }

    /// The levels, in the order of a lookup.
    #[must_use]
    pub fn levels(&self) -> &'static [Level] {
        if self.redis.is_some() { &Level::ALL } else { &[Level::Memory] }
    }

    /// The level in memory.
    #[must_use]
    pub fn memory(&self) -> &MemoryCache {
        &self.memory
    }

    #[must_use]
    pub fn limits(&self) -> &CacheLimits {
        &self.limits
    }

    /// Number of responses that were not stored: the first with their keys.
    #[must_use]
    pub fn not_admitted(&self) -> u64 {
        self.admission.not_admitted.get()
    }

    /// Whether responses have a `Cache-Status` header.
    #[must_use]
    pub fn status_header(&self) -> bool {
        self.status_header
    }

    /// The purge scopes of responses that belong to all of `scopes`.
    pub fn scopes(&self, scopes: impl IntoIterator<Item = PurgeScope>) -> PurgeScopes {
        self.generations.scopes([PurgeScope::Everything].into_iter().chain(scopes))
    }

    /// Purges the responses of `scope`, those in flight included, here and on other nodes.
    ///
    /// # Errors
    /// The scope is unknown; the known ones are returned.
    pub async fn purge(&self, scope: &PurgeScope) -> Result<Propagation, Vec<PurgeScope>> {
        let number = self.generations.raise(scope).ok_or_else(|| self.generations.known())?;
        if *scope == PurgeScope::Everything {
            // The entries of another scope cannot be found; they are evicted in time.
            self.memory.clear();
        }
        Ok(match &self.redis {
            None => Propagation::Local,
            Some(redis) if redis.publish(scope, number).await => Propagation::All,
            Some(_) => Propagation::Pending,
        })
    }

    /// Stores the response of a component, if it may be stored, and ends the flight that waits for it:
    /// at once, or when the response has been sent to its end. Returns the response, and the status of the
    /// cache if it may be stored.
    ///
    /// # Errors
    /// The failure in `response`, if it is one.
    pub fn store(
        self: &Arc<Self>,
        state: &ComponentCacheState,
        pending: Pending,
        mut response: Result<Response<Body>, Failure>,
    ) -> Result<(Response<Body>, Option<CacheStatus>), Failure> {
        let body_key = response.as_mut().ok().and_then(|ok| BodyKey::take(ok.headers_mut()));
        let pending = match pending {
            Pending::Disabled => return response.map(|response| (response, None)),
            Pending::Uncached(_, method) => {
                let response = response?;
                if response.status() == StatusCode::OK {
                    let storable = response_directives(response.headers(), false).is_some();
                    state.learn(&method, storable);
                }
                return Ok((response, None));
            }
            Pending::ToStore(pending) => pending,
        };
        match response {
            Ok(response) => Ok(self.store_pending(state, pending, response, body_key)),
            Err(failure) => {
                pending.land(Landed::Uncached);
                Err(failure)
            }
        }
    }

    fn store_pending(
        self: &Arc<Self>,
        state: &ComponentCacheState,
        pending: Box<PendingStore>,
        response: Response<Body>,
        body_key: Option<BodyKey>,
    ) -> (Response<Body>, Option<CacheStatus>) {
        let is_ok = response.status() == StatusCode::OK;
        let directives = response_directives(response.headers(), pending.authorized);
        // The response to an invalid request tells nothing about its component, and one that is not
        // stored because of credentials may be storable for other requests.
        if is_ok {
            let for_others =
                pending.authorized && response_directives(response.headers(), false).is_some();
            state.learn(&pending.method, directives.is_some() || for_others);
        }
        let predictions = response.extensions().get::<Appended>().map_or(0, Appended::size);
        let fits = self.may_fit(&response) && predictions <= self.limits.max_entry;
        let Some(directives) = directives.filter(|_| is_ok && fits) else {
            pending.land(Landed::Uncached);
            return (response, None);
        };
        let known = pending.is_rule_known().then_some(&pending.rule);
        let rule = VaryRule::of(response.headers(), body_key, known);
        if rule != pending.rule || !pending.is_rule_known() {
            state.rules.learn(&pending.method, &pending.uri, &rule);
        }
        let Some(pending) = pending.by(rule, &state.key_prefix) else {
            return (response, None);
        };
        let (response, status) = if response.body().is_whole() {
            self.store_whole(pending, response, directives)
        } else {
            self.store_streamed(pending, response, directives)
        };
        (response, Some(status))
    }

    /// Stores a response that is complete in memory, if it is admitted.
    fn store_whole(
        &self,
        pending: Box<PendingStore>,
        mut response: Response<Body>,
        directives: ResponseDirectives,
    ) -> (Response<Body>, CacheStatus) {
        let (why, cost) = (pending.why, pending.start.elapsed());
        let Some(pending) = self.admit(pending, cost) else {
            return (response, CacheStatus::NotAdmitted);
        };
        let body = response.body_mut().take_whole().unwrap_or_default();
        let entry = CacheEntry::new(response.headers(), &body, directives, cost);
        self.insert(*pending, entry.with_predictions(predictions(&response)));
        *response.body_mut() = Body::whole(body);
        (response, CacheStatus::Stored(why))
    }

    /// Stores a response at its end, if it is admitted and fits. Until then, requests wait for it a short
    /// while.
    fn store_streamed(
        self: &Arc<Self>,
        pending: Box<PendingStore>,
        response: Response<Body>,
        directives: ResponseDirectives,
    ) -> (Response<Body>, CacheStatus) {
        pending.streaming();
        let why = pending.why;
        let entry = CacheEntry::new(response.headers(), b"", directives, Duration::ZERO);
        let entry = entry.with_predictions(predictions(&response));
        let cache = Arc::clone(self);
        let complete = move |body: Option<&[u8]>| {
            let Some(body) = body else {
                pending.land(Landed::Uncached);
                return;
            };
            let cost = pending.start.elapsed();
            if let Some(pending) = cache.admit(pending, cost) {
                cache.insert(*pending, entry.complete(body, cost));
            }
        };
        let response = response.map(|body| body.copied(self.limits.max_entry, complete));
        (response, CacheStatus::Storing(why))
    }

    /// Returns `pending` if its response, which took `cost`, is to be stored. Otherwise ends its flight,
    /// which no other request waits for.
    fn admit(&self, pending: Box<PendingStore>, cost: Duration) -> Option<Box<PendingStore>> {
        // Other responses replace one that is cached, or were demanded by `no-cache`.
        let is_new = pending.why == Forwarded::Miss;
        if !is_new || self.admission.admits(&pending.key, cost, &self.memory) {
            return Some(pending);
        }
        // Unless a request waits for it, and so is the second.
        let admitted = pending.leave();
        if admitted.is_none() {
            self.admission.not_admitted.count();
        }
        admitted
    }

    /// Inserts a response in both levels, and ends its flight.
    fn insert(&self, pending: PendingStore, entry: CacheEntry) {
        let (entry, key) = (Arc::new(entry), pending.key);
        self.memory.put(key, Arc::clone(&entry));
        if let Some(redis) = &self.redis {
            redis.put(key, &entry, entry.remaining(SystemTime::now()));
        }
        pending.land(Landed::Response(key, entry));
    }

    /// Whether a response is not known to exceed the limit.
    fn may_fit(&self, response: &Response<Body>) -> bool {
        response.body().size_hint().lower() <= self.limits.max_entry as u64
    }
}

/// The predictions that are cached with `response`.
fn predictions(response: &Response<Body>) -> Appended {
    response.extensions().get().cloned().unwrap_or_default()
}
