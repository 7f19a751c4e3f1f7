//! The names of a tensor's columns in the prediction log.

use super::TensorSignature;

/// Maximum number of elements per row of a logged tensor. A wider one is listed as omitted.
pub(crate) const MAX_WIDTH: usize = 256;

/// The names of a tensor's columns: its fields, its own name, or `name[0]`, `name[1]` and so on. Empty if its
/// shape does not determine their number, or there are too many.
pub(crate) fn column_names(tensor: &TensorSignature) -> Vec<String> {
    match tensor.row() {
        _ if !tensor.fields.is_empty() => tensor.fields.clone(),
        Some(width) if width <= MAX_WIDTH => element_names(&tensor.name, width),
        _ => Vec::new(),
    }
}

/// `name` for one element, `name[0]`, `name[1]` and so on for several.
pub(crate) fn element_names(name: &str, width: usize) -> Vec<String> {
    match width {
        1 => vec![name.to_owned()],
        _ => (0..width).map(|index| format!("{name}[{index}]")).collect(),
    }
}
