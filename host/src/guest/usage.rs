//! How many requests of a component are in flight, and how long it has been idle.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::metrics::InstanceMetrics;
use crate::metrics::counters::InFlight;

/// Counts the requests of one component that are in flight.
#[derive(Debug)]
pub(super) struct ComponentUsage {
    created: Instant,
    in_flight: AtomicUsize,
    /// When the last request ended, in milliseconds after `created`.
    last_used: AtomicU64,
}

impl ComponentUsage {
    pub(super) fn new() -> Self {
        let (in_flight, last_used) = (AtomicUsize::new(0), AtomicU64::new(0));
        Self { created: Instant::now(), in_flight, last_used }
    }

    /// Counts a request until the result is dropped.
    pub(super) fn enter<'a>(&'a self, instances: &'a InstanceMetrics) -> ActiveRequest<'a> {
        let cold_since = instances.take_cold().then(Instant::now);
        let _in_flight = InFlight::new(&self.in_flight);
        ActiveRequest { usage: self, instances, cold_since, _in_flight }
    }

    /// Restarts the idle time.
    pub(super) fn touch(&self) {
        let now = u64::try_from(self.created.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_used.store(now, Ordering::Relaxed);
    }

    /// How long the component has been idle at `now`; `None` while a request is in flight.
    pub(super) fn idle_time(&self, now: Instant) -> Option<Duration> {
        let last = self.created + Duration::from_millis(self.last_used.load(Ordering::Relaxed));
        let is_idle = self.in_flight.load(Ordering::Relaxed) == 0;
        is_idle.then(|| now.saturating_duration_since(last))
    }
}

/// A request of the component that is in flight.
pub(super) struct ActiveRequest<'a> {
    usage: &'a ComponentUsage,
    instances: &'a InstanceMetrics,
    /// When it started, if the component had no instance then.
    cold_since: Option<Instant>,
    _in_flight: InFlight<'a>,
}

impl ActiveRequest<'_> {
    /// Duration of the cold start, once, if the component had no instance when the request started.
    pub(super) fn cold_start(&mut self) -> Option<Duration> {
        self.cold_since.take().map(|start| start.elapsed())
    }
}

impl Drop for ActiveRequest<'_> {
    fn drop(&mut self) {
        if self.cold_since.is_some() {
            // The request failed: the next one starts cold, unless there is an instance by now.
            self.instances.update_cold();
        }
        self.usage.touch();
    }
}
