//! A compiled graph: tensors in, tensors out.

use std::cell::Cell;

use spinfer_backend::{Error, Graph, Tensor, TensorInfo, TensorType};

use crate::builder::{Builder, Value};
use crate::marshal::{append, empty_output, fill};
use crate::operators::{self, Opsets};
use crate::plan::Plan;
use crate::scratch::{Area, Scratch};
use crate::signature::{self, element_size};
use spinfer_onnx::{GraphProto, ModelProto};

thread_local! {
    /// Each call takes it and puts it back, so that a thread allocates it once.
    static SCRATCH: Cell<Scratch> = Cell::default();
}

#[derive(Debug)]
pub(crate) struct LeanGraph {
    inputs: [TensorInfo; 1],
    outputs: Vec<TensorInfo>,
    input: Value,
    results: Vec<Value>,
    plan: Plan,
}

impl LeanGraph {
    pub(crate) fn compile(model: &ModelProto) -> Result<Self, Error> {
        let Some(graph) = &model.graph else {
            return Err(Error::InvalidEncoding("not an ONNX model: it holds no graph".into()));
        };
        if !model.functions.is_empty() {
            return Err(Error::Unsupported("lean does not cover model-local functions".into()));
        }
        let opsets = Opsets::read(model);
        let declared = signature::input(graph)?;
        let batch = declared.info.shape.as_ref().and_then(|shape| shape.first().copied().flatten());
        let mut builder = Builder::new(graph, batch);
        let name = &declared.info.name;
        let input = builder.allocate(declared.info.ty, &declared.tail).ok_or_else(|| {
            Error::Unsupported(format!("lean does not cover input `{name}`: its rows are too wide"))
        })?;
        let input_name = graph.input.iter().map(|i| &i.name).find(|n| *n == name);
        builder.name(input_name.map_or("", String::as_str), input.clone())?;
        for node in &graph.node {
            operators::compile(&mut builder, node, opsets)?;
        }
        let results = results(graph, &builder)?;
        let outputs = results
            .iter()
            .zip(&graph.output)
            .map(|(value, declared)| {
                let tail = value.tail.iter().map(|&axis| u32::try_from(axis).ok());
                let shape = Some(std::iter::once(batch).chain(tail).collect());
                TensorInfo {
                    name: declared.name.clone(),
                    ty: value.ty,
                    shape,
                    axis_names: Vec::new(),
                }
            })
            .collect();
        let mut plan = builder.plan;
        plan.set_block();
        Ok(Self { inputs: [declared.info], outputs, input, results, plan })
    }
}

fn results(graph: &GraphProto, builder: &Builder<'_>) -> Result<Vec<Value>, Error> {
    graph
        .output
        .iter()
        .map(|output| {
            let name = &output.name;
            let value = builder.value(name).ok_or_else(|| {
                Error::Unsupported(format!("lean does not cover output `{name}`: no node computes it"))
            })?;
            let untyped = builder.untyped.contains(name.as_str());
            let declared = signature::ty(output).or(untyped.then_some(value.ty));
            if value.transposed || value.ty == TensorType::Fp64 || declared != Some(value.ty) {
                return Err(Error::Unsupported(format!(
                    "lean does not cover output `{name}`: it would have another type ({}) or shape than declared",
                    value.ty
                )));
            }
            Ok(value.clone())
        })
        .collect()
}

impl Graph for LeanGraph {
    fn inputs(&self) -> &[TensorInfo] {
        &self.inputs
    }

    fn outputs(&self) -> &[TensorInfo] {
        &self.outputs
    }

    fn compute(&self, inputs: Vec<Tensor>) -> Result<Vec<Tensor>, Error> {
        let [tensor] = &inputs[..] else {
            return Err(Error::InvalidArgument(format!(
                "the graph has one input, not {}",
                inputs.len()
            )));
        };
        let rows = self.rows_of(tensor)?;
        let mut outputs = self
            .results
            .iter()
            .map(|value| empty_output(tensor.dimensions[0], rows, value))
            .collect::<Result<Vec<Tensor>, Error>>()?;
        let mut scratch = SCRATCH.take();
        scratch.reserve(&self.plan);
        let done = self.run(tensor, &mut scratch, &mut outputs);
        SCRATCH.set(scratch);
        done.map(|()| outputs)
    }
}

impl LeanGraph {
    /// The number of rows of a tensor, if it fits the declared input.
    fn rows_of(&self, tensor: &Tensor) -> Result<usize, Error> {
        let fits = |(&axis, &size): (&u32, &usize)| axis as usize == size;
        if let [rows, tail @ ..] = &tensor.dimensions[..]
            && tail.len() == self.input.tail.len()
            && tail.iter().zip(&self.input.tail).all(fits)
            && tensor.ty == self.input.ty
        {
            let rows = *rows as usize;
            let bytes = self.input.columns.width * element_size(tensor.ty);
            if rows.checked_mul(bytes) == Some(tensor.data.len()) {
                return Ok(rows);
            }
        }
        let name = &self.inputs[0].name;
        Err(Error::InvalidArgument(format!("the tensor does not fit input `{name}`")))
    }

    fn run(
        &self,
        tensor: &Tensor,
        scratch: &mut Scratch,
        outputs: &mut [Tensor],
    ) -> Result<(), Error> {
        let block = self.plan.block;
        let row_bytes = self.input.columns.width * element_size(tensor.ty);
        for bytes in tensor.data.chunks(block * row_bytes) {
            let area = Area { rows: bytes.len() / row_bytes, block };
            fill(&self.input, bytes, area, scratch);
            self.plan.run(area.rows, scratch)?;
            for (output, value) in outputs.iter_mut().zip(&self.results) {
                append(&mut output.data, value, area, scratch);
            }
        }
        Ok(())
    }
}
