//! A loaded graph, and the thread an inference runs on.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use spinfer_backend::{Error as BackendError, Graph, Tensor};
use tokio::sync::Semaphore;
use tokio::time::timeout_at;

use super::{Error, bind};

/// An inference expected to take longer than this leaves the thread that polls connections. A hop
/// to another thread and back costs 10-20 microseconds, so for shorter ones it would not pay.
const INLINE_MICROSECONDS: u32 = 200;
/// Not measured yet: taken for long.
const UNKNOWN: u32 = u32::MAX;

/// A graph, compiled once and shared.
#[derive(Debug)]
pub struct LoadedGraph {
    graph: Arc<dyn Graph>,
    /// Running mean of what an inference takes, in microseconds.
    mean: AtomicU32,
    /// The compute threads of the process.
    compute_threads: Arc<Semaphore>,
}

impl LoadedGraph {
    pub(super) fn new(graph: Arc<dyn Graph>, compute_threads: Arc<Semaphore>) -> Self {
        Self { graph, mean: AtomicU32::new(UNKNOWN), compute_threads }
    }

    /// Binds the inputs, runs the graph and names the outputs.
    pub async fn compute(
        self: &Arc<Self>,
        inputs: Vec<(String, Tensor)>,
        deadline: Instant,
    ) -> Result<Vec<(String, Tensor)>, Error> {
        let inputs = bind(self.graph.inputs(), inputs)?;
        let outputs = if self.mean.load(Ordering::Relaxed) <= INLINE_MICROSECONDS {
            self.run(inputs)?
        } else {
            let graph = Arc::clone(self);
            on_compute_thread(&self.compute_threads, deadline, move || graph.run(inputs)).await??
        };
        let names = self.graph.outputs().iter().map(|info| info.name.clone());
        Ok(names.zip(outputs).collect())
    }

    fn run(&self, inputs: Vec<Tensor>) -> Result<Vec<Tensor>, BackendError> {
        let start = Instant::now();
        let result = without_panic(|| self.graph.compute(inputs));
        let took = u32::try_from(start.elapsed().as_micros()).unwrap_or(UNKNOWN - 1);
        // Two threads may overwrite each other's mean: either is good enough.
        let mean = self.mean.load(Ordering::Relaxed);
        self.mean.store(next_mean(mean, took), Ordering::Relaxed);
        result
    }
}

/// An exponential mean over about the last eight.
fn next_mean(mean: u32, sample: u32) -> u32 {
    if mean == UNKNOWN { sample } else { mean - mean / 8 + sample / 8 }
}

/// Runs `work` where it may take long, once a compute thread is free. At the deadline the caller
/// goes on without it; a computation that has begun runs to its end and then frees its thread.
pub(super) async fn on_compute_thread<T: Send + 'static>(
    threads: &Arc<Semaphore>,
    deadline: Instant,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Error> {
    let threads = Arc::clone(threads);
    let working = async {
        let thread = threads.acquire_owned().await.map_err(|_| Error::Timeout)?;
        let work = move || {
            let _thread = thread;
            work()
        };
        tokio::task::spawn_blocking(work).await.map_err(|e| {
            Error::Backend(BackendError::Runtime(format!("a compute thread failed: {e}")))
        })
    };
    timeout_at(deadline.into(), working).await.map_err(|_| Error::Timeout)?
}

/// A backend's panic is its error, not the host's end.
pub(super) fn without_panic<T>(
    work: impl FnOnce() -> Result<T, BackendError>,
) -> Result<T, BackendError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let message = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied())
            .unwrap_or("unknown");
        Err(BackendError::Runtime(format!("the backend panicked: {message}")))
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use spinfer_backend::TensorInfo;
    use tokio::sync::Notify;

    use super::*;

    #[derive(Debug)]
    enum Fake {
        Panics,
        Hangs(Arc<Notify>),
    }

    impl Graph for Fake {
        fn inputs(&self) -> &[TensorInfo] {
            &[]
        }

        fn outputs(&self) -> &[TensorInfo] {
            &[]
        }

        fn compute(&self, _: Vec<Tensor>) -> Result<Vec<Tensor>, BackendError> {
            match self {
                Self::Panics => panic!("on purpose"),
                Self::Hangs(release) => {
                    tokio::runtime::Handle::current().block_on(release.notified());
                    Ok(Vec::new())
                }
            }
        }
    }

    fn loaded(graph: Fake) -> Arc<LoadedGraph> {
        Arc::new(LoadedGraph::new(Arc::new(graph), Arc::new(Semaphore::new(1))))
    }

    #[tokio::test]
    async fn a_panic_in_a_backend_is_its_error() {
        let deadline = Instant::now() + Duration::from_secs(60);
        let error = loaded(Fake::Panics).compute(Vec::new(), deadline).await.unwrap_err();
        assert!(error.to_string().contains("panicked: on purpose"), "{error}");
    }

    #[tokio::test]
    async fn at_the_deadline_the_caller_goes_on() {
        let release = Arc::new(Notify::new());
        let graph = loaded(Fake::Hangs(Arc::clone(&release)));
        let soon = Instant::now() + Duration::from_millis(20);
        let error = graph.compute(Vec::new(), soon).await.unwrap_err();
        assert!(matches!(error, Error::Timeout), "{error}");
        // Its thread is still taken: the next one waits for it, and then runs.
        release.notify_one();
        release.notify_one();
        let later = Instant::now() + Duration::from_secs(60);
        let next = tokio::spawn({
            let graph = Arc::clone(&graph);
            async move { graph.compute(Vec::new(), later).await }
        });
        while !next.is_finished() {
            release.notify_one();
            tokio::task::yield_now().await;
        }
        assert!(next.await.unwrap().is_ok());
    }

    #[test]
    fn the_mean_follows_what_is_measured() {
        assert_eq!(next_mean(UNKNOWN, 900), 900);
        let mean = (0..50).fold(900, |mean, _| next_mean(mean, 16));
        assert!(mean < 32, "{mean}");
    }
}
