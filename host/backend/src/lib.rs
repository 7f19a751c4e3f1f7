//! What every inference backend implements, and the words it shares with the host.
//!
//! Dependencies point inward to this crate: a backend knows it and its own library, never the
//! host. The host checks every input against [`Graph::inputs`] before [`Graph::compute`] sees it
//! (names, datatypes, shapes, byte lengths), so a backend only runs graphs.

mod cancellation;

use std::fmt;
use std::sync::Arc;

pub use cancellation::Cancellation;

/// The element types that a graph may have at its edges. `wasi:nn` itself carries the first seven;
/// `wit/wasi-nn` says how the others travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TensorType {
    Fp16,
    Fp32,
    Fp64,
    Bf16,
    U8,
    I32,
    I64,
    /// One byte, 0 or 1.
    Bool,
    I8,
    I16,
    U16,
    U32,
    U64,
    /// UTF-8, of any length.
    String,
}

impl TensorType {
    /// Size of one element, in bytes; `None` for strings, whose sizes differ.
    #[must_use]
    pub fn size(self) -> Option<usize> {
        Some(match self {
            Self::U8 | Self::I8 | Self::Bool => 1,
            Self::Fp16 | Self::Bf16 | Self::I16 | Self::U16 => 2,
            Self::Fp32 | Self::I32 | Self::U32 => 4,
            Self::Fp64 | Self::I64 | Self::U64 => 8,
            Self::String => return None,
        })
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
            Self::Bool => "BOOL",
            Self::I8 => "I8",
            Self::I16 => "I16",
            Self::U16 => "U16",
            Self::U32 => "U32",
            Self::U64 => "U64",
            Self::String => "STRING",
        })
    }
}

/// A dense tensor: row-major, little-endian.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// The size of each axis, outermost first.
    pub dimensions: Vec<u32>,
    pub ty: TensorType,
    /// The elements: of strings the length in bytes (`u32`) and then the bytes of each, of every
    /// other type `ty.size()` bytes each.
    pub data: Vec<u8>,
}

/// The strings in the data of a string tensor; `None` where the data ends within one.
pub fn strings(mut data: &[u8]) -> impl Iterator<Item = Option<&[u8]>> {
    std::iter::from_fn(move || {
        if data.is_empty() {
            return None;
        }
        let string = data
            .split_first_chunk()
            .and_then(|(length, rest)| rest.split_at_checked(u32::from_le_bytes(*length) as usize));
        let (string, rest) = string.unzip();
        data = rest.unwrap_or_default();
        Some(string)
    })
}

/// One input or output of a graph, as the graph itself declares it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    pub name: String,
    pub ty: TensorType,
    /// `None` is a free axis. The whole is `None` where the graph does not say.
    pub shape: Option<Vec<Option<u32>>>,
    /// The symbolic name of each axis of `shape` (ONNX's `dim_param`): axes of one name have one
    /// size. Empty where the graph names none.
    pub axis_names: Vec<Option<String>>,
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
    /// More memory than there may be.
    #[error("{0}")]
    TooLarge(String),
}

/// What a model's settings say of how its graph is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LoadOptions {
    /// Threads that one inference may use.
    pub threads: usize,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self { threads: 1 }
    }
}

/// A library that runs graphs.
pub trait Backend: Send + Sync + fmt::Debug {
    /// For logs, errors and `model.toml`: `lean`.
    fn name(&self) -> &'static str;

    /// Whether it reads `encoding` and runs it on `target`.
    fn supports(&self, encoding: Encoding, target: ExecutionTarget) -> bool;

    /// Parses, checks and compiles a graph. Slow: milliseconds to seconds.
    fn load(&self, bytes: &[u8], encoding: Encoding) -> Result<Arc<dyn Graph>, Error>;

    /// [`Backend::load`] with options. A backend that has no use for them ignores them.
    fn load_with(
        &self,
        bytes: &[u8],
        encoding: Encoding,
        options: LoadOptions,
    ) -> Result<Arc<dyn Graph>, Error> {
        let _ = options;
        self.load(bytes, encoding)
    }

    /// Returns memory that it holds and does not need to the system.
    fn release_memory(&self) {}
}

/// A compiled graph, shared by every instance that uses it.
pub trait Graph: Send + Sync + fmt::Debug {
    fn inputs(&self) -> &[TensorInfo];

    fn outputs(&self) -> &[TensorInfo];

    /// Runs the graph on one tensor per input, in the order of [`Graph::inputs`], each already
    /// checked against its [`TensorInfo`]. Takes no lock: calls run in parallel.
    fn compute(&self, inputs: Vec<Tensor>) -> Result<Vec<Tensor>, Error>;

    /// [`Graph::compute`], which ends early with [`Error::Runtime`] if `cancellation` is cancelled
    /// meanwhile. A backend whose computations cannot be ended finishes them.
    fn compute_unless(
        &self,
        inputs: Vec<Tensor>,
        cancellation: &Cancellation,
    ) -> Result<Vec<Tensor>, Error> {
        let _ = cancellation;
        self.compute(inputs)
    }

    /// Whether the values of its inputs decide how long it takes, and not their sizes alone, as in a
    /// graph with a loop. Such a graph never runs on a thread that polls connections.
    fn time_depends_on_values(&self) -> bool {
        false
    }
}
