//! Calls that wait for a batch, and the run that they are part of, which is cancelled once all their
//! callers were dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::{Mutex, MutexGuard};
use spinfer_backend::{Cancellation, Error as BackendError, Tensor};
use tokio::sync::oneshot;

/// A call that waits for its batch.
pub(super) struct Call {
    pub(super) inputs: Vec<Tensor>,
    result: oneshot::Sender<Result<Vec<Tensor>, BackendError>>,
    slot: Arc<CallSlot>,
}

/// The caller's side of a call, which is abandoned when this is dropped.
pub(super) struct Caller {
    result: oneshot::Receiver<Result<Vec<Tensor>, BackendError>>,
    slot: Arc<CallSlot>,
}

/// The state of a call, shared by both sides.
#[derive(Default)]
struct CallSlot(Mutex<Stage>);

#[derive(Default)]
enum Stage {
    #[default]
    Waiting,
    Running(Arc<BatchRun>),
    /// The caller was dropped.
    Abandoned,
}

/// One run of the graph.
pub(super) struct BatchRun {
    /// Number of callers, plus one until all of them are counted.
    callers: AtomicUsize,
    pub(super) cancellation: Cancellation,
}

impl Call {
    pub(super) fn new(inputs: Vec<Tensor>) -> (Self, Caller) {
        let (sender, receiver) = oneshot::channel();
        let slot = Arc::<CallSlot>::default();
        let call = Self { inputs, result: sender, slot: Arc::clone(&slot) };
        (call, Caller { result: receiver, slot })
    }

    /// Whether the caller was dropped.
    pub(super) fn is_abandoned(&self) -> bool {
        self.result.is_closed()
    }

    pub(super) fn end(self, result: Result<Vec<Tensor>, BackendError>) {
        // Fails if the caller was dropped.
        let _ = self.result.send(result);
    }

    /// Number of rows: the size of the first input along its batch axis.
    pub(super) fn rows(&self, axes: &[usize]) -> usize {
        let first = self.inputs.first().zip(axes.first());
        first.and_then(|(input, &axis)| input.dimensions.get(axis)).map_or(0, |&rows| rows as usize)
    }

    /// Whether two calls can be concatenated: all axes except the batch axes have the same sizes, and
    /// all inputs of a call have the same number of rows.
    pub(super) fn fits_with(&self, other: &Self, axes: &[usize]) -> bool {
        let size = |tensor: &Tensor, axis: usize| tensor.dimensions.get(axis).copied();
        let is_even = |call: &Self| {
            let mut sizes = call.inputs.iter().zip(axes).map(|(input, &axis)| size(input, axis));
            let first = sizes.next();
            sizes.all(|size| Some(size) == first)
        };
        let same = |((a, b), &axis): ((&Tensor, &Tensor), &usize)| {
            let rest = |tensor: &Tensor| {
                let mut rest = tensor.dimensions.clone();
                if let Some(rows) = rest.get_mut(axis) {
                    *rows = 0;
                }
                rest
            };
            a.ty == b.ty && rest(a) == rest(b)
        };
        is_even(self) && is_even(other) && self.inputs.iter().zip(&other.inputs).zip(axes).all(same)
    }
}

impl Caller {
    pub(super) async fn result(mut self) -> Result<Vec<Tensor>, BackendError> {
        let failed = || Err(BackendError::Runtime("the batch failed".into()));
        (&mut self.result).await.unwrap_or_else(|_| failed())
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        let stage = std::mem::replace(&mut *self.slot.lock(), Stage::Abandoned);
        if let Stage::Running(run) = stage {
            run.leave();
        }
    }
}

impl CallSlot {
    fn lock(&self) -> MutexGuard<'_, Stage> {
        self.0.lock()
    }
}

impl BatchRun {
    /// A run of `calls`, which is cancelled once all their callers were dropped.
    pub(super) fn of<'a>(calls: impl IntoIterator<Item = &'a Call>) -> Arc<Self> {
        let run =
            Arc::new(Self { callers: AtomicUsize::new(1), cancellation: Cancellation::default() });
        for call in calls {
            let mut stage = call.slot.lock();
            if !matches!(*stage, Stage::Abandoned) {
                run.callers.fetch_add(1, Ordering::Relaxed);
                *stage = Stage::Running(Arc::clone(&run));
            }
        }
        run.leave();
        run
    }

    fn leave(&self) {
        if self.callers.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.cancellation.cancel();
        }
    }
}
