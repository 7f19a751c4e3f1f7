//! The embedded inference backend: ONNX graphs through tract, in pure Rust. Operators of `ai.onnx.ml`
//! are those of [`spinfer_backend_lean::ml`].
//!
//! A crate of its own because tract's generics are compiled into the crate that calls them, which
//! takes minutes: the host must not pay that on every change.

mod convolution;
mod image;
mod max_pool;
mod ml;
mod signature;
mod zip_map;

use std::collections::HashSet;
use std::sync::Arc;

use signature::FirstAxis;
use spinfer_backend::{
    Backend, Encoding, Error, ExecutionTarget, Graph, Tensor, TensorInfo, TensorType,
};
use spinfer_backend_lean::ml::{DOMAIN, names};
use tract_onnx::Onnx;
use tract_onnx::pb::{GraphProto, ModelProto, NodeProto};
use tract_onnx::prelude::{
    Datum, DatumType, Framework, InferenceModelExt, IntoRunnable, IntoTValue, TValue, TVec,
    Tensor as TractTensor, TractResult, TypedSimplePlan,
};
use zerocopy::{FromBytes, Immutable};

/// tract, on the CPU.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tract;

impl Backend for Tract {
    fn name(&self) -> &'static str {
        "tract"
    }

    fn supports(&self, encoding: Encoding, target: ExecutionTarget) -> bool {
        matches!((encoding, target), (Encoding::Onnx, ExecutionTarget::Cpu))
    }

    fn load(&self, mut bytes: &[u8], Encoding::Onnx: Encoding) -> Result<Arc<dyn Graph>, Error> {
        let mut onnx = tract_onnx::onnx();
        ml::register(&mut onnx);
        let mut proto = onnx
            .proto_model_for_read(&mut bytes)
            .map_err(|e| Error::InvalidEncoding(format!("not an ONNX model: {e:#}")))?;
        let graph = proto
            .graph
            .as_mut()
            .ok_or_else(|| Error::InvalidEncoding("not an ONNX model: it holds no graph".into()))?;
        zip_map::remove(graph)?;
        let (inputs, outputs) = signature::read(graph)?;
        check_outputs(graph)?;
        check_operators(graph, |operator| onnx.op_register.0.contains_key(operator))?;
        // First as the file says: free axes have nothing to do with each other. Some graphs can be
        // planned only if their first axes are one batch.
        let mut named = proto.clone();
        signature::name_free_axes(&mut named, FirstAxis::OfItsOwn);
        signature::name_free_axes(&mut proto, FirstAxis::Batch);
        let plan = plan(&onnx, &named)
            .or_else(|_| plan(&onnx, &proto))
            .map_err(|e| Error::Unsupported(format!("tract cannot run this graph: {e:#}")))?;
        Ok(Arc::new(TractGraph { inputs, outputs, plan }))
    }
}

fn plan(onnx: &Onnx, proto: &ModelProto) -> TractResult<Arc<TypedSimplePlan>> {
    let mut model = onnx.model_for_proto_model(proto)?.into_typed()?.into_decluttered()?;
    convolution::replace(&mut model)?;
    max_pool::replace(&mut model)?;
    model.into_optimized()?.into_runnable()
}

/// tract itself panics where nothing makes an output.
fn check_outputs(graph: &GraphProto) -> Result<(), Error> {
    let made = graph.node.iter().flat_map(|node| &node.output);
    let made = made.chain(graph.input.iter().map(|input| &input.name));
    let made: HashSet<&String> = made.chain(graph.initializer.iter().map(|t| &t.name)).collect();
    match graph.output.iter().find(|output| !made.contains(&output.name)) {
        Some(output) => Err(Error::InvalidEncoding(format!(
            "not a valid ONNX model: nothing in it makes its output `{}`",
            output.name
        ))),
        None => Ok(()),
    }
}

/// tract itself reports an operator it lacks as a wrong number of outputs, or not at all.
fn check_operators(graph: &GraphProto, known: impl Fn(&str) -> bool) -> Result<(), Error> {
    let unknown = graph.node.iter().filter(|node| !known(&node.op_type));
    let mut missing: Vec<String> = unknown.map(qualified).collect();
    missing.sort_unstable();
    missing.dedup();
    if missing.is_empty() {
        return Ok(());
    }
    let mut message = format!("tract lacks these operators: {}", missing.join(", "));
    if missing.iter().any(|name| name.starts_with(DOMAIN)) {
        let there: Vec<&str> = names().collect();
        message += &format!(" (of {DOMAIN} there are {}, ZipMap)", there.join(", "));
    }
    Err(Error::Unsupported(message))
}

/// An operator and, unless it is a standard one, its domain.
fn qualified(node: &NodeProto) -> String {
    match node.domain.as_str() {
        "" | "ai.onnx" => node.op_type.clone(),
        domain => format!("{domain}.{}", node.op_type),
    }
}

#[derive(Debug)]
struct TractGraph {
    inputs: Vec<TensorInfo>,
    outputs: Vec<TensorInfo>,
    plan: Arc<TypedSimplePlan>,
}

impl Graph for TractGraph {
    fn inputs(&self) -> &[TensorInfo] {
        &self.inputs
    }

    fn outputs(&self) -> &[TensorInfo] {
        &self.outputs
    }

    fn compute(&self, inputs: Vec<Tensor>) -> Result<Vec<Tensor>, Error> {
        let inputs = inputs.iter().map(to_tract).collect::<Result<TVec<TValue>, Error>>()?;
        let outputs = self
            .plan
            .run(inputs)
            .map_err(|e| Error::Runtime(format!("tract could not run the graph: {e:#}")))?;
        outputs
            .into_iter()
            .zip(&self.outputs)
            .map(|(value, info)| from_tract(&value, info))
            .collect()
    }
}

fn to_tract(tensor: &Tensor) -> Result<TValue, Error> {
    let shape: TVec<usize> = tensor.dimensions.iter().map(|&d| d as usize).collect();
    let value = match tensor.ty {
        TensorType::Fp32 => copy::<f32>(tensor, &shape)?,
        TensorType::Fp64 => copy::<f64>(tensor, &shape)?,
        TensorType::U8 => copy::<u8>(tensor, &shape)?,
        TensorType::I32 => copy::<i32>(tensor, &shape)?,
        TensorType::I64 => copy::<i64>(tensor, &shape)?,
        TensorType::Fp16 | TensorType::Bf16 => copy_bytes(tensor, &shape)?,
    };
    Ok(value.into_tvalue())
}

/// The one copy that tract's memory, aligned for its kernels, asks for.
fn copy<T: Datum + Copy + FromBytes + Immutable>(
    tensor: &Tensor,
    shape: &[usize],
) -> Result<TractTensor, Error> {
    match <[T]>::ref_from_bytes(&tensor.data) {
        Ok(values) => TractTensor::from_shape::<T>(shape, values).map_err(|_| wrong_len(tensor)),
        // Not aligned for its own elements, as an allocation of bytes may be.
        Err(_) => copy_bytes(tensor, shape),
    }
}

fn copy_bytes(tensor: &Tensor, shape: &[usize]) -> Result<TractTensor, Error> {
    let mut value = TractTensor::zero_dt(signature::datum_type(tensor.ty)?, shape)
        .map_err(|e| Error::InvalidArgument(format!("no tensor of shape {shape:?}: {e:#}")))?;
    let destination = value.as_bytes_mut();
    if destination.len() != tensor.data.len() {
        return Err(wrong_len(tensor));
    }
    destination.copy_from_slice(&tensor.data);
    Ok(value)
}

fn wrong_len(tensor: &Tensor) -> Error {
    Error::InvalidArgument(format!(
        "a {} tensor of shape {:?} does not hold {} bytes",
        tensor.ty,
        tensor.dimensions,
        tensor.data.len()
    ))
}

fn from_tract(value: &TValue, info: &TensorInfo) -> Result<Tensor, Error> {
    let declared: DatumType = signature::datum_type(info.ty)?;
    let cast = value
        .cast_to_dt(declared)
        .map_err(|e| Error::Runtime(format!("output `{}` is not {}: {e:#}", info.name, info.ty)))?;
    let dimensions = cast
        .shape()
        .iter()
        .map(|&d| u32::try_from(d))
        .collect::<Result<Vec<u32>, _>>()
        .map_err(|_| Error::Runtime(format!("output `{}` has an axis over 2^32", info.name)))?;
    Ok(Tensor { dimensions, ty: info.ty, data: cast.as_bytes().to_vec() })
}
