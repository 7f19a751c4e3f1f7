//! One instance behind the standard door, for as long as it lives: it takes requests while it can,
//! several at a time if they wait for something, and ends when it is old, late, idle or broken.
//!
//! A guest that computes has the store for itself: nothing inside `run_concurrent` is polled until
//! it pauses. What must happen all the same, to step aside and to end, happens outside.

use std::future::{pending, poll_fn};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Instant;

use futures::channel::oneshot;
use futures::stream::{FuturesUnordered, StreamExt};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Sleep, sleep_until, timeout_at};
use tracing::{debug, warn};
use wasmtime::component::{Accessor, Func};
use wasmtime::{AsContextMut, Result, Store, Trap};
use wasmtime_wasi_http::WasiHttpView;
use wasmtime_wasi_http::handler::{Prepared, Proxy, Request, Response};

use super::Component;
use super::pool::{Next, Place};
use crate::app::ComponentSpec;
use crate::instance::{InstanceState, is_full, is_late};

/// A request for a worker.
pub(super) struct Job {
    pub(super) request: Request,
    pub(super) deadline: Instant,
    pub(super) answer: oneshot::Sender<Result<Response>>,
    /// Given back when the guest is done with it, whether or not someone still waits.
    pub(super) turn: OwnedSemaphorePermit,
}

/// Why there is no instance.
#[derive(Debug, thiserror::Error)]
#[error("{0:#}")]
pub(super) struct NotInstantiated(pub(super) wasmtime::Error);

/// Makes an instance, and serves with it.
pub(super) async fn work(component: &Component, place: Place<Job>) {
    let id = &component.stores.spec().id;
    match instantiate(component).await {
        Ok((mut store, proxy)) => {
            let ended = serve(component, &mut store, &proxy, &place).await;
            match ended {
                Ok(()) => {}
                Err(error) if is_late(&error) => debug!(component = id, "ended: late"),
                Err(error) => warn!(component = id, error = format!("{error:#}"), "failed"),
            }
        }
        Err(error) => {
            if let Some(job) = place.take() {
                // Nobody may wait any more.
                let _ = job.answer.send(Err(NotInstantiated(error).into()));
            }
        }
    }
}

async fn instantiate(component: &Component) -> Result<(Store<InstanceState>, Proxy)> {
    let deadline = Instant::now() + component.stores.spec().limits.deadline;
    let making = async {
        match make(component, deadline).await {
            Err(error) if is_full(&error) && component.doors.make_room().await > 0 => {
                make(component, deadline).await
            }
            made => made,
        }
    };
    timeout_at(deadline.into(), making).await?
}

async fn make(component: &Component, deadline: Instant) -> Result<(Store<InstanceState>, Proxy)> {
    let mut store = component.stores.create(deadline)?;
    let proxy = component.pre.instantiate_async(&mut store).await?;
    Ok((store, proxy))
}

/// Until the instance ends, by itself or because it failed.
async fn serve(
    component: &Component,
    store: &mut Store<InstanceState>,
    proxy: &Proxy,
    place: &Place<Job>,
) -> Result<()> {
    let course = Course::new();
    let inside = async |accessor: &Accessor<InstanceState>| {
        let mut calls = Calls::new(component.stores.spec(), accessor, &course);
        let mut running = FuturesUnordered::new();
        poll_fn(|cx| {
            course.polled.store(true, Ordering::Relaxed);
            loop {
                // First of all, so that what is late is known before another is taken.
                while let Poll::Ready(Some(ended)) = running.poll_next_unpin(cx) {
                    match ended {
                        Ok(deadline) => calls.end(deadline),
                        Err(error) => return Poll::Ready(Err(error)),
                    }
                }
                let enters = accessor.poll_ready_for_concurrent_call(handler(proxy), cx).is_ready();
                let open = enters && calls.may_take();
                match place.poll_next(cx, open, calls.idle_since) {
                    Next::Serve(Job { request, deadline, answer, turn }) => {
                        calls.begin(deadline);
                        let prepared = accessor.with(|mut store| {
                            let store = store.as_context_mut();
                            Prepared::new(store, proxy, request, InstanceState::http, answer)
                        });
                        running.push(async move {
                            let _turn = turn;
                            prepared?.run(accessor, pending()).await?;
                            Ok(deadline)
                        });
                        continue;
                    }
                    Next::Wait => {}
                    Next::Leave => calls.over = true,
                }
                if !running.is_empty() || accessor.poll_no_interesting_tasks(cx).is_pending() {
                    return Poll::Pending;
                }
                if calls.over || !enters {
                    return Poll::Ready(Ok(()));
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
        timer.poll(cx, *course.due()).map(|()| Err(Trap::Interrupt.into()))
    })
    .await
}

/// What the inside tells the outside.
struct Course {
    /// Whether the inside was polled: the guest does not compute.
    polled: AtomicBool,
    /// Whether the guest has paused since it took the last request: it waits for something.
    paused: AtomicBool,
    /// When it has to be done with all it has to do, if it has.
    due: Mutex<Option<Instant>>,
}

impl Course {
    fn new() -> Self {
        Self {
            polled: AtomicBool::new(false),
            paused: AtomicBool::new(true),
            due: Mutex::default(),
        }
    }

    fn due(&self) -> MutexGuard<'_, Option<Instant>> {
        self.due.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The requests an instance has, and had.
struct Calls<'a> {
    spec: &'a ComponentSpec,
    accessor: &'a Accessor<InstanceState>,
    course: &'a Course,
    made: Instant,
    served: usize,
    /// Of those under way.
    deadlines: Vec<Instant>,
    idle_since: Option<Instant>,
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
            deadlines: Vec::new(),
            idle_since: None,
            over: false,
        }
    }

    fn may_take(&mut self) -> bool {
        let reuse = &self.spec.reuse;
        let now = Instant::now();
        // Even one that is born old serves once.
        let old = self.served > 0 && now - self.made >= reuse.age;
        self.over |= old || self.served >= reuse.requests;
        let free = self.deadlines.is_empty()
            || self.deadlines.len() < reuse.concurrency
                && self.course.paused.load(Ordering::Relaxed)
                // What is late would hold up another.
                && self.deadlines.iter().all(|deadline| now < *deadline);
        free && !self.over
    }

    fn begin(&mut self, deadline: Instant) {
        self.served += 1;
        self.deadlines.push(deadline);
        self.idle_since = None;
        // It may compute; only when it pauses can it be given another.
        self.course.paused.store(false, Ordering::Relaxed);
        self.set_due(self.deadlines.iter().copied().max());
    }

    fn end(&mut self, deadline: Instant) {
        let now = Instant::now();
        self.over |= now >= deadline;
        if let Some(at) = self.deadlines.iter().position(|other| *other == deadline) {
            self.deadlines.swap_remove(at);
        }
        if self.deadlines.is_empty() {
            self.course.paused.store(true, Ordering::Relaxed);
            // It may still stream, or work on.
            self.set_due(Some(now + self.spec.limits.deadline));
        } else {
            self.set_due(self.deadlines.iter().copied().max());
        }
    }

    fn idle(&mut self) {
        self.idle_since = Some(Instant::now());
        self.set_due(None);
    }

    fn set_due(&self, due: Option<Instant>) {
        *self.course.due() = due;
        if let Some(due) = due {
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
