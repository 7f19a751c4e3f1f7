//! Calls that wait for a batch, and the run they are part of, which ends when all who wait for it are
//! gone.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use spinfer_backend::{Cancellation, Error as BackendError, Tensor};
use tokio::sync::oneshot;

pub(super) struct Call {
    pub(super) inputs: Vec<Tensor>,
    answer: oneshot::Sender<Result<Vec<Tensor>, BackendError>>,
    ticket: Arc<Ticket>,
}

/// Waits for a call's result. Once this is dropped nobody does.
pub(super) struct Caller {
    answered: oneshot::Receiver<Result<Vec<Tensor>, BackendError>>,
    ticket: Arc<Ticket>,
}

/// What both know of a call.
#[derive(Default)]
struct Ticket(Mutex<Stage>);

#[derive(Default)]
enum Stage {
    #[default]
    Waiting,
    Running(Arc<Run>),
    /// Nobody waits for it.
    Gone,
}

/// One run of the graph.
pub(super) struct Run {
    /// Those who wait for it, and one more until all of them are known.
    callers: AtomicUsize,
    pub(super) cancellation: Cancellation,
}

impl Call {
    pub(super) fn new(inputs: Vec<Tensor>) -> (Self, Caller) {
        let (answer, answered) = oneshot::channel();
        let ticket = Arc::<Ticket>::default();
        (Self { inputs, answer, ticket: Arc::clone(&ticket) }, Caller { answered, ticket })
    }

    /// Whether nobody waits for it.
    pub(super) fn is_gone(&self) -> bool {
        self.answer.is_closed()
    }

    pub(super) fn end(self, result: Result<Vec<Tensor>, BackendError>) {
        // Its request may have ended.
        let _ = self.answer.send(result);
    }

    /// Its size along the batch axis of its first input.
    pub(super) fn rows(&self, axes: &[usize]) -> usize {
        let first = self.inputs.first().zip(axes.first());
        first.and_then(|(input, &axis)| input.dimensions.get(axis)).map_or(0, |&rows| rows as usize)
    }

    /// Whether every axis but those of the batch is the same, and each call has one number of rows.
    pub(super) fn goes_with(&self, other: &Self, axes: &[usize]) -> bool {
        let size = |tensor: &Tensor, axis: usize| tensor.dimensions.get(axis).copied();
        let even = |call: &Self| {
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
        even(self) && even(other) && self.inputs.iter().zip(&other.inputs).zip(axes).all(same)
    }
}

impl Caller {
    pub(super) async fn result(mut self) -> Result<Vec<Tensor>, BackendError> {
        let failed = || Err(BackendError::Runtime("the batch failed".into()));
        (&mut self.answered).await.unwrap_or_else(|_| failed())
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        let stage = std::mem::replace(&mut *self.ticket.lock(), Stage::Gone);
        if let Stage::Running(run) = stage {
            run.leave();
        }
    }
}

impl Ticket {
    fn lock(&self) -> MutexGuard<'_, Stage> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Run {
    /// The run of `calls`: cancelled as soon as nobody waits for any of them.
    pub(super) fn of<'a>(calls: impl IntoIterator<Item = &'a Call>) -> Arc<Self> {
        let run =
            Arc::new(Self { callers: AtomicUsize::new(1), cancellation: Cancellation::default() });
        for call in calls {
            let mut stage = call.ticket.lock();
            if !matches!(*stage, Stage::Gone) {
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
