//! A graph's inputs and outputs in the words of `model.toml` and of the Open Inference Protocol.

use std::fmt;

use serde::Serialize;
use spinfer_backend::{TensorInfo, TensorType};

/// One input or output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Tensor {
    pub name: String,
    pub datatype: &'static str,
    /// -1 is a free axis. The whole is absent where the graph does not say.
    pub shape: Option<Vec<i64>>,
}

impl From<&TensorInfo> for Tensor {
    fn from(info: &TensorInfo) -> Self {
        let size = |axis: &Option<u32>| axis.map_or(-1, i64::from);
        Self {
            name: info.name.clone(),
            datatype: datatype(info.ty),
            shape: info.shape.as_ref().map(|shape| shape.iter().map(size).collect()),
        }
    }
}

/// `features FP32 [-1, 4]`; the name is the file's, and may hold what a terminal obeys.
impl fmt::Display for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, datatype, shape } = self;
        let name = name.escape_debug();
        match shape {
            Some(shape) => write!(f, "{name} {datatype} {shape:?}"),
            None => write!(f, "{name} {datatype}"),
        }
    }
}

/// `a FP32 [-1, 4], b FP32 [-1]`
pub(super) fn list(tensors: &[Tensor]) -> String {
    tensors.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// As the Open Inference Protocol calls it.
fn datatype(ty: TensorType) -> &'static str {
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
