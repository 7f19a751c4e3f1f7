//! The accounting of appended records: accepted = written + dropped + pending.

use serde::{Deserialize, Serialize};

/// Why a record was not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dropped {
    /// The queue was full: the disk is too slow for the rate of predictions.
    QueueFull,
    /// The file could not be written: the disk is full, read-only or missing.
    Storage,
    /// The log already has a record of the same request and row.
    Duplicate,
    /// The host was shutting down.
    Shutdown,
}

impl Dropped {
    pub const ALL: [Self; 4] = [Self::QueueFull, Self::Storage, Self::Duplicate, Self::Shutdown];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::Storage => "storage",
            Self::Duplicate => "duplicate",
            Self::Shutdown => "shutdown",
        }
    }
}

/// The accounting of appended records: accepted = written + dropped + pending.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accounting {
    /// Records that components appended, after sampling. Without those of requests that were refused
    /// because the queue was full.
    pub accepted: u64,
    pub written: u64,
    pub dropped: DroppedCounts,
    /// Records that are queued or being written.
    pub pending: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DroppedCounts {
    pub queue_full: u64,
    pub storage: u64,
    pub duplicate: u64,
    pub shutdown: u64,
}

impl DroppedCounts {
    pub(super) fn add(&mut self, reason: Dropped, records: u64) {
        *match reason {
            Dropped::QueueFull => &mut self.queue_full,
            Dropped::Storage => &mut self.storage,
            Dropped::Duplicate => &mut self.duplicate,
            Dropped::Shutdown => &mut self.shutdown,
        } += records;
    }

    #[must_use]
    pub fn get(&self, reason: Dropped) -> u64 {
        match reason {
            Dropped::QueueFull => self.queue_full,
            Dropped::Storage => self.storage,
            Dropped::Duplicate => self.duplicate,
            Dropped::Shutdown => self.shutdown,
        }
    }

    #[must_use]
    pub fn total(&self) -> u64 {
        Dropped::ALL.iter().map(|&reason| self.get(reason)).sum()
    }
}
