//! What the backends of a process may use, and what a model's settings ask of them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;
use bytesize::ByteSize;
use clap::Args;
use serde::Deserialize;
use spinfer_backend::{Backend, LoadOptions};
use spinfer_backend_lean::Lean;
use spinfer_backend_ort::{Library, OnnxRuntime, Options, library};

use super::trial::{Tried, this_program};

/// Maximum size of the intermediate results of all inferences at a time, in bytes.
const MEMORY: u64 = 2 << 30;

/// Flags of the commands that load models.
#[derive(Args, Clone, Debug, Default)]
pub struct InferenceFlags {
    /// ONNX Runtime's library, or the folder that holds it [default: $ORT_DYLIB_PATH, or
    /// libonnxruntime.so beside spinfer or in ../lib/spinfer]
    #[arg(long, value_name = "PATH")]
    onnxruntime: Option<PathBuf>,

    /// Memory for the intermediate results of ONNX Runtime, of all inferences at a time
    /// [default: 2GiB]
    #[arg(long, value_name = "SIZE")]
    onnxruntime_memory: Option<ByteSize>,
}

impl InferenceFlags {
    /// # Errors
    /// If the library is named and is not there.
    pub fn backends(&self) -> Result<BackendOptions> {
        let library = library::find(self.onnxruntime.as_deref()).map_err(anyhow::Error::msg)?;
        let memory = self.onnxruntime_memory.map_or(MEMORY, |size| size.as_u64());
        let memory = usize::try_from(memory).unwrap_or(usize::MAX);
        let onnxruntime = Options { library, memory };
        Ok(BackendOptions { program: Some(this_program()?), onnxruntime })
    }
}

/// What the backends of a process may use.
#[derive(Clone, Debug)]
pub struct BackendOptions {
    /// This program, to try graphs with; `None`: they are not tried.
    pub program: Option<PathBuf>,
    pub onnxruntime: Options,
}

impl Default for BackendOptions {
    /// No ONNX Runtime.
    fn default() -> Self {
        let library = Library::Missing("this process has no ONNX Runtime".into());
        let memory = usize::try_from(MEMORY).unwrap_or(usize::MAX);
        Self { program: None, onnxruntime: Options { library, memory } }
    }
}

impl BackendOptions {
    /// ONNX Runtime's library at `path`; graphs are not tried first.
    #[must_use]
    pub fn untried(path: &Path) -> Self {
        let onnxruntime =
            Options { library: Library::At(path.to_owned()), ..Self::default().onnxruntime };
        Self { program: None, onnxruntime }
    }

    /// The backends in the order they are asked: lean, which is faster at what it covers, then ONNX
    /// Runtime, whose graphs are tried first in a process of their own.
    #[must_use]
    pub fn backends(&self) -> Vec<Arc<dyn Backend>> {
        let general: Arc<dyn Backend> = Arc::new(OnnxRuntime::new(self.onnxruntime.clone()));
        let general = match (&self.program, &self.onnxruntime.library) {
            (Some(program), Library::At(library)) => {
                Arc::new(Tried::new(general, program.clone(), Some(library.clone())))
            }
            _ => general,
        };
        vec![Arc::new(Lean), general]
    }
}

/// What a model's settings ask of how its graph is loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct LoadRequest {
    /// The backend that has to run it; `None`: the first that can.
    pub backend: Option<BackendName>,
    pub options: LoadOptions,
}

/// `backend` of a `model.toml`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BackendName {
    Lean,
    OnnxRuntime,
}

impl BackendName {
    /// Whether this is the name of `backend`.
    pub(super) fn is_of(self, backend: &dyn Backend) -> bool {
        backend.name() == self.name()
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Lean => "lean",
            Self::OnnxRuntime => OnnxRuntime::NAME,
        }
    }
}
