//! The ONNX schema: the only declaration of its protobuf messages in this workspace.
//!
//! - The messages are [`ModelProto`] and what it contains, named as in `onnx/onnx.proto` of the
//!   ONNX project.
//! - `decode_outline` of a model, a node or a tensor leaves out what makes it large.
//! - [`wire`] edits a message in its encoded form, and [`edit_tensors`] the tensors of a model:
//!   every other byte stays.

mod message_kind;
mod outline;
mod schema;
mod tensors;
pub mod wire;

pub use schema::*;
pub use tensors::{TooDeep, edit_tensors};
