//! A graph, loaded.

use std::ffi::CString;

use ort::environment::Environment;
use ort::value::{Outlet, ValueType};
use spinfer_backend::{Cancellation, Error, LoadOptions, Tensor, TensorInfo, TensorType};
use spinfer_onnx::{TensorShapeProto, ValueInfoProto, data_type};

use crate::edges::{self, Edges};
use crate::error::{Status, of_load};
use crate::run::{Edge, RunFailure, run};
use crate::small::Small;
use crate::{division, error};

/// A graph that any number of threads may run.
#[derive(Debug)]
pub(crate) struct Session {
    session: ort::session::Session,
    inputs: Vec<TensorInfo>,
    outputs: Vec<TensorInfo>,
    input_edges: Vec<Edge>,
    output_edges: Vec<Edge>,
    threads: usize,
    values_decide_work: bool,
}

impl Session {
    pub(crate) fn load(
        environment: &Environment,
        bytes: &[u8],
        LoadOptions { threads }: LoadOptions,
    ) -> Result<Self, Error> {
        let Edges { model, inputs, outputs, values_decide_work } = edges::read(bytes)?;
        let free = |value: &ValueInfoProto| {
            shape(value).is_none_or(|shape| shape.axes.iter().any(Option::is_none))
        };
        // A plan of memory is kept for each combination of sizes, which clients choose.
        let fixed = !inputs.iter().any(free);
        let built = builder(environment, threads, fixed)
            .and_then(|mut builder| builder.commit_from_memory(&model));
        let session = built.map_err(|e| {
            of_load(&Status { code: e.code().into(), message: e.message().to_owned() })
        })?;
        let (mut infos, mut input_edges) = (Vec::new(), Vec::new());
        for input in &inputs {
            let code = element_type(input).unwrap_or_default();
            let shape = shape(input);
            let (info, edge) = edge(&input.name, code, shape)?;
            infos.push(info);
            input_edges.push(edge);
        }
        let (mut output_infos, mut output_edges) = (Vec::new(), Vec::new());
        for (outlet, declared) in session.outputs().iter().zip(&outputs) {
            let (code, shape) = output_of(outlet, declared)?;
            let (info, edge) = edge(&declared.name, code, shape)?;
            output_infos.push(info);
            output_edges.push(edge);
        }
        let (inputs, outputs) = (infos, output_infos);
        Ok(Self {
            session,
            inputs,
            outputs,
            input_edges,
            output_edges,
            threads,
            values_decide_work,
        })
    }

    pub(crate) fn inputs(&self) -> &[TensorInfo] {
        &self.inputs
    }

    pub(crate) fn outputs(&self) -> &[TensorInfo] {
        &self.outputs
    }

    pub(crate) fn values_decide_work(&self) -> bool {
        self.values_decide_work
    }

    pub(crate) fn run(
        &self,
        inputs: &[Tensor],
        cancellation: Option<&Cancellation>,
    ) -> Result<Vec<Tensor>, Error> {
        let Self { session, input_edges, output_edges, threads, .. } = self;
        let narrowed = inputs
            .iter()
            .zip(input_edges)
            .map(|(tensor, edge)| match edge.small {
                Some(small) => small.narrow(&edge.shown(), &tensor.data).map(Some),
                None => Ok(None),
            })
            .collect::<Result<Vec<_>, Error>>()?;
        let data: Vec<&[u8]> = inputs
            .iter()
            .zip(&narrowed)
            .map(|(tensor, narrowed)| narrowed.as_ref().unwrap_or(&tensor.data).as_slice())
            .collect();
        let work = || run(session, inputs, &data, input_edges, output_edges, cancellation);
        let (outputs, refused) = division::watch(*threads, work);
        if refused {
            return Err(Error::InvalidArgument(
                "the graph cannot be run on these inputs: an integer is divided by zero, or its \
                 type's smallest number by -1"
                    .into(),
            ));
        }
        outputs.map_err(|failure| match failure {
            RunFailure::Status(status) => error::of_run(&status),
            RunFailure::Error(error) => error,
        })
    }
}

fn builder(
    environment: &Environment,
    threads: usize,
    fixed: bool,
) -> Result<ort::session::builder::SessionBuilder, ort::Error> {
    let builder = ort::session::Session::builder(environment)?
        .with_intra_threads(threads)?
        .with_inter_threads(1)?
        // Threads that wait for more work would keep a processor busy.
        .with_intra_op_spinning(false)?
        .with_memory_pattern(fixed)?
        .with_env_allocators()?
        .with_device_allocated_initializers()?;
    Ok(builder)
}

/// The axes of a value, where its file or ONNX Runtime tells them.
struct Axes {
    axes: Vec<Option<u32>>,
    names: Vec<Option<String>>,
}

fn element_type(value: &ValueInfoProto) -> Option<i32> {
    value.tensor_type().map(|tensor| tensor.elem_type)
}

fn shape(value: &ValueInfoProto) -> Option<Axes> {
    let TensorShapeProto { dim } = value.tensor_type()?.shape.as_ref()?;
    let axes = dim.iter().map(|axis| axis.size().and_then(|size| u32::try_from(size).ok()));
    let names = dim.iter().map(|axis| axis.name().map(str::to_owned));
    Some(Axes { axes: axes.collect(), names: names.collect() })
}

/// The element type and the axes of an output: those ONNX Runtime inferred, where it has any.
fn output_of(outlet: &Outlet, declared: &ValueInfoProto) -> Result<(i32, Option<Axes>), Error> {
    let ValueType::Tensor { ty, shape: inferred, dimension_symbols } = outlet.dtype() else {
        return Err(Error::Unsupported(format!(
            "the output `{}` is {}; only tensors can be served",
            declared.name,
            outlet.dtype()
        )));
    };
    let code = element_type(declared).filter(|&code| code != 0);
    let code = code.unwrap_or_else(|| ort_sys::ONNXTensorElementDataType::from(*ty) as i32);
    // ONNX Runtime tells an unknown shape no other than that of a scalar.
    if inferred.is_empty() {
        return Ok((code, shape(declared)));
    }
    let axes = inferred.iter().map(|&size| u32::try_from(size).ok()).collect();
    let named = |name: &String| (!name.is_empty()).then(|| name.clone());
    let names = dimension_symbols.iter().map(named).collect();
    Ok((code, Some(Axes { axes, names })))
}

/// An input or output as the host sees it, and as ONNX Runtime does.
fn edge(name: &str, code: i32, shape: Option<Axes>) -> Result<(TensorInfo, Edge), Error> {
    let small = Small::of(code);
    let ty = match code {
        data_type::FLOAT => TensorType::Fp32,
        data_type::UINT8 => TensorType::U8,
        data_type::INT8 => TensorType::I8,
        data_type::UINT16 => TensorType::U16,
        data_type::INT16 => TensorType::I16,
        data_type::INT32 => TensorType::I32,
        data_type::INT64 => TensorType::I64,
        data_type::STRING => TensorType::String,
        data_type::BOOL => TensorType::Bool,
        data_type::FLOAT16 => TensorType::Fp16,
        data_type::DOUBLE => TensorType::Fp64,
        data_type::UINT32 => TensorType::U32,
        data_type::UINT64 => TensorType::U64,
        data_type::BFLOAT16 => TensorType::Bf16,
        _ => small.map(Small::wide).ok_or_else(|| {
            Error::Unsupported(format!(
                "`{name}` is a tensor of {}, which cannot be served",
                data_type::name(code)
            ))
        })?,
    };
    let (shape, axis_names) = match shape {
        Some(Axes { axes, names }) => (Some(axes), names),
        None => (None, Vec::new()),
    };
    let c_name = CString::new(name)
        .map_err(|_| Error::InvalidEncoding(format!("the name {name:?} holds a NUL")))?;
    let info = TensorInfo { name: name.to_owned(), ty, shape, axis_names };
    Ok((info, Edge { name: c_name, code, ty, small }))
}
