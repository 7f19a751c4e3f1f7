//! The operators of `ai.onnx.ml` within tract: each alone against ONNX Runtime, in graphs that lie,
//! and in what skl2onnx makes of scikit-learn.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod cases;
mod estimators;
mod hostile;
mod operators;
