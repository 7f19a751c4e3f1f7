//! A model: a graph with the settings, batches and compute queue of one component.

use std::sync::Arc;
use std::time::Instant;

use spinfer_backend::{Cancellation, Error as BackendError, Tensor};
use tokio::time::timeout_at;

use super::batch::{BatchAxes, Batcher};
use super::compute::ComputeQueue;
use super::graph::{LoadedGraph, Placement};
use super::model_toml::ModelSettings;
use super::{InferenceError, bind};
use crate::metrics::ModelMetrics;

/// The model behind a guest's handle to a graph.
#[derive(Debug)]
pub struct BoundModel {
    graph: Arc<LoadedGraph>,
    placement: Placement,
    batcher: Option<Arc<Batcher>>,
    compute_queue: ComputeQueue,
    metrics: Arc<ModelMetrics>,
}

impl BoundModel {
    /// A model of `graph`.
    ///
    /// # Errors
    /// The graph has no batch axis, and the settings enable batching.
    pub(super) fn new(
        graph: Arc<LoadedGraph>,
        settings: &ModelSettings,
        compute_queue: ComputeQueue,
        metrics: Arc<ModelMetrics>,
    ) -> Result<Self, InferenceError> {
        let batcher = match settings.batching {
            None => None,
            Some(batching) => {
                let axes = BatchAxes::of(graph.inputs(), graph.outputs(), &settings.edges());
                let axes =
                    axes.map_err(|e| BackendError::InvalidArgument(format!("model.toml: {e}")))?;
                let (graph, metrics) = (Arc::clone(&graph), Arc::clone(&metrics));
                Some(Batcher::new(graph, compute_queue.clone(), batching, axes, metrics))
            }
        };
        Ok(Self { graph, placement: settings.placement, batcher, compute_queue, metrics })
    }

    /// Binds the inputs, runs the graph, and returns the outputs with their names.
    ///
    /// # Errors
    /// The inputs do not fit, the backend fails, or the deadline passes.
    pub async fn compute(
        &self,
        inputs: Vec<(String, Tensor)>,
        deadline: Instant,
    ) -> Result<Vec<(String, Tensor)>, InferenceError> {
        let inputs = bind(self.graph.inputs(), inputs)?;
        let outputs = if let Some(batcher) = &self.batcher {
            in_time(deadline, batcher.compute(inputs)).await??
        } else if self.graph.is_inline(&inputs, self.placement) {
            self.graph.run_timed(inputs, None, &self.metrics.inline)?
        } else {
            let (graph, metrics) = (Arc::clone(&self.graph), Arc::clone(&self.metrics));
            // Cancels at the deadline, and when the request is dropped.
            let cancel = CancelOnDrop(Arc::default());
            let cancellation = Arc::clone(&cancel.0);
            let work = move || graph.run_timed(inputs, Some(&cancellation), &metrics.compute);
            in_time(deadline, self.compute_queue.run(work)).await???
        };
        let names = self.graph.outputs().iter().map(|info| info.name.clone());
        Ok(names.zip(outputs).collect())
    }
}

/// Cancels an inference when it is dropped.
struct CancelOnDrop(Arc<Cancellation>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

async fn in_time<T>(deadline: Instant, work: impl Future<Output = T>) -> Result<T, InferenceError> {
    timeout_at(deadline.into(), work).await.map_err(|_| InferenceError::Timeout)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use spinfer_backend::{Graph, TensorInfo};

    use super::super::compute::ComputeThreads;
    use super::*;

    /// Runs until it is released.
    #[derive(Debug)]
    struct Slow(std::sync::Mutex<mpsc::Receiver<()>>);

    impl Graph for Slow {
        fn inputs(&self) -> &[TensorInfo] {
            &[]
        }

        fn outputs(&self) -> &[TensorInfo] {
            &[]
        }

        fn compute(&self, _: Vec<Tensor>) -> Result<Vec<Tensor>, BackendError> {
            self.0.lock().unwrap().recv().unwrap();
            Ok(Vec::new())
        }
    }

    #[tokio::test]
    async fn caller_returns_at_the_deadline() {
        let threads = ComputeThreads::start(1).unwrap();
        let (release, released) = mpsc::channel();
        let graph = Arc::new(LoadedGraph::new(Arc::new(Slow(released.into()))));
        let metrics = Arc::<ModelMetrics>::default();
        let settings = ModelSettings::default();
        let model =
            BoundModel::new(graph, &settings, threads.queue(), Arc::clone(&metrics)).unwrap();
        let soon = Instant::now() + Duration::from_millis(20);
        let error = model.compute(Vec::new(), soon).await.unwrap_err();
        assert!(matches!(error, InferenceError::Timeout), "{error}");
        // The thread is still busy: the next inference waits for it.
        release.send(()).unwrap();
        release.send(()).unwrap();
        let later = Instant::now() + Duration::from_secs(60);
        assert!(model.compute(Vec::new(), later).await.is_ok());
        assert_eq!((metrics.compute.count(), metrics.inline.count()), (2, 0));
    }
}
