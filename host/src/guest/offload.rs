//! Offloading of guests that compute for long, to threads of lower priority than those that poll
//! connections. Guests on these threads yield to each other every epoch.
//!
//! A call starts on the thread that polls its connection: most calls take microseconds, and a hop to
//! another thread would cost as much. A call that computes for longer than `SLICE` continues on a
//! guest thread, and the next calls of its component start there, until calls are short again.
//!
//! What counts is the processor time of the thread. By the wall clock, every call looks long on a
//! thread that gets no processor for milliseconds, and would move to threads that get even less.
//! Reading processor time is a system call, so steps are measured only once the wall clock has raised
//! a suspicion. The state of a component:
//!
//! ```text
//! state     | event                                 | next      | what happens
//! ----------+---------------------------------------+-----------+-------------------------------
//! short     | step > SLICE by the wall clock        | suspected | the next SUSPICIOUS_STEPS steps
//!           |                                       |           | are measured
//! suspected | step <= SLICE by the wall clock       | suspected | one step fewer to measure;
//!           |                                       | or short  | short after the last
//! suspected | step > SLICE by the wall clock only   | short     | the thread had no processor
//! suspected | step > SLICE of processor time        | long      | the call moves to a guest
//!           |                                       |           | thread, unless it is complete
//! long      | call starts                           | long      | it starts on a guest thread
//! long      | a call that started there is complete | suspected | the next call starts on the
//!           | within SLICE                          |           | polling thread
//! long      | SHORT_STEPS short steps in a row of   | suspected | the work returns to the
//!           | long-lived work                       |           | polling thread
//! ```
//!
//! A call that raised a suspicion itself is measured for SUSPICIOUS_STEPS steps whatever other calls
//! of its component do.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use tokio::runtime::{Handle, Runtime};
use tokio::sync::Semaphore;
use tokio::task::{JoinError, JoinHandle};

use crate::process::priority::lower_priority;

/// Maximum time a call may compute in one step on a thread that polls connections.
const SLICE: Duration = Duration::from_millis(1);
/// Number of consecutive short steps, several of which make up a request, after which the next ones
/// are expected to be short.
const SHORT_STEPS: usize = 100;
/// Number of steps that are measured after one that took long: more than a request has.
const SUSPICIOUS_STEPS: usize = 10;

/// The guest threads, which stop when this is dropped.
pub struct GuestThreads {
    /// `None` only during the drop.
    runtime: Option<Runtime>,
    threads: usize,
}

impl fmt::Debug for GuestThreads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GuestThreads").field("threads", &self.threads).finish_non_exhaustive()
    }
}

impl GuestThreads {
    /// Starts `threads` threads.
    ///
    /// # Errors
    /// The system cannot create the threads.
    pub fn start(threads: usize) -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(threads)
            .thread_name("guest")
            .on_thread_start(lower_priority)
            .enable_all()
            .build()?;
        Ok(Self { runtime: Some(runtime), threads })
    }

    /// The offloading of one component's calls.
    #[must_use]
    pub fn for_component(&self) -> GuestOffload {
        let runtime = self.runtime.as_ref().map(|runtime| runtime.handle().clone());
        GuestOffload {
            runtime: runtime.expect("the runtime is taken only on drop"),
            permits: Arc::new(Semaphore::new(self.threads)),
            is_long: Arc::default(),
            suspicion: Arc::default(),
        }
    }
}

impl Drop for GuestThreads {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // This may be a thread of a runtime, which must not block.
            runtime.shutdown_background();
        }
    }
}

/// The calls of one component. Offloaded, at most as many of them run at a time as there are threads,
/// so that those of other components get a thread.
#[derive(Clone, Debug)]
pub struct GuestOffload {
    runtime: Handle,
    /// One for each step that may run at a time.
    permits: Arc<Semaphore>,
    /// Whether recent calls computed for longer than [`SLICE`].
    is_long: Arc<AtomicBool>,
    /// Number of steps still to measure.
    suspicion: Arc<AtomicUsize>,
}

/// The call panicked, or the process is shutting down.
#[derive(Debug, thiserror::Error)]
#[error("the call did not complete: {0}")]
pub struct CallLost(#[from] JoinError);

impl CallLost {
    /// Whether the process is shutting down.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.is_cancelled()
    }
}

impl GuestOffload {
    /// Runs `call` on this thread while it is short, else on a guest thread. Dropping the future
    /// cancels the call. Boxed by the caller, as a call is large and would be copied on its way here.
    ///
    /// # Errors
    /// The call panicked on a guest thread, or the process is shutting down.
    pub async fn run<T: Send + 'static>(
        &self,
        mut call: Pin<Box<impl Future<Output = T> + Send + 'static>>,
    ) -> Result<T, CallLost> {
        let is_long = self.is_long.load(Ordering::Relaxed);
        if !is_long && let Some(result) = self.run_here(call.as_mut()).await {
            return Ok(result);
        }
        let offload = self.clone();
        let rest = self.runtime.spawn(async move {
            let (result, computed) = offload.run_offloaded(call).await;
            // Of a call that moved, only the rest was measured.
            if is_long && computed <= SLICE && offload.is_long.swap(false, Ordering::Relaxed) {
                offload.suspicion.store(SUSPICIOUS_STEPS, Ordering::Relaxed);
            }
            result
        });
        Ok(AbortOnDrop(rest).await?)
    }

    /// Runs long-lived `work` with pauses: on a guest thread while its steps are long, and back on this
    /// thread once they have been short for a while.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub async fn run_long_lived<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, CallLost> {
        let mut work = Box::pin(work);
        loop {
            let is_long = self.is_long.load(Ordering::Relaxed);
            if !is_long && let Some(result) = self.run_here(work.as_mut()).await {
                return Ok(result);
            }
            let offload = self.clone();
            let offloaded = self.runtime.spawn(async move {
                let result = offload.run_while_long(work.as_mut()).await;
                (work, result)
            });
            let (returned, result) = AbortOnDrop(offloaded).await?;
            if let Some(result) = result {
                return Ok(result);
            }
            self.is_long.store(false, Ordering::Relaxed);
            self.suspicion.store(SUSPICIOUS_STEPS, Ordering::Relaxed);
            work = returned;
        }
    }

    /// Runs `work` on a guest thread, detached.
    pub fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.runtime.spawn(work);
    }

    /// Runs `call` to its end. Returns the result, and how long it computed, without pauses.
    async fn run_offloaded<T>(&self, mut call: Pin<Box<impl Future<Output = T>>>) -> (T, Duration) {
        let mut computed = Duration::ZERO;
        loop {
            let (polled, step) = self.step(call.as_mut()).await;
            computed += step;
            if let Poll::Ready(result) = polled {
                return (result, computed);
            }
            until_woken().await;
        }
    }

    /// Runs `work` while its steps are long; `None` if it did not complete by then.
    async fn run_while_long<T>(&self, mut work: Pin<&mut impl Future<Output = T>>) -> Option<T> {
        let mut short = 0;
        while short < SHORT_STEPS {
            let (polled, step) = self.step(work.as_mut()).await;
            if let Poll::Ready(result) = polled {
                return Some(result);
            }
            short = if step <= SLICE { short + 1 } else { 0 };
            until_woken().await;
        }
        None
    }

    /// Polls `call` once, with a permit. Returns how long it computed.
    async fn step<T>(&self, mut call: Pin<&mut impl Future<Output = T>>) -> (Poll<T>, Duration) {
        // Cannot fail: the semaphore is never closed.
        let _permit = self.permits.acquire().await;
        poll_fn(|cx| {
            let start = processor_time();
            let polled = call.as_mut().poll(cx);
            Poll::Ready((polled, processor_time().saturating_sub(start)))
        })
        .await
    }

    /// Runs `call` on this thread; `None` once a step has computed for too long.
    async fn run_here<T>(&self, mut call: Pin<&mut impl Future<Output = T>>) -> Option<T> {
        // Of this call, whatever other calls of its component do.
        let mut own_suspicion = 0_usize;
        poll_fn(|cx| {
            let suspicion = self.suspicion.load(Ordering::Relaxed);
            let before = (suspicion > 0 || own_suspicion > 0).then(processor_time);
            let start = Instant::now();
            let polled = call.as_mut().poll(cx);
            let slow = start.elapsed() > SLICE;
            match before {
                None if slow => {
                    own_suspicion = SUSPICIOUS_STEPS;
                    self.suspicion.store(SUSPICIOUS_STEPS, Ordering::Relaxed);
                }
                None => {}
                Some(before) if slow && processor_time().saturating_sub(before) > SLICE => {
                    self.is_long.store(true, Ordering::Relaxed);
                    if polled.is_pending() {
                        return Poll::Ready(None);
                    }
                }
                // The thread had no processor.
                Some(_) if slow => {
                    own_suspicion = 0;
                    self.suspicion.store(0, Ordering::Relaxed);
                }
                Some(_) => {
                    own_suspicion = own_suspicion.saturating_sub(1);
                    self.suspicion.store(suspicion.saturating_sub(1), Ordering::Relaxed);
                }
            }
            polled.map(Some)
        })
        .await
    }
}

/// Waits until this task is woken by what the last step waits for.
async fn until_woken() {
    let mut asleep = false;
    poll_fn(|_| match std::mem::replace(&mut asleep, true) {
        true => Poll::Ready(()),
        false => Poll::Pending,
    })
    .await;
}

/// Processor time that this thread has used.
fn processor_time() -> Duration {
    clock_gettime(ClockId::ThreadCPUTime).try_into().unwrap_or_default()
}

/// A task that is aborted when this is dropped.
pub(crate) struct AbortOnDrop<T>(pub(crate) JoinHandle<T>);

impl<T> Future for AbortOnDrop<T> {
    type Output = Result<T, JoinError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx)
    }
}

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::thread;

    use tokio::sync::oneshot;

    use super::*;

    fn offload() -> (GuestThreads, GuestOffload) {
        let threads = GuestThreads::start(1).unwrap();
        let offload = threads.for_component();
        (threads, offload)
    }

    fn compute(time: Duration) {
        let end = processor_time() + time;
        while processor_time() < end {}
    }

    /// Computes for `time` in each of two steps. Returns the name of the thread on which it finished.
    async fn call(time: Duration) -> String {
        for _ in 0..2 {
            compute(time);
            tokio::task::yield_now().await;
        }
        thread::current().name().unwrap_or_default().to_owned()
    }

    #[tokio::test]
    async fn short_call_stays_on_its_thread_and_long_call_is_offloaded() {
        let (_threads, offload) = offload();
        let here = thread::current().name().unwrap().to_owned();
        assert_eq!(offload.run(Box::pin(call(Duration::ZERO))).await.unwrap(), here);
        // Suspected, confirmed, moved.
        assert_eq!(offload.run(Box::pin(call(SLICE * 2))).await.unwrap(), "guest");
        assert_eq!(
            offload.run(Box::pin(call(Duration::ZERO))).await.unwrap(),
            "guest",
            "expected to be long"
        );
        assert_eq!(offload.run(Box::pin(call(Duration::ZERO))).await.unwrap(), here, "short again");
    }

    #[tokio::test]
    async fn long_lived_work_is_offloaded_while_it_is_long_and_returns() {
        let (_threads, offload) = offload();
        let here = thread::current().name().unwrap().to_owned();
        let (threads, mut seen) = tokio::sync::mpsc::unbounded_channel();
        let step = move |time| {
            compute(time);
            let _ = threads.send(thread::current().name().unwrap_or_default().to_owned());
            tokio::task::yield_now()
        };
        let work = offload.run_long_lived(async move {
            // Suspected, confirmed, moved, despite short steps in between.
            for _ in 0..4 {
                step(SLICE * 2).await;
                step(Duration::ZERO).await;
            }
            for _ in 0..SHORT_STEPS + 2 {
                step(Duration::ZERO).await;
            }
        });
        work.await.unwrap();
        let mut threads = Vec::new();
        while let Some(thread) = seen.recv().await {
            threads.push(thread);
        }
        threads.dedup();
        assert_eq!(threads, [here.as_str(), "guest", here.as_str()]);
    }

    #[tokio::test]
    async fn call_whose_thread_had_no_processor_is_not_long() {
        let (_threads, offload) = offload();
        let here = thread::current().name().unwrap().to_owned();
        for _ in 0..3 {
            let stalled = offload.run(Box::pin(async {
                for _ in 0..2 {
                    // Stands for a thread that is not scheduled.
                    thread::sleep(SLICE * 2);
                    tokio::task::yield_now().await;
                }
                thread::current().name().unwrap_or_default().to_owned()
            }));
            assert_eq!(stalled.await.unwrap(), here);
        }
    }

    #[tokio::test]
    async fn call_that_only_waits_stays_on_its_thread() {
        let (_threads, offload) = offload();
        let (send, receive) = oneshot::channel();
        let here = thread::current().name().unwrap().to_owned();
        let waits = offload.run(Box::pin(async {
            receive.await.unwrap();
            thread::current().name().unwrap_or_default().to_owned()
        }));
        let mut waits = pin!(waits);
        assert!(futures::poll!(&mut waits).is_pending());
        compute(SLICE * 2);
        send.send(()).unwrap();
        assert_eq!(waits.await.unwrap(), here);
    }

    #[tokio::test]
    async fn dropping_the_future_cancels_the_call() {
        let (_threads, offload) = offload();
        let (held, dropped) = oneshot::channel::<()>();
        let endless = offload.run(Box::pin(async move {
            let _held = held;
            for _ in 0..2 {
                compute(SLICE * 2);
                tokio::task::yield_now().await;
            }
            std::future::pending::<()>().await;
        }));
        let mut endless = Box::pin(endless);
        while !offload.is_long.load(Ordering::Relaxed) {
            assert!(futures::poll!(&mut endless).is_pending());
        }
        drop(endless);
        assert!(dropped.await.is_err(), "the call is dropped");
    }

    #[tokio::test]
    async fn long_calls_yield_to_each_other() {
        let (_threads, offload) = offload();
        // More calls than threads, and neither ends before the other has started.
        let call = |started: &Arc<AtomicBool>, other: &Arc<AtomicBool>| {
            let (started, other) = (Arc::clone(started), Arc::clone(other));
            offload.run(Box::pin(async move {
                started.store(true, Ordering::Relaxed);
                while !other.load(Ordering::Relaxed) {
                    compute(SLICE * 2);
                    tokio::task::yield_now().await;
                }
            }))
        };
        offload.is_long.store(true, Ordering::Relaxed);
        let (a, b) = (Arc::default(), Arc::default());
        let (one, other) = tokio::join!(call(&a, &b), call(&b, &a));
        assert!(one.is_ok() && other.is_ok());
    }

    #[tokio::test]
    async fn panic_on_a_guest_thread_is_an_error() {
        let (_threads, offload) = offload();
        let lost = offload.run(Box::pin(async {
            for _ in 0..2 {
                compute(SLICE * 2);
                tokio::task::yield_now().await;
            }
            panic!("on purpose");
        }));
        assert!(lost.await.unwrap_err().to_string().contains("panicked"));
    }
}
