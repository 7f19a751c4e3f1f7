//! ONNX Runtime as a backend: any graph that it runs on a CPU, with its numbers.
//!
//! The library is not linked. It is loaded ([`library`]) when the first graph needs it.
//!
//! # Sessions
//! A graph is one session, and all runs share its weights. Runs are concurrent and take no lock:
//! ONNX Runtime's `OrtApi::Run` may be called on one session from any number of threads. `ort`'s
//! own `Session::run` allows one at a time, so `run` calls the C API.
//!
//! # Inputs and outputs
//! Types that `wasi:nn` and the protocols above it do not have are converted: integers of less than
//! a byte and floats of at most a byte (`low_precision`), ZipMap and sequences of tensors
//! (`signature`). A graph with any other type is refused when it is loaded, with the name of the
//! input or output.
//!
//! # Limits
//! - Memory: intermediate values and outputs of all runs are in one arena of at most
//!   [`Options::memory`] bytes. Weights are not in it: their size is that of the graph.
//! - Threads: a run uses [`LoadOptions::threads`], the caller's included.
//! - Time: a run whose [`Cancellation`] is cancelled stops before the next operator.
//! - An integer division that traps fails the run and not the process (`division`).

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

/// Options of the backend.
#[derive(Clone, Debug)]
pub struct Options {
    /// ONNX Runtime's library.
    pub library: Library,
    /// Maximum size of the arena of all runs, in bytes.
    pub memory: usize,
}

/// Location of ONNX Runtime's library.
#[derive(Clone, Debug)]
pub enum Library {
    At(PathBuf),
    /// Not found: the message with the reason and the remedy.
    Missing(String),
}

/// ONNX Runtime, on the CPU.
#[derive(Clone, Debug)]
pub struct OnnxRuntime {
    options: Options,
}

impl OnnxRuntime {
    /// Name of the backend in logs, errors and `model.toml`.
    pub const NAME: &str = "onnxruntime";

    /// A backend that loads the library when it loads its first graph.
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
