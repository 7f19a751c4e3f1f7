//! The part of ONNX's protobuf schema that the backends read.

pub mod outline;
mod schema;
pub mod wire;

pub use schema::*;
