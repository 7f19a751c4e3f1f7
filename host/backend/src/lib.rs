//! The interface between the host and its inference backends: [`Backend`], [`Graph`],
//! [`Tensor`] and [`Error`].
//!
//! A backend depends on this crate and on its own library, never on the host. The host checks every
//! input against [`Graph::inputs`] (name, datatype, shape, length in bytes) before it calls
//! [`Graph::compute`], so a backend only runs graphs.

mod cancellation;

use std::fmt;
use std::sync::Arc;

pub use cancellation::Cancellation;

/// Element type of an input or output. `wasi:nn` has the first seven; `wit/wasi-nn` specifies how
/// tensors of the others are packed.
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
    /// UTF-8 of variable length.
    String,
}

impl TensorType {
    /// Size of one element, in bytes; `None` for strings, whose size varies.
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
    /// Size of each axis, outermost first.
    pub dimensions: Vec<u32>,
    pub ty: TensorType,
    /// Elements of `ty.size()` bytes each. A string is its length in bytes (`u32`), then its bytes.
    pub data: Vec<u8>,
}

/// The strings in the data of a tensor of strings. Yields `None` and stops if the data ends within
/// a string.
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

/// An input or output of a graph, as the graph declares it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    pub name: String,
    pub ty: TensorType,
    /// Size of each axis, `None` for a free axis. The shape is `None` if the graph declares none.
    pub shape: Option<Vec<Option<u32>>>,
    /// Symbolic name of each axis of `shape` (ONNX's `dim_param`): axes with the same name have the
    /// same size. Empty if the graph names none.
    pub axis_names: Vec<Option<String>>,
}

/// Format of an encoded graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    Onnx,
}

/// Hardware that a graph runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExecutionTarget {
    Cpu,
    Gpu,
    Tpu,
}

impl fmt::Display for Encoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Onnx => "ONNX",
        })
    }
}

impl fmt::Display for ExecutionTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cpu => "the CPU",
            Self::Gpu => "a GPU",
            Self::Tpu => "a TPU",
        })
    }
}

/// Why a backend did not load or run a graph. Each variant is an error code of `wasi:nn`.
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
    /// A limit on memory would be exceeded.
    #[error("{0}")]
    TooLarge(String),
}

/// Settings of a model that apply when its graph is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LoadOptions {
    /// Maximum number of threads of one inference.
    pub threads: usize,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self { threads: 1 }
    }
}

/// A library that runs graphs.
pub trait Backend: Send + Sync + fmt::Debug {
    /// Name in logs, errors and `model.toml`: `lean`.
    fn name(&self) -> &'static str;

    /// Whether it runs graphs of this encoding on this target.
    fn supports(&self, encoding: Encoding, target: ExecutionTarget) -> bool;

    /// Parses, checks and compiles a graph. Takes milliseconds to seconds.
    ///
    /// # Errors
    /// [`Error::InvalidEncoding`] if `bytes` are not a graph, [`Error::Unsupported`] if another
    /// backend may run it.
    fn load(&self, bytes: &[u8], encoding: Encoding) -> Result<Arc<dyn Graph>, Error>;

    /// [`Backend::load`] with options, which a backend may ignore.
    ///
    /// # Errors
    /// As for [`Backend::load`].
    fn load_with(
        &self,
        bytes: &[u8],
        encoding: Encoding,
        options: LoadOptions,
    ) -> Result<Arc<dyn Graph>, Error> {
        let _ = options;
        self.load(bytes, encoding)
    }

    /// Returns unused memory to the system.
    fn release_memory(&self) {}
}

/// A compiled graph. All instances that use it share it.
pub trait Graph: Send + Sync + fmt::Debug {
    fn inputs(&self) -> &[TensorInfo];

    fn outputs(&self) -> &[TensorInfo];

    /// Runs the graph on one tensor for each input, in the order of
    /// [`Graph::inputs`]. The caller has checked each against its [`TensorInfo`]. Takes no lock:
    /// calls run in parallel.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if the graph has no result for the inputs, [`Error::TooLarge`] if
    /// it needs too much memory for them, [`Error::Runtime`] for any other failure.
    fn compute(&self, inputs: Vec<Tensor>) -> Result<Vec<Tensor>, Error>;

    /// [`Graph::compute`], which returns [`Error::Runtime`] early if `cancellation` is cancelled. A
    /// backend that cannot stop a computation finishes it.
    ///
    /// # Errors
    /// As for [`Graph::compute`].
    fn compute_unless(
        &self,
        inputs: Vec<Tensor>,
        cancellation: &Cancellation,
    ) -> Result<Vec<Tensor>, Error> {
        let _ = cancellation;
        self.compute(inputs)
    }

    /// Whether the time of a run depends on the values of the inputs and not only on their sizes,
    /// as in a graph with a loop. Such a graph never runs on a thread that polls connections.
    fn time_depends_on_values(&self) -> bool {
        false
    }
}
