//! `/cache/stats`: the hit rates of the response cache, by route and level.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use super::collect::counted_routes;
use crate::cache::counts::{Level, LookupResult, Outcome, RouteCacheCounts};
use crate::cache::redis::RedisCache;
use crate::host::Host;
use crate::metrics::RouteMetrics;

#[derive(Debug, Serialize, Deserialize)]
pub struct HostCacheStats {
    /// Name of the application: a machine may run several hosts.
    pub application: String,
    /// Requests of all routes.
    pub total: OutcomeCounts,
    /// Responses that no level stored: the first with their keys.
    pub not_admitted: u64,
    pub memory: MemoryCacheStats,
    /// The level shared with other nodes, if configured.
    pub redis: Option<RedisCacheStats>,
    /// Requests and lookups by route, in the order of the manifest.
    pub routes: Vec<RouteStats>,
}

/// The level in memory.
#[derive(Debug, Serialize, Deserialize)]
pub struct MemoryCacheStats {
    pub entries: u64,
    /// Size of the entries, in bytes.
    pub bytes: u64,
    /// Maximum size of the entries, in bytes.
    pub capacity: u64,
    pub evictions: u64,
    /// Lookups of all routes.
    pub lookups: Lookups,
}

/// The level in Redis, shared with other nodes.
#[derive(Debug, Serialize, Deserialize)]
pub struct RedisCacheStats {
    /// Whether Redis is in use: it responds in time.
    pub connected: bool,
    /// Whether this node receives the invalidations of other nodes.
    pub watched: bool,
    /// Lookups that timed out or failed.
    pub failed: u64,
    /// Lookups that were not attempted, as Redis does not respond.
    pub skipped: u64,
    /// Lookups that found a value of another program or version.
    pub foreign: u64,
    pub stored: u64,
    /// Responses that were not stored, as Redis is full, slow or unreachable.
    pub dropped: u64,
    /// Lookups of all routes.
    pub lookups: Lookups,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct RouteStats {
    pub route: String,
    pub component: String,
    #[serde(flatten)]
    pub outcomes: OutcomeCounts,
    pub levels: BTreeMap<String, Lookups>,
}

/// Requests, by outcome in the response cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct OutcomeCounts {
    pub requests: u64,
    pub hits: u64,
    /// Served the response to another request in flight.
    pub collapsed: u64,
    pub misses: u64,
    /// Requests that were not looked up.
    pub bypassed: u64,
    /// Hits per request that was looked up; `None` without any.
    pub hit_rate: Option<f64>,
}

/// Lookups in one level.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Lookups {
    pub hits: u64,
    /// Hits whose response was stale or nearly stale.
    pub stale: u64,
    pub misses: u64,
    /// Hits per lookup; `None` without any.
    pub hit_rate: Option<f64>,
}

impl HostCacheStats {
    #[must_use]
    pub fn of(host: &Host) -> Self {
        let counted: Vec<&RouteMetrics> =
            counted_routes(host).filter(|metrics| !metrics.component.is_empty()).collect();
        let all: Vec<&RouteCacheCounts> = counted.iter().map(|metrics| &metrics.cache).collect();
        let cache = host.cache();
        let routes = counted.iter().map(|metrics| {
            let counts = &metrics.cache;
            let levels = cache.levels().iter();
            RouteStats {
                route: metrics.route.clone(),
                component: metrics.component.clone(),
                outcomes: OutcomeCounts::of(&[counts]),
                levels: levels
                    .map(|&level| (level.name().to_owned(), Lookups::of(&[counts], level)))
                    .collect(),
            }
        });
        let (entries, bytes) = cache.memory().usage();
        let memory = MemoryCacheStats {
            entries: entries as u64,
            bytes,
            capacity: cache.limits().memory,
            evictions: cache.memory().evicted(),
            lookups: Lookups::of(&all, Level::Memory),
        };
        let redis = cache.redis().map(|shared| RedisCacheStats::of(shared, &all));
        Self {
            application: host.name().to_owned(),
            total: OutcomeCounts::of(&all),
            not_admitted: cache.not_admitted(),
            memory,
            redis,
            routes: routes.collect(),
        }
    }
}

impl RedisCacheStats {
    fn of(shared: &RedisCache, routes: &[&RouteCacheCounts]) -> Self {
        let counts = shared.counts();
        let number = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Self {
            connected: shared.is_connected(),
            watched: shared.receives_invalidations(),
            failed: number(&counts.failures),
            skipped: number(&counts.skipped),
            foreign: number(&counts.foreign),
            stored: number(&counts.stored),
            dropped: number(&counts.not_stored),
            lookups: Lookups::of(routes, Level::Redis),
        }
    }
}

impl OutcomeCounts {
    fn of(counts: &[&RouteCacheCounts]) -> Self {
        let sum = |outcome| counts.iter().map(|counts| counts.outcome(outcome)).sum();
        let (hits, collapsed) = (sum(Outcome::Hit), sum(Outcome::Collapsed));
        let (misses, bypassed): (u64, u64) = (sum(Outcome::Miss), sum(Outcome::Bypass));
        let looked_up = hits + collapsed + misses;
        let (requests, hit_rate) = (looked_up + bypassed, rate(hits, looked_up));
        Self { requests, hits, collapsed, misses, bypassed, hit_rate }
    }
}

impl Lookups {
    fn of(counts: &[&RouteCacheCounts], level: Level) -> Self {
        let sum = |found| counts.iter().map(|counts| counts.lookup(level, found)).sum();
        let (fresh, stale, misses): (u64, u64, u64) =
            (sum(LookupResult::Hit), sum(LookupResult::Stale), sum(LookupResult::Miss));
        let hits = fresh + stale;
        Self { hits, stale, misses, hit_rate: rate(hits, hits + misses) }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a ratio")]
fn rate(part: u64, total: u64) -> Option<f64> {
    (total > 0).then(|| part as f64 / total as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::entry::Freshness;

    #[test]
    fn hit_rate_ignores_bypassed_requests() {
        let [one, two] = [RouteCacheCounts::default(), RouteCacheCounts::default()];
        for state in
            [Some(Freshness::Fresh), Some(Freshness::RefreshAhead), Some(Freshness::Stale), None]
        {
            one.looked_up(Level::Memory, state);
        }
        one.served(Outcome::Collapsed);
        one.served(Outcome::Miss);
        two.served(Outcome::Bypass);
        let expected = OutcomeCounts {
            requests: 5,
            hits: 2,
            collapsed: 1,
            misses: 1,
            bypassed: 1,
            hit_rate: Some(0.5),
        };
        assert_eq!(OutcomeCounts::of(&[&one, &two]), expected);
        let expected = Lookups { hits: 2, stale: 1, misses: 2, hit_rate: Some(0.5) };
        assert_eq!(Lookups::of(&[&one, &two], Level::Memory), expected);
        assert_eq!(
            (OutcomeCounts::of(&[&two]).hit_rate, OutcomeCounts::of(&[]).hit_rate),
            (None, None)
        );
    }
}
