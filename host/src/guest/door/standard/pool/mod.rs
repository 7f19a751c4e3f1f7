//! The workers of a component and the queue of its requests. Independent of WebAssembly.
//!
//! A request stays in the queue until a worker takes it. Submitting a request wakes a worker that is
//! listed as available, or starts one. A woken worker may find its guest computing: it declines, and
//! another worker is woken or started. The first that is ready takes the oldest request.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::Context;
use std::time::Instant;

use futures::task::AtomicWaker;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::mpsc;

use crate::guest::door::Evicted;

/// A component's requests, of type `J`, and workers.
pub(super) struct Pool<J> {
    max_workers: usize,
    /// Number of idle workers that are kept while several are busy.
    min_idle: usize,
    start: Box<dyn Fn(WorkerSlot<J>) + Send + Sync>,
    state: Mutex<PoolState<J>>,
}

struct PoolState<J> {
    queue: VecDeque<(u64, J)>,
    next_id: u64,
    /// A stack, the last used on top, so that the others reach the idle timeout.
    available: Vec<AvailableWorker>,
    /// Number of workers.
    workers: usize,
    /// Number of workers without an instance yet.
    starting: usize,
    closed: bool,
}

impl<J> PoolState<J> {
    /// Number of workers without a request.
    fn idle(&self) -> usize {
        self.available.iter().filter(|worker| worker.idle_since.is_some()).count()
    }
}

/// A worker that can take a request.
struct AvailableWorker {
    handle: Arc<WorkerHandle>,
    /// `None` if it serves other requests.
    idle_since: Option<Instant>,
}

/// The pool's side of a worker.
#[derive(Default)]
struct WorkerHandle {
    waker: AtomicWaker,
    /// Whether it was woken for a request. Written only under the pool's lock.
    woken: AtomicBool,
    /// Set when the worker is evicted; dropped with the worker.
    evicted: OnceLock<mpsc::Sender<Infallible>>,
}

impl<J> fmt::Debug for Pool<J> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("max_workers", &self.max_workers).finish_non_exhaustive()
    }
}

impl<J> Pool<J> {
    /// A pool of up to `max_workers` workers, which `start` starts. While several are busy, `min_idle`
    /// idle ones are kept.
    pub(super) fn new(
        max_workers: usize,
        min_idle: usize,
        start: impl Fn(WorkerSlot<J>) + Send + Sync + 'static,
    ) -> Arc<Self> {
        let state = PoolState {
            queue: VecDeque::new(),
            next_id: 0,
            available: Vec::new(),
            workers: 0,
            starting: 0,
            closed: false,
        };
        Arc::new(Self { max_workers, min_idle, start: Box::new(start), state: Mutex::new(state) })
    }

    fn state(&self) -> MutexGuard<'_, PoolState<J>> {
        self.state.lock()
    }

    /// Queues `job` until a worker takes it or the result is dropped.
    pub(super) fn submit(self: &Arc<Self>, job: J) -> QueuedRequest<J> {
        let mut state = self.state();
        let id = state.next_id;
        state.next_id += 1;
        state.queue.push_back((id, job));
        self.wake_or_start(state);
        QueuedRequest { pool: Arc::clone(self), id }
    }

    /// Wakes the idle worker that was used last, else another available one, else starts one. If none
    /// of this is possible, the next worker that becomes available or stops checks the queue.
    fn wake_or_start(self: &Arc<Self>, mut state: MutexGuard<'_, PoolState<J>>) {
        let idle = state.available.iter().rposition(|worker| worker.idle_since.is_some());
        let worker = idle.map(|at| state.available.remove(at)).or_else(|| state.available.pop());
        let starts = match worker {
            Some(_) => self.lacks_idle(&state),
            None => state.workers < self.max_workers,
        };
        if let Some(AvailableWorker { handle, .. }) = &worker {
            handle.woken.store(true, Ordering::Relaxed);
        }
        if starts {
            self.start_worker(state, worker.is_some());
        } else {
            drop(state);
        }
        if let Some(AvailableWorker { handle, .. }) = worker {
            handle.waker.wake();
        }
    }

    fn start_worker(self: &Arc<Self>, mut state: MutexGuard<'_, PoolState<J>>, is_standby: bool) {
        state.workers += 1;
        state.starting += 1;
        drop(state);
        (self.start)(WorkerSlot {
            pool: Arc::clone(self),
            handle: Arc::default(),
            is_standby,
            starting: AtomicBool::new(true),
            running: AtomicBool::new(false),
            retired: AtomicBool::new(false),
            has_successor: AtomicBool::new(false),
        });
    }

    /// Whether several workers are busy, and fewer than `min_idle` are idle or starting.
    fn lacks_idle(&self, state: &PoolState<J>) -> bool {
        state.workers - state.idle() > 1 && self.has_too_few_idle(state)
    }

    /// Whether fewer than `min_idle` workers are idle or starting, and another can be started.
    fn has_too_few_idle(&self, state: &PoolState<J>) -> bool {
        state.workers < self.max_workers && state.idle() + state.starting < self.min_idle
    }

    /// Whether a worker is starting.
    pub(super) fn is_starting(&self) -> bool {
        self.state().starting > 0
    }

    /// Evicts the workers that have been idle since `since` or longer.
    pub(super) fn drop_idle(&self, since: Instant) -> Evicted {
        let (sender, all_dropped) = mpsc::channel(1);
        let mut state = self.state();
        let idle =
            |worker: &mut AvailableWorker| worker.idle_since.is_some_and(|idle| idle <= since);
        let evicted: Vec<AvailableWorker> = state.available.extract_if(.., idle).collect();
        drop(state);
        for AvailableWorker { handle, .. } in &evicted {
            // Fails if the worker was evicted before.
            let _ = handle.evicted.set(sender.clone());
            handle.waker.wake();
        }
        Evicted::workers(evicted.len(), all_dropped)
    }

    /// Stops every worker once it has no request.
    pub(super) fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        let available = std::mem::take(&mut state.available);
        drop(state);
        available.iter().for_each(|worker| worker.handle.waker.wake());
    }
}

/// A request in the queue, which it leaves when this is dropped.
pub(super) struct QueuedRequest<J> {
    pool: Arc<Pool<J>>,
    id: u64,
}

impl<J> QueuedRequest<J> {
    /// Removes the request from the queue; `None` if a worker has taken it.
    pub(super) fn withdraw(&self) -> Option<J> {
        let mut state = self.pool.state();
        let position = state.queue.iter().position(|(id, _)| *id == self.id)?;
        state.queue.remove(position).map(|(_, job)| job)
    }
}

impl<J> Drop for QueuedRequest<J> {
    fn drop(&mut self) {
        self.withdraw();
    }
}

/// What a worker does next.
pub(super) enum Next<J> {
    Serve(J),
    /// Wait until it is woken.
    Wait,
    /// Stop, once it has no request.
    Stop,
}

/// One of the pool's workers, held by the worker until it stops.
pub(super) struct WorkerSlot<J> {
    pool: Arc<Pool<J>>,
    handle: Arc<WorkerHandle>,
    is_standby: bool,
    /// Whether it has no instance yet.
    starting: AtomicBool,
    /// Whether it has run at all.
    running: AtomicBool,
    /// Whether it has left the pool before it stops.
    retired: AtomicBool,
    /// Whether an idle worker takes its place.
    has_successor: AtomicBool,
}

impl<J> WorkerSlot<J> {
    /// Whether the worker was started before a request needs it.
    pub(super) fn is_standby(&self) -> bool {
        self.is_standby
    }

    /// Records that the worker runs. A worker that never ran, as the runtime shuts down, is not
    /// replaced by another.
    pub(super) fn set_running(&self) {
        self.running.store(true, Ordering::Relaxed);
    }

    /// Records that the worker has an instance, or cannot have one.
    pub(super) fn set_started(&self) {
        self.clear_starting(&mut self.pool.state());
    }

    /// Has an idle worker started once this one has stopped, unless enough are idle: the instance was
    /// used up by its requests.
    pub(super) fn set_successor(&self) {
        self.has_successor.store(true, Ordering::Relaxed);
    }

    fn clear_starting(&self, state: &mut PoolState<J>) {
        state.starting -= usize::from(self.starting.swap(false, Ordering::Relaxed));
    }

    /// Leaves the pool if it has other workers, which then serve the queue. Returns whether it did.
    pub(super) fn retire(&self) -> bool {
        let mut state = self.pool.state();
        let others = state.workers > 1;
        if others {
            state.workers -= 1;
            self.retired.store(true, Ordering::Relaxed);
        }
        others
    }

    /// Decides what the worker does next. It can take a request if it is `available`.
    pub(super) fn poll_next(
        &self,
        cx: &Context<'_>,
        available: bool,
        idle_since: Option<Instant>,
    ) -> Next<J> {
        self.handle.waker.register(cx.waker());
        let mut state = self.pool.state();
        let woken = self.unlist(&mut state);
        if self.handle.evicted.get().is_some() || state.closed {
            self.wake_next(woken, state);
            return Next::Stop;
        }
        if !available {
            self.wake_next(woken, state);
            return Next::Wait;
        }
        if let Some((_, job)) = state.queue.pop_front() {
            return Next::Serve(job);
        }
        state.available.push(AvailableWorker { handle: Arc::clone(&self.handle), idle_since });
        Next::Wait
    }

    /// Takes the oldest request off the queue.
    pub(super) fn take(&self) -> Option<J> {
        self.pool.state().queue.pop_front().map(|(_, job)| job)
    }

    /// Declines requests until the worker calls [`Self::poll_next`] again. If it was woken for one,
    /// another worker is woken instead.
    pub(super) fn decline(&self) {
        let mut state = self.pool.state();
        let woken = self.unlist(&mut state);
        self.wake_next(woken, state);
    }

    /// Takes the worker off the available ones. Returns whether it was woken since it was listed.
    fn unlist(&self, state: &mut PoolState<J>) -> bool {
        let is_own = |worker: &AvailableWorker| Arc::ptr_eq(&worker.handle, &self.handle);
        if let Some(at) = state.available.iter().rposition(is_own) {
            state.available.remove(at);
        }
        self.handle.woken.swap(false, Ordering::Relaxed)
    }

    /// Wakes another worker in place of this one, if this one was woken and requests are queued.
    fn wake_next(&self, woken: bool, state: MutexGuard<'_, PoolState<J>>) {
        if woken && !state.queue.is_empty() {
            self.pool.wake_or_start(state);
        }
    }
}

impl<J> Drop for WorkerSlot<J> {
    fn drop(&mut self) {
        let mut state = self.pool.state();
        self.clear_starting(&mut state);
        if self.retired.load(Ordering::Relaxed) {
            return;
        }
        self.unlist(&mut state);
        state.workers -= 1;
        if self.has_successor.load(Ordering::Relaxed)
            && state.queue.is_empty()
            && !state.closed
            && self.pool.has_too_few_idle(&state)
        {
            return self.pool.start_worker(state, true);
        }
        self.wake_next(self.running.load(Ordering::Relaxed), state);
    }
}

#[cfg(test)]
mod tests;
