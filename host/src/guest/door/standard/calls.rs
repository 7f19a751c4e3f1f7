//! The requests that an instance is serving: their deadlines and callers, and whether the instance
//! takes another. The states: [`super::worker`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Context;
use std::time::Instant;

use futures::task::AtomicWaker;
use parking_lot::{Mutex, MutexGuard};
use wasmtime::AsContextMut;
use wasmtime::component::Accessor;

use super::loop_waker::LoopWaker;
use crate::config::app::ComponentSpec;
use crate::config::instance_reuse::ServedInterface;
use crate::guest::instance::{InstanceState, MAX_HANDLES};
use crate::http::body::instance_body::InstanceBodies;
use crate::http::body::outcome::{FailedInstance, ResponseOutcome};

/// Number of requests after which the handles of an instance are counted.
const HANDLE_CHECK_INTERVAL: usize = 16;
/// Number of handles with which an instance takes no further request.
pub(super) const HANDLE_THRESHOLD: usize = MAX_HANDLES / 2;

/// Whether the caller of a request still waits for the response, and how the response ended.
#[derive(Default)]
pub(super) struct RequestCaller {
    dropped: AtomicBool,
    worker: AtomicWaker,
    pub(super) outcome: Arc<ResponseOutcome>,
}

/// Records on drop that the caller was dropped, unless it is disarmed.
pub(super) struct AbandonOnDrop(pub(super) Option<Arc<RequestCaller>>);

impl AbandonOnDrop {
    /// The response has arrived.
    pub(super) fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for AbandonOnDrop {
    fn drop(&mut self) {
        if let Some(caller) = &self.0 {
            caller.dropped.store(true, Ordering::Release);
            caller.worker.wake();
        }
    }
}

/// What the inside of `run_concurrent` reports to the outside.
pub(super) struct Progress {
    pub(super) inside: Arc<LoopWaker>,
    /// Whether the inside was polled: the guest does not compute.
    pub(super) polled: AtomicBool,
    /// Whether the guest has paused since it took the last request.
    pub(super) paused: AtomicBool,
    in_flight: Mutex<CallsInFlight>,
}

/// The requests that the guest is serving.
#[derive(Default)]
pub(super) struct CallsInFlight {
    /// When the guest is interrupted, unless it streams responses: the latest deadline of the requests,
    /// or that of its tasks after them.
    pub(super) deadline: Option<Instant>,
    calls: Vec<(Instant, Arc<RequestCaller>)>,
}

impl Progress {
    pub(super) fn new() -> Self {
        Self {
            inside: Arc::default(),
            polled: AtomicBool::new(false),
            paused: AtomicBool::new(true),
            in_flight: Mutex::default(),
        }
    }

    pub(super) fn in_flight(&self) -> MutexGuard<'_, CallsInFlight> {
        self.in_flight.lock()
    }
}

impl CallsInFlight {
    /// Whether every caller was dropped. A caller that leaves later wakes this task.
    pub(super) fn is_abandoned(&self, cx: &Context<'_>) -> bool {
        let was_dropped = |caller: &RequestCaller| {
            caller.worker.register(cx.waker());
            caller.dropped.load(Ordering::Acquire)
        };
        // No short circuit: each caller has to be registered.
        let dropped = self.calls.iter().filter(|(_, caller)| was_dropped(caller)).count();
        dropped > 0 && dropped == self.calls.len()
    }
}

/// Tracks the requests of an instance, and decides whether it takes another.
pub(super) struct CallTracker<'a> {
    spec: &'a ComponentSpec,
    accessor: &'a Accessor<InstanceState>,
    progress: &'a Progress,
    bodies: Arc<InstanceBodies>,
    created: Instant,
    /// Number of requests taken.
    served: usize,
    /// Number of requests after which the instance is retired.
    max_calls: usize,
    /// Maximum number of concurrent requests.
    max_concurrent: usize,
    pub(super) idle_since: Option<Instant>,
    /// Number of requests since its handles were counted.
    since_handle_check: usize,
    /// Deadline of tasks that continue after a response. It does not apply while a response is
    /// streamed, which is such a task.
    pub(super) linger_deadline: Option<Instant>,
    /// Whether it takes no further request.
    pub(super) draining: bool,
    failed: FailedInstance,
}

impl<'a> CallTracker<'a> {
    pub(super) fn new(
        spec: &'a ComponentSpec,
        interface: ServedInterface,
        accessor: &'a Accessor<InstanceState>,
        progress: &'a Progress,
    ) -> Self {
        Self {
            spec,
            accessor,
            progress,
            bodies: accessor.with(|mut store| Arc::clone(&store.data_mut().bodies)),
            created: Instant::now(),
            served: 0,
            max_calls: spec.reuse.requests_through(interface).draw(),
            max_concurrent: match interface {
                // Its guest is synchronous. The next request waits for the end of the response, too.
                ServedInterface::Http02 => 1,
                _ => spec.reuse.concurrency.draw(),
            },
            idle_since: None,
            since_handle_check: 0,
            linger_deadline: None,
            draining: false,
            failed: FailedInstance::default(),
        }
    }

    /// Whether a response of the instance has failed.
    pub(super) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    /// Whether the instance may serve another request after the present ones.
    pub(super) fn is_reused(&self) -> bool {
        self.served < self.max_calls
    }

    /// Whether the instance can take another request.
    pub(super) fn may_take(&mut self) -> bool {
        let now = Instant::now();
        // An instance serves at least once, however long it was idle.
        let too_old = self.served > 0 && now - self.created >= self.spec.reuse.age;
        let lingers = self.linger_deadline.is_some_and(|deadline| now >= deadline)
            && !self.bodies.has_responses();
        self.draining |= too_old || lingers || !self.is_reused() || self.has_failed();
        let calls = &self.progress.in_flight().calls;
        let has_capacity = calls.is_empty()
            || calls.len() < self.max_concurrent
                && self.progress.paused.load(Ordering::Relaxed)
                // A request that exceeded its deadline would hold up another.
                && calls.iter().all(|(deadline, _)| now < *deadline);
        has_capacity && !self.draining && self.has_handles()
    }

    /// Whether handles are left for another request. Tasks after a response hold some: a guest that
    /// always takes the next request first would never get to release them.
    fn has_handles(&mut self) -> bool {
        if self.since_handle_check < HANDLE_CHECK_INTERVAL {
            return true;
        }
        let handles = self.accessor.with(|mut store| {
            let mut store = store.as_context_mut();
            let tasks = store.concurrent_resource_table().map_or(0, |all| all.iter_mut().count());
            tasks.max(store.data_mut().handles())
        });
        let has_handles = handles < HANDLE_THRESHOLD;
        if has_handles {
            self.since_handle_check = 0;
        }
        has_handles
    }

    pub(super) fn begin(&mut self, deadline: Instant, caller: &Arc<RequestCaller>) {
        self.served += 1;
        caller.outcome.produced_by(&self.failed);
        self.since_handle_check += 1;
        self.idle_since = None;
        // The guest may compute: it takes no other request before it pauses.
        self.progress.paused.store(false, Ordering::Relaxed);
        self.update(|in_flight| {
            in_flight.calls.push((deadline, Arc::clone(caller)));
            in_flight.calls.iter().map(|(deadline, _)| *deadline).max()
        });
    }

    pub(super) fn end(&mut self, caller: &Arc<RequestCaller>) {
        let now = Instant::now();
        let linger_deadline = self.linger_deadline.unwrap_or(now + self.spec.limits.deadline);
        let (mut deadline_exceeded, mut last) = (false, false);
        self.update(|in_flight| {
            in_flight.calls.retain(|(deadline, other)| {
                let ends = Arc::ptr_eq(caller, other);
                deadline_exceeded |= ends && now >= *deadline;
                !ends
            });
            last = in_flight.calls.is_empty();
            in_flight.calls.iter().map(|(deadline, _)| *deadline).max().or(Some(linger_deadline))
        });
        self.draining |= deadline_exceeded;
        self.linger_deadline = Some(linger_deadline);
        if last {
            self.progress.paused.store(true, Ordering::Relaxed);
        }
    }

    pub(super) fn set_idle(&mut self) {
        self.idle_since = Some(Instant::now());
        self.bodies.set_idle();
        self.update(|_| None);
    }

    /// Changes the requests in flight, and sets the deadline that `change` returns.
    fn update(&self, change: impl FnOnce(&mut CallsInFlight) -> Option<Instant>) {
        let mut in_flight = self.progress.in_flight();
        in_flight.deadline = change(&mut in_flight);
        if let Some(deadline) = in_flight.deadline {
            self.accessor.with(|mut store| store.data_mut().call_deadline = deadline);
        }
    }
}
