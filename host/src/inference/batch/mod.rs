//! Dynamic batching: calls of several requests and instances, computed as one along the batch axis
//! ([`axis`]). Calls gather while they wait for a compute thread, and for `max_queue_delay` before that.

mod axis;
mod call;
mod tensors;

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Deserialize;
use spinfer_backend::{Error as BackendError, Tensor};
use tracing::debug;

pub(super) use axis::BatchAxes;
use call::{Call, Run};
use tensors::{concatenate, split};

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
    #[serde(default, with = "crate::config::limits::duration")]
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
}

/// Gathers the calls of one model.
pub(super) struct Batcher {
    graph: Arc<LoadedGraph>,
    lane: Lane,
    settings: Batching,
    axes: BatchAxes,
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
        axes: BatchAxes,
        metrics: Arc<ModelMetrics>,
    ) -> Arc<Self> {
        Arc::new(Self { graph, lane, settings, axes, metrics, gathered: Mutex::default() })
    }

    /// Computes `inputs`, already bound, with whatever else comes. Once the future is dropped, nobody
    /// waits for it; a batch that nobody waits for is ended.
    pub(super) async fn compute(
        self: &Arc<Self>,
        inputs: Vec<Tensor>,
    ) -> Result<Vec<Tensor>, BackendError> {
        let (call, caller) = Call::new(inputs);
        match self.gathered().add(call, self.settings.max_batch_size, &self.axes.inputs) {
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
        self.lane.submit(move || batcher.run());
    }

    /// On a compute thread.
    fn run(self: &Arc<Self>) {
        let mut gathered = self.gathered();
        let calls = gathered.take(self.settings.max_batch_size, &self.axes.inputs);
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
                        call.end(Ok(result));
                    }
                    return;
                }
                // One call's values must not fail the others.
                Err(error) => debug!(%error, "batch failed; each call is computed alone"),
            }
        }
        for mut call in calls {
            if call.is_gone() {
                continue;
            }
            let run = Run::of([&call]);
            let (rows, inputs) = (call.rows(&self.axes.inputs), std::mem::take(&mut call.inputs));
            let result = self.compute_batch(rows, inputs, &run);
            call.end(result);
        }
    }

    /// Runs the graph on a batch of so many `rows`.
    fn compute_batch(
        &self,
        rows: usize,
        inputs: Vec<Tensor>,
        run: &Run,
    ) -> Result<Vec<Tensor>, BackendError> {
        let cancellation = Some(&run.cancellation);
        let outputs = self.graph.run_timed(inputs, cancellation, &self.metrics.batch)?;
        self.metrics.batch_rows.observe(rows as u64);
        Ok(outputs)
    }

    fn together(&self, calls: &[Call]) -> Result<Vec<Vec<Tensor>>, BackendError> {
        let BatchAxes { inputs: axes, outputs: output_axes } = &self.axes;
        let rows: Vec<usize> = calls.iter().map(|call| call.rows(axes)).collect();
        let inputs = axes
            .iter()
            .enumerate()
            .map(|(input, &axis)| concatenate(calls.iter().map(|call| &call.inputs[input]), axis))
            .collect::<Option<_>>()
            .ok_or_else(|| BackendError::Runtime("a batch over 2^32 rows".into()))?;
        let run = Run::of(calls);
        let outputs = self.compute_batch(rows.iter().sum(), inputs, &run)?;
        let mut results: Vec<_> = rows.iter().map(|_| Vec::with_capacity(outputs.len())).collect();
        for ((output, &axis), info) in outputs.iter().zip(output_axes).zip(self.graph.outputs()) {
            let parts = split(output, axis, &rows).ok_or_else(|| {
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
    fn add(&mut self, call: Call, full: usize, axes: &[usize]) -> Added {
        self.calls.retain(|call| !call.is_gone());
        let before: usize = self.calls.iter().map(|call| call.rows(axes)).sum();
        let after = before + call.rows(axes);
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
    fn take(&mut self, most: usize, axes: &[usize]) -> Vec<Call> {
        self.calls.retain(|call| !call.is_gone());
        let mut taken: Vec<Call> = Vec::new();
        let mut rows = 0;
        while let Some(next) = self.calls.front() {
            let fits = taken
                .first()
                .is_none_or(|first| rows + next.rows(axes) <= most && first.goes_with(next, axes));
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
