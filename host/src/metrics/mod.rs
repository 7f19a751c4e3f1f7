//! Metrics.
//!
//! Counters are created once for each route, component and model, and owned by what counts. On the
//! request path a count is one or two relaxed additions, without a lookup, lock or allocation. The
//! names are in [`table`]. The admin plane reads the counters when it is scraped, and writes them
//! in one of the formats of [`exposition`].

pub mod table;

pub mod counters;
pub mod exposition;
pub mod histogram;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use http::StatusCode;
use tracing::warn;

use counters::Counter;
use histogram::Histogram;

use crate::cache::counts::RouteCacheCounts;
use crate::http::body::cut_off::{CutOff, CutOffReason};
use crate::http::error::Reason;

/// The metrics of requests, by route.
#[derive(Debug)]
pub struct HostMetrics {
    /// In manifest order, followed by those of service chaining.
    pub routes: Vec<Arc<RouteMetrics>>,
    /// Requests that no route matched.
    pub unrouted: RouteMetrics,
    pub started: SystemTime,
}

impl HostMetrics {
    #[must_use]
    pub fn new(started: SystemTime) -> Self {
        Self { routes: Vec::new(), unrouted: RouteMetrics::new("", ""), started }
    }

    /// Adds a route.
    pub fn route(&mut self, component: &str, route: &str) -> Arc<RouteMetrics> {
        let metrics = Arc::new(RouteMetrics::new(component, route));
        self.routes.push(Arc::clone(&metrics));
        metrics
    }
}

/// Classes of final response statuses.
pub const STATUSES: [&str; 4] = ["2xx", "3xx", "4xx", "5xx"];

/// The metrics of requests on one route.
#[derive(Debug)]
pub struct RouteMetrics {
    /// Id of the component that serves the route; empty for a static response, and if no route
    /// matched.
    pub component: String,
    /// The route's pattern; empty if no route matched.
    pub route: String,
    pub statuses: [Counter; STATUSES.len()],
    pub duration: Histogram,
    pub failures: [Counter; Reason::ALL.len()],
    /// Responses that were given up as their clients did not read them.
    pub given_up: Counter,
    /// Responses that were cut off after their heads.
    pub cut_off: [Counter; CutOffReason::ALL.len()],
    pub cache: RouteCacheCounts,
}

impl RouteMetrics {
    #[must_use]
    pub fn new(component: &str, route: &str) -> Self {
        Self {
            component: component.to_owned(),
            route: route.to_owned(),
            statuses: Default::default(),
            duration: Histogram::new(&table::DURATIONS),
            failures: Default::default(),
            given_up: Counter::default(),
            cut_off: Default::default(),
            cache: RouteCacheCounts::default(),
        }
    }

    /// Counts a response that was cut off after its head. Logs a warning.
    pub fn cut_off(&self, cause: &CutOff) {
        let Self { route, component, .. } = self;
        warn!(route, component, %cause, "response cut off");
        self.cut_off[cause.reason() as usize].count();
    }

    /// Counts a request that received a response of `status` after `took`. `failure` is the reason
    /// if the response is an error of the host.
    pub fn responded(&self, took: Duration, status: StatusCode, failure: Option<Reason>) {
        if let Some(reason) = failure {
            self.failures[reason as usize].count();
        }
        let class = usize::from(status.as_u16() / 100).saturating_sub(2);
        self.statuses[class.min(STATUSES.len() - 1)].count();
        self.duration.observe_duration(took);
    }
}

/// The metrics of one component's instances.
#[derive(Debug)]
pub struct InstanceMetrics {
    /// Time to create each instance.
    pub started: Histogram,
    pub ended: [Counter; Ended::ALL.len()],
    /// Whether the component has no live instance, and no request has claimed the cold start yet.
    cold: AtomicBool,
}

/// Why an instance was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Idle timeout, or evicted for another instance.
    Idle,
    /// `reuse.requests` or `reuse.age` was reached.
    Retired,
    /// It trapped.
    Failed,
    /// It exceeded its deadline.
    Deadline,
    /// Its client disconnected.
    Abandoned,
}

impl Ended {
    pub const ALL: [Self; 5] =
        [Self::Idle, Self::Retired, Self::Failed, Self::Deadline, Self::Abandoned];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Retired => "retired",
            Self::Failed => "failed",
            Self::Deadline => "deadline",
            Self::Abandoned => "abandoned",
        }
    }
}

impl Default for InstanceMetrics {
    fn default() -> Self {
        let started = Histogram::new(&table::DURATIONS);
        Self { started, ended: Default::default(), cold: AtomicBool::new(true) }
    }
}

impl InstanceMetrics {
    /// Counts an instance whose creation took `took`.
    pub fn record_start(&self, took: Duration) {
        self.started.observe_duration(took);
        self.cold.store(false, Ordering::Relaxed);
    }

    /// Counts an instance that ended. Replacing a retired instance is not a cold start: the reuse
    /// settings ask for it.
    pub fn record_end(&self, reason: Ended) {
        self.ended[reason as usize].count();
        if reason != Ended::Retired {
            self.update_cold();
        }
    }

    /// Makes the next request a cold start if the component has no live instance.
    pub fn update_cold(&self) {
        if self.live() == 0 {
            self.cold.store(true, Ordering::Relaxed);
        }
    }

    /// Whether the request starts cold. Claims the cold start: concurrent requests do not count it
    /// again.
    #[must_use]
    pub fn take_cold(&self) -> bool {
        self.cold.load(Ordering::Relaxed) && self.cold.swap(false, Ordering::Relaxed)
    }

    /// Number of live instances. Reads the ended ones first, so that instances that end meanwhile
    /// cannot make it negative.
    #[must_use]
    pub fn live(&self) -> u64 {
        let ended: u64 = self.ended.iter().map(Counter::get).sum();
        self.started.count().saturating_sub(ended)
    }
}

/// The metrics of one component's startup.
#[derive(Debug)]
pub struct StartMetrics {
    /// Time to the response of requests that found no live instance.
    pub cold: Histogram,
    /// Time to load the code.
    pub code: Histogram,
}

impl Default for StartMetrics {
    fn default() -> Self {
        let took = || Histogram::new(&table::DURATIONS);
        Self { cold: took(), code: took() }
    }
}

/// The metrics of one model version's inferences, by placement.
#[derive(Debug)]
pub struct ModelMetrics {
    /// Time of inferences on the thread of the connection.
    pub inline: Histogram,
    /// Time of inferences on a compute thread.
    pub compute: Histogram,
    /// Time of batched inferences.
    pub batch: Histogram,
    /// Rows per batch.
    pub batch_rows: Histogram,
}

impl Default for ModelMetrics {
    fn default() -> Self {
        let took = || Histogram::new(&table::INFERENCES);
        Self {
            inline: took(),
            compute: took(),
            batch: took(),
            batch_rows: Histogram::new(&table::ROWS),
        }
    }
}
