//! The path of a lookup: memory, flights, Redis.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http::request::Parts;
use http::{Method, Response};
use tokio::time::timeout_at;

use super::ResponseCache;
use super::component_state::ComponentCacheState;
use super::control::{RequestDirectives, request_directives};
use super::counts::{Level, Outcome, RouteCacheCounts};
use super::entry::{CacheEntry, Freshness};
use super::flight::{Boarding, Landed, Lead};
use super::generation::PurgeScopes;
use super::pending::{Lookup, LookupRequest, Pending};
use super::redis::{MAX_DISCONNECTED_AGE, RedisCache};
use super::status::{CacheStatus, Forwarded};
use super::vary::PredictedRule;
use crate::http::body::Body;
use crate::http::error::Failure;

impl ResponseCache {
    /// Looks up the response to a request to the component of `state`, under the route of `scopes`.
    /// `body` is `None` if it is streamed. Waits for a response in flight, at most until half of the
    /// time to the deadline has passed: the rest is for a response of its own.
    ///
    /// # Errors
    /// [`Failure::NotCached`] if the request demands a cached response, and there is none.
    pub async fn look_up(
        &self,
        state: &ComponentCacheState,
        scopes: &PurgeScopes,
        counts: &RouteCacheCounts,
        head: &Parts,
        body: Option<&Bytes>,
        deadline: Instant,
    ) -> Result<Lookup, Failure> {
        if self.limits.memory == 0 {
            return Ok(Lookup::Miss(Pending::Disabled));
        }
        let directives = &request_directives(&head.headers);
        let uncached = |outcome| Lookup::Miss(Pending::Uncached(outcome, head.method.clone()));
        let body = match body.filter(|_| is_worth_lookup(state, head, directives)) {
            Some(body) => body,
            None if directives.only_if_cached => return Err(not_cached(counts, Outcome::Bypass)),
            None => return Ok(uncached(Outcome::Bypass)),
        };
        let age_limit = self.age_limit();
        let generation = scopes.generation();
        // The first wait follows at once; most requests have none.
        let mut wait_until = None;
        loop {
            let predicted = &state.rules.predict(&head.method, &head.uri);
            let key = predicted.rule.key(&state.key_prefix, generation, head, body);
            let request =
                LookupRequest { key, predicted, generation, head, body, directives, age_limit };
            let entry = self.memory.get(&key);
            let entry = entry.as_deref();
            let why = match usable(request, Level::Memory, entry, counts) {
                Usable::Fresh(response, status) => return Ok(Lookup::Hit(response, status)),
                Usable::RefreshAhead(response, status) => {
                    return Ok(self.refresh_ahead(request, response, status));
                }
                Usable::No(why) => why,
            };
            // A response in flight was requested earlier, which `no-cache` does not accept; and no
            // request waits for a response that is unlikely to be stored.
            let is_stored =
                predicted.known || state.is_cacheable() && state.is_worth_lookup(&head.method);
            let joins = !directives.no_cache && is_stored;
            if directives.only_if_cached {
                return self.only_if_cached(request, joins, entry, counts).await;
            }
            if !joins {
                let why = if directives.no_cache { Forwarded::Request } else { why };
                return Ok(Lookup::Miss(request.to_store(why, None)));
            }
            let follow = match self.flights.board(key) {
                Boarding::First(lead) => {
                    return Ok(self.lead(request, lead, why, entry, counts).await);
                }
                Boarding::Later(follow) => follow,
            };
            let wait_until = *wait_until.get_or_insert_with(|| {
                let now = Instant::now();
                now + deadline.saturating_duration_since(now) / 2
            });
            match timeout_at(wait_until.into(), follow.landed()).await {
                Ok(Some(Landed::Response(landed, entry))) => {
                    let PredictedRule { rule, .. } = state.rules.predict(&head.method, &head.uri);
                    // By its rule it may depend on something in which the two requests differ.
                    if landed == rule.key(&state.key_prefix, generation, head, body) {
                        counts.served(Outcome::Collapsed);
                        let response = entry.response(SystemTime::now());
                        return Ok(Lookup::Collapsed(response, CacheStatus::Collapsed(why)));
                    }
                }
                Ok(Some(Landed::Uncached | Landed::Streaming(_))) | Err(_) => {
                    return Ok(uncached(Outcome::Miss));
                }
                // The leader was dropped, or the response is in memory now.
                Ok(None) => {}
            }
        }
    }

    /// Looks in Redis on behalf of a flight.
    async fn lead(
        &self,
        request: LookupRequest<'_>,
        lead: Lead,
        why: Forwarded,
        in_memory: Option<&CacheEntry>,
        counts: &RouteCacheCounts,
    ) -> Lookup {
        match self.fetch(request, in_memory, counts).await {
            // Followers find it in memory.
            Some(Usable::Fresh(response, status)) => Lookup::Hit(response, status),
            Some(Usable::RefreshAhead(response, status)) => request.refresh(response, status, lead),
            Some(Usable::No(why)) => Lookup::Miss(request.to_store(why, Some(lead))),
            None => Lookup::Miss(request.to_store(why, Some(lead))),
        }
    }

    /// The rest of a lookup for a request that accepts only a cached response.
    async fn only_if_cached(
        &self,
        request: LookupRequest<'_>,
        joins: bool,
        in_memory: Option<&CacheEntry>,
        counts: &RouteCacheCounts,
    ) -> Result<Lookup, Failure> {
        let fetched = if joins { self.fetch(request, in_memory, counts).await } else { None };
        match fetched {
            Some(Usable::Fresh(response, status) | Usable::RefreshAhead(response, status)) => {
                Ok(Lookup::Hit(response, status))
            }
            Some(Usable::No(_)) | None => Err(not_cached(counts, Outcome::Miss)),
        }
    }

    /// Serves a response that has to be refreshed: by this request, unless another one does already.
    fn refresh_ahead(
        &self,
        request: LookupRequest<'_>,
        response: Response<Body>,
        status: CacheStatus,
    ) -> Lookup {
        // `only-if-cached` causes no new response.
        if request.directives.only_if_cached {
            return Lookup::Hit(response, status);
        }
        match self.flights.board(request.key) {
            Boarding::First(lead) => request.refresh(response, status, lead),
            Boarding::Later(_) => Lookup::Hit(response, status),
        }
    }

    /// Before a refresh, checks whether another node has stored a newer response. If so, it is copied to
    /// memory, the flight ends with it, and `None` is returned; otherwise `pending`.
    pub async fn refreshed_elsewhere(&self, pending: Pending) -> Option<Pending> {
        let (Pending::ToStore(store), Some(redis)) = (&pending, &self.redis) else {
            return Some(pending);
        };
        let key = store.key;
        let in_memory = self.memory.get(&key);
        let is_newer = |entry: &CacheEntry| {
            in_memory.as_ref().is_none_or(|cached| entry.created > cached.created)
                && entry.ttl(SystemTime::now()) > 0
        };
        let Some(entry) = redis.get(&key).await.ok().flatten().filter(is_newer).map(Arc::new)
        else {
            return Some(pending);
        };
        self.memory.put(key, Arc::clone(&entry));
        if let Pending::ToStore(store) = pending {
            store.land(Landed::Response(key, entry));
        }
        None
    }

    /// Fetches a response from Redis, if it is newer than the one in memory, and copies it to memory.
    /// `None` if there is none.
    async fn fetch(
        &self,
        request: LookupRequest<'_>,
        in_memory: Option<&CacheEntry>,
        counts: &RouteCacheCounts,
    ) -> Option<Usable> {
        let entry = self.redis.as_ref()?.get(&request.key).await.ok()?;
        let is_newer =
            |entry: &CacheEntry| in_memory.is_none_or(|cached| entry.created > cached.created);
        let entry = entry.filter(is_newer).map(Arc::new);
        if let Some(entry) = &entry {
            self.memory.put(request.key, Arc::clone(entry));
        }
        // It is served even if it does not fit in memory.
        let usable = usable(request, Level::Redis, entry.as_deref(), counts);
        entry.map(|_| usable)
    }

    /// Maximum age of a response: limited while purges of other nodes are not received.
    fn age_limit(&self) -> Duration {
        let connected = self.redis.as_ref().is_none_or(RedisCache::receives_invalidations);
        if connected { Duration::MAX } else { MAX_DISCONNECTED_AGE }
    }
}

/// A response as a request may use it.
enum Usable {
    Fresh(Response<Body>, CacheStatus),
    /// It is served and refreshed.
    RefreshAhead(Response<Body>, CacheStatus),
    /// It may not be served.
    No(Forwarded),
}

fn usable(
    request: LookupRequest<'_>,
    level: Level,
    entry: Option<&CacheEntry>,
    counts: &RouteCacheCounts,
) -> Usable {
    let Some(entry) = entry else {
        counts.looked_up(level, None);
        return Usable::No(Forwarded::Miss);
    };
    let now = SystemTime::now();
    let state = entry.state(request.directives, request.age_limit, now, random());
    counts.looked_up(level, Some(state));
    let hit = || (entry.response(now), CacheStatus::Hit { ttl: entry.ttl(now), level });
    match state {
        Freshness::Fresh => {
            let (response, status) = hit();
            Usable::Fresh(response, status)
        }
        Freshness::RefreshAhead => {
            let (response, status) = hit();
            Usable::RefreshAhead(response, status)
        }
        Freshness::Refused => Usable::No(Forwarded::Request),
        Freshness::Stale => Usable::No(Forwarded::Stale),
    }
}

fn not_cached(counts: &RouteCacheCounts, outcome: Outcome) -> Failure {
    counts.served(outcome);
    Failure::NotCached
}

/// Whether the response may be cached, as far as the request and earlier responses tell.
fn is_worth_lookup(
    state: &ComponentCacheState,
    head: &Parts,
    directives: &RequestDirectives,
) -> bool {
    let may_be_cached = [Method::GET, Method::POST].contains(&head.method) && !directives.bypass;
    may_be_cached
        && (state.is_worth_lookup(&head.method)
            || state.rules.predict(&head.method, &head.uri).known)
}

/// Uniform in (0, 1].
fn random() -> f64 {
    1.0 - fastrand::f64()
}
