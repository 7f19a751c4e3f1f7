//! Runs a graph on reference data, loaded as the host does.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use half::{bf16, f16};
use spinfer_backend::{Backend, Encoding, ExecutionTarget, Tensor, TensorInfo, TensorType};

use crate::drift::signature::{MAX_ELEMENTS, element_names};
use crate::inference::{
    GRAPH, LoadResult, LoadedGraph, bind, check_model_folder, joined, load_request, load_with_first,
};

/// Maximum number of rows per run: large enough to hide the overhead of a run, small enough that
/// intermediate tensors stay small.
pub(super) const BATCH: usize = 512;

/// Runs a graph on batches of rows.
#[derive(Debug)]
pub(super) struct Runner {
    graph: Arc<LoadedGraph>,
}

/// The values of one column, in the precision of the graph.
#[derive(Clone, Debug)]
pub(super) enum Numbers {
    Single(Vec<f32>),
    Double(Vec<f64>),
    Integer(Vec<i64>),
    /// Strings, which have no summary: only the last one is kept, to run the graph.
    Text(String),
}

/// A column of an output: its name in prediction records, and a value per row.
pub(super) struct OutputColumn {
    pub(super) name: String,
    pub(super) values: Numbers,
}

impl Runner {
    /// Loads the graph of the `model` in `folder`.
    pub(super) fn load(model: &str, folder: &Path, backends: &[Arc<dyn Backend>]) -> Result<Self> {
        check_model_folder(model, folder).map_err(|problems| joined(&problems))?;
        let path = folder.join(GRAPH);
        let bytes = std::fs::read(&path).with_context(|| path.display().to_string())?;
        let request = load_request(folder)?;
        let (encoding, target) = (Encoding::Onnx, ExecutionTarget::Cpu);
        let LoadResult { graph, .. } = load_with_first(backends, &bytes, encoding, target, request)
            .with_context(|| path.display().to_string())?;
        Ok(Self { graph })
    }

    /// The input `name`, if it exists.
    pub(super) fn input(&self, name: &str) -> Option<&TensorInfo> {
        self.graph.inputs().iter().find(|info| info.name == name)
    }

    pub(super) fn inputs(&self) -> &[TensorInfo] {
        self.graph.inputs()
    }

    /// Number of rows per run: [`BATCH`], or 1 if the graph has a fixed batch size.
    pub(super) fn batch(&self) -> usize {
        let free = |info: &TensorInfo| {
            info.shape.as_ref().is_none_or(|shape| shape.first() == Some(&None))
        };
        if self.graph.inputs().iter().all(free) { BATCH } else { 1 }
    }

    /// Runs the graph on inputs of `rows` rows.
    pub(super) fn run(
        &self,
        inputs: Vec<(String, Tensor)>,
        rows: usize,
    ) -> Result<Vec<OutputColumn>> {
        let (outputs, _) = self.graph.run(bind(self.graph.inputs(), inputs)?)?;
        let mut columns = Vec::new();
        for (info, tensor) in self.graph.outputs().iter().zip(&outputs) {
            let Some(size) = tensor.ty.size() else { continue };
            let elements = tensor.data.len() / size;
            ensure!(
                elements.is_multiple_of(rows),
                "the output `{}` has {elements} elements for {rows} rows, which is not a multiple",
                info.name
            );
            let width = elements / rows;
            // Wider outputs are not recorded in the prediction log.
            if width > MAX_ELEMENTS {
                continue;
            }
            for (column, name) in element_names(&info.name, width).into_iter().enumerate() {
                if let Some(values) = Numbers::read(tensor, column, width) {
                    columns.push(OutputColumn { name, values });
                }
            }
        }
        Ok(columns)
    }
}

impl Numbers {
    /// One column of a tensor of `width` columns; `None` for types that are not recorded.
    fn read(tensor: &Tensor, column: usize, width: usize) -> Option<Self> {
        let size = tensor.ty.size()?;
        let cells = tensor.data.chunks_exact(size).skip(column).step_by(width.max(1));
        Some(match tensor.ty {
            TensorType::Fp32 => Self::Single(numbers(cells, f32::from_le_bytes)),
            TensorType::Fp64 => Self::Double(numbers(cells, f64::from_le_bytes)),
            TensorType::I64 => Self::Integer(numbers(cells, i64::from_le_bytes)),
            TensorType::I32 => {
                Self::Integer(numbers(cells, |bytes| i64::from(i32::from_le_bytes(bytes))))
            }
            TensorType::U8 | TensorType::Bool => {
                Self::Integer(numbers(cells, |[byte]: [u8; 1]| i64::from(byte)))
            }
            TensorType::I8 => Self::Integer(numbers(cells, |b| i64::from(i8::from_le_bytes(b)))),
            TensorType::I16 => Self::Integer(numbers(cells, |b| i64::from(i16::from_le_bytes(b)))),
            TensorType::U16 => Self::Integer(numbers(cells, |b| i64::from(u16::from_le_bytes(b)))),
            TensorType::U32 => Self::Integer(numbers(cells, |b| i64::from(u32::from_le_bytes(b)))),
            TensorType::Fp16 => Self::Single(numbers(cells, |b| f16::from_le_bytes(b).to_f32())),
            TensorType::Bf16 => Self::Single(numbers(cells, |b| bf16::from_le_bytes(b).to_f32())),
            TensorType::U64 | TensorType::String => return None,
        })
    }

    /// The value of a row; NaN if there is none.
    #[expect(clippy::cast_precision_loss, reason = "a probability is no such integer")]
    pub(super) fn at(&self, row: usize) -> f64 {
        let value = match self {
            Self::Single(values) => values.get(row).map(|&x| f64::from(x)),
            Self::Double(values) => values.get(row).copied(),
            Self::Integer(values) => values.get(row).map(|&x| x as f64),
            Self::Text(_) => None,
        };
        value.unwrap_or(f64::NAN)
    }

    /// Appends `more`; false if its type differs.
    pub(super) fn append(&mut self, more: Self) -> bool {
        match (self, more) {
            (Self::Single(values), Self::Single(more)) => values.extend(more),
            (Self::Double(values), Self::Double(more)) => values.extend(more),
            (Self::Integer(values), Self::Integer(more)) => values.extend(more),
            _ => return false,
        }
        true
    }
}

fn numbers<'a, T, const N: usize>(
    cells: impl Iterator<Item = &'a [u8]>,
    number: impl Fn([u8; N]) -> T,
) -> Vec<T> {
    cells.filter_map(|cell| cell.try_into().ok()).map(number).collect()
}
