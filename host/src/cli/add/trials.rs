//! Trial runs of a graph on generated or given inputs at several sizes of its free axes, to find the
//! sizes it accepts and the shapes of its outputs.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use fastrand::Rng;
use spinfer_backend::{Cancellation, Tensor};

use super::axes::Axes;
use super::uses::Uses;
use super::values::{self, SampleKind, resized};
use crate::inference::LoadedGraph;

/// Maximum duration of one run.
const MAX_RUN: Duration = Duration::from_secs(60);
/// After this time no further run is started, if one has succeeded.
const MAX_TRIALS: Duration = Duration::from_secs(60);
/// After this time the search for a first successful run ends.
const MAX_SEARCH: Duration = Duration::from_secs(180);
/// Sizes tried for free axes: common sizes of images, windows and sequences.
const SIZES: [u32; 16] = [3, 4, 5, 7, 8, 16, 28, 32, 48, 64, 96, 128, 224, 256, 384, 512];
/// Maximum number of free axes that are varied one by one. Further axes vary with the last of them.
const MAX_AXES: usize = 12;

/// A successful run.
#[derive(Clone, Debug)]
pub(super) struct TrialRun {
    /// Sizes of the free axes.
    pub(super) sizes: Vec<u32>,
    /// Dimensions of each output.
    pub(super) outputs: Vec<Vec<u32>>,
}

/// Whether an axis is free.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Freedom {
    /// The graph ran at other sizes, except the failed ones.
    Free { failed: Vec<u32> },
    /// The graph ran at other sizes if these axes change together.
    Together(Vec<usize>),
    /// The graph ran at one size only, and not at the failed ones.
    Fixed { failed: Vec<u32> },
    /// No time was left to try other sizes.
    Unknown,
}

/// The trial runs of a graph.
pub(super) struct Trials<'a> {
    graph: &'a LoadedGraph,
    pub(super) axes: Axes,
    uses: &'a [Uses],
    example: Option<&'a [Tensor]>,
    started: Instant,
    /// Kind of generated values on which the graph ran.
    pub(super) kind: SampleKind,
    /// The first run is the one the others vary.
    pub(super) runs: Vec<TrialRun>,
    /// The smallest inputs on which the graph ran, or the example.
    pub(super) sample: Vec<Tensor>,
    pub(super) freedom: Vec<Freedom>,
}

impl<'a> Trials<'a> {
    /// Runs the graph, whose inputs have these `axes` and `uses`, on an example or generated values.
    pub(super) fn run(
        graph: &'a LoadedGraph,
        axes: Axes,
        uses: &'a [Uses],
        example: Option<&'a [Tensor]>,
    ) -> Result<Self> {
        let mut trials = Self {
            graph,
            axes,
            uses,
            example,
            started: Instant::now(),
            kind: SampleKind::Likely,
            runs: Vec::new(),
            sample: Vec::new(),
            freedom: Vec::new(),
        };
        match example {
            Some(example) => {
                let sizes = trials.axes.sizes_of(example);
                trials.attempt(&sizes).context("--example: the graph does not run on it")?;
            }
            None => trials.search()?,
        }
        trials.vary();
        Ok(trials)
    }

    /// Runs the graph again on other values, which may decide the shapes of its outputs.
    pub(super) fn repeat(&mut self) {
        let sizes = self.runs[0].sizes.clone();
        for _ in 0..2 {
            // The graph may fail on other values.
            let _ = self.attempt(&sizes);
        }
    }

    /// Finds the first sizes and values on which the graph runs.
    fn search(&mut self) -> Result<()> {
        let candidates = self.candidates();
        let mut first = None;
        for kind in [SampleKind::Likely, SampleKind::Ones, SampleKind::Zeros] {
            self.kind = kind;
            for sizes in &candidates {
                match self.attempt(sizes) {
                    Ok(()) => return Ok(()),
                    Err(error) if first.is_none() => first = Some(error),
                    Err(_) => {}
                }
                if self.started.elapsed() > MAX_SEARCH {
                    break;
                }
            }
        }
        let sizes: Vec<_> = [2, 1].into_iter().chain(SIZES).map(|size| size.to_string()).collect();
        let sizes = match self.axes.free.as_slice() {
            [] => String::new(),
            _ => format!(", with free axes of the sizes {}", sizes.join(", ")),
        };
        bail!(
            "the graph loads, but does not run on generated values{sizes}: {:#}. Pass inputs that it \
             accepts: --example request.json, or --example inputs.npz",
            first.unwrap_or_else(|| anyhow::anyhow!("no time was left for a run"))
        )
    }

    /// Candidate sizes of the free axes for the first run, in order.
    fn candidates(&self) -> Vec<Vec<u32>> {
        let free = &self.axes.free;
        let mut candidates: Vec<Vec<u32>> = vec![vec![2; free.len()], vec![1; free.len()]];
        let rows = free.iter().position(|axis| axis.name.to_ascii_lowercase().contains("batch"));
        let rows = rows.or_else(|| free.iter().position(|axis| axis.first.1 == 0));
        for size in SIZES {
            // The number of rows is usually free; the graph may restrict the other axes.
            let firsts = if free.len() > 1 { [2, 1] } else { [size; 2] };
            for first in firsts {
                let of = |axis| if rows == Some(axis) { first } else { size };
                candidates.push((0..free.len()).map(of).collect());
            }
        }
        candidates.dedup();
        if free.is_empty() { vec![Vec::new()] } else { candidates }
    }

    /// Varies the size of each free axis alone, then of all fixed ones together.
    fn vary(&mut self) {
        let count = self.axes.free.len();
        self.freedom = vec![Freedom::Unknown; count];
        let mut fixed = Vec::new();
        for axis in 0..count.min(MAX_AXES) {
            // Axes over the limit vary with the last one.
            let axes: Vec<usize> =
                if axis + 1 == MAX_AXES { (axis..count).collect() } else { vec![axis] };
            let freedom = self.freedom_of(&axes);
            if matches!(freedom, Freedom::Fixed { .. }) {
                fixed.extend(&axes);
            }
            axes.iter().for_each(|&axis| self.freedom[axis] = freedom.clone());
        }
        if fixed.len() > 1 && matches!(self.freedom_of(&fixed), Freedom::Free { .. }) {
            for &axis in &fixed {
                self.freedom[axis] = Freedom::Together(fixed.clone());
            }
        }
    }

    fn freedom_of(&mut self, axes: &[usize]) -> Freedom {
        let base = self.runs[0].sizes.clone();
        let first = base[axes[0]];
        // A single axis becomes 1, 2 and 3; several change by the same amount, as one may be a sum.
        let mut sizes: Vec<Vec<u32>> = Vec::new();
        let mut push = |change: &dyn Fn(u32) -> Option<u32>| {
            let mut changed = base.clone();
            let all = axes.iter().all(|&axis| match change(base[axis]) {
                Some(size) => {
                    changed[axis] = size;
                    true
                }
                None => false,
            });
            if all && changed != base && !sizes.contains(&changed) {
                sizes.push(changed);
            }
        };
        if axes.len() == 1 {
            [1, 2, 3].iter().for_each(|&size| push(&|_| Some(size)));
        }
        push(&|size| size.checked_add(1));
        push(&|size| size.checked_mul(2));
        push(&|size| size.checked_sub(1).filter(|&size| size > 0));
        if first > 8 {
            push(&|size| Some(size / 2));
            push(&|size| size.checked_add(32));
        }
        let (mut ran, mut failed) = (0, Vec::new());
        for sizes in sizes {
            // Two other sizes show that an axis is free.
            if ran >= 2 {
                break;
            }
            if self.started.elapsed() > MAX_TRIALS {
                return if ran > 0 { Freedom::Free { failed } } else { Freedom::Unknown };
            }
            match self.attempt(&sizes) {
                Ok(()) => ran += 1,
                Err(_) => failed.push(sizes[axes[0]]),
            }
        }
        if ran > 0 { Freedom::Free { failed } } else { Freedom::Fixed { failed } }
    }

    fn attempt(&mut self, sizes: &[u32]) -> Result<()> {
        let dimensions = self.axes.dimensions(sizes).context("an axis would be negative")?;
        let mut random = Rng::with_seed(self.runs.len() as u64);
        let infos = self.graph.inputs().iter().zip(self.uses);
        let inputs: Vec<Tensor> = match self.example {
            Some(example) => {
                let resized = example.iter().zip(dimensions).map(|(t, to)| resized(t, to));
                resized.collect::<Result<_>>()?
            }
            None => infos
                .zip(dimensions)
                .map(|((info, uses), to)| values::tensor(info, uses, to, self.kind, &mut random))
                .collect::<Result<_>>()?,
        };
        let size = |inputs: &[Tensor]| inputs.iter().map(|input| input.data.len()).sum::<usize>();
        ensure!(size(&inputs) <= values::MAX_BYTES, "the inputs take more than 256 MiB");
        let smallest =
            self.runs.is_empty() || self.example.is_none() && size(&inputs) < size(&self.sample);
        let sample = smallest.then(|| inputs.clone());
        let outputs = run_within(self.graph, inputs, MAX_RUN)?;
        let outputs = outputs.into_iter().map(|output| output.dimensions).collect();
        self.runs.push(TrialRun { sizes: sizes.to_vec(), outputs });
        if let Some(sample) = sample {
            self.sample = sample;
        }
        Ok(())
    }
}

/// Runs the graph for at most `limit`, if its backend can cancel a run.
fn run_within(graph: &LoadedGraph, inputs: Vec<Tensor>, limit: Duration) -> Result<Vec<Tensor>> {
    let cancellation = Cancellation::default();
    let (done, is_done) = mpsc::channel::<()>();
    let outputs = thread::scope(|scope| {
        let watched = &cancellation;
        scope.spawn(move || {
            if is_done.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
                watched.cancel();
            }
        });
        let outputs = graph.run_unless(inputs, Some(&cancellation));
        drop(done);
        outputs
    });
    if outputs.is_err() && cancellation.is_cancelled() {
        bail!("the run did not finish within {} seconds", limit.as_secs());
    }
    Ok(outputs?.0)
}

#[cfg(test)]
pub(super) mod tests {
    use std::fmt;
    use std::sync::Arc;

    use spinfer_backend::{Error, Graph, TensorInfo, TensorType};

    use super::*;

    type Compute = fn(&[Tensor]) -> Result<Vec<Vec<u32>>, &'static str>;

    /// A graph of integers that computes only the dimensions of its outputs.
    struct FakeGraph {
        inputs: Vec<TensorInfo>,
        outputs: Vec<TensorInfo>,
        compute: Compute,
    }

    impl fmt::Debug for FakeGraph {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("Fake")
        }
    }

    impl Graph for FakeGraph {
        fn inputs(&self) -> &[TensorInfo] {
            &self.inputs
        }

        fn outputs(&self) -> &[TensorInfo] {
            &self.outputs
        }

        fn compute(&self, inputs: Vec<Tensor>) -> Result<Vec<Tensor>, Error> {
            let outputs =
                (self.compute)(&inputs).map_err(|why| Error::InvalidArgument(why.into()))?;
            let tensor = |dimensions| Tensor { dimensions, ty: TensorType::I64, data: Vec::new() };
            Ok(outputs.into_iter().map(tensor).collect())
        }
    }

    /// A tensor with axes given as names or sizes; `?` is an axis without a name.
    fn info(axes: &str) -> TensorInfo {
        let axes: Vec<&str> = axes.split_whitespace().collect();
        let name =
            |axis: &str| (axis.parse::<u32>().is_err() && axis != "?").then(|| axis.to_owned());
        TensorInfo {
            name: format!("x{}", axes.len()),
            ty: TensorType::I64,
            shape: Some(axes.iter().map(|axis| axis.parse().ok()).collect()),
            axis_names: axes.iter().map(|axis| name(axis)).collect(),
        }
    }

    pub(in crate::cli::add) fn graph(
        inputs: &[&str],
        outputs: &[&str],
        compute: Compute,
    ) -> LoadedGraph {
        let infos = |axes: &[&str]| axes.iter().map(|axes| info(axes)).collect();
        let (inputs, outputs) = (infos(inputs), infos(outputs));
        LoadedGraph::new(Arc::new(FakeGraph { inputs, outputs, compute }))
    }

    pub(in crate::cli::add) fn tried(graph: &LoadedGraph) -> Result<Trials<'_>> {
        let shapes: Vec<_> = graph.inputs().iter().flat_map(|info| info.shape.clone()).collect();
        let axes = Axes::of(graph.inputs(), &shapes);
        let uses = Box::leak(vec![Uses::default(); graph.inputs().len()].into_boxed_slice());
        Trials::run(graph, axes, uses, None)
    }

    fn freedom(inputs: &[&str], compute: Compute) -> Vec<Freedom> {
        let graph = graph(inputs, &[""], compute);
        tried(&graph).unwrap().freedom
    }

    fn free() -> Freedom {
        Freedom::Free { failed: Vec::new() }
    }

    #[test]
    fn axis_is_free_if_other_sizes_run() {
        let any: Compute = |_| Ok(vec![vec![]]);
        assert_eq!(freedom(&["n 3", "n m"], any), [free(), free()]);
        assert_eq!(freedom(&["2 3"], any), []);
        let one: Compute =
            |inputs| if inputs[0].dimensions[0] == 1 { Ok(vec![vec![]]) } else { Err("not 1") };
        assert_eq!(freedom(&["n"], one), [Freedom::Fixed { failed: vec![2, 3] }]);
        // As in image models that halve the size several times.
        let halved: Compute = |inputs| match inputs[0].dimensions[1] {
            size if size.is_multiple_of(32) => Ok(vec![vec![]]),
            _ => Err("not a multiple of 32"),
        };
        let height = Freedom::Free { failed: vec![1, 2, 3, 33, 31, 16] };
        assert_eq!(freedom(&["batch height"], halved), [free(), height]);
    }

    #[test]
    fn axes_that_vary_only_together_are_found() {
        let equal: Compute = |inputs| match (&inputs[0].dimensions[..], &inputs[1].dimensions[..]) {
            ([_, a], [_, b]) if a == b => Ok(vec![vec![]]),
            _ => Err("not equal"),
        };
        let together = || Freedom::Together(vec![1, 2]);
        assert_eq!(freedom(&["n a", "n b"], equal), [free(), together(), together()]);
    }

    #[test]
    fn other_values_are_tried_until_the_graph_runs() {
        let positive: Compute = |inputs| {
            let zero = inputs[0].data.as_chunks::<8>().0.contains(&[0; 8]);
            if zero { Err("a zero") } else { Ok(vec![vec![]]) }
        };
        let ones = graph(&["9"], &[""], positive);
        assert_eq!(tried(&ones).unwrap().kind, SampleKind::Ones);
        let none = graph(&["n"], &[""], |_| Err("no value will do"));
        let error = tried(&none).err().unwrap().to_string();
        for part in ["of the sizes 2, 1, 3", "no value will do", "--example request.json"] {
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn sample_is_the_smallest_input_that_ran() {
        let any: Compute = |_| Ok(vec![vec![]]);
        assert_eq!(tried(&graph(&["n 3"], &[""], any)).unwrap().sample[0].dimensions, [1, 3]);
    }

    #[test]
    fn example_is_resized_to_other_sizes() {
        let sevens: Compute = |inputs| {
            let sevens =
                inputs[0].data.as_chunks::<8>().0.iter().all(|b| *b == 7_i64.to_le_bytes());
            if sevens { Ok(vec![inputs[0].dimensions.clone()]) } else { Err("not 7") }
        };
        let graph = graph(&["n"], &["n"], sevens);
        let data = 7_i64.to_le_bytes().repeat(4);
        let example = [Tensor { dimensions: vec![4], ty: TensorType::I64, data }];
        let axes = Axes::of(graph.inputs(), &[vec![None]]);
        let trials = Trials::run(&graph, axes, &[], Some(&example)).unwrap();
        assert_eq!((trials.freedom, trials.sample), (vec![free()], example.to_vec()));
        assert!(trials.runs.len() > 2);
    }
}
