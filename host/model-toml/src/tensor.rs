//! An entry of `[[inputs]]` or `[[outputs]]`.

/// Maximum number of axes. The parsers of requests keep their state per axis on the stack; ONNX models use up
/// to 6 axes.
pub const MAX_RANK: usize = 16;

/// An input or output.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TensorEntry {
    /// Name, as in the graph.
    pub name: String,
    /// One of [`crate::DATATYPES`].
    pub datatype: &'static str,
    /// Size of each axis, outermost first. -1: a free axis.
    pub shape: Vec<i64>,
    /// The axis that counts rows, if it is free.
    pub batch_axis: usize,
    /// Names of the elements of one row, in order. Empty if they have none.
    pub fields: Vec<String>,
}

impl TensorEntry {
    /// The number of elements in one row. `None` if an axis other than the batch axis is free.
    #[must_use]
    pub fn row(&self) -> Option<usize> {
        row(&self.shape, self.batch_axis)
    }

    /// Whether elements are floating-point numbers.
    #[must_use]
    pub fn is_float(&self) -> bool {
        matches!(self.datatype, "FP16" | "FP32" | "FP64" | "BF16")
    }

    /// A problem that the types do not exclude.
    pub(crate) fn problem(&self) -> Option<String> {
        let Self { name, shape, batch_axis, fields, .. } = self;
        if shape.len() > MAX_RANK || shape.iter().any(|&axis| axis < -1) {
            return Some(format!(
                "{name:?} has the shape {shape:?}: expected at most {MAX_RANK} axes, each 0 or more, or -1 if free"
            ));
        }
        if *batch_axis > 0 && !counts_rows(shape, *batch_axis) {
            return Some(format!(
                "{name:?} has `batch_axis = {batch_axis}` and the shape {shape:?}: expected the index of a free \
                 axis (-1 in `shape`); omit `batch_axis` if no axis counts rows"
            ));
        }
        if !fields.is_empty() && self.row().is_some_and(|row| row != fields.len()) {
            return Some(format!(
                "{name:?} has {} fields, which do not match its shape {shape:?}",
                fields.len()
            ));
        }
        None
    }
}

/// Whether the batch axis is free, and therefore counts rows.
#[must_use]
pub fn counts_rows(shape: &[i64], batch_axis: usize) -> bool {
    shape.get(batch_axis) == Some(&-1)
}

/// The number of elements in one row. `None` if an axis other than the batch axis is free.
#[must_use]
pub fn row(shape: &[i64], batch_axis: usize) -> Option<usize> {
    let batch = if counts_rows(shape, batch_axis) { batch_axis } else { usize::MAX };
    let axes = shape.iter().enumerate().filter(|(position, _)| *position != batch);
    axes.map(|(_, &axis)| axis)
        .try_fold(1_usize, |row, axis| row.checked_mul(usize::try_from(axis).ok()?))
}

/// The axes of one row.
#[must_use]
pub fn row_axes(shape: &[i64], batch_axis: usize) -> Vec<i64> {
    let mut axes = shape.to_vec();
    if counts_rows(shape, batch_axis) {
        axes.remove(batch_axis);
    }
    axes
}
