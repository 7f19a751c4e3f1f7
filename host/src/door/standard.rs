//! The standard door: `wasi:http` 0.3 (`handler`) or 0.2 (`incoming-handler`), every Spin
//! component's entry. Bodies are streams, instances are reused and, in 0.3, may serve several
//! requests at a time: all of it wasmtime's `ProxyHandler`.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use http::request::Parts;
use http::{Request, Response};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Sleep, sleep_until, timeout_at};
use tracing::{debug, warn};
use wasmtime::component::{GuestTaskId, InstancePre};
use wasmtime::{Store, StoreContextMut};
use wasmtime_wasi_http::handler::{
    ExpirationError, HandlerState, Instance, InstantiationError, ProxyHandler, ProxyPre,
    ShouldAccept, WorkerExpiration, WorkerState, WorkerStatus,
};
use wasmtime_wasi_http::{WasiHttpView, p2, p3};

use super::late;
use crate::app::ComponentSpec;
use crate::body::{Body, RequestBody};
use crate::error::Failure;
use crate::instance::{InstanceState, Stores, is_full, is_late};
use crate::reuse::Reuse;

/// A component's instances behind the standard door.
pub struct Door {
    handler: ProxyHandler<Workers>,
    stores: Arc<Stores>,
}

impl std::fmt::Debug for Door {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("standard::Door").field("stores", &self.stores).finish_non_exhaustive()
    }
}

/// What instances are made from; `None` if the component exports neither version of the handler.
#[must_use]
pub fn pre(pre: &InstancePre<InstanceState>) -> Option<ProxyPre<InstanceState>> {
    match p3::bindings::ServicePre::new(pre.clone()) {
        Ok(pre) => Some(ProxyPre::P3(pre)),
        Err(_) => Some(ProxyPre::P2(p2::bindings::ProxyPre::new(pre.clone()).ok()?)),
    }
}

impl Door {
    #[must_use]
    pub fn new(pre: &ProxyPre<InstanceState>, stores: &Arc<Stores>) -> Self {
        let pre = match pre {
            ProxyPre::P3(pre) => ProxyPre::P3(pre.clone()),
            ProxyPre::P2(pre) => ProxyPre::P2(pre.clone()),
        };
        let live = Arc::new(Semaphore::new(stores.spec().limits.instances));
        let stores = Arc::clone(stores);
        Self {
            handler: ProxyHandler::new(Workers { pre, stores: Arc::clone(&stores), live }),
            stores,
        }
    }

    /// Hands the request to a worker and waits for the head of its answer.
    pub async fn invoke(
        &self,
        head: Parts,
        body: RequestBody,
        deadline: Instant,
    ) -> Result<Response<Body>, Failure> {
        let (body, arrival) = body.into_wasi();
        let handling = self.handler.handle(deadline, Request::from_parts(head, body));
        let answer = timeout_at(deadline.into(), handling).await;
        let limit = self.stores.spec().limits.request_body;
        if let Some(failure) = arrival.and_then(|arrival| arrival.failure(limit)) {
            return Err(failure);
        }
        match answer {
            Ok(Ok(response)) => Ok(response.map(Body::streamed)),
            Ok(Err(error)) => Err(self.failure(&error, deadline)),
            Err(_) => Err(late(self.stores.spec())),
        }
    }

    fn failure(&self, error: &wasmtime::Error, deadline: Instant) -> Failure {
        // A guest that never yields is ended together with its worker, which then cannot say why.
        if error.is::<ExpirationError>() || is_late(error) || Instant::now() >= deadline {
            return late(self.stores.spec());
        }
        let component = self.stores.spec().id.clone();
        if let Some(InstantiationError { error, .. }) =
            error.downcast_ref::<InstantiationError<Instant>>()
        {
            if is_full(error) {
                return Failure::NoRoom;
            }
            warn!(component, error = format!("{error:#}"), "cannot instantiate");
            return Failure::Instantiation { component };
        }
        warn!(component, error = format!("{error:#}"), "failed");
        Failure::Trap { component }
    }
}

/// What `ProxyHandler` asks about the component's instances.
struct Workers {
    pre: ProxyPre<InstanceState>,
    stores: Arc<Stores>,
    /// A permit for each live instance. One may outlive its request: a guest whose client went
    /// away, or that still streams, or works on after it answered.
    live: Arc<Semaphore>,
}

impl HandlerState for Workers {
    type StoreData = InstanceState;
    type WorkerExpiration = Expiration;
    type WorkerState = Worker;

    async fn instantiate(&self) -> wasmtime::Result<Instance<InstanceState, Expiration, Worker>> {
        let ComponentSpec { id, limits, reuse, .. } = self.stores.spec();
        let deadline = Instant::now() + limits.deadline;
        let permit = timeout_at(deadline.into(), Arc::clone(&self.live).acquire_owned()).await??;
        let mut store = self.stores.create(deadline)?;
        let proxy = timeout_at(deadline.into(), self.pre.instantiate_async(&mut store)).await??;
        Ok(Instance {
            store,
            proxy,
            view: InstanceState::http,
            expiration: Expiration {
                idle: limits.idle,
                deadline: limits.deadline,
                sleep: Box::pin(sleep_until(deadline.into())),
            },
            state: Worker {
                component: id.clone(),
                reuse: reuse.clone(),
                old: Instant::now() + reuse.age,
                late: Arc::default(),
                in_flight: Arc::default(),
                _permit: permit,
            },
        })
    }
}

/// Ends an instance that is idle, or whose latest request is late.
struct Expiration {
    idle: Duration,
    deadline: Duration,
    sleep: Pin<Box<Sleep>>,
}

impl WorkerExpiration for Expiration {
    fn poll(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        status: WorkerStatus,
        start: Instant,
    ) -> Poll<()> {
        let end = match status {
            WorkerStatus::Idle => start + self.idle,
            WorkerStatus::Requests | WorkerStatus::PostReturn => start + self.deadline,
        };
        if self.sleep.deadline() != end.into() {
            self.sleep.as_mut().reset(end.into());
        }
        self.sleep.as_mut().poll(cx)
    }
}

struct Worker {
    component: String,
    reuse: Reuse,
    /// When it is old enough.
    old: Instant,
    /// Whether a request missed its deadline: what still runs here would hold up another.
    late: Arc<AtomicBool>,
    in_flight: Arc<AtomicUsize>,
    _permit: OwnedSemaphorePermit,
}

/// Counts a request in flight for as long as it lives.
struct InFlight(Arc<AtomicUsize>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl WorkerState for Worker {
    type StoreData = InstanceState;
    type RequestData = Instant;

    fn should_accept_request(&self, concurrent: usize, total: usize) -> ShouldAccept {
        let old = total > 0 && Instant::now() >= self.old;
        if total >= self.reuse.requests || old || self.late.load(Ordering::Relaxed) {
            ShouldAccept::Never
        } else if concurrent < self.reuse.concurrency {
            ShouldAccept::Yes
        } else {
            ShouldAccept::No
        }
    }

    fn on_request_start(
        &self,
        mut store: StoreContextMut<'_, InstanceState>,
        deadline: Instant,
        _task: GuestTaskId,
    ) -> Pin<Box<dyn Future<Output = ()> + 'static + Send + Sync>> {
        let state = store.data_mut();
        let others = self.in_flight.fetch_add(1, Ordering::Relaxed);
        state.deadline = if others == 0 { deadline } else { state.deadline.max(deadline) };
        let in_flight = InFlight(Arc::clone(&self.in_flight));
        let late = Arc::clone(&self.late);
        Box::pin(async move {
            let _in_flight = in_flight;
            sleep_until(deadline.into()).await;
            late.store(true, Ordering::Relaxed);
        })
    }

    fn drop(&self, _store: Store<InstanceState>, result: wasmtime::Result<()>) {
        if let Err(error) = result {
            debug!(component = self.component, error = format!("{error:#}"), "instance ended");
        }
    }
}
