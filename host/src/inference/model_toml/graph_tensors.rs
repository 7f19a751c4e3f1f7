//! The inputs and outputs of a graph.

use spinfer_backend::{TensorInfo, TensorType};
use spinfer_onnx::{ModelProto, ValueInfoProto, data_type};

use crate::inference::graph::LoadedGraph;

/// The inputs and outputs of a graph.
#[derive(Clone, Debug)]
pub(in crate::inference) struct GraphTensors {
    pub(super) inputs: Vec<GraphTensor>,
    pub(super) outputs: Vec<GraphTensor>,
}

/// An input or output of a graph.
#[derive(Clone, Debug)]
pub(super) struct GraphTensor {
    pub(super) name: String,
    /// `None` if it is not known before the graph is loaded.
    pub(super) datatype: Option<&'static str>,
    /// Size of each axis, `None` for a free one. `None` if unknown.
    pub(super) shape: Option<Vec<Option<u32>>>,
    /// Whether it is a sequence or a map, of which a backend may make several outputs.
    pub(super) is_tensor: bool,
}

impl GraphTensors {
    /// As the file declares them; `None` if it is not an ONNX model, which loading it reports.
    pub(in crate::inference) fn of_file(bytes: &[u8]) -> Option<Self> {
        let graph = ModelProto::decode_outline(bytes).ok()?.graph?;
        let is_constant =
            |input: &ValueInfoProto| graph.initializer.iter().any(|it| it.name == input.name);
        let inputs = graph.input.iter().filter(|input| !is_constant(input));
        Some(Self {
            inputs: inputs.map(GraphTensor::of_file).collect(),
            outputs: graph.output.iter().map(GraphTensor::of_file).collect(),
        })
    }

    /// As its backend declares them.
    pub(super) fn of_loaded(graph: &LoadedGraph) -> Self {
        let tensors = |infos: &[TensorInfo]| infos.iter().map(GraphTensor::of_loaded).collect();
        Self { inputs: tensors(graph.inputs()), outputs: tensors(graph.outputs()) }
    }
}

impl GraphTensor {
    fn of_file(value: &ValueInfoProto) -> Self {
        let tensor = value.tensor_type();
        let shape = tensor.and_then(|tensor| tensor.shape.as_ref());
        let shape = shape.map(|shape| {
            let axes = shape.dim.iter();
            axes.map(|axis| axis.size().and_then(|size| u32::try_from(size).ok())).collect()
        });
        Self {
            name: value.name.clone(),
            datatype: tensor.and_then(|tensor| datatype_of_file(tensor.elem_type)),
            shape,
            is_tensor: tensor.is_some(),
        }
    }

    fn of_loaded(info: &TensorInfo) -> Self {
        Self {
            name: info.name.clone(),
            datatype: Some(datatype(info.ty)),
            shape: info.shape.clone(),
            is_tensor: true,
        }
    }
}

/// The datatype of an element type of ONNX; `None` for those that backends convert.
fn datatype_of_file(elem_type: i32) -> Option<&'static str> {
    Some(match elem_type {
        data_type::FLOAT => "FP32",
        data_type::UINT8 => "UINT8",
        data_type::INT8 => "INT8",
        data_type::UINT16 => "UINT16",
        data_type::INT16 => "INT16",
        data_type::INT32 => "INT32",
        data_type::INT64 => "INT64",
        data_type::STRING => "BYTES",
        data_type::BOOL => "BOOL",
        data_type::FLOAT16 => "FP16",
        data_type::DOUBLE => "FP64",
        data_type::UINT32 => "UINT32",
        data_type::UINT64 => "UINT64",
        data_type::BFLOAT16 => "BF16",
        _ => return None,
    })
}

/// The datatype in the Open Inference Protocol.
#[must_use]
pub fn datatype(ty: TensorType) -> &'static str {
    match ty {
        TensorType::Fp16 => "FP16",
        TensorType::Fp32 => "FP32",
        TensorType::Fp64 => "FP64",
        TensorType::Bf16 => "BF16",
        TensorType::U8 => "UINT8",
        TensorType::I32 => "INT32",
        TensorType::I64 => "INT64",
        TensorType::Bool => "BOOL",
        TensorType::I8 => "INT8",
        TensorType::I16 => "INT16",
        TensorType::U16 => "UINT16",
        TensorType::U32 => "UINT32",
        TensorType::U64 => "UINT64",
        TensorType::String => "BYTES",
    }
}
