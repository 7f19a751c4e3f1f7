//! Graphs: where a component's models are ([`mounts`]), what is loaded ([`registry`]), whether
//! tensors fit ([`bind`]), how long an inference takes ([`graph`]), on which thread it runs
//! ([`model`], [`compute`]) and with which others ([`batch`]). What a backend might take any time or
//! memory to load is loaded elsewhere first ([`trial`]).
//!
//! A graph is compiled once for each SHA-256 of its bytes and shared by every instance of every
//! component that may use it. No lock is held while it computes.

mod batch;
mod bind;
mod compute;
mod graph;
mod model;
mod mounts;
mod registry;
pub mod trial;

use std::path::Path;
use std::sync::Arc;

use spinfer_backend::Backend;
use spinfer_backend_lean::Lean;
use spinfer_backend_tract::Tract;
use trial::Tried;

pub use bind::bind;
pub(crate) use bind::shortened;
pub use compute::ComputeThreads;
pub use graph::LoadedGraph;
pub use model::Model;
#[cfg(any(test, fuzzing))]
pub(crate) use mounts::check_settings;
pub use mounts::{GRAPH, MODELS, MountedModel, Mounts, SIGNATURE, check_model_folder, hex};
pub use registry::{Models, Registry, load_with_first};

/// Those there are, in the order they are asked: what is served most is lean, and takes as long as it
/// is; tract has the rest. Its graphs are tried first, in a process of `program`, if that is given.
#[must_use]
pub fn backends(program: Option<&Path>) -> Vec<Arc<dyn Backend>> {
    let tract: Arc<dyn Backend> = Arc::new(Tract);
    let tract = match program {
        Some(program) => Arc::new(Tried::new(tract, program.to_owned())),
        None => tract,
    };
    vec![Arc::new(Lean), tract]
}

/// Why an inference, or loading its graph, failed. Each variant is an error code of `wasi:nn`.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Backend(#[from] spinfer_backend::Error),
    #[error("{0}")]
    NotFound(String),
    #[error("{0}")]
    TooLarge(String),
    #[error("{0}")]
    Security(String),
    #[error("the inference did not finish before the request's deadline")]
    Timeout,
}
