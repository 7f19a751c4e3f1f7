//! Threads for guests that compute for long. They have a lower priority than those that poll
//! connections, and guests on them take turns every epoch.
//!
//! A call begins where its connection is polled: most are done in microseconds, and a hop to
//! another thread would cost as much. One that computes for longer than [`SLICE`] goes on here, and
//! so do the next ones of its component, until they are short again.
//!
//! What counts is a thread's processor time. Under load, a thread that has none for milliseconds
//! would make every call look long, and send it to where there is even less. Reading that clock is
//! a system call, so it is read only once the clock on the wall has raised a suspicion.

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

use crate::process::priority::yield_to_others;

/// What a call may compute where connections are polled, before it yields.
const SLICE: Duration = Duration::from_millis(1);
/// So many short steps one after another, some for each request, say that the next will be short.
const SHORT_STEPS: usize = 100;
/// Steps for which one that took long makes us look at the processor's clock: more than a request
/// has.
const SUSPICIOUS_STEPS: usize = 10;

/// The threads. They end with this.
pub struct Background {
    /// `None` only while it is dropped.
    runtime: Option<Runtime>,
    threads: usize,
}

impl fmt::Debug for Background {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Background").field("threads", &self.threads).finish_non_exhaustive()
    }
}

impl Background {
    /// Starts `threads` threads. Fails if the system does not give them.
    pub fn start(threads: usize) -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(threads)
            .thread_name("guest")
            .on_thread_start(yield_to_others)
            .enable_all()
            .build()?;
        Ok(Self { runtime: Some(runtime), threads })
    }

    /// For one component's calls.
    #[must_use]
    pub fn lane(&self) -> Lane {
        let runtime = self.runtime.as_ref().map(|runtime| runtime.handle().clone());
        Lane {
            runtime: runtime.expect("not dropped yet"),
            at_a_time: Arc::new(Semaphore::new(self.threads)),
            long: Arc::default(),
            suspicion: Arc::default(),
        }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // This may be a thread of a runtime, which must not wait.
            runtime.shutdown_background();
        }
    }
}

/// One component's calls. In the background they take turns, and no more of them run at a time than
/// there are threads, so that another component's find theirs.
#[derive(Clone, Debug)]
pub struct Lane {
    runtime: Handle,
    at_a_time: Arc<Semaphore>,
    /// Whether calls computed for longer than [`SLICE`] of late.
    long: Arc<AtomicBool>,
    /// Steps still to be looked at closely, as one took long.
    suspicion: Arc<AtomicUsize>,
}

/// The call panicked, or the process ends.
#[derive(Debug, thiserror::Error)]
#[error("the call did not end: {0}")]
pub struct Lost(#[from] JoinError);

impl Lost {
    /// Whether the process ends.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.is_cancelled()
    }
}

impl Lane {
    /// Runs `call` here while it is short, in the background if it is not. Ends it if this is
    /// dropped.
    pub async fn run<T: Send + 'static>(
        &self,
        call: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, Lost> {
        let mut call = Box::pin(call);
        let long = self.long.load(Ordering::Relaxed);
        if !long && let Some(result) = self.begin(call.as_mut()).await {
            return Ok(result);
        }
        let lane = self.clone();
        let rest = self.runtime.spawn(async move {
            let (result, computed) = lane.in_turns(call).await;
            // Of one that was moved this is only the rest.
            if long && computed <= SLICE && lane.long.swap(false, Ordering::Relaxed) {
                lane.suspicion.store(SUSPICIOUS_STEPS, Ordering::Relaxed);
            }
            result
        });
        Ok(Aborting(rest).await?)
    }

    /// The same for work that goes on, with pauses: in the background while its steps are long, and
    /// here again once they have been short for a while.
    pub async fn attend<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, Lost> {
        let mut work = Box::pin(work);
        loop {
            let long = self.long.load(Ordering::Relaxed);
            if !long && let Some(result) = self.begin(work.as_mut()).await {
                return Ok(result);
            }
            let lane = self.clone();
            let there = self.runtime.spawn(async move {
                let result = lane.while_long(work.as_mut()).await;
                (work, result)
            });
            let (back, result) = Aborting(there).await?;
            if let Some(result) = result {
                return Ok(result);
            }
            self.long.store(false, Ordering::Relaxed);
            self.suspicion.store(SUSPICIOUS_STEPS, Ordering::Relaxed);
            work = back;
        }
    }

    /// Does what nobody waits for.
    pub fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.runtime.spawn(work);
    }

    /// The result, and how long the call computed, pauses left out.
    async fn in_turns<T>(&self, mut call: Pin<Box<impl Future<Output = T>>>) -> (T, Duration) {
        let mut computed = Duration::ZERO;
        loop {
            let (polled, step) = self.turn(call.as_mut()).await;
            computed += step;
            if let Poll::Ready(result) = polled {
                return (result, computed);
            }
            until_woken().await;
        }
    }

    /// The result, unless its steps become short.
    async fn while_long<T>(&self, mut work: Pin<&mut impl Future<Output = T>>) -> Option<T> {
        let mut short = 0;
        while short < SHORT_STEPS {
            let (polled, step) = self.turn(work.as_mut()).await;
            if let Poll::Ready(result) = polled {
                return Some(result);
            }
            short = if step <= SLICE { short + 1 } else { 0 };
            until_woken().await;
        }
        None
    }

    /// One step, in its turn, and how long it computed.
    async fn turn<T>(&self, mut call: Pin<&mut impl Future<Output = T>>) -> (Poll<T>, Duration) {
        // Never closed.
        let _turn = self.at_a_time.acquire().await;
        poll_fn(|cx| {
            let start = processor_time();
            let polled = call.as_mut().poll(cx);
            Poll::Ready((polled, processor_time().saturating_sub(start)))
        })
        .await
    }

    /// The result, unless the call computes for too long.
    async fn begin<T>(&self, mut call: Pin<&mut impl Future<Output = T>>) -> Option<T> {
        // Of this call, whatever others there are of its component.
        let mut own = 0_usize;
        poll_fn(|cx| {
            let suspicion = self.suspicion.load(Ordering::Relaxed);
            let before = (suspicion > 0 || own > 0).then(processor_time);
            let start = Instant::now();
            let polled = call.as_mut().poll(cx);
            let slow = start.elapsed() > SLICE;
            match before {
                None if slow => {
                    own = SUSPICIOUS_STEPS;
                    self.suspicion.store(SUSPICIOUS_STEPS, Ordering::Relaxed);
                }
                None => {}
                Some(before) if slow && processor_time().saturating_sub(before) > SLICE => {
                    self.long.store(true, Ordering::Relaxed);
                    if polled.is_pending() {
                        return Poll::Ready(None);
                    }
                }
                // It was the thread that was slow.
                Some(_) if slow => {
                    own = 0;
                    self.suspicion.store(0, Ordering::Relaxed);
                }
                Some(_) => {
                    own = own.saturating_sub(1);
                    self.suspicion.store(suspicion.saturating_sub(1), Ordering::Relaxed);
                }
            }
            polled.map(Some)
        })
        .await
    }
}

/// Until what the last step waits for wakes this task.
async fn until_woken() {
    let mut asleep = false;
    poll_fn(|_| match std::mem::replace(&mut asleep, true) {
        true => Poll::Ready(()),
        false => Poll::Pending,
    })
    .await;
}

/// The processor time of this thread so far.
fn processor_time() -> Duration {
    clock_gettime(ClockId::ThreadCPUTime).try_into().unwrap_or_default()
}

/// A task that ends when nobody waits for it any more.
pub(crate) struct Aborting<T>(pub(crate) JoinHandle<T>);

impl<T> Future for Aborting<T> {
    type Output = Result<T, JoinError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx)
    }
}

impl<T> Drop for Aborting<T> {
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

    fn lane() -> (Background, Lane) {
        let background = Background::start(1).unwrap();
        let lane = background.lane();
        (background, lane)
    }

    fn compute(for_: Duration) {
        let end = processor_time() + for_;
        while processor_time() < end {}
    }

    /// Computes twice for a while, each time letting others have their turn, and says on which
    /// thread it ended.
    async fn call(computes: Duration) -> String {
        for _ in 0..2 {
            compute(computes);
            tokio::task::yield_now().await;
        }
        thread::current().name().unwrap_or_default().to_owned()
    }

    #[tokio::test]
    async fn a_short_call_stays_and_a_long_one_goes_on_in_the_background() {
        let (_background, lane) = lane();
        let here = thread::current().name().unwrap().to_owned();
        assert_eq!(lane.run(call(Duration::ZERO)).await.unwrap(), here);
        // Suspected, found out, moved.
        assert_eq!(lane.run(call(SLICE * 2)).await.unwrap(), "guest");
        assert_eq!(lane.run(call(Duration::ZERO)).await.unwrap(), "guest", "expected to be long");
        assert_eq!(lane.run(call(Duration::ZERO)).await.unwrap(), here, "short again");
    }

    #[tokio::test]
    async fn work_goes_to_the_background_while_it_is_long_and_comes_back() {
        let (_background, lane) = lane();
        let here = thread::current().name().unwrap().to_owned();
        let (threads, mut seen) = tokio::sync::mpsc::unbounded_channel();
        let step = move |computes| {
            compute(computes);
            let _ = threads.send(thread::current().name().unwrap_or_default().to_owned());
            tokio::task::yield_now()
        };
        let work = lane.attend(async move {
            // Suspected, found out, moved; whatever short ones there are between.
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
    async fn a_call_whose_thread_had_no_processor_is_not_long() {
        let (_background, lane) = lane();
        let here = thread::current().name().unwrap().to_owned();
        for _ in 0..3 {
            let stalled = lane.run(async {
                for _ in 0..2 {
                    // In place of a thread that is not scheduled.
                    thread::sleep(SLICE * 2);
                    tokio::task::yield_now().await;
                }
                thread::current().name().unwrap_or_default().to_owned()
            });
            assert_eq!(stalled.await.unwrap(), here);
        }
    }

    #[tokio::test]
    async fn a_call_that_only_waits_stays() {
        let (_background, lane) = lane();
        let (send, receive) = oneshot::channel();
        let here = thread::current().name().unwrap().to_owned();
        let waits = lane.run(async {
            receive.await.unwrap();
            thread::current().name().unwrap_or_default().to_owned()
        });
        let mut waits = pin!(waits);
        assert!(futures::poll!(&mut waits).is_pending());
        compute(SLICE * 2);
        send.send(()).unwrap();
        assert_eq!(waits.await.unwrap(), here);
    }

    #[tokio::test]
    async fn a_call_nobody_waits_for_ends() {
        let (_background, lane) = lane();
        let (held, dropped) = oneshot::channel::<()>();
        let endless = lane.run(async move {
            let _held = held;
            for _ in 0..2 {
                compute(SLICE * 2);
                tokio::task::yield_now().await;
            }
            std::future::pending::<()>().await;
        });
        let mut endless = Box::pin(endless);
        while !lane.long.load(Ordering::Relaxed) {
            assert!(futures::poll!(&mut endless).is_pending());
        }
        drop(endless);
        assert!(dropped.await.is_err(), "the call was dropped");
    }

    #[tokio::test]
    async fn long_calls_take_turns() {
        let (_background, lane) = lane();
        // More of them than threads, and none ends before the other has begun.
        let call = |say: &Arc<AtomicBool>, hear: &Arc<AtomicBool>| {
            let (say, hear) = (Arc::clone(say), Arc::clone(hear));
            lane.run(async move {
                say.store(true, Ordering::Relaxed);
                while !hear.load(Ordering::Relaxed) {
                    compute(SLICE * 2);
                    tokio::task::yield_now().await;
                }
            })
        };
        lane.long.store(true, Ordering::Relaxed);
        let (a, b) = (Arc::default(), Arc::default());
        let (one, other) = tokio::join!(call(&a, &b), call(&b, &a));
        assert!(one.is_ok() && other.is_ok());
    }

    #[tokio::test]
    async fn a_panic_in_the_background_is_an_error() {
        let (_background, lane) = lane();
        let lost = lane.run(async {
            for _ in 0..2 {
                compute(SLICE * 2);
                tokio::task::yield_now().await;
            }
            panic!("on purpose");
        });
        assert!(lost.await.unwrap_err().to_string().contains("panicked"));
    }
}
