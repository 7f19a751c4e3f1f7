//! A graph as one component uses it: its settings, its batches, its turn on the compute threads.

use std::sync::Arc;
use std::time::Instant;

use spinfer_backend::{Cancellation, Error as BackendError, Tensor};
use tokio::time::timeout_at;

use super::batch::{BatchAxes, Batcher};
use super::compute::Lane;
use super::graph::{LoadedGraph, Placement};
use super::mounts::Settings;
use super::{Error, bind};
use crate::metrics::ModelMetrics;

/// What a guest's handle to a graph stands for.
#[derive(Debug)]
pub struct Model {
    graph: Arc<LoadedGraph>,
    placement: Placement,
    batcher: Option<Arc<Batcher>>,
    lane: Lane,
    metrics: Arc<ModelMetrics>,
}

impl Model {
    /// Fails if the settings do not fit the graph.
    pub(super) fn new(
        graph: Arc<LoadedGraph>,
        settings: &Settings,
        lane: Lane,
        metrics: Arc<ModelMetrics>,
    ) -> Result<Self, Error> {
        let batcher = match settings.batching {
            None => None,
            Some(batching) => {
                let axes = BatchAxes::of(graph.inputs(), graph.outputs(), &settings.edges());
                let axes =
                    axes.map_err(|e| BackendError::InvalidArgument(format!("model.toml: {e}")))?;
                let (graph, metrics) = (Arc::clone(&graph), Arc::clone(&metrics));
                Some(Batcher::new(graph, lane.clone(), batching, axes, metrics))
            }
        };
        Ok(Self { graph, placement: settings.placement, batcher, lane, metrics })
    }

    /// Binds the inputs, runs the graph and names the outputs.
    pub async fn compute(
        &self,
        inputs: Vec<(String, Tensor)>,
        deadline: Instant,
    ) -> Result<Vec<(String, Tensor)>, Error> {
        let inputs = bind(self.graph.inputs(), inputs)?;
        let outputs = if let Some(batcher) = &self.batcher {
            in_time(deadline, batcher.compute(inputs)).await??
        } else if self.graph.is_inline(&inputs, self.placement) {
            self.graph.run_timed(inputs, None, &self.metrics.inline)?
        } else {
            let (graph, metrics) = (Arc::clone(&self.graph), Arc::clone(&self.metrics));
            // At the deadline, and when the request is over.
            let ends = EndsWithThis(Arc::default());
            let cancellation = Arc::clone(&ends.0);
            let work = move || graph.run_timed(inputs, Some(&cancellation), &metrics.compute);
            in_time(deadline, self.lane.run(work)).await???
        };
        let names = self.graph.outputs().iter().map(|info| info.name.clone());
        Ok(names.zip(outputs).collect())
    }
}

/// A computation that is of no use to anyone once this is dropped.
struct EndsWithThis(Arc<Cancellation>);

impl Drop for EndsWithThis {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

async fn in_time<T>(deadline: Instant, work: impl Future<Output = T>) -> Result<T, Error> {
    timeout_at(deadline.into(), work).await.map_err(|_| Error::Timeout)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use spinfer_backend::{Graph, TensorInfo};

    use super::super::compute::ComputeThreads;
    use super::*;

    /// Says where it runs, and ends when it is told.
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
    async fn at_the_deadline_the_caller_goes_on() {
        let threads = ComputeThreads::start(1).unwrap();
        let (release, released) = mpsc::channel();
        let graph = Arc::new(LoadedGraph::new(Arc::new(Slow(released.into()))));
        let metrics = Arc::<ModelMetrics>::default();
        let settings = Settings::default();
        let model = Model::new(graph, &settings, threads.lane(), Arc::clone(&metrics)).unwrap();
        let soon = Instant::now() + Duration::from_millis(20);
        let error = model.compute(Vec::new(), soon).await.unwrap_err();
        assert!(matches!(error, Error::Timeout), "{error}");
        // Its thread is still taken: the next one waits for it, and then runs.
        release.send(()).unwrap();
        release.send(()).unwrap();
        let later = Instant::now() + Duration::from_secs(60);
        assert!(model.compute(Vec::new(), later).await.is_ok());
        assert_eq!((metrics.compute.count(), metrics.inline.count()), (2, 0));
    }
}
