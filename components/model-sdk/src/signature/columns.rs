//! What the elements of a tensor are called in the prediction log.

use super::TensorSignature;

/// Maximum number of elements in one row of a tensor that is logged; of a wider one the name is.
pub(crate) const MAX_WIDTH: usize = 256;

/// What the columns of a tensor are called: its fields, its own name, or that of each element.
/// Empty where its shape does not say how many there are, or there are too many.
pub(crate) fn column_names(tensor: &TensorSignature) -> Vec<String> {
    match tensor.row() {
        _ if !tensor.fields.is_empty() => tensor.fields.clone(),
        Some(width) if width <= MAX_WIDTH => element_names(&tensor.name, width),
        _ => Vec::new(),
    }
}

pub(crate) fn element_names(name: &str, width: usize) -> Vec<String> {
    match width {
        1 => vec![name.to_owned()],
        _ => (0..width).map(|index| format!("{name}[{index}]")).collect(),
    }
}
