//! What every inference backend implements, and the words it shares with the host.
//!
//! Dependencies point inward to this crate: a backend knows it and its own library, never the
//! host. The host checks every input against [`Graph::inputs`] before [`Graph::compute`] sees it
//! (names, datatypes, shapes, byte lengths), so a backend only runs graphs.

use std::fmt;
use std::sync::Arc;

/// The element types of `wasi:nn`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TensorType {
    Fp16,
    Fp32,
    Fp64,
    Bf16,
    U8,
    I32,
    I64,
}

impl TensorType {
    /// Bytes of one element.
    #[must_use]
    pub fn size(self) -> usize {
        match self {
            Self::U8 => 1,
            Self::Fp16 | Self::Bf16 => 2,
            Self::Fp32 | Self::I32 => 4,
            Self::Fp64 | Self::I64 => 8,
        }
    }
}

impl fmt::Display for TensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fp16 => "FP16",
            Self::Fp32 => "FP32",
            Self::Fp64 => "FP64",
            Self::Bf16 => "BF16",
            Self::U8 => "U8",
            Self::I32 => "I32",
            Self::I64 => "I64",
        })
    }
}

/// A dense tensor: row-major, little-endian.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// The size of each axis, outermost first.
    pub dimensions: Vec<u32>,
    pub ty: TensorType,
    /// `dimensions` product times `ty.size()` bytes.
    pub data: Vec<u8>,
}

/// One input or output of a graph, as the graph itself declares it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    pub name: String,
    pub ty: TensorType,
    /// `None` is a free axis. The whole is `None` where the graph does not say.
    pub shape: Option<Vec<Option<u32>>>,
}

/// The format of a graph's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    Onnx,
}

/// Where a graph runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExecutionTarget {
    Cpu,
    Gpu,
    Tpu,
}

/// Why a backend could not load or run a graph. Each variant is an error code of `wasi:nn`.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    #[error("{0}")]
    InvalidArgument(String),
    #[error("{0}")]
    InvalidEncoding(String),
    #[error("{0}")]
    Unsupported(String),
    #[error("{0}")]
    Runtime(String),
}

/// A library that runs graphs.
pub trait Backend: Send + Sync + fmt::Debug {
    /// For logs and errors: `tract`.
    fn name(&self) -> &'static str;

    /// Whether it reads `encoding` and runs it on `target`.
    fn supports(&self, encoding: Encoding, target: ExecutionTarget) -> bool;

    /// Parses, checks and compiles a graph. Slow: milliseconds to seconds.
    fn load(&self, bytes: &[u8], encoding: Encoding) -> Result<Arc<dyn Graph>, Error>;
}

/// A compiled graph, shared by every instance that uses it.
pub trait Graph: Send + Sync + fmt::Debug {
    fn inputs(&self) -> &[TensorInfo];

    fn outputs(&self) -> &[TensorInfo];

    /// Runs the graph on one tensor per input, in the order of [`Graph::inputs`], each already
    /// checked against its [`TensorInfo`]. Takes no lock: calls run in parallel.
    fn compute(&self, inputs: Vec<Tensor>) -> Result<Vec<Tensor>, Error>;
}
