//! Doors: the interfaces through which the host calls a component.
//!
//! - [`fast`]: one typed call with the buffered request, for components that export
//!   `spinfer:serve/buffered-handler`.
//! - [`standard`]: `wasi:http`, for every component and every body.
//! - [`wagi`]: a command that reads the request as CGI does, and prints the response.
//! - [`assign`]: one typed call that returns the component to which a router assigns a request.

pub mod assign;
pub mod fast;
pub mod standard;
pub mod wagi;

mod instances;

use std::convert::Infallible;
use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Instant;

use http::StatusCode;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tracing::{info, warn};

use crate::config::app::ComponentSpec;
use crate::guest::instance::is_pool_full;
use crate::http::error::Failure;

/// The failure of a request whose deadline passed while every instance was busy.
#[must_use]
pub fn busy(spec: &ComponentSpec) -> Failure {
    Failure::Busy { component: spec.id.clone(), limit: spec.limits.instances }
}

/// The failure of a request that exceeded its deadline. Logs a warning.
#[must_use]
pub fn deadline_exceeded(spec: &ComponentSpec) -> Failure {
    warn!(component = spec.id, "deadline exceeded");
    Failure::Deadline { component: spec.id.clone() }
}

/// The failure of a component whose response is not valid HTTP. Logs a warning.
#[must_use]
pub fn invalid_response(spec: &ComponentSpec, problem: String) -> Failure {
    warn!(component = spec.id, problem, "invalid response");
    Failure::InvalidResponse { component: spec.id.clone(), problem }
}

/// Checks the status of a component's response: informational statuses are the host's.
///
/// # Errors
/// What is wrong with it.
fn check_status(status: StatusCode) -> Result<(), String> {
    match status.as_u16() {
        200..600 => Ok(()),
        other => Err(format!("{other} is not a final status")),
    }
}

/// Whether an instance that responds with `status` is not used again: an internal error can have left
/// it in a state in which it fails for ever. Other errors are the component's decision.
fn is_failure(status: StatusCode) -> bool {
    status == StatusCode::INTERNAL_SERVER_ERROR || check_status(status).is_err()
}

/// A door whose idle instances can be evicted.
pub trait Evictable: fmt::Debug + Send + Sync {
    /// Drops the instances that have been idle since `since` or longer.
    fn drop_idle(&self, since: Instant) -> Evicted;
}

/// Instances that were dropped, or are about to be.
#[derive(Debug)]
pub struct Evicted {
    pub instances: usize,
    /// Closed once all of them are dropped.
    workers: Option<mpsc::Receiver<Infallible>>,
}

impl Evicted {
    fn dropped(instances: usize) -> Self {
        Self { instances, workers: None }
    }

    fn workers(instances: usize, workers: mpsc::Receiver<Infallible>) -> Self {
        Self { instances, workers: Some(workers) }
    }
}

/// The instance pool of the host, shared by every door. When it is full, idle instances of all
/// components are evicted for the one that is needed.
#[derive(Debug, Default)]
pub struct InstancePool {
    doors: Mutex<Vec<Weak<dyn Evictable>>>,
    /// Locked during an eviction: a concurrent request waits for it, and tries again.
    evicting: tokio::sync::Mutex<()>,
}

impl InstancePool {
    fn add<D: Evictable + 'static>(&self, door: &Arc<D>) {
        let mut doors = self.doors.lock();
        doors.retain(|door| door.strong_count() > 0);
        let door: Weak<D> = Arc::downgrade(door);
        doors.push(door);
    }

    /// Instantiates. If the pool is full, evicts idle instances and tries once more.
    async fn instantiate<T, Instantiation>(
        &self,
        instantiate: impl Fn() -> Instantiation,
    ) -> wasmtime::Result<T>
    where
        Instantiation: Future<Output = wasmtime::Result<T>>,
    {
        match instantiate().await {
            Err(error) if is_pool_full(&error) => {
                self.evict_idle().await;
                instantiate().await
            }
            result => result,
        }
    }

    /// Evicts every idle instance, and waits until all of them are dropped.
    async fn evict_idle(&self) {
        let _evicting = self.evicting.lock().await;
        let doors = self.doors.lock().clone();
        let now = Instant::now();
        let evicted: Vec<_> =
            doors.iter().filter_map(Weak::upgrade).map(|door| door.drop_idle(now)).collect();
        let instances: usize = evicted.iter().map(|evicted| evicted.instances).sum();
        for mut workers in evicted.into_iter().filter_map(|evicted| evicted.workers) {
            workers.recv().await;
        }
        if instances > 0 {
            info!(instances, "instance pool full; idle instances evicted");
        }
    }
}
