//! The threads of long inferences, and whose turn it is.
//!
//! As many threads as the machine has processors, at a lower priority than those that poll
//! connections: a short request is answered while they work. Components take turns, so that one
//! with a long queue does not keep the others waiting.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use spinfer_backend::Error as BackendError;
use tokio::sync::oneshot;
use tracing::warn;

use super::Error;
use crate::process::heap;
use crate::process::priority::yield_to_others;

/// What waits for its turn.
trait Job: Send {
    /// Whether nobody waits for it any more.
    fn is_gone(&self) -> bool;
    fn run(self: Box<Self>);
}

/// Work, and where its result goes.
struct Asked<T, W> {
    work: W,
    result: oneshot::Sender<T>,
}

impl<T: Send, W: FnOnce() -> T + Send> Job for Asked<T, W> {
    fn is_gone(&self) -> bool {
        self.result.is_closed()
    }

    fn run(self: Box<Self>) {
        if !self.is_gone() {
            // Its caller may just have gone.
            let _ = self.result.send((self.work)());
        }
    }
}

/// Work that tells its result by itself.
struct Told<W>(W);

impl<W: FnOnce() + Send> Job for Told<W> {
    fn is_gone(&self) -> bool {
        false
    }

    fn run(self: Box<Self>) {
        (self.0)();
    }
}

/// The threads. They end with this, each once its job is done.
pub struct ComputeThreads {
    queue: Arc<Queue>,
    lanes: AtomicU64,
}

impl fmt::Debug for ComputeThreads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ComputeThreads").finish_non_exhaustive()
    }
}

impl ComputeThreads {
    /// Starts `count` threads. Fails if the system does not give them.
    pub fn start(count: usize) -> std::io::Result<Self> {
        let threads = Self { queue: Arc::default(), lanes: AtomicU64::new(0) };
        for n in 0..count {
            let queue = Arc::clone(&threads.queue);
            thread::Builder::new().name(format!("compute-{n}")).spawn(move || {
                yield_to_others();
                let woken = Arc::default();
                while let Some(job) = queue.next(&woken) {
                    job();
                }
            })?;
        }
        Ok(threads)
    }

    /// Has those that wait give back what memory they hold.
    pub fn rest(&self) {
        self.queue.wake_all();
    }

    /// A lane of its own: lanes take turns.
    #[must_use]
    pub fn lane(&self) -> Lane {
        Lane { queue: Arc::clone(&self.queue), id: self.lanes.fetch_add(1, Ordering::Relaxed) }
    }
}

impl Drop for ComputeThreads {
    fn drop(&mut self) {
        self.queue.lock().closed = true;
        self.queue.wake_all();
    }
}

/// One component's way to the compute threads.
#[derive(Clone)]
pub struct Lane {
    queue: Arc<Queue>,
    id: u64,
}

impl fmt::Debug for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lane").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Lane {
    /// Runs `work` on a compute thread, when it is this lane's turn. If nobody waits any more by
    /// then, not at all, and it is dropped when more comes; work that has begun runs to its end.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Error> {
        let (result, done) = oneshot::channel();
        self.add(Box::new(Asked { work, result }));
        let failed = || BackendError::Runtime("a compute thread failed".into());
        Ok(done.await.map_err(|_| failed())?)
    }

    /// The same for work that tells its result by itself.
    pub fn submit(&self, work: impl FnOnce() + Send + 'static) {
        self.add(Box::new(Told(work)));
    }

    fn add(&self, job: Box<dyn Job>) {
        let mut turns = self.queue.lock();
        let jobs = turns.waiting.entry(self.id).or_default();
        let is_new = jobs.is_empty();
        // Inputs of requests that have ended: more could come, and end, than there are turns for.
        jobs.retain(|job| !job.is_gone());
        jobs.push_back(job);
        if is_new {
            turns.order.push_back(self.id);
        }
        let idle = turns.idle.pop();
        drop(turns);
        if let Some(woken) = idle {
            woken.notify_one();
        }
    }
}

#[derive(Default)]
struct Queue {
    turns: Mutex<Turns>,
}

#[derive(Default)]
struct Turns {
    /// Lanes with jobs, the next one first.
    order: VecDeque<u64>,
    waiting: HashMap<u64, VecDeque<Box<dyn Job>>>,
    /// How each thread that waits is woken; the last one to wait first, as the weights it used are in
    /// its caches.
    idle: Vec<Arc<Condvar>>,
    closed: bool,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Turns> {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes every thread that waits, for what is no job.
    fn wake_all(&self) {
        for woken in std::mem::take(&mut self.lock().idle) {
            woken.notify_one();
        }
    }

    /// Waits for a job, woken by `woken`; `None` if there will be none.
    fn next(&self, woken: &Arc<Condvar>) -> Option<impl FnOnce() + use<>> {
        let mut turns = self.lock();
        while !turns.closed && turns.order.is_empty() {
            if heap::is_to_rest() {
                drop(turns);
                heap::rest();
                turns = self.lock();
            } else {
                turns.idle.push(Arc::clone(woken));
                turns = woken.wait(turns).unwrap_or_else(PoisonError::into_inner);
                // Whoever woke it took it from there; nobody did if it woke by itself.
                turns.idle.retain(|idle| !Arc::ptr_eq(idle, woken));
            }
        }
        let job = turns.next()?;
        Some(move || {
            if catch_unwind(AssertUnwindSafe(|| job.run())).is_err() {
                warn!("a job of a compute thread panicked");
            }
        })
    }
}

impl Turns {
    /// The oldest job of the lane whose turn it is.
    fn next(&mut self) -> Option<Box<dyn Job>> {
        let lane = self.order.pop_front()?;
        let jobs = self.waiting.get_mut(&lane)?;
        let job = jobs.pop_front();
        if jobs.is_empty() {
            self.waiting.remove(&lane);
        } else {
            self.order.push_back(lane);
        }
        job
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::process::priority::NICER;

    /// One thread, and a job on it that runs until told.
    fn occupied() -> (ComputeThreads, mpsc::Sender<()>) {
        let threads = ComputeThreads::start(1).unwrap();
        let (release, released) = mpsc::channel();
        let (begun, begins) = mpsc::channel();
        threads.lane().submit(move || {
            begun.send(()).unwrap();
            released.recv().unwrap();
        });
        begins.recv().unwrap();
        (threads, release)
    }

    #[tokio::test]
    async fn work_runs_on_another_thread_and_returns() {
        let threads = ComputeThreads::start(2).unwrap();
        let name = || thread::current().name().map(str::to_owned);
        let name = threads.lane().run(name).await.unwrap();
        assert!(name.unwrap().starts_with("compute-"));
    }

    #[test]
    fn lanes_take_turns_however_much_one_of_them_has() {
        let (threads, release) = occupied();
        let (done, order) = mpsc::channel();
        let job = |name: &'static str| {
            let done = done.clone();
            move || done.send(name).unwrap()
        };
        let (busy, other, third) = (threads.lane(), threads.lane(), threads.lane());
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
    async fn work_nobody_waits_for_any_more_is_not_begun() {
        let (threads, release) = occupied();
        let lane = threads.lane();
        let (begun, begins) = mpsc::channel();
        let work = lane.run(move || begun.send(()).unwrap());
        let mut work = Box::pin(work);
        assert!(futures::poll!(&mut work).is_pending());
        drop(work);
        release.send(()).unwrap();
        assert!(lane.run(|| ()).await.is_ok(), "it would have run before");
        assert!(begins.recv().is_err());
    }

    #[tokio::test]
    async fn nor_does_it_keep_what_it_was_given() {
        let (threads, release) = occupied();
        let lane = threads.lane();
        let inputs = Arc::new(());
        let mut last = None;
        for _ in 0..10 {
            drop(last.take());
            let given = Arc::clone(&inputs);
            let mut work = Box::pin(lane.run(move || drop(given)));
            assert!(futures::poll!(&mut work).is_pending());
            last = Some(work);
            assert_eq!(Arc::strong_count(&inputs), 2, "the last one, and this");
        }
        release.send(()).unwrap();
        last.unwrap().await.unwrap();
        // The lane has its turns still.
        assert_eq!((lane.run(|| 1).await.unwrap(), Arc::strong_count(&inputs)), (1, 1));
        assert_eq!(threads.lane().run(|| 2).await.unwrap(), 2);
    }

    #[tokio::test]
    async fn a_panic_ends_the_work_and_not_the_thread() {
        let threads = ComputeThreads::start(1).unwrap();
        let error = threads.lane().run(|| panic!("on purpose")).await.unwrap_err();
        assert!(error.to_string().contains("a compute thread failed"), "{error}");
        assert_eq!(threads.lane().run(|| 1).await.unwrap(), 1);
    }

    #[test]
    fn its_threads_are_nicer_than_this_one() {
        let threads = ComputeThreads::start(1).unwrap();
        let (say, said) = mpsc::channel();
        let priority = || rustix::process::getpriority_process(None).unwrap();
        threads.lane().submit(move || say.send(priority()).unwrap());
        assert_eq!(said.recv().unwrap(), (priority() + NICER).min(19));
    }
}
