//! Runs the graph through `wasi:nn`, in the host or in a provider component.

use std::cell::Cell;

use crate::bindings::wasi::nn::errors::ErrorCode;
use crate::bindings::wasi::nn::graph::{Graph, load_by_name};
use crate::bindings::wasi::nn::inference::GraphExecutionContext;
use crate::bindings::wasi::nn::{errors, tensor};
use crate::datatype::Datatype;
use crate::error::Error;
use crate::graph::{self, ExecutionContext};
use crate::packed;
use crate::reserve::out_of_memory;
use crate::signature::{Signature, TensorSignature};
use crate::tensor::Tensor;

/// The execution context of the model's graph.
pub(crate) struct Context {
    context: GraphExecutionContext,
    /// Must outlive the context.
    _graph: Graph,
    /// Whether the outputs of an inference have been checked against `model.toml`.
    checked: Cell<bool>,
}

impl Context {
    /// Loads the graph `name`.
    ///
    /// # Errors
    /// If it is not mounted or invalid: 503.
    pub(crate) fn load(name: &str) -> Result<Self, Error> {
        let unavailable = |error: errors::Error| {
            let problem = describe(&error);
            match error.code() {
                ErrorCode::NotFound => graph::not_mounted(name, "model.onnx", &problem),
                _ => graph::unloadable(name, "model.onnx", &problem),
            }
        };
        let graph = load_by_name(name).map_err(unavailable)?;
        Ok(Self {
            context: graph.init_execution_context().map_err(unavailable)?,
            _graph: graph,
            checked: Cell::new(false),
        })
    }
}

impl ExecutionContext for Context {
    fn compute(
        &self,
        signature: &Signature,
        inputs: Vec<Tensor>,
        outputs: &[&TensorSignature],
    ) -> Result<Vec<Tensor>, Error> {
        let inputs: Vec<_> = inputs.into_iter().map(bind).collect::<Result<_, _>>()?;
        let computed = self.context.compute(inputs).map_err(|error| failure(&error))?;
        if !self.checked.get() {
            // Packed outputs are checked whenever they are read, and may be those of a mapping.
            let is_plain = |output: &&TensorSignature| output.datatype.packed().is_none();
            for expected in signature.outputs.iter().filter(is_plain) {
                let output = find(&computed, expected)?;
                expected.check_output("the graph", output.ty().into(), &output.dimensions())?;
            }
            self.checked.set(true);
        }
        outputs.iter().map(|expected| read(expected, find(&computed, expected)?)).collect()
    }
}

/// Converts an input, packed if `wasi:nn` lacks its type.
fn bind(input: Tensor) -> Result<(String, tensor::Tensor), Error> {
    let Tensor { datatype, dimensions, data, .. } = &input;
    let tensor = match datatype.packed() {
        None => tensor::Tensor::new(dimensions, (*datatype).into(), data),
        Some(ty) => {
            let packed = packed::encode(ty, &input)?;
            let length = u32::try_from(packed.len()).map_err(|_| out_of_memory())?;
            tensor::Tensor::new(&[length], tensor::TensorType::U8, &packed)
        }
    };
    Ok((input.name, tensor))
}

/// The computed output that `expected` describes.
fn find<'a>(
    computed: &'a [(String, tensor::Tensor)],
    expected: &TensorSignature,
) -> Result<&'a tensor::Tensor, Error> {
    let mut computed = computed.iter();
    let output = computed.find(|(name, _)| *name == expected.name);
    let (_, output) = output.ok_or_else(|| {
        Error::internal(format!(
            "model.toml has the output {:?}, but the graph does not",
            expected.name
        ))
    })?;
    Ok(output)
}

/// Reads an output. Its datatype cannot change between inferences, and its dimensions usually follow from
/// the length of its data: calling the host for each would cost 10 % of the time of a small prediction.
fn read(expected: &TensorSignature, output: &tensor::Tensor) -> Result<Tensor, Error> {
    let TensorSignature { name, datatype, shape, .. } = expected;
    let data = output.data();
    if let Some(ty) = datatype.packed() {
        let unpacked = packed::decode(ty, *datatype, data);
        let (dimensions, data) = unpacked.map_err(|problem| {
            Error::internal(format!("the graph's output {name:?}: {problem}"))
        })?;
        expected.check_output("the graph", *datatype, &dimensions)?;
        return Ok(Tensor { name: name.clone(), datatype: *datatype, dimensions, data });
    }
    let dimensions = match shape.dimensions(data.len() / datatype.size()) {
        Some(dimensions) => dimensions,
        None => {
            let dimensions = output.dimensions();
            expected.check_output("the graph", *datatype, &dimensions)?;
            dimensions
        }
    };
    Ok(Tensor { name: name.clone(), datatype: *datatype, dimensions, data })
}

/// Maps the error of an inference to that of the request.
fn failure(error: &errors::Error) -> Error {
    let message = describe(error);
    match error.code() {
        ErrorCode::InvalidArgument => Error::invalid(message),
        ErrorCode::TooLarge => Error::too_large(message),
        ErrorCode::Timeout => Error::deadline_exceeded(message),
        ErrorCode::NotFound => Error::unavailable(message),
        ErrorCode::InvalidEncoding
        | ErrorCode::RuntimeError
        | ErrorCode::UnsupportedOperation
        | ErrorCode::Security
        | ErrorCode::Unknown => Error::internal(message),
    }
}

fn describe(error: &errors::Error) -> String {
    let data = error.data();
    if data.is_empty() { format!("{:?}", error.code()) } else { data }
}

impl From<Datatype> for tensor::TensorType {
    fn from(datatype: Datatype) -> Self {
        match datatype {
            Datatype::F16 => Self::Fp16,
            Datatype::F32 => Self::Fp32,
            Datatype::F64 => Self::Fp64,
            Datatype::Bf16 => Self::Bf16,
            Datatype::I32 => Self::I32,
            Datatype::I64 => Self::I64,
            // U8, and the types that are packed in it.
            Datatype::U8
            | Datatype::Bool
            | Datatype::I8
            | Datatype::I16
            | Datatype::U16
            | Datatype::U32
            | Datatype::U64
            | Datatype::Bytes => Self::U8,
        }
    }
}

impl From<tensor::TensorType> for Datatype {
    fn from(ty: tensor::TensorType) -> Self {
        match ty {
            tensor::TensorType::Fp16 => Self::F16,
            tensor::TensorType::Fp32 => Self::F32,
            tensor::TensorType::Fp64 => Self::F64,
            tensor::TensorType::Bf16 => Self::Bf16,
            tensor::TensorType::U8 => Self::U8,
            tensor::TensorType::I32 => Self::I32,
            tensor::TensorType::I64 => Self::I64,
        }
    }
}
