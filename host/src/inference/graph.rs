//! A loaded graph: measures its inferences, and decides on which thread the next one runs.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde::Deserialize;
use spinfer_backend::{Cancellation, Error as BackendError, Graph, Tensor, TensorInfo};

use crate::metrics::histogram::Histogram;

/// Maximum expected duration of an inference on a thread that polls connections, in nanoseconds. A hop
/// to another thread and back costs 10-20 microseconds, too much for shorter ones.
const MAX_INLINE_NANOS: f32 = 200_000.0;
/// Time after which the warm-up of a graph stops. A slow graph runs once.
const WARM_UP_TIME: Duration = Duration::from_millis(1);
/// Maximum number of runs of a warm-up.
const WARM_UP_RUNS: usize = 3;
/// Maximum size of an input for the warm-up, in bytes.
const WARM_UP_BYTES: usize = 16 << 20;

/// On which threads inferences of a model run: `placement` in a `model.toml`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Placement {
    /// Depends on the expected duration.
    #[default]
    Auto,
    /// On the thread that polls the connection, which blocks its other connections.
    Inline,
    /// On a compute thread.
    ComputeThread,
}

/// A loaded graph, shared by all components that use it.
#[derive(Debug)]
pub struct LoadedGraph {
    graph: Arc<dyn Graph>,
    /// Running mean of the duration of an inference, in nanoseconds per byte of input: the bits of an
    /// `f32`. Infinite until it is measured. Per byte, as one request may have one row, and the next
    /// one thousands.
    nanos_per_byte: AtomicU32,
    /// Minimum duration of an inference of any size, in nanoseconds: the bits of an `f32`.
    min_nanos: AtomicU32,
}

impl LoadedGraph {
    #[must_use]
    pub fn new(graph: Arc<dyn Graph>) -> Self {
        let unknown = || AtomicU32::new(f32::INFINITY.to_bits());
        Self { graph, nanos_per_byte: unknown(), min_nanos: unknown() }
    }

    #[must_use]
    pub fn inputs(&self) -> &[TensorInfo] {
        self.graph.inputs()
    }

    #[must_use]
    pub fn outputs(&self) -> &[TensorInfo] {
        self.graph.outputs()
    }

    /// Runs and measures the graph on zeros, with each free axis of size 1, so that the first request
    /// runs on the right thread, with code and weights in the processor's caches.
    pub fn warm_up(&self) {
        let Some(zeros) = self.inputs().iter().map(zeros).collect::<Option<Vec<_>>>() else {
            return;
        };
        let start = Instant::now();
        for _ in 0..WARM_UP_RUNS {
            // Some graphs do not accept every size: then the first request measures.
            if self.run(zeros.clone()).is_err() || start.elapsed() > WARM_UP_TIME {
                break;
            }
        }
    }

    /// The dimensions of each output in a run on zeros; `None` if the graph does not run on them. An axis
    /// that the graph leaves free has the size in `declared`, the shape of an input by name, or 1.
    pub(super) fn dimensions_of_run<'a>(
        &self,
        declared: impl Fn(&str) -> Option<&'a [i64]>,
    ) -> Option<Vec<Vec<u32>>> {
        let input = |info: &TensorInfo| {
            let mut info = info.clone();
            let sizes = declared(&info.name).unwrap_or_default();
            for (axis, &size) in info.shape.iter_mut().flatten().zip(sizes) {
                *axis = axis.or(u32::try_from(size).ok());
            }
            zeros(&info)
        };
        let inputs = self.inputs().iter().map(input).collect::<Option<Vec<_>>>()?;
        let (outputs, _) = self.run(inputs).ok()?;
        Some(outputs.into_iter().map(|output| output.dimensions).collect())
    }

    /// Whether an inference runs on the thread that polls the connection.
    #[must_use]
    pub fn is_inline(&self, inputs: &[Tensor], placement: Placement) -> bool {
        match placement {
            // A client could block the thread for any time.
            _ if self.graph.time_depends_on_values() => false,
            Placement::Inline => true,
            Placement::ComputeThread => false,
            Placement::Auto => {
                let of = |bits: &AtomicU32| f32::from_bits(bits.load(Ordering::Relaxed));
                (of(&self.nanos_per_byte) * size(inputs)).max(of(&self.min_nanos))
                    <= MAX_INLINE_NANOS
            }
        }
    }

    /// As [`Self::run_unless`], with the duration recorded in `times`.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn run_timed(
        &self,
        inputs: Vec<Tensor>,
        cancellation: Option<&Cancellation>,
        times: &Histogram,
    ) -> Result<Vec<Tensor>, BackendError> {
        let (outputs, took) = self.run_unless(inputs, cancellation)?;
        times.observe_duration(took);
        Ok(outputs)
    }

    /// Runs the graph on this thread, on bound inputs. Returns the outputs and the duration.
    ///
    /// # Errors
    /// The backend fails or panics.
    pub fn run(&self, inputs: Vec<Tensor>) -> Result<(Vec<Tensor>, Duration), BackendError> {
        self.run_unless(inputs, None)
    }

    /// As [`Self::run`], but stops early if `cancellation` is cancelled and the backend supports it.
    ///
    /// # Errors
    /// As [`Self::run`], or the run is cancelled.
    pub fn run_unless(
        &self,
        inputs: Vec<Tensor>,
        cancellation: Option<&Cancellation>,
    ) -> Result<(Vec<Tensor>, Duration), BackendError> {
        let size = size(&inputs);
        let start = Instant::now();
        let outputs = catch_panic(|| match cancellation {
            Some(cancellation) => self.graph.compute_unless(inputs, cancellation),
            None => self.graph.compute(inputs),
        })?;
        if outputs.len() != self.graph.outputs().len() {
            return Err(BackendError::Runtime(format!(
                "the backend returned {} outputs; the graph has {}",
                outputs.len(),
                self.graph.outputs().len()
            )));
        }
        // Concurrent threads may overwrite each other's mean: either is good enough.
        let took = start.elapsed();
        let nanos = took.as_secs_f32() * 1e9;
        let mean = f32::from_bits(self.nanos_per_byte.load(Ordering::Relaxed));
        let mean = next_mean(mean, nanos / size);
        self.nanos_per_byte.store(mean.to_bits(), Ordering::Relaxed);
        if nanos < f32::from_bits(self.min_nanos.load(Ordering::Relaxed)) {
            self.min_nanos.store(nanos.to_bits(), Ordering::Relaxed);
        }
        Ok((outputs, took))
    }
}

/// An input of zeros, with each free axis of size 1; `None` if its shape is unknown or too large.
fn zeros(info: &TensorInfo) -> Option<Tensor> {
    let dimensions: Vec<u32> = info.shape.as_ref()?.iter().map(|axis| axis.unwrap_or(1)).collect();
    // An empty string consists of its length.
    let element = info.ty.size().unwrap_or(4);
    let bytes = dimensions
        .iter()
        .try_fold(element, |bytes, &axis| bytes.checked_mul(axis as usize))
        .filter(|&bytes| bytes <= WARM_UP_BYTES)?;
    Some(Tensor { dimensions, ty: info.ty, data: vec![0; bytes] })
}

/// Size of the inputs, in bytes, at least 1.
#[expect(clippy::cast_precision_loss, reason = "an estimate")]
fn size(inputs: &[Tensor]) -> f32 {
    inputs.iter().map(|tensor| tensor.data.len()).sum::<usize>().max(1) as f32
}

/// A running mean that falls fast and rises slowly: a thread that waits for a processor takes longer,
/// but none takes less than the inference needs. A sample counts at most as four times the mean.
fn next_mean(mean: f32, sample: f32) -> f32 {
    if !mean.is_finite() {
        sample
    } else if sample < mean {
        mean + (sample - mean) / 2.0
    } else {
        mean + (sample.min(4.0 * mean) - mean) / 8.0
    }
}

/// Turns a panic of a backend into an error.
pub(super) fn catch_panic<T>(
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
    use spinfer_backend::TensorType;

    use super::*;

    /// Returns its inputs after a given time; panics on empty inputs.
    #[derive(Debug)]
    struct FakeBackend {
        infos: Vec<TensorInfo>,
        takes: Duration,
    }

    impl Graph for FakeBackend {
        fn inputs(&self) -> &[TensorInfo] {
            &self.infos
        }

        fn outputs(&self) -> &[TensorInfo] {
            &self.infos
        }

        fn compute(&self, inputs: Vec<Tensor>) -> Result<Vec<Tensor>, BackendError> {
            assert!(!inputs[0].data.is_empty(), "on purpose");
            let start = Instant::now();
            while start.elapsed() < self.takes {
                std::hint::spin_loop();
            }
            Ok(inputs)
        }
    }

    fn loaded(shape: Option<Vec<Option<u32>>>, takes: Duration) -> LoadedGraph {
        let infos = vec![TensorInfo {
            name: "x".into(),
            ty: TensorType::U8,
            shape,
            axis_names: Vec::new(),
        }];
        LoadedGraph::new(Arc::new(FakeBackend { infos, takes }))
    }

    fn bytes(count: usize) -> Vec<Tensor> {
        vec![Tensor { dimensions: Vec::new(), ty: TensorType::U8, data: vec![0; count] }]
    }

    #[test]
    fn panic_of_a_backend_is_an_error() {
        let error = loaded(None, Duration::ZERO).run(bytes(0)).unwrap_err();
        assert!(error.to_string().contains("panicked: on purpose"), "{error}");
    }

    #[test]
    fn mean_follows_the_samples() {
        assert_eq!(next_mean(f32::INFINITY, 900.0), 900.0);
        let fallen = (0..10).fold(900.0, |mean, _| next_mean(mean, 16.0));
        assert!((16.0..32.0).contains(&fallen), "{fallen}");
        let risen = (0..50).fold(16.0, |mean, _| next_mean(mean, 900.0));
        assert!((800.0..=900.0).contains(&risen), "{risen}");
        assert!(next_mean(16.0, 1e9) < 25.0, "one stall has little effect");
    }

    #[test]
    fn fast_graph_is_inline_for_small_inputs_after_its_warm_up() {
        let graph = loaded(Some(vec![None, Some(4)]), Duration::ZERO);
        assert!(!graph.is_inline(&bytes(4), Placement::Auto), "not measured yet");
        graph.warm_up();
        assert!(graph.is_inline(&bytes(4), Placement::Auto));
        assert!(!graph.is_inline(&bytes(1 << 30), Placement::Auto), "expected to take long");
        assert!(!graph.is_inline(&bytes(4), Placement::ComputeThread));
    }

    #[test]
    fn slow_graph_is_inline_only_if_its_placement_requires_it() {
        let graph = loaded(Some(vec![None, Some(4)]), Duration::from_millis(2));
        graph.warm_up();
        assert!(!graph.is_inline(&bytes(4), Placement::Auto));
        assert!(graph.is_inline(&bytes(4), Placement::Inline));
    }

    #[test]
    fn measurements_of_large_inputs_do_not_underestimate_small_ones() {
        let graph = loaded(None, Duration::from_millis(2));
        for _ in 0..20 {
            graph.run(bytes(1 << 20)).unwrap();
        }
        assert!(!graph.is_inline(&bytes(4), Placement::Auto));
    }

    #[test]
    fn graph_with_unknown_or_huge_shape_has_no_warm_up() {
        for shape in [None, Some(vec![Some(u32::MAX); 3]), Some(vec![Some(17 << 20)])] {
            let graph = loaded(shape, Duration::ZERO);
            graph.warm_up();
            assert!(!graph.is_inline(&bytes(1), Placement::Auto));
        }
    }
}
