//! The ways into a component. [`fast`]: one typed call with the whole request, for components
//! that export `spinfer:serve/buffered-handler`. [`standard`]: `wasi:http`, for every component
//! and every body. [`assign`]: one typed call that says which other component serves a request.

pub mod assign;
pub mod fast;
pub mod standard;

mod instances;

use std::convert::Infallible;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Instant;

use tokio::sync::mpsc;
use tracing::{info, warn};

use crate::config::app::ComponentSpec;
use crate::http::error::Failure;
use crate::guest::instance::is_full;

/// Every instance is taken, for as long as the request could wait.
#[must_use]
pub fn busy(spec: &ComponentSpec) -> Failure {
    Failure::Busy { component: spec.id.clone(), limit: spec.limits.instances }
}

/// The deadline has passed.
#[must_use]
pub fn late(spec: &ComponentSpec) -> Failure {
    warn!(component = spec.id, "missed the deadline");
    Failure::Deadline { component: spec.id.clone() }
}

/// It answered what HTTP cannot say.
#[must_use]
pub fn invalid_answer(spec: &ComponentSpec, problem: String) -> Failure {
    warn!(component = spec.id, problem, "invalid answer");
    Failure::InvalidAnswer { component: spec.id.clone(), problem }
}

/// Has instances that wait for a request.
pub trait GivesWay: fmt::Debug + Send + Sync {
    /// Drops those that have waited since `since` or longer.
    fn drop_idle(&self, since: Instant) -> Leaving;
}

/// Instances that are gone, or about to be.
#[derive(Debug)]
pub struct Leaving {
    pub instances: usize,
    /// Closed when they all are gone.
    workers: Option<mpsc::Receiver<Infallible>>,
}

impl Leaving {
    fn gone(instances: usize) -> Self {
        Self { instances, workers: None }
    }

    fn workers(instances: usize, workers: mpsc::Receiver<Infallible>) -> Self {
        Self { instances, workers: Some(workers) }
    }
}

/// Every door of the host. Instances of all components share one pool, and those that wait for a
/// request give way to one that is needed.
#[derive(Debug, Default)]
pub struct Doors {
    doors: Mutex<Vec<Weak<dyn GivesWay>>>,
    /// Held while room is made: who comes meanwhile waits for it, and tries again.
    making_room: tokio::sync::Mutex<()>,
}

impl Doors {
    fn add<D: GivesWay + 'static>(&self, door: &Arc<D>) {
        let mut doors = self.doors.lock().unwrap_or_else(PoisonError::into_inner);
        doors.retain(|door| door.strong_count() > 0);
        let door: Weak<D> = Arc::downgrade(door);
        doors.push(door);
    }

    /// What `make` makes; once more, after idle instances have given way, if there was no room.
    async fn with_room<T, Made>(&self, make: impl Fn() -> Made) -> wasmtime::Result<T>
    where
        Made: Future<Output = wasmtime::Result<T>>,
    {
        match make().await {
            Err(error) if is_full(&error) => {
                self.make_room().await;
                make().await
            }
            made => made,
        }
    }

    /// Drops every instance that is idle, and waits until they are gone.
    async fn make_room(&self) {
        let _making = self.making_room.lock().await;
        let doors = self.doors.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let now = Instant::now();
        let leaving: Vec<_> =
            doors.iter().filter_map(Weak::upgrade).map(|door| door.drop_idle(now)).collect();
        let instances: usize = leaving.iter().map(|leaving| leaving.instances).sum();
        for mut workers in leaving.into_iter().filter_map(|leaving| leaving.workers) {
            workers.recv().await;
        }
        if instances > 0 {
            info!(instances, "idle instances gave way to one that is needed");
        }
    }
}
