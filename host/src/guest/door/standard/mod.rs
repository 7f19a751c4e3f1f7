//! The standard door: `wasi:http` 0.3 (`handler`) or 0.2 (`incoming-handler`), every Spin
//! component's entry. Bodies are streams, instances are reused and, in 0.3, may serve several
//! requests at a time.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use futures::channel::oneshot;
use http::request::Parts;
use http::{Request, Response};
use tokio::runtime::Handle;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout_at;
use tracing::{error, warn};
use wasmtime::component::InstancePre;
use wasmtime_wasi_http::handler::ProxyPre;
use wasmtime_wasi_http::{p2, p3};

use super::{Doors, GivesWay, Leaving, busy, late};
use crate::guest::offload::Lane;
use crate::http::body::{Body, RequestBody};
use crate::http::error::Failure;
use crate::guest::instance::{InstanceState, Stores, is_full, is_late};
use crate::http::spin_headers::Origin;
use crate::http::body::guest_body::Streams;

mod pool;
mod worker;

use pool::Pool;
use worker::{Job, NotInstantiated, Waiting};

/// A component's instances behind the standard door.
pub struct Door {
    pool: Arc<Pool<Job>>,
    stores: Arc<Stores>,
}

/// What workers share.
struct Component {
    pre: ProxyPre<InstanceState>,
    stores: Arc<Stores>,
    doors: Arc<Doors>,
    /// Where those go that compute for long.
    background: Lane,
    /// Where workers begin: on the threads that poll connections.
    home: OnceLock<Handle>,
}

impl fmt::Debug for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
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
    pub fn new(
        pre: &ProxyPre<InstanceState>,
        stores: &Arc<Stores>,
        background: Lane,
        doors: &Arc<Doors>,
    ) -> Arc<Self> {
        let pre = match pre {
            ProxyPre::P3(pre) => ProxyPre::P3(pre.clone()),
            ProxyPre::P2(pre) => ProxyPre::P2(pre.clone()),
        };
        let component = Arc::new(Component {
            pre,
            stores: Arc::clone(stores),
            doors: Arc::clone(doors),
            background,
            home: OnceLock::new(),
        });
        let (most, spare) = (stores.spec().limits.instances, stores.spec().reuse.spare);
        let pool = Pool::new(most, spare, move |place| {
            let component = Arc::clone(&component);
            let home = component.home.get_or_init(Handle::current).clone();
            home.spawn(async move {
                let id = component.stores.spec().id.clone();
                let background = component.background.clone();
                let work = async move { worker::work(&component, place).await };
                match background.attend(work).await {
                    Err(lost) if !lost.is_cancelled() => {
                        error!(component = id, %lost, "an instance ended");
                    }
                    _ => {}
                }
            });
        });
        let door = Arc::new(Self { pool, stores: Arc::clone(stores) });
        doors.add(&door);
        door
    }

    /// Waits for a worker, and for the head of its answer.
    pub async fn invoke(
        &self,
        mut head: Parts,
        body: RequestBody,
        deadline: Instant,
        origin: &Origin<'_>,
        turn: OwnedSemaphorePermit,
        streams: &Arc<Streams>,
    ) -> Result<Response<Body>, Failure> {
        let arrival = body.arrival();
        origin.put_into(&mut head);
        let request = Request::from_parts(head, body.into_wasi());
        let (answer, answered) = oneshot::channel();
        let asker = Arc::default();
        let waiting = Waiting(Some(Arc::clone(&asker)));
        let turn = Arc::new(turn);
        let held = Arc::clone(&turn);
        let hops = origin.client.hops + 1;
        let predictions = origin.predictions.cloned();
        let job = Job { request, deadline, hops, predictions, answer, asker, turn };
        let ticket = self.pool.submit(job);
        let answer = timeout_at(deadline.into(), answered).await;
        if answer.is_ok() {
            waiting.end();
        }
        let limit = self.stores.spec().limits.request_body;
        if let Some(failure) = arrival.as_ref().and_then(|arrival| arrival.failure(limit)) {
            return Err(failure);
        }
        // A guest that is ended because it is late cannot always say why.
        let in_time = Instant::now() < deadline;
        match answer {
            Ok(Ok(Ok(response))) => {
                Ok(response.map(|body| Body::streamed(streams.send(body, held))))
            }
            Ok(Ok(Err(error))) if in_time && !is_late(&error) => Err(self.failure(&error)),
            // Its worker ended, and said why.
            Ok(Err(_)) if in_time => Err(self.trap()),
            // One that is still starting up is no busy one.
            Err(_) if ticket.withdraw().is_some() && !self.pool.is_starting() => {
                Err(busy(self.stores.spec()))
            }
            // It is the client who is late.
            _ if arrival.is_some_and(|arrival| arrival.is_awaited()) => Err(Failure::BodyTimeout),
            _ => Err(late(self.stores.spec())),
        }
    }

    fn failure(&self, error: &wasmtime::Error) -> Failure {
        let component = self.stores.spec().id.clone();
        match error.downcast_ref::<NotInstantiated>() {
            Some(NotInstantiated(error)) if is_full(error) => Failure::NoRoom,
            Some(NotInstantiated(error)) if is_late(error) => late(self.stores.spec()),
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

    fn trap(&self) -> Failure {
        Failure::Trap { component: self.stores.spec().id.clone() }
    }
}

impl GivesWay for Door {
    fn drop_idle(&self, since: Instant) -> Leaving {
        self.pool.drop_idle(since)
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.pool.close();
    }
}
