//! Dynamic batching: calls of several requests and instances are computed in one run of the graph,
//! concatenated along the batch axis ([`axis`]). Calls are collected for `max_queue_delay`, and then
//! until a compute thread is free.

mod axis;
mod call;
mod tensors;

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use serde::Deserialize;
use spinfer_backend::{Error as BackendError, Tensor};
use tracing::debug;

pub(super) use axis::BatchAxes;
use call::{BatchRun, Call};
use tensors::{concatenate, split};

use super::compute::ComputeQueue;
use super::graph::LoadedGraph;
use crate::metrics::ModelMetrics;

/// `[batching]` in a `model.toml`, with Triton's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(super) struct Batching {
    /// Maximum number of rows of a batch.
    pub(super) max_batch_size: usize,
    /// How long the first call waits for others, even if a compute thread is free. Rounded up to
    /// milliseconds.
    #[serde(default, with = "crate::config::limits::duration")]
    pub(super) max_queue_delay: Duration,
}

impl Batching {
    /// Checks the settings.
    ///
    /// # Errors
    /// A setting is out of its range.
    pub(super) fn check(&self) -> Result<(), &'static str> {
        if self.max_batch_size < 2 {
            return Err("batching.max_batch_size must be at least 2");
        }
        if self.max_queue_delay > Duration::from_secs(1) {
            return Err("batching.max_queue_delay must be at most \"1s\"");
        }
        Ok(())
    }
}

/// Collects the calls of one model into batches.
pub(super) struct Batcher {
    graph: Arc<LoadedGraph>,
    compute_queue: ComputeQueue,
    settings: Batching,
    axes: BatchAxes,
    metrics: Arc<ModelMetrics>,
    pending: Mutex<PendingCalls>,
}

#[derive(Default)]
struct PendingCalls {
    calls: VecDeque<Call>,
    /// Whether a batch is submitted. It takes the calls that are pending when it starts.
    scheduled: bool,
}

/// The effect of a call that is added to the pending ones.
enum Added {
    /// A batch has to be scheduled.
    First,
    /// The batch is full, and is submitted at once. The one that is scheduled may find no calls.
    Full,
    Other,
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
        compute_queue: ComputeQueue,
        settings: Batching,
        axes: BatchAxes,
        metrics: Arc<ModelMetrics>,
    ) -> Arc<Self> {
        Arc::new(Self { graph, compute_queue, settings, axes, metrics, pending: Mutex::default() })
    }

    /// Computes bound `inputs` in a batch with other calls. A batch is cancelled once the futures of
    /// all its calls are dropped.
    ///
    /// # Errors
    /// The graph fails on the inputs.
    pub(super) async fn compute(
        self: &Arc<Self>,
        inputs: Vec<Tensor>,
    ) -> Result<Vec<Tensor>, BackendError> {
        let (call, caller) = Call::new(inputs);
        match self.pending().add(call, self.settings.max_batch_size, &self.axes.inputs) {
            Added::First => self.schedule(),
            Added::Full => self.submit(),
            Added::Other => {}
        }
        caller.result().await
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
        self.compute_queue.submit(move || batcher.run());
    }

    /// Computes the next batch, on a compute thread.
    fn run(self: &Arc<Self>) {
        let mut pending = self.pending();
        let calls = pending.take(self.settings.max_batch_size, &self.axes.inputs);
        pending.scheduled = !pending.calls.is_empty();
        let more = pending.scheduled;
        drop(pending);
        if more {
            // Without a delay: the calls have waited already.
            self.submit();
        }
        if calls.len() > 1 {
            match self.compute_together(&calls) {
                Ok(results) => {
                    debug!(calls = calls.len(), "batch computed");
                    for (call, result) in calls.into_iter().zip(results) {
                        call.end(Ok(result));
                    }
                    return;
                }
                // Invalid values of one call must not fail the others.
                Err(error) => debug!(%error, "batch failed; computing each call separately"),
            }
        }
        for mut call in calls {
            if call.is_abandoned() {
                continue;
            }
            let run = BatchRun::of([&call]);
            let (rows, inputs) = (call.rows(&self.axes.inputs), std::mem::take(&mut call.inputs));
            let result = self.compute_batch(rows, inputs, &run);
            call.end(result);
        }
    }

    /// Runs the graph on a batch of `rows` rows.
    fn compute_batch(
        &self,
        rows: usize,
        inputs: Vec<Tensor>,
        run: &BatchRun,
    ) -> Result<Vec<Tensor>, BackendError> {
        let cancellation = Some(&run.cancellation);
        let outputs = self.graph.run_timed(inputs, cancellation, &self.metrics.batch)?;
        self.metrics.batch_rows.observe(rows as u64);
        Ok(outputs)
    }

    fn compute_together(&self, calls: &[Call]) -> Result<Vec<Vec<Tensor>>, BackendError> {
        let BatchAxes { inputs: axes, outputs: output_axes } = &self.axes;
        let rows: Vec<usize> = calls.iter().map(|call| call.rows(axes)).collect();
        let inputs = axes
            .iter()
            .enumerate()
            .map(|(input, &axis)| concatenate(calls.iter().map(|call| &call.inputs[input]), axis))
            .collect::<Option<_>>()
            .ok_or_else(|| BackendError::Runtime("a batch has more than 2^32 rows".into()))?;
        let run = BatchRun::of(calls);
        let outputs = self.compute_batch(rows.iter().sum(), inputs, &run)?;
        let mut results: Vec<_> = rows.iter().map(|_| Vec::with_capacity(outputs.len())).collect();
        for ((output, &axis), info) in outputs.iter().zip(output_axes).zip(self.graph.outputs()) {
            let parts = split(output, axis, &rows).ok_or_else(|| {
                BackendError::Runtime(format!(
                    "output `{}` does not have one row for each row of the batch; remove [batching]",
                    info.name
                ))
            })?;
            results.iter_mut().zip(parts).for_each(|(result, part)| result.push(part));
        }
        Ok(results)
    }

    fn pending(&self) -> MutexGuard<'_, PendingCalls> {
        self.pending.lock()
    }
}

impl PendingCalls {
    fn add(&mut self, call: Call, max_rows: usize, axes: &[usize]) -> Added {
        self.calls.retain(|call| !call.is_abandoned());
        let before: usize = self.calls.iter().map(|call| call.rows(axes)).sum();
        let after = before + call.rows(axes);
        self.calls.push_back(call);
        if !std::mem::replace(&mut self.scheduled, true) {
            Added::First
        } else if before < max_rows && after >= max_rows {
            Added::Full
        } else {
            Added::Other
        }
    }

    /// Takes the oldest calls that fit together, up to `max_rows` rows. A larger call is taken alone.
    fn take(&mut self, max_rows: usize, axes: &[usize]) -> Vec<Call> {
        self.calls.retain(|call| !call.is_abandoned());
        let mut taken: Vec<Call> = Vec::new();
        let mut rows = 0;
        while let Some(next) = self.calls.front() {
            let fits = taken.first().is_none_or(|first| {
                rows + next.rows(axes) <= max_rows && first.fits_with(next, axes)
            });
            if !fits {
                break;
            }
            rows += next.rows(axes);
            taken.extend(self.calls.pop_front());
        }
        taken
    }
}

#[cfg(test)]
mod tests;
