//! Metrics of the response cache.

use std::sync::atomic::Ordering;

use super::counted_routes;
use crate::cache::counts::{Level, LookupResult, Outcome};
use crate::cache::redis::RedisCache;
use crate::host::Host;
use crate::metrics::RouteMetrics;
use crate::metrics::exposition::Exposition;
use crate::metrics::table;

pub(super) fn expose(host: &Host, text: &mut Exposition) {
    let of_components = || counted_routes(host).filter(|metrics| !metrics.component.is_empty());
    let mut requests = text.family(&table::CACHE_REQUESTS);
    for RouteMetrics { component, route, cache, .. } in of_components() {
        for outcome in Outcome::ALL {
            requests.value(&[component, route, outcome.name()], cache.outcome(outcome));
        }
    }
    let mut lookups = text.family(&table::CACHE_LOOKUPS);
    for RouteMetrics { component, route, cache, .. } in of_components() {
        for &level in host.cache().levels() {
            for found in LookupResult::ALL {
                let labels = [component, route, level.name(), found.name()];
                lookups.value(&labels, cache.lookup(level, found));
            }
        }
    }
    let cache = host.cache();
    let (entries, bytes) = cache.memory().usage();
    let memory = [Level::Memory.name()];
    text.family(&table::CACHE_ENTRIES).value(&memory, entries);
    text.family(&table::CACHE_BYTES).value(&memory, bytes);
    text.family(&table::CACHE_CAPACITY).value(&memory, cache.limits().memory);
    text.family(&table::CACHE_EVICTIONS).value(&memory, cache.memory().evicted());
    text.family(&table::CACHE_NOT_ADMITTED).value(&[], cache.not_admitted());
    redis(cache.redis(), text);
}

/// The shared part of the response cache. Without it the families have no samples.
fn redis(shared: Option<&RedisCache>, text: &mut Exposition) {
    let mut connected = text.family(&table::REDIS_CONNECTED);
    if let Some(shared) = shared {
        connected.value(&[], u8::from(shared.is_connected()));
    }
    let mut watched = text.family(&table::REDIS_INVALIDATION_CONNECTED);
    if let Some(shared) = shared {
        watched.value(&[], u8::from(shared.receives_invalidations()));
    }
    let mut lookups = text.family(&table::REDIS_LOOKUPS);
    if let Some(counts) = shared.map(RedisCache::counts) {
        for (result, count) in [
            ("hit", &counts.hits),
            ("miss", &counts.misses),
            ("failed", &counts.failures),
            ("skipped", &counts.skipped),
            ("foreign", &counts.foreign),
        ] {
            lookups.value(&[result], count.load(Ordering::Relaxed));
        }
    }
    let mut stores = text.family(&table::REDIS_STORES);
    if let Some(counts) = shared.map(RedisCache::counts) {
        for (result, count) in [("stored", &counts.stored), ("dropped", &counts.not_stored)] {
            stores.value(&[result], count.load(Ordering::Relaxed));
        }
    }
}
