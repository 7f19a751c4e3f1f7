use std::sync::mpsc;

use spinfer_backend::{Cancellation, Graph, TensorInfo, TensorType};

use super::super::compute::ComputeThreads;
use super::*;

fn tensor(rows: u32, columns: u32, first: u8) -> Tensor {
    let count = u8::try_from(rows * columns).unwrap();
    let data = (0..count).map(|n| first + n).collect();
    Tensor { dimensions: vec![rows, columns], ty: TensorType::U8, data }
}

/// Doubles each value; fails on a batch that contains 255. Reports the number of rows.
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
        self.rows.lock().send(inputs[0].dimensions[0]).unwrap();
        if inputs[0].data.contains(&255) {
            return Err(BackendError::Runtime("255".into()));
        }
        inputs[0].data.iter_mut().for_each(|value| *value *= 2);
        Ok(inputs)
    }
}

fn infos() -> Vec<TensorInfo> {
    let shape = Some(vec![None, None]);
    vec![TensorInfo { name: "x".into(), ty: TensorType::U8, shape, axis_names: Vec::new() }]
}

struct BatchSetup {
    batcher: Arc<Batcher>,
    /// Frees the compute thread.
    release: mpsc::Sender<()>,
    rows: mpsc::Receiver<u32>,
    _threads: ComputeThreads,
}

/// A batcher of up to 8 rows, with one compute thread that is busy until it is released.
fn setup() -> BatchSetup {
    setup_with(Duration::ZERO)
}

fn setup_with(max_queue_delay: Duration) -> BatchSetup {
    let threads = ComputeThreads::start(1).unwrap();
    let (release, released) = mpsc::channel();
    let (sender, rows) = mpsc::channel();
    let graph = Double { infos: infos(), rows: Mutex::new(sender) };
    let graph = Arc::new(LoadedGraph::new(Arc::new(graph)));
    let compute_queue = threads.queue();
    compute_queue.submit(move || released.recv().unwrap());
    let settings = Batching { max_batch_size: 8, max_queue_delay };
    let axes = BatchAxes { inputs: vec![0], outputs: vec![0] };
    let batcher = Batcher::new(graph, compute_queue, settings, axes, Arc::default());
    BatchSetup { batcher, release, rows, _threads: threads }
}

/// Computes the inputs with every call pending before the compute thread is free.
async fn together(setup: &BatchSetup, inputs: &[Tensor]) -> Vec<Result<Tensor, String>> {
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
async fn pending_calls_are_computed_in_batches_and_each_gets_its_rows() {
    let setup = setup();
    let inputs: Vec<_> = (0..10).map(|n: u8| tensor(1 + u32::from(n % 2), 3, n * 10)).collect();
    let results = together(&setup, &inputs).await;
    for (input, result) in inputs.into_iter().zip(results) {
        assert_eq!(result, Ok(doubled(input)));
    }
    // 1 + 2 + 1 + 2 + 1 = 7, and 2 more would exceed 8.
    assert_eq!(setup.rows.try_iter().collect::<Vec<_>>(), [7, 8]);
    let ModelMetrics { batch, batch_rows, .. } = &*setup.batcher.metrics;
    assert_eq!((batch.count(), batch_rows.count(), batch_rows.sum()), (2, 2, 15.0));
}

#[tokio::test]
async fn full_batch_does_not_wait_for_the_delay() {
    // Longer than any test may take.
    let setup = setup_with(Duration::from_secs(100_000));
    let inputs = [tensor(3, 1, 0), tensor(4, 1, 0), tensor(1, 1, 0)];
    assert!(together(&setup, &inputs).await.iter().all(Result::is_ok));
    assert_eq!(setup.rows.try_iter().collect::<Vec<_>>(), [8]);
}

#[tokio::test]
async fn other_shapes_and_large_calls_have_their_own_batches() {
    let setup = setup();
    let inputs = [tensor(1, 3, 0), tensor(1, 2, 0), tensor(1, 2, 9), tensor(20, 2, 0)];
    let results = together(&setup, &inputs).await;
    for (input, result) in inputs.into_iter().zip(results) {
        assert_eq!(result, Ok(doubled(input)));
    }
    assert_eq!(setup.rows.try_iter().collect::<Vec<_>>(), [1, 2, 20]);
}

#[tokio::test]
async fn failing_call_does_not_fail_its_batch() {
    let setup = setup();
    let inputs = [tensor(1, 1, 1), tensor(1, 1, 255), tensor(1, 1, 2)];
    let results = together(&setup, &inputs).await;
    assert_eq!(results[0], Ok(doubled(inputs[0].clone())));
    assert_eq!(results[1], Err("255".into()));
    assert_eq!(results[2], Ok(doubled(inputs[2].clone())));
}

#[tokio::test]
async fn abandoned_call_is_not_computed() {
    let setup = setup();
    let mut abandoned = Box::pin(setup.batcher.compute(vec![tensor(1, 1, 255)]));
    assert!(futures::poll!(&mut abandoned).is_pending());
    drop(abandoned);
    assert_eq!(together(&setup, &[tensor(2, 1, 1)]).await, [Ok(doubled(tensor(2, 1, 1)))]);
    assert_eq!(setup.rows.try_iter().collect::<Vec<_>>(), [2]);
}

#[tokio::test]
async fn abandoned_call_is_dropped_with_its_inputs() {
    let setup = setup();
    for _ in 0..10 {
        let mut abandoned = Box::pin(setup.batcher.compute(vec![tensor(1, 1, 255)]));
        assert!(futures::poll!(&mut abandoned).is_pending());
        assert_eq!(setup.batcher.pending().calls.len(), 1);
    }
    assert_eq!(together(&setup, &[tensor(2, 1, 1)]).await, [Ok(doubled(tensor(2, 1, 1)))]);
}

#[test]
fn settings_out_of_range_are_refused() {
    let settings = |size, milliseconds| Batching {
        max_batch_size: size,
        max_queue_delay: Duration::from_millis(milliseconds),
    };
    assert_eq!(settings(8, 1).check(), Ok(()));
    assert!(settings(1, 0).check().unwrap_err().contains("at least 2"));
    assert!(settings(2, 1001).check().unwrap_err().contains("at most \"1s\""));
}

/// Computes until it is released or cancelled.
#[derive(Debug)]
struct Endless {
    infos: Vec<TensorInfo>,
    started: Mutex<mpsc::Sender<u32>>,
    /// `true` if it is released, `false` if it is cancelled.
    released: Mutex<mpsc::Receiver<bool>>,
    release: Mutex<mpsc::Sender<bool>>,
}

impl Graph for Endless {
    fn inputs(&self) -> &[TensorInfo] {
        &self.infos
    }

    fn outputs(&self) -> &[TensorInfo] {
        &self.infos
    }

    fn compute(&self, _: Vec<Tensor>) -> Result<Vec<Tensor>, BackendError> {
        Err(BackendError::Runtime("not cancellable".into()))
    }

    fn compute_unless(
        &self,
        inputs: Vec<Tensor>,
        cancellation: &Cancellation,
    ) -> Result<Vec<Tensor>, BackendError> {
        let cancel = self.release.lock().clone();
        let cancelled = || Err(BackendError::Runtime("cancelled".into()));
        let work = || {
            self.started.lock().send(inputs[0].dimensions[0]).unwrap();
            self.released.lock().recv().unwrap()
        };
        match cancellation.run(move || cancel.send(false).unwrap(), work) {
            Some(true) => Ok(inputs),
            Some(false) | None => cancelled(),
        }
    }
}

#[tokio::test]
async fn batch_is_cancelled_after_its_last_caller_stops_waiting() {
    for stays in [false, true] {
        let threads = ComputeThreads::start(1).unwrap();
        let ((start, started), (sender, released)) = (mpsc::channel(), mpsc::channel());
        let release = sender.clone();
        let graph = Endless {
            infos: infos(),
            started: Mutex::new(start),
            released: Mutex::new(released),
            release: Mutex::new(sender),
        };
        let graph = Arc::new(LoadedGraph::new(Arc::new(graph)));
        let settings = Batching { max_batch_size: 2, max_queue_delay: Duration::from_secs(1000) };
        let axes = BatchAxes { inputs: vec![0], outputs: vec![0] };
        let batcher = Batcher::new(graph, threads.queue(), settings, axes, Arc::default());
        let call = |first| Box::pin(batcher.compute(vec![tensor(1, 1, first)]));
        let (mut one, mut other) = (call(1), call(2));
        assert!(futures::poll!(&mut one).is_pending() && futures::poll!(&mut other).is_pending());
        assert_eq!(started.recv().unwrap(), 2);
        drop(one);
        if stays {
            // Fails if the batch was cancelled before.
            release.send(true).unwrap();
            assert_eq!(other.await.unwrap(), [tensor(1, 1, 2)]);
        } else {
            drop(other);
        }
        // The thread is free, and nothing more is computed.
        threads.queue().run(|| ()).await.unwrap();
        assert!(started.try_recv().is_err());
    }
}

#[tokio::test]
async fn batch_is_concatenated_along_its_axis() {
    let mut setup = setup();
    let Some(batcher) = Arc::get_mut(&mut setup.batcher) else { panic!("the batcher is shared") };
    batcher.axes = BatchAxes { inputs: vec![1], outputs: vec![1] };
    let inputs = [tensor(3, 1, 0), tensor(3, 2, 10), tensor(2, 1, 50)];
    let results = together(&setup, &inputs).await;
    for (input, result) in inputs.into_iter().zip(results) {
        assert_eq!(result, Ok(doubled(input)));
    }
    // The first two form a batch; the third has another shape.
    assert_eq!(setup.rows.try_iter().collect::<Vec<_>>(), [3, 2]);
    assert_eq!(setup.batcher.metrics.batch_rows.sum(), 4.0);
}
