//! A graph's inputs and outputs in the terms of `model.toml` and the Open Inference Protocol.

use std::fmt;

use serde::Serialize;
use spinfer_backend::TensorInfo;

use crate::inference::datatype;

/// One input or output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct DeclaredTensor {
    pub name: String,
    pub datatype: &'static str,
    /// -1 is a free axis; `None` if the graph declares no shape.
    pub shape: Option<Vec<i64>>,
    /// Axis of rows, if that axis is free.
    #[serde(skip_serializing_if = "is_first")]
    pub batch_axis: usize,
}

fn is_first(axis: &usize) -> bool {
    *axis == 0
}

impl DeclaredTensor {
    /// Whether the batch axis is free, so that it counts rows.
    pub(super) fn counts_rows(&self) -> bool {
        let shape = self.shape.as_deref().unwrap_or_default();
        shape.get(self.batch_axis) == Some(&-1)
    }

    /// Number of elements of one row, if the shape fixes it.
    pub(super) fn row(&self) -> Option<usize> {
        let batch = self.counts_rows().then_some(self.batch_axis);
        let axes = self.shape.as_deref()?.iter().enumerate();
        axes.filter(|(axis, _)| Some(*axis) != batch)
            .try_fold(1_usize, |row, (_, &size)| row.checked_mul(usize::try_from(size).ok()?))
    }

    pub(super) fn is_float(&self) -> bool {
        matches!(self.datatype, "FP16" | "FP32" | "FP64" | "BF16")
    }
}

impl From<&TensorInfo> for DeclaredTensor {
    fn from(info: &TensorInfo) -> Self {
        let size = |axis: &Option<u32>| axis.map_or(-1, i64::from);
        Self {
            name: info.name.clone(),
            datatype: datatype(info.ty),
            shape: info.shape.as_ref().map(|shape| shape.iter().map(size).collect()),
            batch_axis: 0,
        }
    }
}

/// `features FP32 [-1, 4]`; the name is escaped, as a file may put terminal control characters into it.
impl fmt::Display for DeclaredTensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, datatype, shape, .. } = self;
        let name = name.escape_debug();
        match shape {
            Some(shape) => write!(f, "{name} {datatype} {shape:?}"),
            None => write!(f, "{name} {datatype}"),
        }
    }
}

/// `a FP32 [-1, 4], b FP32 [-1]`
pub(super) fn list(tensors: &[DeclaredTensor]) -> String {
    tensors.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
