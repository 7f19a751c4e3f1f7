//! The standard door: `wasi:http` 0.3 (`handler`) or 0.2 (`incoming-handler`), every Spin
//! component's entry. Bodies are streams, instances are reused and, in 0.3, may serve several
//! requests at a time: all of it wasmtime's `ProxyHandler`.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use http::request::Parts;
use http::{Request, Response};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Sleep, sleep_until, timeout_at};
use tracing::warn;
use wasmtime::component::{GuestTaskId, InstancePre};
use wasmtime::{Store, StoreContextMut};
use wasmtime_wasi_http::handler::{
    ExpirationError, HandlerState, Instance, InstantiationError, ProxyHandler, ProxyPre,
    ShouldAccept, WorkerExpiration, WorkerState, WorkerStatus,
};
use wasmtime_wasi_http::{WasiHttpView, p2, p3};

use crate::body::{Body, RequestBody};
use crate::error::Failure;
use crate::instance::{InstanceState, Stores, is_late};

/// Requests a 0.3 instance serves at a time, where they wait for something. As in Spin.
const CONCURRENT_REQUESTS: usize = 16;

/// A component's instances behind the standard door.
pub struct Door {
    handler: ProxyHandler<Workers>,
    stores: Arc<Stores>,
    /// Requests in flight; no more than one instance each.
    permits: Arc<Semaphore>,
}

impl std::fmt::Debug for Door {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("standard::Door").field("stores", &self.stores).finish_non_exhaustive()
    }
}

impl Door {
    /// `None` if the component exports neither version of the handler.
    pub fn new(pre: &InstancePre<InstanceState>, stores: &Arc<Stores>) -> Option<Self> {
        let pre = match p3::bindings::ServicePre::new(pre.clone()) {
            Ok(pre) => ProxyPre::P3(pre),
            Err(_) => ProxyPre::P2(p2::bindings::ProxyPre::new(pre.clone()).ok()?),
        };
        Some(Self {
            handler: ProxyHandler::new(Workers { pre, stores: Arc::clone(stores) }),
            stores: Arc::clone(stores),
            permits: Arc::new(Semaphore::new(stores.spec().limits.instances)),
        })
    }

    /// Hands the request to a worker and waits for the head of its answer.
    pub async fn invoke(
        &self,
        head: Parts,
        body: RequestBody,
        deadline: Instant,
    ) -> Result<Response<Body>, Failure> {
        let permit = timeout_at(deadline.into(), Arc::clone(&self.permits).acquire_owned()).await;
        let permit: OwnedSemaphorePermit =
            permit.ok().and_then(Result::ok).ok_or_else(|| self.busy())?;
        let (body, over) = body.into_wasi();
        let answer = self.handler.handle(deadline, Request::from_parts(head, body)).await;
        if over.is_some_and(|over| over.load(Ordering::Relaxed)) {
            let limit = self.stores.spec().limits.request_body;
            return Err(Failure::BodyTooLarge { limit });
        }
        match answer {
            Ok(response) => Ok(response.map(|body| Body::streamed(body, permit))),
            Err(error) => Err(self.failure(&error, deadline)),
        }
    }

    fn busy(&self) -> Failure {
        let spec = self.stores.spec();
        Failure::Busy { component: spec.id.clone(), limit: spec.limits.instances }
    }

    fn failure(&self, error: &wasmtime::Error, deadline: Instant) -> Failure {
        let component = self.stores.spec().id.clone();
        // A guest that never yields is ended together with its worker, which then cannot say why.
        if error.is::<ExpirationError>() || is_late(error) || Instant::now() >= deadline {
            warn!(component, "missed the deadline");
            return Failure::Deadline { component };
        }
        if error.is::<InstantiationError<Instant>>() {
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
}

impl HandlerState for Workers {
    type StoreData = InstanceState;
    type WorkerExpiration = Expiration;
    type WorkerState = Worker;

    async fn instantiate(&self) -> wasmtime::Result<Instance<InstanceState, Expiration, Worker>> {
        let limits = &self.stores.spec().limits;
        let deadline = Instant::now() + limits.deadline;
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
            state: Worker { component: self.stores.spec().id.clone() },
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
}

impl WorkerState for Worker {
    type StoreData = InstanceState;
    type RequestData = Instant;

    fn should_accept_request(&self, concurrent: usize, _total: usize) -> ShouldAccept {
        if concurrent < CONCURRENT_REQUESTS { ShouldAccept::Yes } else { ShouldAccept::No }
    }

    fn on_request_start(
        &self,
        mut store: StoreContextMut<'_, InstanceState>,
        deadline: Instant,
        _task: GuestTaskId,
    ) -> Pin<Box<dyn Future<Output = ()> + 'static + Send + Sync>> {
        // Of several requests, the last to come ends last.
        store.data_mut().deadline = deadline;
        Box::pin(sleep_until(deadline.into()))
    }

    fn drop(&self, _store: Store<InstanceState>, result: wasmtime::Result<()>) {
        if let Err(error) = result {
            warn!(component = self.component, error = format!("{error:#}"), "instance ended");
        }
    }
}
