//! Lean inference for the most common models: linear models, tree ensembles and small dense
//! networks in ONNX. The evaluators allocate only their outputs and read memory in order. Any other
//! graph is [`Error::Unsupported`], which names the first unsupported node, and the host tries the
//! next backend.
//!
//! # Supported graphs
//! One input of FP32, FP64, I32 or I64. Its first axis is the batch (fixed, free, or empty), the
//! other axes are fixed. Each value of the graph has one row for each row of the batch.
//!
//! | domain | operators |
//! | --- | --- |
//! | `ai.onnx.ml` 1 to 5 | LinearClassifier, LinearRegressor, Normalizer, Scaler, TreeEnsemble, TreeEnsembleClassifier, TreeEnsembleRegressor, ArrayFeatureExtractor of a constant list, ZipMap (its output is the tensor of scores) |
//! | `ai.onnx` from 7 | Gemm, MatMul, Add, Sub, Mul, Div with constants; Relu, LeakyRelu, Tanh, Sigmoid, Softmax, ArgMax; Identity, Cast, Flatten, Reshape, Concat along the last axis; Constant |
//!
//! Not supported: labels that are strings, several inputs, arithmetic between two computed values.
//!
//! # Results
//! Those of ONNX Runtime 1.32 on one thread, on every case of `tests/reference.rs`:
//!
//! - Tree ensembles: the same bits, post-transforms included.
//! - Products with a matrix, `Sigmoid`, `Tanh` and
//!   `Softmax`: within 1e-6, absolute for numbers up to 1 and relative above, as sums and `exp` are
//!   rounded in another order. The largest difference is 1.8e-7 with AVX2, and 9.6e-7 without, in a
//!   product of 40 terms.
//!
//! Each module has its formulas. Where the standard has none they are ONNX Runtime's.
//!
//! # Memory
//! A call allocates only its outputs. Intermediate values are in scratch memory, which each thread
//! reuses, for one block of rows at a time. Only ensembles of more than 16 classes or targets
//! allocate their scores, once for each block.

mod attributes;
mod builder;
mod constant;
mod dense;
mod graph;
mod marshal;
mod operators;
mod plan;
mod post_transform;
mod refusal;
mod rows;
mod scratch;
mod signature;
mod step;
mod tree;

#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;

#[cfg(test)]
mod hostile;

use std::sync::Arc;

use prost::Message;
use spinfer_backend::{Backend, Encoding, Error, ExecutionTarget, Graph};

use spinfer_onnx::ModelProto;

/// The lean backend, on the CPU.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lean;

impl Backend for Lean {
    fn name(&self) -> &'static str {
        "lean"
    }

    fn supports(&self, encoding: Encoding, target: ExecutionTarget) -> bool {
        matches!((encoding, target), (Encoding::Onnx, ExecutionTarget::Cpu))
    }

    fn load(&self, bytes: &[u8], Encoding::Onnx: Encoding) -> Result<Arc<dyn Graph>, Error> {
        let model = ModelProto::decode(bytes)
            .map_err(|e| Error::InvalidEncoding(format!("not an ONNX model: {e}")))?;
        Ok(Arc::new(graph::LeanGraph::compile(&model)?))
    }
}
