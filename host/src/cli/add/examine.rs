//! Examines the inputs and outputs of a graph by loading and running it as the host does.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use prost::Message;
use spinfer_backend::{Backend, Encoding, ExecutionTarget, Tensor, TensorInfo};
use spinfer_onnx::{GraphProto, ModelProto};

use super::axes::Axes;
use super::example::Example;
use super::onnx::{declared_shape, is_random};
use super::shapes::{Declared, Shapes};
use super::trials::Trials;
use super::uses::{Uses, ValueMap};
use crate::cli::models::reason;
use crate::cli::signature;
use crate::inference::{LoadRequest, LoadResult, LoadedGraph, load_with_first};

/// A graph that can be served.
#[derive(Debug)]
pub(in crate::cli) struct Examined {
    /// The backend that runs it.
    pub(in crate::cli) backend: &'static str,
    /// Why that backend was chosen.
    pub(in crate::cli) reason: String,
    pub(in crate::cli) inputs: Vec<signature::DeclaredTensor>,
    pub(in crate::cli) outputs: Vec<signature::DeclaredTensor>,
    /// Name and version of the program that wrote the file; empty if unknown.
    pub(in crate::cli) producer: String,
    /// Whether outputs may differ for equal inputs.
    pub(in crate::cli) random: bool,
    /// Notes on the trial runs, for the user.
    pub(in crate::cli) notes: Vec<String>,
    /// Inputs on which the graph ran.
    pub(in crate::cli) sample: Vec<Tensor>,
}

/// Maximum number of axes of a tensor in the request protocols.
const MAX_AXES: usize = 16;

/// Examines the graph in `bytes`, loaded with `request`, on the example if there is one.
pub(in crate::cli) fn examine(
    bytes: &Bytes,
    backends: &[Arc<dyn Backend>],
    request: LoadRequest,
    example: Option<&Example>,
) -> Result<Examined> {
    ensure!(!bytes.is_empty(), "it is empty");
    let (encoding, target) = (Encoding::Onnx, ExecutionTarget::Cpu);
    let LoadResult { backend, refusals, graph } =
        load_with_first(backends, bytes, encoding, target, request)?;
    ensure!(!graph.inputs().is_empty(), "the graph has no inputs to predict from");
    let model = ModelProto::decode(bytes.clone()).unwrap_or_default();
    let file = model.graph.unwrap_or_default();
    let example = example.map(|example| example.tensors(graph.inputs())).transpose()?;

    let shapes = input_shapes(&graph, example.as_deref())?;
    let values = ValueMap::of(&file);
    let by_values = values.values_shape_outputs(graph.inputs().iter().map(|i| i.name.as_str()));
    let uses = uses(&values, graph.inputs(), &shapes);
    let mut axes = Axes::of(graph.inputs(), &shapes);
    if example.as_ref().is_some_and(|example| !axes.fit(example)) {
        axes = Axes::separate(graph.inputs(), &shapes);
    }
    let mut trials = Trials::run(&graph, axes, &uses, example.as_deref())?;
    if by_values {
        trials.repeat();
    }
    let declared = declared(&graph, &file);
    let Shapes { inputs, outputs, batch_axes, notes } = Shapes::of(&trials, &declared, by_values);

    let inputs = tensors(graph.inputs(), inputs, batch_axes.0);
    let outputs = tensors(graph.outputs(), outputs, batch_axes.1);
    for tensor in inputs.iter().chain(&outputs) {
        let axes = tensor.shape.as_ref().map_or(0, Vec::len);
        ensure!(axes <= MAX_AXES, "`{}` has {axes} axes; the maximum is {MAX_AXES}", tensor.name);
    }
    Ok(Examined {
        backend,
        reason: reason(request, &refusals),
        inputs,
        outputs,
        producer: [model.producer_name, model.producer_version].join(" ").trim().to_owned(),
        random: is_random(&file),
        notes,
        sample: trials.sample,
    })
}

/// The declared shapes of the inputs; where the graph has none, free axes as in the example.
fn input_shapes(graph: &LoadedGraph, example: Option<&[Tensor]>) -> Result<Vec<Vec<Option<u32>>>> {
    let shape = |(index, info): (usize, &TensorInfo)| {
        let of_example = || Some(vec![None; example?.get(index)?.dimensions.len()]);
        info.shape.clone().or_else(of_example).with_context(|| {
            format!(
                "the graph declares no shape for its input `{}`; pass --example request.json or \
                 --example inputs.npz, or convert the model again with a shape",
                info.name
            )
        })
    };
    graph.inputs().iter().enumerate().map(shape).collect()
}

fn uses(values: &ValueMap<'_>, infos: &[TensorInfo], shapes: &[Vec<Option<u32>>]) -> Vec<Uses> {
    let width = |shape: &Vec<Option<u32>>| shape.last().copied().flatten().unwrap_or(1) as usize;
    let names = infos.iter().map(|info| info.name.as_str());
    let widths: BTreeMap<&str, usize> = names.zip(shapes.iter().map(width)).collect();
    infos.iter().map(|info| values.uses(&info.name, widths[info.name.as_str()], &widths)).collect()
}

fn declared(graph: &LoadedGraph, file: &GraphProto) -> Vec<Declared> {
    let of = |info: &TensorInfo| Declared {
        name: info.name.clone(),
        inferred: info.shape.clone(),
        axis_names: info.axis_names.clone(),
        of_file: file
            .output
            .iter()
            .find(|output| output.name == info.name)
            .and_then(declared_shape),
    };
    graph.outputs().iter().map(of).collect()
}

fn tensors(
    infos: &[TensorInfo],
    shapes: Vec<Vec<i64>>,
    batch_axes: Vec<usize>,
) -> Vec<signature::DeclaredTensor> {
    let with = |((info, shape), batch_axis): ((&TensorInfo, _), _)| signature::DeclaredTensor {
        shape: Some(shape),
        batch_axis,
        ..info.into()
    };
    infos.iter().zip(shapes).zip(batch_axes).map(with).collect()
}
