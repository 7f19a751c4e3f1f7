//! What is counted, and how monitoring systems are told.
//!
//! Whoever does what is counted has the counters, made once for each route, component and model. On a
//! request's path each is a relaxed addition or two: nothing is looked up, locked or allocated. All
//! have their names in [`table`], and are read when somebody asks ([`collect`]), in the format that
//! is asked for ([`exposition`]).

pub mod table;

pub mod counters;
pub mod exposition;
pub mod histogram;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use http::StatusCode;

use counters::Counter;
use histogram::Histogram;

use crate::cache::counts::Counts;
use crate::http::error::Reason;

/// What a host counts.
#[derive(Debug)]
pub struct HostMetrics {
    /// In the manifest's order, and then those by which components reach each other.
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

    /// One more route.
    pub fn route(&mut self, component: &str, route: &str) -> Arc<RouteMetrics> {
        let metrics = Arc::new(RouteMetrics::new(component, route));
        self.routes.push(Arc::clone(&metrics));
        metrics
    }
}

/// Classes of statuses an answer has in the end.
pub const STATUSES: [&str; 4] = ["2xx", "3xx", "4xx", "5xx"];

/// Requests on one route.
#[derive(Debug)]
pub struct RouteMetrics {
    /// The component that serves it; empty for a static response, and where no route matched.
    pub component: String,
    /// As the manifest writes it; empty where none matched.
    pub route: String,
    pub statuses: [Counter; STATUSES.len()],
    pub duration: Histogram,
    pub failures: [Counter; Reason::ALL.len()],
    pub cache: Counts,
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
            cache: Counts::default(),
        }
    }

    /// Counts a request that got a response of `status` after `took`; `failure` is why, if the
    /// response is an error of the host.
    pub fn responded(&self, took: Duration, status: StatusCode, failure: Option<Reason>) {
        if let Some(reason) = failure {
            self.failures[reason as usize].count();
        }
        let class = usize::from(status.as_u16() / 100).saturating_sub(2);
        self.statuses[class.min(STATUSES.len() - 1)].count();
        self.duration.took(took);
    }
}

/// The instances of one component.
#[derive(Debug)]
pub struct InstanceMetrics {
    /// Those that were made, and how long that took.
    pub started: Histogram,
    pub ended: [Counter; Ended::ALL.len()],
    /// Whether there has been none since the last ended, or since the start.
    none: AtomicBool,
}

/// Why an instance is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It had nothing to do, or gave way to one that was needed.
    Idle,
    /// It had served for long enough.
    Retired,
    /// It trapped.
    Failed,
    /// It was late.
    Deadline,
    /// Nobody waited for it any more.
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
        Self { started, ended: Default::default(), none: AtomicBool::new(true) }
    }
}

impl InstanceMetrics {
    /// One was made, which took so long.
    pub fn begun(&self, took: Duration) {
        self.started.took(took);
        self.none.store(false, Ordering::Relaxed);
    }

    /// One is gone. One that has served for long enough is followed by another, as its author asks for.
    pub fn ended(&self, why: Ended) {
        self.ended[why as usize].count();
        if why != Ended::Retired {
            self.look();
        }
    }

    /// Sees whether there is none.
    pub fn look(&self) {
        if self.live() == 0 {
            self.none.store(true, Ordering::Relaxed);
        }
    }

    /// Whether there is none. Who asks sees to it: the next is told that there is one.
    #[must_use]
    pub fn take_none(&self) -> bool {
        self.none.load(Ordering::Relaxed) && self.none.swap(false, Ordering::Relaxed)
    }

    /// Instances there are. Those that end meanwhile are counted first, so that there are never
    /// fewer than none.
    #[must_use]
    pub fn live(&self) -> u64 {
        let ended: u64 = self.ended.iter().map(Counter::get).sum();
        self.started.count().saturating_sub(ended)
    }
}

/// What a component needs before it serves.
#[derive(Debug)]
pub struct StartMetrics {
    /// Requests that came when there was no instance: none yet, or the last was idle for long, gave way
    /// or failed.
    pub cold: Histogram,
    /// Code that was loaded.
    pub code: Histogram,
}

impl Default for StartMetrics {
    fn default() -> Self {
        let took = || Histogram::new(&table::DURATIONS);
        Self { cold: took(), code: took() }
    }
}

/// Inferences of one version of a model, by where they ran.
#[derive(Debug)]
pub struct ModelMetrics {
    pub inline: Histogram,
    pub compute: Histogram,
    pub batch: Histogram,
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
