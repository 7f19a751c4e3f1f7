//! Counters and gauges: relaxed atomic additions, without locks or lookups.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// A monotonic counter.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds one.
    pub fn count(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// One unit of a gauge, from its creation until it is dropped.
#[derive(Debug)]
pub(crate) struct InFlight<'a> {
    gauge: &'a AtomicUsize,
    /// The value of the gauge before this unit.
    pub(crate) before: usize,
}

impl<'a> InFlight<'a> {
    pub(crate) fn new(gauge: &'a AtomicUsize) -> Self {
        Self { gauge, before: gauge.fetch_add(1, Ordering::Relaxed) }
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.gauge.fetch_sub(1, Ordering::Relaxed);
    }
}
