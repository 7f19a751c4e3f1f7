//! The compute threads, which run long inferences and loads.
//!
//! They have a lower priority than the threads that poll connections, so that short requests are
//! served while they work. They serve the queues of the components round-robin, so that a component
//! with a long queue does not delay the others.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use parking_lot::{Condvar, Mutex, MutexGuard};
use spinfer_backend::Error as BackendError;
use tokio::sync::oneshot;
use tracing::warn;

use super::InferenceError;
use crate::process::heap;
use crate::process::priority::lower_priority;

/// A job in a queue.
trait QueuedJob: Send {
    /// Whether its caller was dropped.
    fn is_abandoned(&self) -> bool;
    fn run(self: Box<Self>);
}

/// Work, and the receiver of its result.
struct PendingWork<T, W> {
    work: W,
    result: oneshot::Sender<T>,
}

impl<T: Send, W: FnOnce() -> T + Send> QueuedJob for PendingWork<T, W> {
    fn is_abandoned(&self) -> bool {
        self.result.is_closed()
    }

    fn run(self: Box<Self>) {
        if !self.is_abandoned() {
            // Fails if the caller was dropped by now.
            let _ = self.result.send((self.work)());
        }
    }
}

/// Work that reports its result itself.
struct SelfReporting<W>(W);

impl<W: FnOnce() + Send> QueuedJob for SelfReporting<W> {
    fn is_abandoned(&self) -> bool {
        false
    }

    fn run(self: Box<Self>) {
        (self.0)();
    }
}

/// The compute threads. Dropping this stops each of them after its current job.
pub struct ComputeThreads {
    queue: Arc<JobQueue>,
    next_queue: AtomicU64,
}

impl fmt::Debug for ComputeThreads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ComputeThreads").finish_non_exhaustive()
    }
}

impl ComputeThreads {
    /// Starts `count` threads.
    ///
    /// # Errors
    /// The system cannot create the threads.
    pub fn start(count: usize) -> std::io::Result<Self> {
        let threads = Self { queue: Arc::default(), next_queue: AtomicU64::new(0) };
        for n in 0..count {
            let queue = Arc::clone(&threads.queue);
            thread::Builder::new().name(format!("compute-{n}")).spawn(move || {
                lower_priority();
                let woken = Arc::default();
                while let Some(job) = queue.next(&woken) {
                    job();
                }
            })?;
        }
        Ok(threads)
    }

    /// Wakes the idle threads, which then trim their heaps if that was requested.
    pub fn trim_memory(&self) {
        self.queue.wake_all();
    }

    /// A new queue. Queues are served round-robin.
    #[must_use]
    pub fn queue(&self) -> ComputeQueue {
        ComputeQueue {
            queue: Arc::clone(&self.queue),
            id: self.next_queue.fetch_add(1, Ordering::Relaxed),
        }
    }
}

impl Drop for ComputeThreads {
    fn drop(&mut self) {
        self.queue.lock().closed = true;
        self.queue.wake_all();
    }
}

/// The queue of one component.
#[derive(Clone)]
pub struct ComputeQueue {
    queue: Arc<JobQueue>,
    id: u64,
}

impl fmt::Debug for ComputeQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ComputeQueue").field("id", &self.id).finish_non_exhaustive()
    }
}

impl ComputeQueue {
    /// Runs `work` on a compute thread. If the future is dropped, work that has not started never runs,
    /// and is dropped with the next submission; work that has started runs to its end.
    ///
    /// # Errors
    /// The work panics.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, InferenceError> {
        let (result, done) = oneshot::channel();
        self.push(Box::new(PendingWork { work, result }));
        let failed = || BackendError::Runtime("the job panicked on its compute thread".into());
        Ok(done.await.map_err(|_| failed())?)
    }

    /// Queues work that reports its result itself.
    pub fn submit(&self, work: impl FnOnce() + Send + 'static) {
        self.push(Box::new(SelfReporting(work)));
    }

    fn push(&self, job: Box<dyn QueuedJob>) {
        let mut state = self.queue.lock();
        let jobs = state.queues.entry(self.id).or_default();
        let is_new = jobs.is_empty();
        // Abandoned jobs keep their inputs: requests could end faster than jobs are run.
        jobs.retain(|job| !job.is_abandoned());
        jobs.push_back(job);
        if is_new {
            state.round.push_back(self.id);
        }
        let idle = state.idle.pop();
        drop(state);
        if let Some(woken) = idle {
            woken.notify_one();
        }
    }
}

#[derive(Default)]
struct JobQueue {
    state: Mutex<ComputeState>,
}

#[derive(Default)]
struct ComputeState {
    /// Queues with jobs, the next one to serve first.
    round: VecDeque<u64>,
    queues: HashMap<u64, VecDeque<Box<dyn QueuedJob>>>,
    /// Wakes the idle threads: a stack, as the thread that ran last has weights in its caches.
    idle: Vec<Arc<Condvar>>,
    closed: bool,
}

impl JobQueue {
    fn lock(&self) -> MutexGuard<'_, ComputeState> {
        self.state.lock()
    }

    /// Wakes every idle thread without a job.
    fn wake_all(&self) {
        for woken in std::mem::take(&mut self.lock().idle) {
            woken.notify_one();
        }
    }

    /// Waits on `woken` for a job; `None` once closed.
    fn next(&self, woken: &Arc<Condvar>) -> Option<impl FnOnce() + use<>> {
        let mut state = self.lock();
        while !state.closed && state.round.is_empty() {
            if heap::trim_requested() {
                drop(state);
                heap::trim_if_requested();
                state = self.lock();
            } else {
                state.idle.push(Arc::clone(woken));
                woken.wait(&mut state);
                // Still listed after a spurious wake-up.
                state.idle.retain(|idle| !Arc::ptr_eq(idle, woken));
            }
        }
        let job = state.next()?;
        Some(move || {
            if catch_unwind(AssertUnwindSafe(|| job.run())).is_err() {
                warn!("a job panicked on a compute thread");
            }
        })
    }
}

impl ComputeState {
    /// The oldest job of the next queue.
    fn next(&mut self) -> Option<Box<dyn QueuedJob>> {
        let queue = self.round.pop_front()?;
        let jobs = self.queues.get_mut(&queue)?;
        let job = jobs.pop_front();
        if jobs.is_empty() {
            self.queues.remove(&queue);
        } else {
            self.round.push_back(queue);
        }
        job
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::process::priority::NICE_INCREMENT;

    /// One thread, with a job that runs until it is released.
    fn occupied() -> (ComputeThreads, mpsc::Sender<()>) {
        let threads = ComputeThreads::start(1).unwrap();
        let (release, released) = mpsc::channel();
        let (start, started) = mpsc::channel();
        threads.queue().submit(move || {
            start.send(()).unwrap();
            released.recv().unwrap();
        });
        started.recv().unwrap();
        (threads, release)
    }

    #[tokio::test]
    async fn work_runs_on_a_compute_thread() {
        let threads = ComputeThreads::start(2).unwrap();
        let name = || thread::current().name().map(str::to_owned);
        let name = threads.queue().run(name).await.unwrap();
        assert!(name.unwrap().starts_with("compute-"));
    }

    #[test]
    fn queues_are_served_round_robin() {
        let (threads, release) = occupied();
        let (done, order) = mpsc::channel();
        let job = |name: &'static str| {
            let done = done.clone();
            move || done.send(name).unwrap()
        };
        let (busy, other, third) = (threads.queue(), threads.queue(), threads.queue());
        for _ in 0..4 {
            busy.submit(job("busy"));
        }
        other.submit(job("other"));
        other.submit(job("other"));
        third.submit(job("third"));
        release.send(()).unwrap();
        let order: Vec<_> = order.iter().take(7).collect();
        assert_eq!(order, ["busy", "other", "third", "busy", "other", "busy", "busy"]);
    }

    #[tokio::test]
    async fn abandoned_work_is_not_started() {
        let (threads, release) = occupied();
        let queue = threads.queue();
        let (start, started) = mpsc::channel();
        let work = queue.run(move || start.send(()).unwrap());
        let mut work = Box::pin(work);
        assert!(futures::poll!(&mut work).is_pending());
        drop(work);
        release.send(()).unwrap();
        assert!(queue.run(|| ()).await.is_ok(), "it would have run before");
        assert!(started.recv().is_err());
    }

    #[tokio::test]
    async fn abandoned_work_is_dropped_with_its_inputs() {
        let (threads, release) = occupied();
        let queue = threads.queue();
        let inputs = Arc::new(());
        let mut last = None;
        for _ in 0..10 {
            drop(last.take());
            let captured = Arc::clone(&inputs);
            let mut work = Box::pin(queue.run(move || drop(captured)));
            assert!(futures::poll!(&mut work).is_pending());
            last = Some(work);
            assert_eq!(Arc::strong_count(&inputs), 2, "the last one, and this");
        }
        release.send(()).unwrap();
        last.unwrap().await.unwrap();
        // The queue is still served.
        assert_eq!((queue.run(|| 1).await.unwrap(), Arc::strong_count(&inputs)), (1, 1));
        assert_eq!(threads.queue().run(|| 2).await.unwrap(), 2);
    }

    #[tokio::test]
    async fn panic_ends_the_job_and_not_the_thread() {
        let threads = ComputeThreads::start(1).unwrap();
        let error = threads.queue().run(|| panic!("on purpose")).await.unwrap_err();
        assert!(error.to_string().contains("panicked on its compute thread"), "{error}");
        assert_eq!(threads.queue().run(|| 1).await.unwrap(), 1);
    }

    #[test]
    fn compute_threads_have_a_lower_priority() {
        let threads = ComputeThreads::start(1).unwrap();
        let (sender, receiver) = mpsc::channel();
        let priority = || rustix::process::getpriority_process(None).unwrap();
        threads.queue().submit(move || sender.send(priority()).unwrap());
        assert_eq!(receiver.recv().unwrap(), (priority() + NICE_INCREMENT).min(19));
    }
}
