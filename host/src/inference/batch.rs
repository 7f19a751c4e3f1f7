//! Dynamic batching: calls of several requests and instances, computed as one along the first
//! axis. Calls gather while they wait for a compute thread, and for `max_queue_delay` before that.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Deserialize;
use spinfer_backend::{Error as BackendError, Tensor, TensorInfo};
use tokio::sync::oneshot;
use tracing::debug;

use super::compute::Lane;
use super::graph::LoadedGraph;
use crate::metrics::ModelMetrics;

/// `[batching]` of a `model.toml`. The names are Triton's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Batching {
    /// Rows of a batch at most.
    pub(super) max_batch_size: usize,
    /// How long the first call waits for others, even if a compute thread is free. In steps of a
    /// millisecond, rounded up.
    #[serde(default, with = "crate::limits::duration")]
    pub(super) max_queue_delay: Duration,
}

impl Batching {
    /// Why these settings make no sense, if they do not.
    pub(super) fn check(&self) -> Result<(), &'static str> {
        if self.max_batch_size < 2 {
            return Err("batching.max_batch_size must be at least 2");
        }
        if self.max_queue_delay > Duration::from_secs(1) {
            return Err("batching.max_queue_delay must be at most \"1s\"");
        }
        Ok(())
    }

    /// Why a graph cannot be batched, if it cannot.
    pub(super) fn check_graph(inputs: &[TensorInfo], outputs: &[TensorInfo]) -> Result<(), String> {
        let fixed = inputs.iter().chain(outputs).find(|info| {
            !matches!(&info.shape, Some(shape) if shape.first().is_some_and(Option::is_none))
        });
        match fixed {
            None if inputs.is_empty() => Err("batching needs an input".into()),
            None => Ok(()),
            Some(info) => Err(format!(
                "batching needs a free first axis in every input and output; that of `{}` is fixed",
                info.name
            )),
        }
    }
}

/// Gathers the calls of one model.
pub(super) struct Batcher {
    graph: Arc<LoadedGraph>,
    lane: Lane,
    settings: Batching,
    metrics: Arc<ModelMetrics>,
    gathered: Mutex<Gathered>,
}

#[derive(Default)]
struct Gathered {
    calls: VecDeque<Call>,
    /// Whether a batch is on its way to a compute thread: it takes what is there when it starts.
    scheduled: bool,
}

/// What a call is to those that wait.
enum Added {
    /// Somebody has to see to the batch.
    First,
    /// It makes the batch full: nobody need wait any more. Whoever was to see to it may find
    /// nothing left.
    Full,
    Other,
}

struct Call {
    inputs: Vec<Tensor>,
    answer: oneshot::Sender<Result<Vec<Tensor>, BackendError>>,
}

impl fmt::Debug for Batcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batcher").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Batcher {
    #[must_use]
    pub(super) fn new(
        graph: Arc<LoadedGraph>,
        lane: Lane,
        settings: Batching,
        metrics: Arc<ModelMetrics>,
    ) -> Arc<Self> {
        Arc::new(Self { graph, lane, settings, metrics, gathered: Mutex::default() })
    }

    /// Computes `inputs`, already bound, with whatever else comes.
    pub(super) async fn compute(
        self: &Arc<Self>,
        inputs: Vec<Tensor>,
    ) -> Result<Vec<Tensor>, BackendError> {
        let (answer, answered) = oneshot::channel();
        match self.gathered().add(Call { inputs, answer }, self.settings.max_batch_size) {
            Added::First => self.schedule(),
            Added::Full => self.submit(),
            Added::Other => {}
        }
        answered.await.unwrap_or_else(|_| Err(BackendError::Runtime("the batch failed".into())))
    }

    fn schedule(self: &Arc<Self>) {
        let batcher = Arc::clone(self);
        let delay = self.settings.max_queue_delay;
        if delay.is_zero() {
            self.submit();
        } else {
            tokio::spawn(async move {
                tokio::time::sleep(delay).await;
                batcher.submit();
            });
        }
    }

    fn submit(self: &Arc<Self>) {
        let batcher = Arc::clone(self);
        self.lane.submit(move || batcher.run());
    }

    /// On a compute thread.
    fn run(self: &Arc<Self>) {
        let mut gathered = self.gathered();
        let calls = gathered.take(self.settings.max_batch_size);
        gathered.scheduled = !gathered.calls.is_empty();
        let more = gathered.scheduled;
        drop(gathered);
        if more {
            // They have waited for long enough.
            self.submit();
        }
        if calls.len() > 1 {
            match self.together(&calls) {
                Ok(results) => {
                    debug!(calls = calls.len(), "batch computed");
                    for (call, result) in calls.into_iter().zip(results) {
                        // Its request may have ended.
                        let _ = call.answer.send(Ok(result));
                    }
                    return;
                }
                // One call's values must not fail the others.
                Err(error) => debug!(%error, "batch failed; each call is computed alone"),
            }
        }
        for call in calls {
            let result = self.compute_batch(call.rows(), call.inputs);
            // Its request may have ended.
            let _ = call.answer.send(result);
        }
    }

    /// Runs the graph on a batch of so many `rows`.
    fn compute_batch(&self, rows: usize, inputs: Vec<Tensor>) -> Result<Vec<Tensor>, BackendError> {
        let outputs = self.graph.run_timed(inputs, None, &self.metrics.batch)?;
        self.metrics.batch_rows.observe(rows as u64);
        Ok(outputs)
    }

    fn together(&self, calls: &[Call]) -> Result<Vec<Vec<Tensor>>, BackendError> {
        let rows: Vec<usize> = calls.iter().map(Call::rows).collect();
        let inputs = (0..self.graph.inputs().len())
            .map(|input| concatenate(calls.iter().map(|call| &call.inputs[input])))
            .collect::<Option<_>>()
            .ok_or_else(|| BackendError::Runtime("a batch over 2^32 rows".into()))?;
        let outputs = self.compute_batch(rows.iter().sum(), inputs)?;
        let mut results: Vec<_> = rows.iter().map(|_| Vec::with_capacity(outputs.len())).collect();
        for (output, info) in outputs.iter().zip(self.graph.outputs()) {
            let parts = split(output, &rows).ok_or_else(|| {
                BackendError::Runtime(format!(
                    "output `{}` has not a row for each row of the batch; remove [batching]",
                    info.name
                ))
            })?;
            results.iter_mut().zip(parts).for_each(|(result, part)| result.push(part));
        }
        Ok(results)
    }

    fn gathered(&self) -> MutexGuard<'_, Gathered> {
        self.gathered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Gathered {
    fn add(&mut self, call: Call, full: usize) -> Added {
        self.calls.retain(|call| !call.answer.is_closed());
        let before: usize = self.calls.iter().map(Call::rows).sum();
        let after = before + call.rows();
        self.calls.push_back(call);
        if !std::mem::replace(&mut self.scheduled, true) {
            Added::First
        } else if before < full && after >= full {
            Added::Full
        } else {
            Added::Other
        }
    }

    /// The oldest calls that fit together, up to `most` rows; one that is larger goes alone.
    fn take(&mut self, most: usize) -> Vec<Call> {
        self.calls.retain(|call| !call.answer.is_closed());
        let mut taken: Vec<Call> = Vec::new();
        let mut rows = 0;
        while let Some(next) = self.calls.front() {
            let fits = taken
                .first()
                .is_none_or(|first| rows + next.rows() <= most && first.goes_with(next));
            if !fits {
                break;
            }
            rows += next.rows();
            taken.extend(self.calls.pop_front());
        }
        taken
    }
}

impl Call {
    fn rows(&self) -> usize {
        self.inputs.first().and_then(|input| input.dimensions.first()).map_or(0, |&n| n as usize)
    }

    /// Whether every axis but the first is the same, and each has one number of rows.
    fn goes_with(&self, other: &Self) -> bool {
        let even = |call: &Self| {
            call.inputs.iter().all(|i| i.dimensions.first() == call.inputs[0].dimensions.first())
        };
        even(self)
            && even(other)
            && self
                .inputs
                .iter()
                .zip(&other.inputs)
                .all(|(a, b)| a.ty == b.ty && a.dimensions.get(1..) == b.dimensions.get(1..))
    }
}

/// The tensors one after the other along the first axis; `None` if that is too long.
fn concatenate<'a>(tensors: impl Iterator<Item = &'a Tensor> + Clone) -> Option<Tensor> {
    let bytes = tensors.clone().map(|tensor| tensor.data.len()).sum();
    let mut all: Option<Tensor> = None;
    for tensor in tensors {
        match &mut all {
            None => {
                let mut data = Vec::with_capacity(bytes);
                data.extend_from_slice(&tensor.data);
                all = Some(Tensor { dimensions: tensor.dimensions.clone(), ty: tensor.ty, data });
            }
            Some(all) => {
                let rows = all.dimensions.first_mut()?;
                *rows = rows.checked_add(*tensor.dimensions.first()?)?;
                all.data.extend_from_slice(&tensor.data);
            }
        }
    }
    all
}

/// `tensor` cut along its first axis into parts of so many `rows`; `None` if it has another number.
fn split(tensor: &Tensor, rows: &[usize]) -> Option<Vec<Tensor>> {
    let (&all, tail) = tensor.dimensions.split_first()?;
    let all = all as usize;
    if all != rows.iter().sum::<usize>() {
        return None;
    }
    let row = tensor.data.len().checked_div(all).unwrap_or(0);
    let mut data = tensor.data.as_slice();
    rows.iter()
        .map(|&rows| {
            let part;
            (part, data) = data.split_at_checked(rows * row)?;
            let dimensions =
                std::iter::once(u32::try_from(rows).ok()?).chain(tail.iter().copied()).collect();
            Some(Tensor { dimensions, ty: tensor.ty, data: part.to_vec() })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use spinfer_backend::{Graph, TensorType};

    use super::super::compute::ComputeThreads;
    use super::*;

    fn tensor(rows: u32, columns: u32, first: u8) -> Tensor {
        let count = u8::try_from(rows * columns).unwrap();
        let data = (0..count).map(|n| first + n).collect();
        Tensor { dimensions: vec![rows, columns], ty: TensorType::U8, data }
    }

    #[test]
    fn what_is_put_together_comes_apart() {
        let tensors = [tensor(1, 3, 0), tensor(0, 3, 0), tensor(4, 3, 50)];
        let all = concatenate(tensors.iter()).unwrap();
        assert_eq!(all.dimensions, [5, 3]);
        assert_eq!(split(&all, &[1, 0, 4]).unwrap(), tensors);
        assert_eq!(split(&all, &[1, 3]), None, "a row too many");
        assert_eq!(split(&all, &[1, 5]), None, "a row too few");
        let huge = Tensor { dimensions: vec![u32::MAX, 0], ty: TensorType::U8, data: Vec::new() };
        assert_eq!(concatenate([&huge, &huge].into_iter()), None);
    }

    /// Doubles each value; a batch with a 255 in it fails. Tells how many rows it was given.
    #[derive(Debug)]
    struct Double {
        infos: Vec<TensorInfo>,
        rows: Mutex<mpsc::Sender<u32>>,
    }

    impl Graph for Double {
        fn inputs(&self) -> &[TensorInfo] {
            &self.infos
        }

        fn outputs(&self) -> &[TensorInfo] {
            &self.infos
        }

        fn compute(&self, mut inputs: Vec<Tensor>) -> Result<Vec<Tensor>, BackendError> {
            self.rows.lock().unwrap().send(inputs[0].dimensions[0]).unwrap();
            if inputs[0].data.contains(&255) {
                return Err(BackendError::Runtime("255".into()));
            }
            inputs[0].data.iter_mut().for_each(|value| *value *= 2);
            Ok(inputs)
        }
    }

    fn infos(first: Option<u32>) -> Vec<TensorInfo> {
        let shape = Some(vec![first, None]);
        vec![TensorInfo { name: "x".into(), ty: TensorType::U8, shape, axis_names: Vec::new() }]
    }

    struct Setup {
        batcher: Arc<Batcher>,
        /// Lets the compute thread begin.
        release: mpsc::Sender<()>,
        rows: mpsc::Receiver<u32>,
        _threads: ComputeThreads,
    }

    /// A batcher of up to 8 rows, its one compute thread busy until it is released.
    fn setup() -> Setup {
        setup_with(Duration::ZERO)
    }

    fn setup_with(max_queue_delay: Duration) -> Setup {
        let threads = ComputeThreads::start(1).unwrap();
        let (release, released) = mpsc::channel();
        let (sender, rows) = mpsc::channel();
        let graph = Double { infos: infos(None), rows: Mutex::new(sender) };
        let graph = Arc::new(LoadedGraph::new(Arc::new(graph)));
        let lane = threads.lane();
        lane.submit(move || released.recv().unwrap());
        let settings = Batching { max_batch_size: 8, max_queue_delay };
        let batcher = Batcher::new(graph, lane, settings, Arc::default());
        Setup { batcher, release, rows, _threads: threads }
    }

    /// Every call is under way before the compute thread begins.
    async fn together(setup: &Setup, inputs: &[Tensor]) -> Vec<Result<Tensor, String>> {
        let calls = inputs.iter().map(|input| setup.batcher.compute(vec![input.clone()]));
        let mut calls = std::pin::pin!(futures::future::join_all(calls));
        assert!(futures::poll!(&mut calls).is_pending());
        setup.release.send(()).unwrap();
        let results = calls.await;
        results
            .into_iter()
            .map(|result| result.map(|mut outputs| outputs.remove(0)).map_err(|e| e.to_string()))
            .collect()
    }

    fn doubled(mut tensor: Tensor) -> Tensor {
        tensor.data.iter_mut().for_each(|value| *value *= 2);
        tensor
    }

    #[tokio::test]
    async fn calls_that_wait_are_computed_as_one_and_each_gets_its_rows() {
        let setup = setup();
        let inputs: Vec<_> = (0..10).map(|n: u8| tensor(1 + u32::from(n % 2), 3, n * 10)).collect();
        let results = together(&setup, &inputs).await;
        for (input, result) in inputs.into_iter().zip(results) {
            assert_eq!(result, Ok(doubled(input)));
        }
        // 1 2 1 2 1 make 7, and 2 more would be too many.
        assert_eq!(setup.rows.try_iter().collect::<Vec<_>>(), [7, 8]);
        let ModelMetrics { batch, batch_rows, .. } = &*setup.batcher.metrics;
        assert_eq!((batch.count(), batch_rows.count(), batch_rows.sum()), (2, 2, 15.0));
    }

    #[tokio::test]
    async fn a_full_batch_does_not_wait_for_more() {
        // Far longer than any test may take.
        let setup = setup_with(Duration::from_secs(100_000));
        let inputs = [tensor(3, 1, 0), tensor(4, 1, 0), tensor(1, 1, 0)];
        assert!(together(&setup, &inputs).await.iter().all(Result::is_ok));
        assert_eq!(setup.rows.try_iter().collect::<Vec<_>>(), [8]);
    }

    #[tokio::test]
    async fn other_shapes_and_large_calls_go_by_themselves() {
        let setup = setup();
        let inputs = [tensor(1, 3, 0), tensor(1, 2, 0), tensor(1, 2, 9), tensor(20, 2, 0)];
        let results = together(&setup, &inputs).await;
        for (input, result) in inputs.into_iter().zip(results) {
            assert_eq!(result, Ok(doubled(input)));
        }
        assert_eq!(setup.rows.try_iter().collect::<Vec<_>>(), [1, 2, 20]);
    }

    #[tokio::test]
    async fn a_call_that_fails_fails_alone() {
        let setup = setup();
        let inputs = [tensor(1, 1, 1), tensor(1, 1, 255), tensor(1, 1, 2)];
        let results = together(&setup, &inputs).await;
        assert_eq!(results[0], Ok(doubled(inputs[0].clone())));
        assert_eq!(results[1], Err("255".into()));
        assert_eq!(results[2], Ok(doubled(inputs[2].clone())));
    }

    #[tokio::test]
    async fn a_call_nobody_waits_for_is_left_out() {
        let setup = setup();
        let mut gone = Box::pin(setup.batcher.compute(vec![tensor(1, 1, 255)]));
        assert!(futures::poll!(&mut gone).is_pending());
        drop(gone);
        assert_eq!(together(&setup, &[tensor(2, 1, 1)]).await, [Ok(doubled(tensor(2, 1, 1)))]);
        assert_eq!(setup.rows.try_iter().collect::<Vec<_>>(), [2]);
    }

    #[tokio::test]
    async fn nor_is_what_it_was_given_kept() {
        let setup = setup();
        for _ in 0..10 {
            let mut gone = Box::pin(setup.batcher.compute(vec![tensor(1, 1, 255)]));
            assert!(futures::poll!(&mut gone).is_pending());
            assert_eq!(setup.batcher.gathered().calls.len(), 1);
        }
        assert_eq!(together(&setup, &[tensor(2, 1, 1)]).await, [Ok(doubled(tensor(2, 1, 1)))]);
    }

    #[test]
    fn settings_that_make_no_sense_are_refused() {
        let settings = |size, milliseconds| Batching {
            max_batch_size: size,
            max_queue_delay: Duration::from_millis(milliseconds),
        };
        let (free, fixed) = (infos(None), infos(Some(1)));
        assert_eq!(settings(8, 1).check(), Ok(()));
        assert!(settings(1, 0).check().unwrap_err().contains("at least 2"));
        assert!(settings(2, 1001).check().unwrap_err().contains("at most \"1s\""));
        assert_eq!(Batching::check_graph(&free, &free), Ok(()));
        for (inputs, outputs, part) in [
            (&fixed, &free, "that of `x` is fixed"),
            (&free, &fixed, "that of `x` is fixed"),
            (&vec![], &free, "needs an input"),
        ] {
            let error = Batching::check_graph(inputs, outputs).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }
}
