//! Errors that name a node.

use spinfer_backend::Error;
use spinfer_onnx::NodeProto;

/// `Error::Unsupported` that names the node: another backend may run it.
pub(crate) fn unsupported(node: &NodeProto, why: impl std::fmt::Display) -> Error {
    Error::Unsupported(format!("lean does not cover {}: {why}", describe(node)))
}

/// `Error::InvalidEncoding` that names the node: no backend can run it.
pub(crate) fn invalid(node: &NodeProto, why: impl std::fmt::Display) -> Error {
    Error::InvalidEncoding(format!("{} is not valid ONNX: {why}", describe(node)))
}

/// A node as messages name it: its operator, and its name or else its first output.
fn describe(node: &NodeProto) -> String {
    let name = if node.name.is_empty() {
        node.output.first().map_or("", String::as_str)
    } else {
        &node.name
    };
    format!("node `{name}` ({})", node.op_type)
}
