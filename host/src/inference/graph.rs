//! A loaded graph, how long it takes, and the thread an inference runs on.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde::Deserialize;
use spinfer_backend::{Cancellation, Error as BackendError, Graph, Tensor, TensorInfo};

use crate::metrics::histogram::Histogram;

/// An inference expected to take longer than this leaves the thread that polls connections. A hop
/// to another thread and back costs 10-20 microseconds, so for shorter ones it would not pay.
const INLINE_NANOSECONDS: f32 = 200_000.0;
/// A graph is run after loading until that took so long, to know its pace; a slow one runs once.
const WARM_UP: Duration = Duration::from_millis(1);
const WARM_UP_RUNS: usize = 3;
/// The largest input that is made up for that.
const WARM_UP_BYTES: usize = 16 << 20;

/// Where inferences of a model run: `placement` of a `model.toml`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Placement {
    /// By what they are expected to take.
    #[default]
    Auto,
    /// On the thread that polls the connection, which others wait for meanwhile.
    Inline,
    /// On a compute thread.
    ComputeThread,
}

/// A graph, compiled once and shared.
#[derive(Debug)]
pub struct LoadedGraph {
    graph: Arc<dyn Graph>,
    /// What an inference takes, in nanoseconds for each byte of input, as a running mean: the bits
    /// of an `f32`. Infinite until it is measured. By the byte, as one request may bring one row
    /// and the next one thousands.
    pace: AtomicU32,
    /// The least an inference took, in nanoseconds, of whatever size: the bits of an `f32`. Nothing
    /// takes less, however few its bytes.
    least: AtomicU32,
}

impl LoadedGraph {
    #[must_use]
    pub fn new(graph: Arc<dyn Graph>) -> Self {
        let unknown = || AtomicU32::new(f32::INFINITY.to_bits());
        Self { graph, pace: unknown(), least: unknown() }
    }

    #[must_use]
    pub fn inputs(&self) -> &[TensorInfo] {
        self.graph.inputs()
    }

    #[must_use]
    pub fn outputs(&self) -> &[TensorInfo] {
        self.graph.outputs()
    }

    /// Measures the pace on zeros, each free axis 1, so that the first request already runs in the
    /// right place and finds code and weights in the caches.
    pub fn warm_up(&self) {
        let Some(zeros) = self.inputs().iter().map(zeros).collect::<Option<Vec<_>>>() else {
            return;
        };
        let start = Instant::now();
        for _ in 0..WARM_UP_RUNS {
            // Not every graph takes every size; then the first request will tell.
            if self.run(zeros.clone()).is_err() || start.elapsed() > WARM_UP {
                break;
            }
        }
    }

    /// Whether an inference may run where connections are polled.
    #[must_use]
    pub fn is_inline(&self, inputs: &[Tensor], placement: Placement) -> bool {
        match placement {
            // A client could keep the thread for as long as it likes.
            _ if self.graph.time_depends_on_values() => false,
            Placement::Inline => true,
            Placement::ComputeThread => false,
            Placement::Auto => {
                let of = |bits: &AtomicU32| f32::from_bits(bits.load(Ordering::Relaxed));
                (of(&self.pace) * size(inputs)).max(of(&self.least)) <= INLINE_NANOSECONDS
            }
        }
    }

    /// [`Self::run_unless`], which tells `times` how long it took.
    pub fn run_timed(
        &self,
        inputs: Vec<Tensor>,
        cancellation: Option<&Cancellation>,
        times: &Histogram,
    ) -> Result<Vec<Tensor>, BackendError> {
        let (outputs, took) = self.run_unless(inputs, cancellation)?;
        times.took(took);
        Ok(outputs)
    }

    /// Runs the graph here and now on inputs already bound; its outputs, and how long it took.
    pub fn run(&self, inputs: Vec<Tensor>) -> Result<(Vec<Tensor>, Duration), BackendError> {
        self.run_unless(inputs, None)
    }

    /// [`Self::run`], which ends early if `cancellation` is cancelled and the backend can.
    pub fn run_unless(
        &self,
        inputs: Vec<Tensor>,
        cancellation: Option<&Cancellation>,
    ) -> Result<(Vec<Tensor>, Duration), BackendError> {
        let size = size(&inputs);
        let start = Instant::now();
        let outputs = without_panic(|| match cancellation {
            Some(cancellation) => self.graph.compute_unless(inputs, cancellation),
            None => self.graph.compute(inputs),
        })?;
        if outputs.len() != self.graph.outputs().len() {
            return Err(BackendError::Runtime(format!(
                "the backend gave {} outputs",
                outputs.len()
            )));
        }
        // Two threads may overwrite each other's mean: either is good enough.
        let took = start.elapsed();
        let nanoseconds = took.as_secs_f32() * 1e9;
        let mean = f32::from_bits(self.pace.load(Ordering::Relaxed));
        let mean = next_mean(mean, nanoseconds / size);
        self.pace.store(mean.to_bits(), Ordering::Relaxed);
        if nanoseconds < f32::from_bits(self.least.load(Ordering::Relaxed)) {
            self.least.store(nanoseconds.to_bits(), Ordering::Relaxed);
        }
        Ok((outputs, took))
    }
}

/// One row of zeros; `None` where the graph does not say its shape, or it is very large.
fn zeros(info: &TensorInfo) -> Option<Tensor> {
    let dimensions: Vec<u32> = info.shape.as_ref()?.iter().map(|axis| axis.unwrap_or(1)).collect();
    // A string of no bytes has its length.
    let element = info.ty.size().unwrap_or(4);
    let bytes = dimensions
        .iter()
        .try_fold(element, |bytes, &axis| bytes.checked_mul(axis as usize))
        .filter(|&bytes| bytes <= WARM_UP_BYTES)?;
    Some(Tensor { dimensions, ty: info.ty, data: vec![0; bytes] })
}

/// Bytes of input, at least one.
#[expect(clippy::cast_precision_loss, reason = "an estimate")]
fn size(inputs: &[Tensor]) -> f32 {
    inputs.iter().map(|tensor| tensor.data.len()).sum::<usize>().max(1) as f32
}

/// A running mean that is quick to fall and slow to rise: a thread that waits for a processor takes
/// longer, and nothing takes less. A sample counts as four times the mean at most.
fn next_mean(mean: f32, sample: f32) -> f32 {
    if !mean.is_finite() {
        sample
    } else if sample < mean {
        mean + (sample - mean) / 2.0
    } else {
        mean + (sample.min(4.0 * mean) - mean) / 8.0
    }
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
    use spinfer_backend::TensorType;

    use super::*;

    /// Adds nothing, quickly or in a millisecond; panics if it is given nothing.
    #[derive(Debug)]
    struct Fake {
        infos: Vec<TensorInfo>,
        takes: Duration,
    }

    impl Graph for Fake {
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
        LoadedGraph::new(Arc::new(Fake { infos, takes }))
    }

    fn bytes(count: usize) -> Vec<Tensor> {
        vec![Tensor { dimensions: Vec::new(), ty: TensorType::U8, data: vec![0; count] }]
    }

    #[test]
    fn a_panic_in_a_backend_is_its_error() {
        let error = loaded(None, Duration::ZERO).run(bytes(0)).unwrap_err();
        assert!(error.to_string().contains("panicked: on purpose"), "{error}");
    }

    #[test]
    fn the_mean_follows_what_is_measured() {
        assert_eq!(next_mean(f32::INFINITY, 900.0), 900.0);
        let fallen = (0..10).fold(900.0, |mean, _| next_mean(mean, 16.0));
        assert!((16.0..32.0).contains(&fallen), "{fallen}");
        let risen = (0..50).fold(16.0, |mean, _| next_mean(mean, 900.0));
        assert!((800.0..=900.0).contains(&risen), "{risen}");
        assert!(next_mean(16.0, 1e9) < 25.0, "one stall says little");
    }

    #[test]
    fn after_its_warm_up_a_quick_graph_is_inline_for_small_inputs() {
        let graph = loaded(Some(vec![None, Some(4)]), Duration::ZERO);
        assert!(!graph.is_inline(&bytes(4), Placement::Auto), "not measured yet");
        graph.warm_up();
        assert!(graph.is_inline(&bytes(4), Placement::Auto));
        assert!(!graph.is_inline(&bytes(1 << 30), Placement::Auto), "as many times longer");
        assert!(!graph.is_inline(&bytes(4), Placement::ComputeThread));
    }

    #[test]
    fn a_slow_graph_is_not_unless_it_has_to_be() {
        let graph = loaded(Some(vec![None, Some(4)]), Duration::from_millis(2));
        graph.warm_up();
        assert!(!graph.is_inline(&bytes(4), Placement::Auto));
        assert!(graph.is_inline(&bytes(4), Placement::Inline));
    }

    #[test]
    fn large_inputs_do_not_make_small_ones_look_free() {
        let graph = loaded(None, Duration::from_millis(2));
        for _ in 0..20 {
            graph.run(bytes(1 << 20)).unwrap();
        }
        assert!(!graph.is_inline(&bytes(4), Placement::Auto));
    }

    #[test]
    fn without_a_shape_or_with_a_huge_one_there_is_no_warm_up() {
        for shape in [None, Some(vec![Some(u32::MAX); 3]), Some(vec![Some(17 << 20)])] {
            let graph = loaded(shape, Duration::ZERO);
            graph.warm_up();
            assert!(!graph.is_inline(&bytes(1), Placement::Auto));
        }
    }
}
