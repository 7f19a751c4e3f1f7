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
const INLINE_NANOSECONDS: f32 = 200_000.0;

/// A graph, compiled once and shared.
#[derive(Debug)]
pub struct LoadedGraph {
    graph: Arc<dyn Graph>,
    /// What an inference takes, in nanoseconds for each byte of input, as a running mean: the bits
    /// of an `f32`. Infinite until it is measured. By the byte, as one request may bring one row
    /// and the next one thousands.
    pace: AtomicU32,
    /// The compute threads of the process.
    compute_threads: Arc<Semaphore>,
}

impl LoadedGraph {
    pub(super) fn new(graph: Arc<dyn Graph>, compute_threads: Arc<Semaphore>) -> Self {
        let pace = AtomicU32::new(f32::INFINITY.to_bits());
        Self { graph, pace, compute_threads }
    }

    /// Binds the inputs, runs the graph and names the outputs.
    pub async fn compute(
        self: &Arc<Self>,
        inputs: Vec<(String, Tensor)>,
        deadline: Instant,
    ) -> Result<Vec<(String, Tensor)>, Error> {
        let inputs = bind(self.graph.inputs(), inputs)?;
        let outputs = if self.is_short(&inputs) {
            self.run(inputs)?
        } else {
            let graph = Arc::clone(self);
            let running = on_compute_thread(&self.compute_threads, move || graph.run(inputs));
            timeout_at(deadline.into(), running).await.map_err(|_| Error::Timeout)???
        };
        let names = self.graph.outputs().iter().map(|info| info.name.clone());
        Ok(names.zip(outputs).collect())
    }

    fn is_short(&self, inputs: &[Tensor]) -> bool {
        f32::from_bits(self.pace.load(Ordering::Relaxed)) * size(inputs) <= INLINE_NANOSECONDS
    }

    fn run(&self, inputs: Vec<Tensor>) -> Result<Vec<Tensor>, BackendError> {
        let size = size(&inputs);
        let start = Instant::now();
        let outputs = without_panic(|| self.graph.compute(inputs))?;
        if outputs.len() != self.graph.outputs().len() {
            return Err(BackendError::Runtime(format!(
                "the backend gave {} outputs",
                outputs.len()
            )));
        }
        // Two threads may overwrite each other's mean: either is good enough.
        let mean = f32::from_bits(self.pace.load(Ordering::Relaxed));
        let mean = next_mean(mean, start.elapsed().as_secs_f32() * 1e9 / size);
        self.pace.store(mean.to_bits(), Ordering::Relaxed);
        Ok(outputs)
    }
}

/// Bytes of input, at least one.
#[expect(clippy::cast_precision_loss, reason = "an estimate")]
fn size(inputs: &[Tensor]) -> f32 {
    inputs.iter().map(|tensor| tensor.data.len()).sum::<usize>().max(1) as f32
}

/// An exponential mean over about the last eight.
fn next_mean(mean: f32, sample: f32) -> f32 {
    if mean.is_finite() { mean + (sample - mean) / 8.0 } else { sample }
}

/// Runs `work` where it may take long, once a compute thread is free. Whoever stops waiting goes on
/// without it; work that has begun runs to its end and then frees its thread.
pub(super) async fn on_compute_thread<T: Send + 'static>(
    threads: &Arc<Semaphore>,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Error> {
    let failed = |e: String| BackendError::Runtime(format!("a compute thread failed: {e}"));
    let thread = Arc::clone(threads).acquire_owned().await.map_err(|e| failed(e.to_string()))?;
    let work = move || {
        let _thread = thread;
        work()
    };
    Ok(tokio::task::spawn_blocking(work).await.map_err(|e| failed(e.to_string()))?)
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
        Quick,
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
                Self::Quick => Ok(Vec::new()),
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
        assert_eq!(next_mean(f32::INFINITY, 900.0), 900.0);
        let mean = (0..50).fold(900.0, |mean, _| next_mean(mean, 16.0));
        assert!((16.0..32.0).contains(&mean), "{mean}");
    }

    #[tokio::test]
    async fn a_graph_is_short_once_measured_and_only_for_small_inputs() {
        let graph = loaded(Fake::Quick);
        let deadline = Instant::now() + Duration::from_secs(60);
        assert!(!graph.is_short(&[]), "not measured yet");
        for _ in 0..100 {
            graph.compute(Vec::new(), deadline).await.unwrap();
        }
        assert!(graph.is_short(&[]));
        let bytes = |count| Tensor {
            dimensions: Vec::new(),
            ty: spinfer_backend::TensorType::U8,
            data: vec![0; count],
        };
        assert!(!graph.is_short(&[bytes(100 << 20)]), "as many times longer as it is larger");
    }
}
