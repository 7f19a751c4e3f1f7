//! `/cache/stats`: how often the response cache has an answer, by route and level.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use crate::cache::counts::{Counts, Level, Lookup, Outcome};
use crate::cache::redis::Shared;
use crate::host::Host;
use super::collect::counted_routes;
use crate::metrics::RouteMetrics;

#[derive(Debug, Serialize, Deserialize)]
pub struct Stats {
    /// Of all routes.
    pub total: Answers,
    pub memory: Memory,
    /// What nodes share, if they do.
    pub redis: Option<Redis>,
    /// In the manifest's order.
    pub routes: Vec<RouteStats>,
}

/// What is in memory.
#[derive(Debug, Serialize, Deserialize)]
pub struct Memory {
    pub entries: u64,
    pub bytes: u64,
    /// Bytes it may hold.
    pub capacity: u64,
    pub evictions: u64,
    /// Of all routes.
    pub lookups: Lookups,
}

/// What nodes share.
#[derive(Debug, Serialize, Deserialize)]
pub struct Redis {
    /// Whether it is asked at present.
    pub connected: bool,
    /// Whether this node hears what others forget.
    pub watched: bool,
    /// No answer in time, or an error.
    pub failed: u64,
    /// Not asked, as it did not answer before.
    pub skipped: u64,
    /// Values that are not what was stored.
    pub foreign: u64,
    pub stored: u64,
    /// Not stored: it is full, slow or away.
    pub dropped: u64,
    /// Of all routes.
    pub lookups: Lookups,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct RouteStats {
    pub route: String,
    pub component: String,
    #[serde(flatten)]
    pub answers: Answers,
    pub levels: BTreeMap<String, Lookups>,
}

/// What requests got.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Answers {
    pub requests: u64,
    pub hits: u64,
    /// Those that waited for another's answer.
    pub collapsed: u64,
    pub misses: u64,
    /// Those that were not looked up.
    pub bypassed: u64,
    /// Of those that were looked up; none: there were none.
    pub hit_rate: Option<f64>,
}

/// What a level had.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Lookups {
    pub hits: u64,
    /// Of those, the ones whose time was over, or nearly.
    pub stale: u64,
    pub misses: u64,
    pub hit_rate: Option<f64>,
}

impl Stats {
    #[must_use]
    pub fn of(host: &Host) -> Self {
        let counted: Vec<&RouteMetrics> =
            counted_routes(host).filter(|metrics| !metrics.component.is_empty()).collect();
        let all: Vec<&Counts> = counted.iter().map(|metrics| &metrics.cache).collect();
        let cache = host.cache();
        let routes = counted.iter().map(|metrics| {
            let counts = &metrics.cache;
            let levels = cache.levels().iter();
            RouteStats {
                route: metrics.route.clone(),
                component: metrics.component.clone(),
                answers: Answers::of(&[counts]),
                levels: levels
                    .map(|&level| (level.name().to_owned(), Lookups::of(&[counts], level)))
                    .collect(),
            }
        });
        let (entries, bytes) = cache.memory().filled();
        let memory = Memory {
            entries: entries as u64,
            bytes,
            capacity: cache.limits().memory,
            evictions: cache.memory().evicted(),
            lookups: Lookups::of(&all, Level::Memory),
        };
        let redis = cache.shared().map(|shared| Redis::of(shared, &all));
        Self { total: Answers::of(&all), memory, redis, routes: routes.collect() }
    }
}

impl Redis {
    fn of(shared: &Shared, routes: &[&Counts]) -> Self {
        let counts = shared.counts();
        let number = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Self {
            connected: shared.is_connected(),
            watched: shared.is_watched(),
            failed: number(&counts.failures),
            skipped: number(&counts.skipped),
            foreign: number(&counts.foreign),
            stored: number(&counts.stored),
            dropped: number(&counts.not_stored),
            lookups: Lookups::of(routes, Level::Redis),
        }
    }
}

impl Answers {
    fn of(counts: &[&Counts]) -> Self {
        let of = |outcome| counts.iter().map(|counts| counts.outcome(outcome)).sum();
        let (hits, collapsed) = (of(Outcome::Hit), of(Outcome::Collapsed));
        let (misses, bypassed): (u64, u64) = (of(Outcome::Miss), of(Outcome::Bypass));
        let looked_up = hits + collapsed + misses;
        let (requests, hit_rate) = (looked_up + bypassed, rate(hits, looked_up));
        Self { requests, hits, collapsed, misses, bypassed, hit_rate }
    }
}

impl Lookups {
    fn of(counts: &[&Counts], level: Level) -> Self {
        let of = |found| counts.iter().map(|counts| counts.lookup(level, found)).sum();
        let (fresh, stale, misses): (u64, u64, u64) =
            (of(Lookup::Hit), of(Lookup::Stale), of(Lookup::Miss));
        let hits = fresh + stale;
        Self { hits, stale, misses, hit_rate: rate(hits, hits + misses) }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a ratio")]
fn rate(part: u64, of: u64) -> Option<f64> {
    (of > 0).then(|| part as f64 / of as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::entry::State;

    #[test]
    fn rates_are_of_what_was_looked_up() {
        let [one, two] = [Counts::default(), Counts::default()];
        for state in [Some(State::Fresh), Some(State::Ageing), Some(State::Stale), None] {
            one.looked_up(Level::Memory, state);
        }
        one.got(Outcome::Collapsed);
        one.got(Outcome::Miss);
        two.got(Outcome::Bypass);
        let expected = Answers {
            requests: 5,
            hits: 2,
            collapsed: 1,
            misses: 1,
            bypassed: 1,
            hit_rate: Some(0.5),
        };
        assert_eq!(Answers::of(&[&one, &two]), expected);
        let expected = Lookups { hits: 2, stale: 1, misses: 2, hit_rate: Some(0.5) };
        assert_eq!(Lookups::of(&[&one, &two], Level::Memory), expected);
        assert_eq!((Answers::of(&[&two]).hit_rate, Answers::of(&[]).hit_rate), (None, None));
    }
}
