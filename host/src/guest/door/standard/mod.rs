//! The standard door: `wasi:http` 0.3 (`handler`) or 0.2 (`incoming-handler`), which every Spin
//! component exports. Bodies are streams. Instances are reused and, with 0.3, may serve several
//! requests concurrently.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use bytes::Bytes;
use futures::channel::oneshot;
use http::request::Parts;
use http::{Method, Request, Response};
use tokio::runtime::Handle;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout_at;
use tracing::{error, warn};
use wasmtime::component::InstancePre;
use wasmtime_wasi_http::handler::ProxyPre;
use wasmtime_wasi_http::{p2, p3};

use super::{
    Evictable, Evicted, InstancePool, busy, check_status, deadline_exceeded, fast, invalid_response,
};
use crate::config::instance_reuse::ServedInterface;
use crate::guest::instance::{InstanceState, StoreFactory, is_deadline_exceeded, is_pool_full};
use crate::guest::offload::GuestOffload;
use crate::http::body::cut_off::CutOff;
use crate::http::body::gather::gather;
use crate::http::body::guest_body::OpenGuestBodies;
use crate::http::body::outcome::ResponseReader;
use crate::http::body::{Body, RequestBody};
use crate::http::error::Failure;
use crate::http::framing::{announced_length, has_no_body};
use crate::http::spin_headers::RequestOrigin;

mod call;
mod calls;
mod loop_waker;
mod pool;
mod unsent;
mod worker;

use calls::{AbandonOnDrop, RequestCaller};
use pool::Pool;
use unsent::ResponseBody;
use worker::{NotInstantiated, WorkerJob};

/// A component's instances behind the standard door.
pub struct StandardDoor {
    pool: Arc<Pool<WorkerJob>>,
    stores: Arc<StoreFactory>,
}

/// What the workers of a component share.
struct WorkerContext {
    pre: ProxyPre<InstanceState>,
    /// The interface that decides how often an instance is reused.
    interface: ServedInterface,
    stores: Arc<StoreFactory>,
    instance_pool: Arc<InstancePool>,
    /// Where workers continue while their guests compute for long.
    offload: GuestOffload,
    /// The runtime on which workers start: that of the threads that poll connections.
    home: OnceLock<Handle>,
}

impl fmt::Debug for StandardDoor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StandardDoor").field("stores", &self.stores).finish_non_exhaustive()
    }
}

/// The component, ready to be instantiated; `None` if it exports neither version of the handler.
#[must_use]
pub fn pre(pre: &InstancePre<InstanceState>) -> Option<ProxyPre<InstanceState>> {
    match p3::bindings::ServicePre::new(pre.clone()) {
        Ok(pre) => Some(ProxyPre::P3(pre)),
        Err(_) => Some(ProxyPre::P2(p2::bindings::ProxyPre::new(pre.clone()).ok()?)),
    }
}

/// The interface of a component of 0.3. One that exports the fast door, too, has the same handler behind both,
/// and states that its instances are reused.
fn interface_of(pre: &InstancePre<InstanceState>) -> ServedInterface {
    match pre.component().get_export_index(None, fast::EXPORT) {
        Some(_) => ServedInterface::Typed,
        None => ServedInterface::Http03,
    }
}

impl StandardDoor {
    #[must_use]
    pub fn new(
        pre: &ProxyPre<InstanceState>,
        stores: &Arc<StoreFactory>,
        offload: GuestOffload,
        instance_pool: &Arc<InstancePool>,
    ) -> Arc<Self> {
        let (pre, interface) = match pre {
            ProxyPre::P3(pre) => (ProxyPre::P3(pre.clone()), interface_of(pre.instance_pre())),
            ProxyPre::P2(pre) => (ProxyPre::P2(pre.clone()), ServedInterface::Http02),
        };
        let component = Arc::new(WorkerContext {
            pre,
            interface,
            stores: Arc::clone(stores),
            instance_pool: Arc::clone(instance_pool),
            offload,
            home: OnceLock::new(),
        });
        let (max_workers, min_idle) =
            (stores.spec().limits.instances, stores.spec().reuse.min_idle);
        let pool = Pool::new(max_workers, min_idle, move |slot| {
            let component = Arc::clone(&component);
            let home = component.home.get_or_init(Handle::current).clone();
            home.spawn(async move {
                let id = component.stores.spec().id.clone();
                let offload = component.offload.clone();
                let work = async move { worker::work(&component, slot).await };
                match offload.run_long_lived(work).await {
                    Err(lost) if !lost.is_cancelled() => {
                        error!(component = id, %lost, "a worker of the standard door failed");
                    }
                    _ => {}
                }
            });
        });
        let door = Arc::new(Self { pool, stores: Arc::clone(stores) });
        instance_pool.add(&door);
        door
    }

    /// Queues the request for a worker, and waits for the head of the response.
    pub async fn invoke(
        &self,
        mut head: Parts,
        body: RequestBody,
        deadline: Instant,
        origin: &RequestOrigin<'_>,
        permit: OwnedSemaphorePermit,
        open_bodies: &Arc<OpenGuestBodies>,
    ) -> Result<Response<Body>, Failure> {
        let arrival = body.arrival();
        let is_head = head.method == Method::HEAD;
        origin.put_into(&mut head);
        head.uri = origin.url(&head).unwrap_or(head.uri);
        let request = Request::from_parts(head, body.into_wasi());
        let (sender, receiver) = oneshot::channel();
        let caller = Arc::<RequestCaller>::default();
        let abandon = AbandonOnDrop(Some(Arc::clone(&caller)));
        let reader = ResponseReader(Arc::clone(&caller.outcome));
        let permit = Arc::new(permit);
        let body_permit = Arc::clone(&permit);
        let hops = origin.client.hops + 1;
        let predictions = origin.predictions.cloned();
        let job =
            WorkerJob { request, deadline, hops, predictions, response: sender, caller, permit };
        let queued = self.pool.submit(job);
        let response = timeout_at(deadline.into(), receiver).await;
        if response.is_ok() {
            abandon.disarm();
        }
        let limit = self.stores.spec().limits.request_body;
        if let Some(failure) = arrival.as_ref().and_then(|arrival| arrival.failure(limit)) {
            return Err(failure);
        }
        // A guest that is interrupted at its deadline may return any error.
        let in_time = Instant::now() < deadline;
        match response {
            Ok(Ok(Ok(response))) => {
                check_status(response.status())
                    .map_err(|problem| invalid_response(self.stores.spec(), problem))?;
                let (head, body) = response.into_parts();
                let body = match (expected(&head, is_head), body) {
                    (Expected::Nothing, _) => Body::whole(Bytes::new()),
                    (_, ResponseBody::Whole(bytes)) => Body::whole(bytes),
                    (expected, ResponseBody::Open(body)) => {
                        let client = origin.client.client();
                        let body = open_bodies.send(body, body_permit, reader, client);
                        match expected {
                            Expected::Announced(length) => {
                                gather(body, length).await.map_err(|cut| self.stopped(cut))?
                            }
                            Expected::Nothing | Expected::AnyLength => Body::streamed(body),
                        }
                    }
                };
                Ok(Response::from_parts(head, body))
            }
            Ok(Ok(Err(error))) if in_time && !is_deadline_exceeded(&error) => {
                Err(self.failure(&error))
            }
            // The worker failed, and has logged the reason.
            Ok(Err(_)) if in_time => Err(self.trap()),
            // A worker that is still instantiating is not busy.
            Err(_) if queued.withdraw().is_some() && !self.pool.is_starting() => {
                Err(busy(self.stores.spec()))
            }
            // The client has not sent the whole body.
            _ if arrival.is_some_and(|arrival| arrival.is_awaited()) => Err(Failure::BodyTimeout),
            _ => Err(deadline_exceeded(self.stores.spec())),
        }
    }

    fn failure(&self, error: &wasmtime::Error) -> Failure {
        let component = self.stores.spec().id.clone();
        match error.downcast_ref::<NotInstantiated>() {
            Some(NotInstantiated(error)) if is_pool_full(error) => Failure::InstancePoolFull,
            Some(NotInstantiated(error)) if is_deadline_exceeded(error) => {
                deadline_exceeded(self.stores.spec())
            }
            Some(NotInstantiated(error)) => {
                warn!(component, error = format!("{error:#}"), "cannot instantiate");
                Failure::Instantiation { component }
            }
            None => {
                warn!(component, error = format!("{error:#}"), "failed");
                self.trap()
            }
        }
    }

    /// The failure of a request whose response was cut off before its head was sent.
    fn stopped(&self, cut: CutOff) -> Failure {
        match cut {
            // The worker has logged the reason.
            CutOff::Trap => self.trap(),
            CutOff::Interrupted | CutOff::Idle | CutOff::Total => {
                deadline_exceeded(self.stores.spec())
            }
            cut => invalid_response(self.stores.spec(), cut.to_string()),
        }
    }

    fn trap(&self) -> Failure {
        Failure::Trap { component: self.stores.spec().id.clone() }
    }
}

/// Whether an instance that responds so is not used again.
fn is_failure<B>(response: &wasmtime::Result<http::Response<B>>) -> bool {
    response.as_ref().map_or(true, |response| super::is_failure(response.status()))
}

/// The body that belongs to the head of a response.
enum Expected {
    /// None: the guest's is dropped.
    Nothing,
    /// One of this length, in bytes.
    Announced(u64),
    AnyLength,
}

fn expected(head: &http::response::Parts, is_head: bool) -> Expected {
    if is_head || has_no_body(head.status) {
        return Expected::Nothing;
    }
    announced_length(&head.headers).map_or(Expected::AnyLength, Expected::Announced)
}

impl Evictable for StandardDoor {
    fn drop_idle(&self, since: Instant) -> Evicted {
        self.pool.drop_idle(since)
    }
}

impl Drop for StandardDoor {
    fn drop(&mut self) {
        self.pool.close();
    }
}
