//! Doors: the interfaces through which the host calls a component.
//!
//! - [`fast`]: one typed call with the buffered request, for components that export
//!   `spinfer:serve/buffered-handler`.
//! - [`standard`]: `wasi:http`, for every component and every body.
//! - [`wagi`]: a command that reads the request as CGI does, and prints the response.
//! - [`spin_1`]: `fermyon:spin/inbound-http`, for components of Spin 1's SDKs and TinyGo.
//! - [`assign`]: one typed call that returns the component to which a router assigns a request.

pub mod assign;
pub mod fast;
pub mod spin_1;
pub mod standard;
pub mod wagi;

mod instances;

use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Weak};
use std::time::Instant;

use http::header::{CONTENT_LENGTH, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tracing::{info, warn};

use crate::config::app::ComponentSpec;
use crate::guest::instance::is_pool_full;
use crate::http::body::Body;
use crate::http::error::Failure;
use crate::http::framing::has_no_body;
use crate::http::reserved::HOST_HEADERS;

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

/// The response of a guest behind a door of typed calls, to a request that may be of the method HEAD.
///
/// # Errors
/// What is wrong with it.
fn response_of<V>(
    status: u16,
    guest_headers: impl IntoIterator<Item = (String, V)>,
    body: Vec<u8>,
    is_head: bool,
) -> Result<Response<Body>, String>
where
    HeaderValue: TryFrom<V>,
{
    let status =
        StatusCode::from_u16(status).map_err(|_| format!("{status} is not a status code"))?;
    check_status(status)?;
    let length = body.len();
    let left_out = length == 0 && (is_head || has_no_body(status));
    let mut response = Response::new(Body::whole(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    for (name, value) in guest_headers {
        let name =
            HeaderName::from_str(&name).map_err(|_| format!("`{name}` is not a header name"))?;
        let value = HeaderValue::try_from(value)
            .map_err(|_| format!("the value of header `{name}` contains control characters"))?;
        if name == CONTENT_LENGTH && value != HeaderValue::from(length) {
            let announced = value.to_str().unwrap_or_default();
            if !left_out || announced.parse::<u64>().is_err() {
                return Err(format!(
                    "it announced a content-length of {announced:?} and returned {length} bytes"
                ));
            }
            // Of the body that it left out.
            headers.insert(name, value);
        } else if !HOST_HEADERS.contains(&name) {
            headers.append(name, value);
        }
    }
    Ok(response)
}

/// Whether an instance behind a door of typed calls that responds so is not used again.
fn is_failed_response(response: &Result<Response<Body>, String>) -> bool {
    response.as_ref().map_or(true, |response| is_failure(response.status()))
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
