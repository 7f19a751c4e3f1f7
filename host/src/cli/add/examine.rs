//! What a graph takes and gives, found by loading it as the host would and running it.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use prost::Message;
use spinfer_backend::{Backend, Encoding, ExecutionTarget, Tensor, TensorInfo};

use super::axes::Axes;
use super::example::Example;
use super::onnx::{self, Model};
use super::shapes::{Declared, Shapes};
use super::trials::Trials;
use super::uses::{Uses, Values};
use crate::cli::models::reason;
use crate::cli::signature;
use crate::inference::{LoadRequest, Loaded, LoadedGraph, load_with_first};

/// A graph that can be served.
#[derive(Debug)]
pub(in crate::cli) struct Examined {
    /// The backend that runs it.
    pub(in crate::cli) backend: &'static str,
    /// Why that one.
    pub(in crate::cli) reason: String,
    pub(in crate::cli) inputs: Vec<signature::Tensor>,
    pub(in crate::cli) outputs: Vec<signature::Tensor>,
    /// What wrote the file, with its version; empty if it does not say.
    pub(in crate::cli) producer: String,
    /// Whether it may give something else for the same.
    pub(in crate::cli) random: bool,
    /// What there is to tell of how it ran.
    pub(in crate::cli) notes: Vec<String>,
    /// Inputs on which it ran.
    pub(in crate::cli) sample: Vec<Tensor>,
}

/// Of a tensor: the request protocols take no more.
const MAX_AXES: usize = 16;

/// Examines the graph in `bytes`, which is loaded as `request` says, on an example if there is one.
pub(in crate::cli) fn examine(
    bytes: &Bytes,
    backends: &[Arc<dyn Backend>],
    request: LoadRequest,
    example: Option<&Example>,
) -> Result<Examined> {
    ensure!(!bytes.is_empty(), "it is empty");
    let (encoding, target) = (Encoding::Onnx, ExecutionTarget::Cpu);
    let Loaded { backend, refusals, graph } =
        load_with_first(backends, bytes, encoding, target, request)?;
    ensure!(!graph.inputs().is_empty(), "it has no input: there is nothing to predict from");
    let model = Model::decode(bytes.clone()).unwrap_or_default();
    let file = model.graph.unwrap_or_default();
    let example = example.map(|example| example.tensors(graph.inputs())).transpose()?;

    let shapes = input_shapes(&graph, example.as_deref())?;
    let values = Values::of(&file);
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
        ensure!(
            axes <= MAX_AXES,
            "`{}` has {axes} axes; at most {MAX_AXES} can be served",
            tensor.name
        );
    }
    Ok(Examined {
        backend,
        reason: reason(request, &refusals),
        inputs,
        outputs,
        producer: [model.producer_name, model.producer_version].join(" ").trim().to_owned(),
        random: file.is_random(),
        notes,
        sample: trials.sample,
    })
}

/// The shapes of the inputs as the graph declares them, or of the example's number of axes.
fn input_shapes(graph: &LoadedGraph, example: Option<&[Tensor]>) -> Result<Vec<Vec<Option<u32>>>> {
    let shape = |(index, info): (usize, &TensorInfo)| {
        let of_example = || Some(vec![None; example?.get(index)?.dimensions.len()]);
        info.shape.clone().or_else(of_example).with_context(|| {
            format!(
                "the graph does not say how many axes its input `{}` has; show it by --example \
                 request.json or --example inputs.npz, or convert it again with a shape",
                info.name
            )
        })
    };
    graph.inputs().iter().enumerate().map(shape).collect()
}

fn uses(values: &Values<'_>, infos: &[TensorInfo], shapes: &[Vec<Option<u32>>]) -> Vec<Uses> {
    let width = |shape: &Vec<Option<u32>>| shape.last().copied().flatten().unwrap_or(1) as usize;
    let names = infos.iter().map(|info| info.name.as_str());
    let widths: BTreeMap<&str, usize> = names.zip(shapes.iter().map(width)).collect();
    infos.iter().map(|info| values.uses(&info.name, widths[info.name.as_str()], &widths)).collect()
}

fn declared(graph: &LoadedGraph, file: &onnx::Graph) -> Vec<Declared> {
    let of = |info: &TensorInfo| Declared {
        name: info.name.clone(),
        known: info.shape.clone(),
        axis_names: info.axis_names.clone(),
        of_file: file
            .output
            .iter()
            .find(|output| output.name == info.name)
            .and_then(onnx::ValueInfo::shape),
    };
    graph.outputs().iter().map(of).collect()
}

fn tensors(
    infos: &[TensorInfo],
    shapes: Vec<Vec<i64>>,
    batch_axes: Vec<usize>,
) -> Vec<signature::Tensor> {
    let with = |((info, shape), batch_axis): ((&TensorInfo, _), _)| signature::Tensor {
        shape: Some(shape),
        batch_axis,
        ..info.into()
    };
    infos.iter().zip(shapes).zip(batch_axes).map(with).collect()
}
