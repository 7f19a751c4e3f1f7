//! What a graph takes and gives, found by loading it as the host would and running it.

use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use prost::Message;
use spinfer_backend::{Backend, Encoding, ExecutionTarget, Tensor, TensorInfo, TensorType};

use super::onnx::{self, Model};
use crate::commands::signature;
use crate::inference::{LoadRequest, Loaded, LoadedGraph, load_with_first};

/// A graph that can be served.
#[derive(Debug)]
pub(in crate::commands) struct Examined {
    /// The backend that runs it.
    pub(in crate::commands) backend: &'static str,
    pub(in crate::commands) inputs: Vec<signature::Tensor>,
    pub(in crate::commands) outputs: Vec<signature::Tensor>,
    /// What wrote the file, with its version; empty if it does not say.
    pub(in crate::commands) producer: String,
    /// Whether it may give something else for the same.
    pub(in crate::commands) random: bool,
    /// Why it could not be run here, where that need not mean that it cannot be.
    pub(in crate::commands) not_run: Option<String>,
}

/// Of a tensor: the request protocols take no more.
const AXES_MOST: usize = 16;
/// Of the inputs that are made up to run the graph.
const BYTES_MOST: usize = 256 << 20;

pub(in crate::commands) fn examine(
    bytes: &[u8],
    backends: &[Arc<dyn Backend>],
) -> Result<Examined> {
    check_whole(bytes)?;
    let (encoding, target) = (Encoding::Onnx, ExecutionTarget::Cpu);
    let request = LoadRequest::default();
    let Loaded { backend, graph, .. } =
        load_with_first(backends, bytes, encoding, target, request)?;
    let shapes = Shapes::find(&graph)?;
    let tensors = |infos: &[TensorInfo], shapes: Vec<Vec<i64>>| {
        let with = |(info, shape)| signature::Tensor { shape: Some(shape), ..info };
        infos.iter().map(signature::Tensor::from).zip(shapes).map(with).collect::<Vec<_>>()
    };
    let inputs = tensors(graph.inputs(), shapes.inputs);
    let outputs = tensors(graph.outputs(), shapes.outputs);
    ensure!(!inputs.is_empty(), "it has no input: there is nothing to predict from");
    for tensor in inputs.iter().chain(&outputs) {
        let shape = tensor.shape.as_deref().unwrap_or_default();
        ensure!(
            shape.len() <= AXES_MOST && !shape.contains(&0),
            "`{}` has the shape {shape:?}; at most {AXES_MOST} axes can be served, and none of size 0",
            tensor.name
        );
    }
    let model = Model::decode(bytes).unwrap_or_default();
    let random = model.graph.as_ref().is_some_and(onnx::Graph::is_random);
    let (producer, not_run) = (producer(model), shapes.not_run);
    Ok(Examined { backend, inputs, outputs, producer, random, not_run })
}

fn producer(model: Model) -> String {
    [model.producer_name, model.producer_version].join(" ").trim().to_owned()
}

/// Refuses what a backend would take for a broken graph.
fn check_whole(bytes: &[u8]) -> Result<()> {
    ensure!(!bytes.is_empty(), "it is empty");
    let Ok(Model { graph: Some(graph), .. }) = Model::decode(bytes) else {
        return Ok(());
    };
    let elsewhere: Option<&onnx::Tensor> =
        graph.initializer.iter().find(|tensor| tensor.data_location == 1);
    match elsewhere {
        Some(tensor) => bail!(
            "the weights `{}` are in another file, and a version is one file: load it with the `onnx` \
             package and save it again with save_as_external_data=False",
            tensor.name
        ),
        None => Ok(()),
    }
}

/// The shapes as they are found; -1 is a free axis.
struct Shapes {
    inputs: Vec<Vec<i64>>,
    outputs: Vec<Vec<i64>>,
    not_run: Option<String>,
}

impl Shapes {
    /// Converters often declare shapes that are not what a graph gives: it is asked.
    fn find(graph: &Arc<LoadedGraph>) -> Result<Self> {
        let mut inputs = graph
            .inputs()
            .iter()
            .map(|info| {
                info.shape.clone().with_context(|| {
                    format!(
                        "the graph does not say how many axes its input `{}` has; convert it again \
                         with a shape",
                        info.name
                    )
                })
            })
            .collect::<Result<Vec<_>>>()?;
        let is_batch = |shape: &Vec<Option<u32>>| shape.first() == Some(&None);
        let batch = inputs.iter().any(is_batch);
        let others = inputs.iter().any(|shape| shape.iter().skip(1).any(Option::is_none));
        let one = match run(graph, &inputs, 1) {
            Ok(one) => one,
            // Of the sizes it takes, 1 is not one.
            Err(why) if others => return Self::declared(graph, &inputs, why.to_string()),
            Err(why) if graph.inputs().iter().any(|info| info.ty == TensorType::Fp64) => bail!(
                "it loads, but it does not run: {why:#}; more operators take FP32 than FP64: convert \
                 it again with inputs of FP32"
            ),
            Err(why) => bail!("it loads, but it does not run: {why:#}"),
        };
        let two = if batch { run(graph, &inputs, 2).ok() } else { None };
        if batch && two.is_none() {
            // It says that it takes any number of rows, and takes one.
            inputs.iter_mut().filter(|shape| is_batch(shape)).for_each(|shape| shape[0] = Some(1));
        }
        let outputs = graph.outputs().iter().enumerate().map(|(index, info)| {
            let first = &one[index].dimensions;
            let second = two.as_ref().map_or(first, |two| &two[index].dimensions);
            let fixed = |axis: usize| {
                let declared = info.shape.as_ref().and_then(|shape| shape.get(axis));
                first.get(axis) == second.get(axis) && (!others || declared != Some(&None))
            };
            let size = |(axis, &size): (usize, &u32)| if fixed(axis) { size.into() } else { -1 };
            first.iter().enumerate().map(size).collect()
        });
        Ok(Self { outputs: outputs.collect(), inputs: axes(&inputs), not_run: None })
    }

    /// As the graph declares them.
    fn declared(graph: &LoadedGraph, inputs: &[Vec<Option<u32>>], why: String) -> Result<Self> {
        let outputs = graph
            .outputs()
            .iter()
            .map(|info| {
                info.shape.clone().with_context(|| {
                    format!(
                        "the graph does not say what shape its output `{}` has, and it cannot be run \
                         to find out: {why}",
                        info.name
                    )
                })
            })
            .collect::<Result<Vec<_>>>()?;
        Ok(Self { inputs: axes(inputs), outputs: axes(&outputs), not_run: Some(why) })
    }
}

fn axes(shapes: &[Vec<Option<u32>>]) -> Vec<Vec<i64>> {
    let axes =
        |shape: &Vec<Option<u32>>| shape.iter().map(|axis| axis.map_or(-1, i64::from)).collect();
    shapes.iter().map(axes).collect()
}

/// Runs the graph on zeros: `rows` of them, other free axes 1.
fn run(graph: &LoadedGraph, inputs: &[Vec<Option<u32>>], rows: u32) -> Result<Vec<Tensor>> {
    let mut bytes = 0_usize;
    let zeros = graph.inputs().iter().zip(inputs).map(|(info, shape)| {
        let size =
            |(axis, size): (usize, &Option<u32>)| size.unwrap_or(if axis == 0 { rows } else { 1 });
        let dimensions: Vec<u32> = shape.iter().enumerate().map(size).collect();
        // A string takes the length it has none of.
        let element = info.ty.size().unwrap_or(4);
        let elements =
            dimensions.iter().try_fold(element, |size, &axis| size.checked_mul(axis as usize));
        bytes = bytes.saturating_add(elements.unwrap_or(usize::MAX));
        ensure!(bytes <= BYTES_MOST, "one row of its inputs takes more than 256 MiB");
        Ok(Tensor { dimensions, ty: info.ty, data: vec![0; elements.unwrap_or_default()] })
    });
    let zeros = zeros.collect::<Result<Vec<_>>>()?;
    Ok(graph.run(zeros)?.0)
}
