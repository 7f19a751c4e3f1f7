//! ONNX Runtime as a backend: any graph that it runs on a CPU, with its numbers.
//!
//! The library is not linked but loaded at run time ([`library`]), when the first graph needs it.
//!
//! # A graph
//! One session, whose weights every run shares. Runs are concurrent and take no lock: ONNX Runtime's
//! `OrtApi::Run` may be called on one session from any number of threads (`ort`'s own
//! `Session::run` allows one at a time, so [`run`] calls the C API).
//!
//! # Signature
//! What `wasi:nn` and the protocols above it have no type for is translated here: small integers and
//! floats ([`low_precision`]), ZipMap and sequences of tensors ([`signature`]). What cannot be is refused by name
//! when the graph is loaded.
//!
//! # Bounds
//! - Memory: the intermediate values and outputs of all runs come from one arena of at most
//!   [`Options::memory`] bytes. Weights are outside of it: their size is the graph's.
//! - Threads: a run uses [`LoadOptions::threads`], of which the caller's is one.
//! - Time: a run ends when its [`Cancellation`] is cancelled, between two operators.
//! - An integer division that the processor refuses ends the run and not the process ([`division`]).

mod data_dependence;
mod division;
mod environment;
mod error;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
pub mod library;
mod locale;
mod low_precision;
mod native_info;
mod run;
mod session;
mod signature;
mod value;

use std::path::PathBuf;
use std::sync::Arc;

use spinfer_backend::{
    Backend, Cancellation, Encoding, Error, ExecutionTarget, Graph, LoadOptions, Tensor, TensorInfo,
};

use crate::session::Session;

/// What ONNX Runtime may use.
#[derive(Clone, Debug)]
pub struct Options {
    /// Its library.
    pub library: Library,
    /// Maximum size of the arena that all runs share, in bytes.
    pub memory: usize,
}

/// Where the library is.
#[derive(Clone, Debug)]
pub enum Library {
    At(PathBuf),
    /// Nowhere: the reason, and what to do.
    Missing(String),
}

/// ONNX Runtime, on the CPU.
#[derive(Clone, Debug)]
pub struct OnnxRuntime {
    options: Options,
}

impl OnnxRuntime {
    /// The name of the backend.
    pub const NAME: &str = "onnxruntime";

    #[must_use]
    pub fn new(options: Options) -> Self {
        Self { options }
    }
}

impl Backend for OnnxRuntime {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn supports(&self, encoding: Encoding, target: ExecutionTarget) -> bool {
        matches!((encoding, target), (Encoding::Onnx, ExecutionTarget::Cpu))
    }

    fn load(&self, bytes: &[u8], encoding: Encoding) -> Result<Arc<dyn Graph>, Error> {
        self.load_with(bytes, encoding, LoadOptions::default())
    }

    fn load_with(
        &self,
        bytes: &[u8],
        Encoding::Onnx: Encoding,
        options: LoadOptions,
    ) -> Result<Arc<dyn Graph>, Error> {
        let environment = environment::environment(&self.options)?;
        Ok(Arc::new(Session::load(&environment, bytes, options)?))
    }

    fn release_memory(&self) {
        environment::release_memory();
    }
}

impl Graph for Session {
    fn inputs(&self) -> &[TensorInfo] {
        self.inputs()
    }

    fn outputs(&self) -> &[TensorInfo] {
        self.outputs()
    }

    fn compute(&self, inputs: Vec<Tensor>) -> Result<Vec<Tensor>, Error> {
        self.run(&inputs, None)
    }

    fn compute_unless(
        &self,
        inputs: Vec<Tensor>,
        cancellation: &Cancellation,
    ) -> Result<Vec<Tensor>, Error> {
        self.run(&inputs, Some(cancellation))
    }

    fn time_depends_on_values(&self) -> bool {
        self.data_dependent()
    }
}
