//! A worker of the standard door: creates one instance and serves requests with it, concurrently if
//! the guest waits for I/O, until the instance is retired, evicted, interrupted or fails.
//!
//! While a guest computes, it owns the store: nothing inside `run_concurrent` is polled until the
//! guest pauses. Declining requests and interrupting the guest therefore happen outside of it.
//!
//! ```text
//! state     | event                              | next      | what happens
//! ----------+------------------------------------+-----------+----------------------------------
//! starting  | instance created                   | idle      | listed as available
//! starting  | instance pool full, other workers  | stopped   | the others serve the queue
//! starting  | any other error                    | stopped   | the oldest queued request fails
//! idle      | request taken                      | computing | the guest is called
//! idle      | evicted                            | draining  |
//! computing | guest pauses                       | serving   | listed, if it may take another
//! computing | woken for a request                | computing | declines; another worker is woken
//! serving   | guest resumes                      | computing | taken off the list
//! serving   | request taken                      | computing | the guest is called concurrently
//! serving   | last request ends, no task left    | idle      | listed as idle; no deadline
//! serving   | last request ends, tasks left      | lingering | `limits.deadline` for the tasks
//! lingering | request taken                      | computing | the guest is called
//! lingering | no task left                       | idle      | listed as idle; no deadline
//! any       | maximum of requests or age reached,| draining  | no further request is taken
//! (but      | request ended after its deadline,  |           |
//! starting) | tasks exceeded theirs, a response  |           |
//!           | failed, pool closed                |           |
//! draining  | no request and no task left        | stopped   | recorded as retired, failed or idle
//! any       | deadline exceeded, or all callers  | stopped   | the guest is interrupted
//!           | abandoned their requests           |           |
//! any       | the guest fails                    | stopped   | recorded as failed
//! ```
//!
//! A response is sent with its body if the guest writes that without waiting ([`UnsentResponses`]). The
//! next request is taken after it.
//!
//! A response fails if the guest returns an error or a status that is not valid, responds 500, or
//! breaks off its body. An instance of `wasi:http` 0.2 takes no request before the response to the last
//! one has ended; one of 0.3 can have taken others by the time a response fails.
//!
//! An instance that holds [`HANDLE_THRESHOLD`](super::calls::HANDLE_THRESHOLD) handles is not listed
//! until it has released some.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use futures::channel::oneshot;
use futures::stream::{FuturesUnordered, StreamExt};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Sleep, sleep_until, timeout_at};
use tracing::{debug, warn};
use wasmtime::component::{Accessor, Func};
use wasmtime::{AsContextMut, Result, Store, Trap};
use wasmtime_wasi_http::handler::{Proxy, Request};

use super::WorkerContext;
use super::call::GuestCall;
use super::calls::{CallTracker, Progress, RequestCaller};
use super::pool::{Next, WorkerSlot};
use super::unsent::{GuestResponse, Responder, UnsentResponses};
use crate::guest::instance::{InstanceState, is_deadline_exceeded, is_pool_full};
use crate::http::body::cut_off::CutOff;
use crate::http::body::instance_body::EndBodiesOnDrop;
use crate::metrics::Ended;
use crate::prediction_log::RequestPredictions;

/// A request to serve.
pub(super) struct WorkerJob {
    pub(super) request: Request,
    pub(super) deadline: Instant,
    /// Number of components it has passed through, this one included.
    pub(super) hops: usize,
    /// Where its predictions go, if they are logged.
    pub(super) predictions: Option<Arc<RequestPredictions>>,
    pub(super) response: oneshot::Sender<Result<GuestResponse>>,
    pub(super) caller: Arc<RequestCaller>,
    /// Released when the guest's call has ended and the response body is sent.
    pub(super) permit: Arc<OwnedSemaphorePermit>,
}

/// The instance could not be created.
#[derive(Debug, thiserror::Error)]
#[error("{0:#}")]
pub(super) struct NotInstantiated(pub(super) wasmtime::Error);

/// Creates an instance, and serves requests with it until it stops.
pub(super) async fn work(component: &WorkerContext, slot: WorkerSlot<WorkerJob>) {
    let id = &component.stores.spec().id;
    slot.set_running();
    match instantiate(component, slot.is_standby()).await {
        Ok((mut store, proxy)) => {
            slot.set_started();
            // Before the store is dropped, which is declared first.
            let bodies = EndBodiesOnDrop(Arc::clone(&store.data().bodies));
            match serve(component, &mut store, &proxy, &slot).await {
                Ok(reason) => {
                    store.data_mut().record_end(reason);
                    if reason == Ended::Retired {
                        slot.set_successor();
                    }
                }
                Err(error) if is_deadline_exceeded(&error) => {
                    bodies.0.set_cause(CutOff::Interrupted);
                    debug!(component = id, "interrupted: deadline exceeded or requests abandoned");
                }
                Err(error) => {
                    bodies.0.set_cause(CutOff::Trap);
                    store.data_mut().record_end(Ended::Failed);
                    warn!(component = id, error = format!("{error:#}"), "failed");
                }
            }
        }
        // The other workers serve the queue.
        Err(error) if is_pool_full(&error) && slot.retire() => {}
        Err(error) => match slot.take() {
            // Fails if the caller was dropped.
            Some(job) => drop(job.response.send(Err(NotInstantiated(error).into()))),
            None => warn!(component = id, error = format!("{error:#}"), "cannot instantiate"),
        },
    }
}

async fn instantiate(
    component: &WorkerContext,
    is_standby: bool,
) -> Result<(Store<InstanceState>, Proxy)> {
    let deadline = Instant::now() + component.stores.spec().limits.deadline;
    // No idle instance is evicted for one that no request needs yet.
    if is_standby {
        return timeout_at(deadline.into(), create(component, deadline)).await?;
    }
    let creating = component.instance_pool.instantiate(|| create(component, deadline));
    timeout_at(deadline.into(), creating).await?
}

async fn create(
    component: &WorkerContext,
    deadline: Instant,
) -> Result<(Store<InstanceState>, Proxy)> {
    let start = Instant::now();
    let mut store = component.stores.create(deadline)?;
    let proxy = component.pre.instantiate_async(&mut store).await?;
    store.data_mut().record_instantiated(start.elapsed());
    Ok((store, proxy))
}

/// Number of consecutive times that a guest may yield, or an epoch end, before its responses are sent with
/// unfinished bodies.
const MAX_YIELDS: u32 = 2;

/// Serves requests until the instance is to be dropped, and returns why.
///
/// # Errors
/// The guest fails or is interrupted.
async fn serve(
    component: &WorkerContext,
    store: &mut Store<InstanceState>,
    proxy: &Proxy,
    slot: &WorkerSlot<WorkerJob>,
) -> Result<Ended> {
    let progress = Progress::new();
    let bodies = Arc::clone(&store.data().bodies);
    let unsent = UnsentResponses::new(Arc::clone(&bodies));
    let inside = async |accessor: &Accessor<InstanceState>| {
        serve_inside(accessor, component, proxy, slot, &progress, &unsent).await
    };
    let mut inside = pin!(store.run_concurrent(inside));
    let mut timer = Timer::default();
    let waker = Waker::from(Arc::clone(&progress.inside));
    let mut yields = 0;
    poll_fn(|cx| {
        progress.polled.store(false, Ordering::Relaxed);
        let polled = progress.inside.poll(&waker, cx, |cx| inside.as_mut().poll(cx));
        // A guest that has only yielded, as after each task that it spawns, goes on at once.
        yields = if progress.inside.has_yielded() { yields + 1 } else { 0 };
        // Else it waits for something, computes, or has failed.
        let sent = (yields == 0 || yields > MAX_YIELDS) && unsent.send_all();
        if let Poll::Ready(ended) = polled {
            return Poll::Ready(ended.flatten());
        }
        if !progress.polled.load(Ordering::Relaxed) {
            slot.decline();
        } else if !progress.paused.swap(true, Ordering::Relaxed) || sent {
            cx.waker().wake_by_ref();
        }
        bodies.wake_at_end(cx);
        let in_flight = progress.in_flight();
        let deadline =
            in_flight.deadline.map(|calls| calls.max(bodies.deadline().unwrap_or(calls)));
        let abandoned = in_flight.is_abandoned(cx) && !bodies.has_responses();
        if abandoned || timer.poll(cx, deadline).is_ready() {
            return Poll::Ready(Err(Trap::Interrupt.into()));
        }
        Poll::Pending
    })
    .await
}

/// The part of [`serve`] that runs inside of `run_concurrent`, while the guest does not compute.
async fn serve_inside(
    accessor: &Accessor<InstanceState>,
    component: &WorkerContext,
    proxy: &Proxy,
    slot: &WorkerSlot<WorkerJob>,
    progress: &Progress,
    unsent: &Arc<UnsentResponses>,
) -> Result<Ended> {
    let spec = component.stores.spec();
    let mut calls = CallTracker::new(spec, component.interface, accessor, progress);
    let mut running = FuturesUnordered::new();
    let mut reason = Ended::Retired;
    poll_fn(|cx| {
        progress.polled.store(true, Ordering::Relaxed);
        progress.inside.set_polled();
        loop {
            // Ends calls of 0.2.
            unsent.send_ready();
            // First, so that an exceeded deadline is known before another request is taken.
            while let Poll::Ready(Some(ended)) = running.poll_next_unpin(cx) {
                match ended {
                    Ok(caller) => calls.end(&caller),
                    Err(error) => return Poll::Ready(Err(error)),
                }
            }
            if !unsent.send_ready() {
                return Poll::Pending;
            }
            if running.is_empty()
                && calls.linger_deadline.is_some()
                && accessor.poll_no_interesting_tasks(cx).is_ready()
            {
                calls.linger_deadline = None;
            }
            let enters = accessor.poll_ready_for_concurrent_call(handler(proxy), cx).is_ready();
            let available = enters && calls.may_take();
            match slot.poll_next(cx, available, calls.idle_since) {
                Next::Serve(job) if job.deadline <= Instant::now() => continue,
                Next::Serve(job) => {
                    calls.begin(job.deadline, &job.caller);
                    let turn = Turn { concurrent: !running.is_empty(), last: !calls.is_reused() };
                    running.push(call(accessor, proxy, job, turn, unsent));
                    continue;
                }
                Next::Wait => {}
                Next::Stop => {
                    calls.draining = true;
                    reason = Ended::Idle;
                }
            }
            if !running.is_empty() || accessor.poll_no_interesting_tasks(cx).is_pending() {
                return Poll::Pending;
            }
            if calls.draining || !enters {
                return Poll::Ready(Ok(if calls.has_failed() { Ended::Failed } else { reason }));
            }
            if calls.idle_since.is_none() {
                calls.set_idle();
                continue;
            }
            return Poll::Pending;
        }
    })
    .await
}

/// A request among those of its instance.
#[derive(Clone, Copy)]
struct Turn {
    /// Whether the instance serves others at the same time.
    concurrent: bool,
    /// Whether it serves no other afterwards.
    last: bool,
}

/// Calls the guest.
fn call<'a>(
    accessor: &'a Accessor<InstanceState>,
    proxy: &'a Proxy,
    job: WorkerJob,
    Turn { concurrent, last }: Turn,
    unsent: &'a Arc<UnsentResponses>,
) -> impl Future<Output = Result<Arc<RequestCaller>>> + use<'a> {
    let WorkerJob { request, deadline: _, hops, predictions, response, caller, permit } = job;
    let responder = Responder { sender: response, outcome: Arc::clone(&caller.outcome) };
    let is_p2 = matches!(proxy, Proxy::P2(_));
    let started = accessor.with(|mut store| {
        store.data_mut().outbound.serve(&request, hops, concurrent);
        if let Some(predictions) = &predictions {
            store.data_mut().predictions.begin(Arc::clone(predictions));
        }
        let store = store.as_context_mut();
        GuestCall::start(store, proxy, request, responder, unsent)
    });
    async move {
        let permit = permit;
        started?.run(accessor, unsent).await?;
        drop(permit);
        // With 0.2 the caller receives the response while the guest runs, with 0.3 after its call.
        if is_p2 && !last {
            caller.outcome.ended().await;
        }
        if let Some(predictions) = predictions {
            let id = predictions.id();
            accessor.with(|mut store| store.data_mut().predictions.end(id));
        }
        Ok(caller)
    }
}

/// A timer whose deadline may change.
#[derive(Default)]
struct Timer(Option<Pin<Box<Sleep>>>);

impl Timer {
    /// Is ready at `deadline`; pending without one.
    fn poll(&mut self, cx: &mut Context<'_>, deadline: Option<Instant>) -> Poll<()> {
        let Some(deadline) = deadline else { return Poll::Pending };
        let sleep = self.0.get_or_insert_with(|| Box::pin(sleep_until(deadline.into())));
        // Deadlines mostly move to later: the timer is reset only when it fires too early.
        if deadline < sleep.deadline().into() {
            sleep.as_mut().reset(deadline.into());
        }
        loop {
            match sleep.as_mut().poll(cx) {
                Poll::Ready(()) if sleep.deadline() < deadline.into() => {
                    sleep.as_mut().reset(deadline.into());
                }
                polled => return polled,
            }
        }
    }
}

fn handler(proxy: &Proxy) -> Func {
    match proxy {
        Proxy::P3(guest) => *guest.wasi_http_handler().func_handle().func(),
        Proxy::P2(guest) => *guest.wasi_http_incoming_handler().func_handle().func(),
    }
}
