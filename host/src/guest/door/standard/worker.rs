//! One instance behind the standard door, for as long as it lives: it takes requests while it can,
//! several at a time if they wait for something, and ends when it is old, late, idle or broken.
//!
//! A guest that computes has the store for itself: nothing inside `run_concurrent` is polled until
//! it pauses. What must happen all the same, to step aside and to end, happens outside.

use std::future::{pending, poll_fn};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Instant;

use futures::channel::oneshot;
use futures::stream::{FuturesUnordered, StreamExt};
use futures::task::AtomicWaker;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Sleep, sleep_until, timeout_at};
use tracing::{debug, warn};
use wasmtime::component::{Accessor, Func};
use wasmtime::{AsContextMut, Result, Store, Trap};
use wasmtime_wasi_http::WasiHttpView;
use wasmtime_wasi_http::handler::{Prepared, Proxy, Request, Response};

use super::Component;
use super::pool::{Next, Place};
use crate::config::app::ComponentSpec;
use crate::guest::instance::{MAX_HANDLES, InstanceState, is_full, is_late};
use crate::metrics::Ended;
use crate::prediction_log::RequestPredictions;

/// The handles an instance holds are counted after so many requests.
const COUNTED: usize = 16;
/// With so many it takes no further request, until it has given some back.
const HANDLES: usize = MAX_HANDLES / 2;

/// A request for a worker.
pub(super) struct Job {
    pub(super) request: Request,
    pub(super) deadline: Instant,
    /// Components it has come through, this one included.
    pub(super) hops: usize,
    /// Where its predictions go, if they are logged.
    pub(super) predictions: Option<Arc<RequestPredictions>>,
    pub(super) answer: oneshot::Sender<Result<Response>>,
    pub(super) asker: Arc<Asker>,
    /// Given back when the guest has answered, and the answer is sent.
    pub(super) turn: Arc<OwnedSemaphorePermit>,
}

/// Who waits for an answer.
#[derive(Default)]
pub(super) struct Asker {
    gone: AtomicBool,
    worker: AtomicWaker,
}

/// Whoever holds it waits for an answer, unless it was given up.
pub(super) struct Waiting(pub(super) Option<Arc<Asker>>);

impl Waiting {
    /// The answer has come.
    pub(super) fn end(mut self) {
        self.0 = None;
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(asker) = &self.0 {
            asker.gone.store(true, Ordering::Release);
            asker.worker.wake();
        }
    }
}

/// Why there is no instance.
#[derive(Debug, thiserror::Error)]
#[error("{0:#}")]
pub(super) struct NotInstantiated(pub(super) wasmtime::Error);

/// Makes an instance, and serves with it.
pub(super) async fn work(component: &Component, place: Place<Job>) {
    let id = &component.stores.spec().id;
    place.begin();
    match instantiate(component, place.is_spare()).await {
        Ok((mut store, proxy)) => {
            place.has_started();
            let ended = serve(component, &mut store, &proxy, &place).await;
            match ended {
                Ok(why) => store.data_mut().ends(why),
                Err(error) if is_late(&error) => debug!(component = id, "ended: late, or given up"),
                Err(error) => {
                    store.data_mut().ends(Ended::Failed);
                    warn!(component = id, error = format!("{error:#}"), "failed");
                }
            }
        }
        // Who waits is served by the others.
        Err(error) if is_full(&error) && place.retire() => {}
        Err(error) => match place.take() {
            // Nobody may wait any more.
            Some(job) => drop(job.answer.send(Err(NotInstantiated(error).into()))),
            None => warn!(component = id, error = format!("{error:#}"), "cannot instantiate"),
        },
    }
}

async fn instantiate(
    component: &Component,
    is_spare: bool,
) -> Result<(Store<InstanceState>, Proxy)> {
    let deadline = Instant::now() + component.stores.spec().limits.deadline;
    // For one that nobody needs yet no other gives way.
    if is_spare {
        return timeout_at(deadline.into(), make(component, deadline)).await?;
    }
    let making = component.doors.with_room(|| make(component, deadline));
    timeout_at(deadline.into(), making).await?
}

async fn make(component: &Component, deadline: Instant) -> Result<(Store<InstanceState>, Proxy)> {
    let start = Instant::now();
    let mut store = component.stores.create(deadline)?;
    let proxy = component.pre.instantiate_async(&mut store).await?;
    store.data_mut().begins(start.elapsed());
    Ok((store, proxy))
}

/// Until the instance ends, by itself, and why, or because it failed.
async fn serve(
    component: &Component,
    store: &mut Store<InstanceState>,
    proxy: &Proxy,
    place: &Place<Job>,
) -> Result<Ended> {
    let course = Course::new();
    let inside = async |accessor: &Accessor<InstanceState>| {
        let mut calls = Calls::new(component.stores.spec(), accessor, &course);
        let mut running = FuturesUnordered::new();
        let mut why = Ended::Retired;
        poll_fn(|cx| {
            course.polled.store(true, Ordering::Relaxed);
            loop {
                // First of all, so that what is late is known before another is taken.
                while let Poll::Ready(Some(ended)) = running.poll_next_unpin(cx) {
                    match ended {
                        Ok(asker) => calls.end(&asker),
                        Err(error) => return Poll::Ready(Err(error)),
                    }
                }
                if running.is_empty()
                    && calls.lingering.is_some()
                    && accessor.poll_no_interesting_tasks(cx).is_ready()
                {
                    calls.lingering = None;
                }
                let enters = accessor.poll_ready_for_concurrent_call(handler(proxy), cx).is_ready();
                let open = enters && calls.may_take();
                match place.poll_next(cx, open, calls.idle_since) {
                    Next::Serve(job) if job.deadline <= Instant::now() => continue,
                    Next::Serve(job) => {
                        let Job { request, deadline, hops, predictions, answer, asker, turn } = job;
                        calls.begin(deadline, &asker);
                        let others = !running.is_empty();
                        let prepared = accessor.with(|mut store| {
                            // Of several, nobody knows which one a guest sends a request for.
                            let most = &mut store.data_mut().outbound.hops;
                            *most = if others { hops.max(*most) } else { hops };
                            if let Some(predictions) = &predictions {
                                store.data_mut().predictions.begin(Arc::clone(predictions));
                            }
                            let store = store.as_context_mut();
                            Prepared::new(store, proxy, request, InstanceState::http, answer)
                        });
                        running.push(async move {
                            let _turn = turn;
                            prepared?.run(accessor, pending()).await?;
                            if let Some(predictions) = predictions {
                                let id = predictions.id();
                                accessor.with(|mut store| store.data_mut().predictions.end(id));
                            }
                            Ok(asker)
                        });
                        continue;
                    }
                    Next::Wait => {}
                    Next::Leave => {
                        calls.over = true;
                        why = Ended::Idle;
                    }
                }
                if !running.is_empty() || accessor.poll_no_interesting_tasks(cx).is_pending() {
                    return Poll::Pending;
                }
                if calls.over || !enters {
                    return Poll::Ready(Ok(why));
                }
                if calls.idle_since.is_none() {
                    calls.idle();
                    continue;
                }
                return Poll::Pending;
            }
        })
        .await
    };
    let mut inside = pin!(store.run_concurrent(inside));
    let mut timer = Timer::default();
    poll_fn(|cx| {
        course.polled.store(false, Ordering::Relaxed);
        if let Poll::Ready(ended) = inside.as_mut().poll(cx) {
            return Poll::Ready(ended.flatten());
        }
        if !course.polled.load(Ordering::Relaxed) {
            place.step_aside();
        } else if !course.paused.swap(true, Ordering::Relaxed) {
            cx.waker().wake_by_ref();
        }
        let plan = course.plan();
        if plan.is_given_up(cx) || timer.poll(cx, plan.due).is_ready() {
            return Poll::Ready(Err(Trap::Interrupt.into()));
        }
        Poll::Pending
    })
    .await
}

/// What the inside tells the outside.
struct Course {
    /// Whether the inside was polled: the guest does not compute.
    polled: AtomicBool,
    /// Whether the guest has paused since it took the last request: it waits for something.
    paused: AtomicBool,
    plan: Mutex<Plan>,
}

/// What the guest has to do.
#[derive(Default)]
struct Plan {
    /// When it has to be done with all of it.
    due: Option<Instant>,
    calls: Vec<(Instant, Arc<Asker>)>,
}

impl Course {
    fn new() -> Self {
        Self {
            polled: AtomicBool::new(false),
            paused: AtomicBool::new(true),
            plan: Mutex::default(),
        }
    }

    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Plan {
    /// Whether nobody waits any more for what the guest does; whoever goes wakes this task.
    fn is_given_up(&self, cx: &Context<'_>) -> bool {
        let gone = |asker: &Asker| {
            asker.worker.register(cx.waker());
            asker.gone.load(Ordering::Acquire)
        };
        // All of them are to wake it.
        let gone = self.calls.iter().filter(|(_, asker)| gone(asker)).count();
        gone > 0 && gone == self.calls.len()
    }
}

/// The requests an instance has, and had.
struct Calls<'a> {
    spec: &'a ComponentSpec,
    accessor: &'a Accessor<InstanceState>,
    course: &'a Course,
    made: Instant,
    served: usize,
    /// Requests it may serve, and at a time.
    most: usize,
    at_a_time: usize,
    idle_since: Option<Instant>,
    /// Since its handles were counted.
    uncounted: usize,
    /// When what goes on after an answer, such as its stream, has to be done.
    lingering: Option<Instant>,
    /// Whether it takes no more.
    over: bool,
}

impl<'a> Calls<'a> {
    fn new(
        spec: &'a ComponentSpec,
        accessor: &'a Accessor<InstanceState>,
        course: &'a Course,
    ) -> Self {
        Self {
            spec,
            accessor,
            course,
            made: Instant::now(),
            served: 0,
            most: spec.reuse.requests.draw(),
            at_a_time: spec.reuse.concurrency.draw(),
            idle_since: None,
            uncounted: 0,
            lingering: None,
            over: false,
        }
    }

    fn may_take(&mut self) -> bool {
        let now = Instant::now();
        // Even one that is born old serves once.
        let old = self.served > 0 && now - self.made >= self.spec.reuse.age;
        let lingers = self.lingering.is_some_and(|end| now >= end);
        self.over |= old || lingers || self.served >= self.most;
        let calls = &self.course.plan().calls;
        let free = calls.is_empty()
            || calls.len() < self.at_a_time
                && self.course.paused.load(Ordering::Relaxed)
                // What is late would hold up another.
                && calls.iter().all(|(deadline, _)| now < *deadline);
        free && !self.over && self.has_room()
    }

    /// Whether there are handles for another request. What goes on after an answer holds some: a guest
    /// that always gets the next request first would not come to give them back.
    fn has_room(&mut self) -> bool {
        if self.uncounted < COUNTED {
            return true;
        }
        let handles = self.accessor.with(|mut store| {
            let mut store = store.as_context_mut();
            let tasks = store.concurrent_resource_table().map_or(0, |all| all.iter_mut().count());
            tasks.max(store.data_mut().handles())
        });
        let has_room = handles < HANDLES;
        if has_room {
            self.uncounted = 0;
        }
        has_room
    }

    fn begin(&mut self, deadline: Instant, asker: &Arc<Asker>) {
        self.served += 1;
        self.uncounted += 1;
        self.idle_since = None;
        // It may compute; only when it pauses can it be given another.
        self.course.paused.store(false, Ordering::Relaxed);
        self.plan(|plan| {
            plan.calls.push((deadline, Arc::clone(asker)));
            plan.calls.iter().map(|(deadline, _)| *deadline).max()
        });
    }

    fn end(&mut self, asker: &Arc<Asker>) {
        let now = Instant::now();
        let after = self.lingering.unwrap_or(now + self.spec.limits.deadline);
        let (mut late, mut last) = (false, false);
        self.plan(|plan| {
            plan.calls.retain(|(deadline, other)| {
                let ends = Arc::ptr_eq(asker, other);
                late |= ends && now >= *deadline;
                !ends
            });
            last = plan.calls.is_empty();
            plan.calls.iter().map(|(deadline, _)| *deadline).max().or(Some(after))
        });
        self.over |= late;
        self.lingering = Some(after);
        if last {
            self.course.paused.store(true, Ordering::Relaxed);
        }
    }

    fn idle(&mut self) {
        self.idle_since = Some(Instant::now());
        self.plan(|_| None);
    }

    /// Changes the plan to one that is due at another time.
    fn plan(&self, change: impl FnOnce(&mut Plan) -> Option<Instant>) {
        let mut plan = self.course.plan();
        plan.due = change(&mut plan);
        if let Some(due) = plan.due {
            self.accessor.with(|mut store| store.data_mut().deadline = due);
        }
    }
}

/// Wakes at a time that may change.
#[derive(Default)]
struct Timer(Option<Pin<Box<Sleep>>>);

impl Timer {
    /// Ready once it is `due`.
    fn poll(&mut self, cx: &mut Context<'_>, due: Option<Instant>) -> Poll<()> {
        let Some(due) = due else { return Poll::Pending };
        let sleep = self.0.get_or_insert_with(|| Box::pin(sleep_until(due.into())));
        // It mostly moves on: one that rings too early is set again then.
        if due < sleep.deadline().into() {
            sleep.as_mut().reset(due.into());
        }
        loop {
            match sleep.as_mut().poll(cx) {
                Poll::Ready(()) if sleep.deadline() < due.into() => {
                    sleep.as_mut().reset(due.into());
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
