//! Options of the backends of a process, and how a model's settings have its graph loaded.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;
use bytesize::ByteSize;
use clap::Args;
use serde::Deserialize;
use spinfer_backend::{Backend, LoadOptions};
use spinfer_backend_lean::Lean;
use spinfer_backend_ort::{Library, OnnxRuntime, Options, library};

use super::trial::{TrialBackend, this_program};

/// Default memory for the intermediate results of all concurrent inferences, in bytes.
const DEFAULT_MEMORY: u64 = 2 << 30;

/// Flags of the commands that load models.
#[derive(Args, Clone, Debug, Default)]
pub struct InferenceFlags {
    /// Library of ONNX Runtime, or the folder that contains it [default: $ORT_DYLIB_PATH, or
    /// libonnxruntime.so in the folder of spinfer or in ../lib/spinfer]
    #[arg(long, value_name = "PATH")]
    onnxruntime: Option<PathBuf>,

    /// Memory for the intermediate results of ONNX Runtime, over all concurrent inferences
    /// [default: 2GiB]
    #[arg(long, value_name = "SIZE")]
    onnxruntime_memory: Option<ByteSize>,
}

impl InferenceFlags {
    /// The options that the flags set.
    ///
    /// # Errors
    /// The library is given and does not exist.
    pub fn backends(&self) -> Result<BackendOptions> {
        let library = library::find(self.onnxruntime.as_deref()).map_err(anyhow::Error::msg)?;
        let memory = self.onnxruntime_memory.map_or(DEFAULT_MEMORY, |size| size.as_u64());
        let memory = usize::try_from(memory).unwrap_or(usize::MAX);
        let onnxruntime = Options { library, memory };
        Ok(BackendOptions { program: Some(this_program()?), onnxruntime })
    }
}

/// Options of the backends of a process.
#[derive(Clone, Debug)]
pub struct BackendOptions {
    /// This program, to run trials of graphs; `None`: no trials.
    pub program: Option<PathBuf>,
    pub onnxruntime: Options,
}

impl Default for BackendOptions {
    /// Options without ONNX Runtime.
    fn default() -> Self {
        let library = Library::Missing("this process has no ONNX Runtime".into());
        let memory = usize::try_from(DEFAULT_MEMORY).unwrap_or(usize::MAX);
        Self { program: None, onnxruntime: Options { library, memory } }
    }
}

impl BackendOptions {
    /// Options with ONNX Runtime's library at `path`, and without trials.
    #[must_use]
    pub fn without_trials(path: &Path) -> Self {
        let onnxruntime =
            Options { library: Library::At(path.to_owned()), ..Self::default().onnxruntime };
        Self { program: None, onnxruntime }
    }

    /// The backends in the order in which they are tried: lean, which is faster for the graphs that it
    /// supports, then ONNX Runtime, whose graphs have a trial in a process of their own first.
    #[must_use]
    pub fn backends(&self) -> Vec<Arc<dyn Backend>> {
        let general: Arc<dyn Backend> = Arc::new(OnnxRuntime::new(self.onnxruntime.clone()));
        let general = match (&self.program, &self.onnxruntime.library) {
            (Some(program), Library::At(library)) => {
                Arc::new(TrialBackend::new(general, program.clone(), Some(library.clone())))
            }
            _ => general,
        };
        vec![Arc::new(Lean), general]
    }
}

/// How a model's settings have its graph loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct LoadRequest {
    /// The backend to use; `None`: the first that supports the graph.
    pub backend: Option<BackendName>,
    pub options: LoadOptions,
}

/// `backend` in a `model.toml`.
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
