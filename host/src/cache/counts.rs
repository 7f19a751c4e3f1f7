//! How often requests on a route were answered from the cache, and from which level of it.

use super::entry::State;
use crate::metrics::counters::Counter;

/// What a request got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// An answer that was kept.
    Hit,
    /// One that was in the making for another.
    Collapsed,
    /// Its component was asked, or would have been if the request had allowed it.
    Miss,
    /// The same, and nothing was looked up.
    Bypass,
}

/// Where answers are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    Memory,
    /// What nodes share.
    Redis,
}

/// What was there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// A fresh answer.
    Hit,
    /// One that is given and made again.
    Stale,
    /// None that may be given.
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

impl Lookup {
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
pub struct Counts {
    outcomes: [Counter; Outcome::ALL.len()],
    lookups: [[Counter; Lookup::ALL.len()]; Level::ALL.len()],
}

impl Counts {
    /// One more request got `outcome`, which is no hit.
    pub fn got(&self, outcome: Outcome) {
        self.outcomes[outcome as usize].count();
    }

    /// One more was looked up, and there was an answer in that state, or none.
    pub fn looked_up(&self, level: Level, found: Option<State>) {
        let found = match found {
            Some(State::Fresh) => Lookup::Hit,
            Some(State::Ageing) => Lookup::Stale,
            Some(State::Stale | State::Refused) | None => Lookup::Miss,
        };
        self.lookups[level as usize][found as usize].count();
    }

    /// How many requests got `outcome`.
    #[must_use]
    pub fn outcome(&self, outcome: Outcome) -> u64 {
        // Whoever finds an answer is given it: there is no need to count that twice.
        let given = |level| self.lookup(level, Lookup::Hit) + self.lookup(level, Lookup::Stale);
        match outcome {
            Outcome::Hit => Level::ALL.into_iter().map(given).sum(),
            other => self.outcomes[other as usize].get(),
        }
    }

    #[must_use]
    pub fn lookup(&self, level: Level, found: Lookup) -> u64 {
        self.lookups[level as usize][found as usize].get()
    }
}
