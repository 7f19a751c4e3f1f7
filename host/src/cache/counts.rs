//! Cache outcomes and lookups, counted by route.

use super::entry::Freshness;
use crate::metrics::counters::Counter;

/// How a request was served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// From the cache.
    Hit,
    /// By the response to another request that was in flight.
    Collapsed,
    /// By its component, or not at all because of `only-if-cached`.
    Miss,
    /// By its component, without a lookup.
    Bypass,
}

/// A level of the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    Memory,
    /// Shared by nodes.
    Redis,
}

/// What a lookup in one level found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LookupResult {
    /// A fresh response.
    Hit,
    /// A response that is served and refreshed.
    Stale,
    /// No response that may be served.
    Miss,
}

impl Outcome {
    pub const ALL: [Self; 4] = [Self::Hit, Self::Collapsed, Self::Miss, Self::Bypass];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Collapsed => "collapsed",
            Self::Miss => "miss",
            Self::Bypass => "bypass",
        }
    }
}

impl Level {
    pub const ALL: [Self; 2] = [Self::Memory, Self::Redis];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Redis => "redis",
        }
    }
}

impl LookupResult {
    pub const ALL: [Self; 3] = [Self::Hit, Self::Stale, Self::Miss];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Stale => "stale",
            Self::Miss => "miss",
        }
    }
}

/// The counts of one route.
#[derive(Debug, Default)]
pub struct RouteCacheCounts {
    outcomes: [Counter; Outcome::ALL.len()],
    lookups: [[Counter; LookupResult::ALL.len()]; Level::ALL.len()],
}

impl RouteCacheCounts {
    /// Counts a request with `outcome`, which is not [`Outcome::Hit`].
    pub fn served(&self, outcome: Outcome) {
        self.outcomes[outcome as usize].count();
    }

    /// Counts a lookup in `level`, which found a response in that state, or none.
    pub fn looked_up(&self, level: Level, found: Option<Freshness>) {
        let found = match found {
            Some(Freshness::Fresh) => LookupResult::Hit,
            Some(Freshness::RefreshAhead) => LookupResult::Stale,
            Some(Freshness::Stale | Freshness::Refused) | None => LookupResult::Miss,
        };
        self.lookups[level as usize][found as usize].count();
    }

    /// Number of requests with `outcome`.
    #[must_use]
    pub fn outcome(&self, outcome: Outcome) -> u64 {
        // A response that is found is served, and so counted once.
        let hits =
            |level| self.lookup(level, LookupResult::Hit) + self.lookup(level, LookupResult::Stale);
        match outcome {
            Outcome::Hit => Level::ALL.into_iter().map(hits).sum(),
            other => self.outcomes[other as usize].get(),
        }
    }

    /// Number of lookups in `level` with this result.
    #[must_use]
    pub fn lookup(&self, level: Level, found: LookupResult) -> u64 {
        self.lookups[level as usize][found as usize].get()
    }
}
