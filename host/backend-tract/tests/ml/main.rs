//! The operators of `ai.onnx.ml` within tract: each alone against ONNX Runtime, and in graphs that lie.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod cases;
mod hostile;
mod operators;
