//! The errors that name a node.

use spinfer_backend::Error;
use spinfer_onnx::NodeProto;

/// `Error::Unsupported` naming the node: this backend does not cover it, another may.
pub(crate) fn unsupported(node: &NodeProto, why: impl std::fmt::Display) -> Error {
    Error::Unsupported(format!("lean does not cover {}: {why}", describe(node)))
}

/// `Error::InvalidEncoding` naming the node: no backend could run it.
pub(crate) fn invalid(node: &NodeProto, why: impl std::fmt::Display) -> Error {
    Error::InvalidEncoding(format!("{} is not valid ONNX: {why}", describe(node)))
}

/// A node as messages call it: its operator, and its name or else its first output.
fn describe(node: &NodeProto) -> String {
    let name = if node.name.is_empty() {
        node.output.first().map_or("", String::as_str)
    } else {
        &node.name
    };
    format!("node `{name}` ({})", node.op_type)
}
