//! Inference: loads models and runs their graphs.
//!
//! - `mounts`: the model folders of a component; `model_toml`: the signature and settings in them
//! - `registry`: the graphs that are loaded; `component_models`: those that a component uses
//! - `options`: the backends; [`trial`]: loads a graph in a process of its own first
//! - [`bind`]: checks tensors against the inputs of a graph; `packed`: tensors of types that
//!   `wasi:nn` lacks
//! - `graph`: measures how long an inference takes, and decides where it runs
//! - `model`: runs an inference, inline, on a compute thread (`compute`) or in a batch (`batch`)
//!
//! A graph is loaded once for each SHA-256 of its bytes, and shared by all instances of all components
//! that use it. No lock is held during an inference.

mod batch;
mod bind;
mod component_models;
mod compute;
mod graph;
mod model;
pub mod model_states;
mod model_toml;
mod mounts;
mod options;
mod packed;
mod registry;
pub mod trial;

pub use bind::bind;
pub use component_models::ComponentModels;
pub use compute::ComputeThreads;
pub use graph::LoadedGraph;
pub use model::BoundModel;
pub use model_toml::{check_loaded, datatype};
#[cfg(any(test, fuzzing))]
pub(crate) use mounts::check_settings;
pub use mounts::{
    GRAPH, MODELS, MountedModel, Mounts, SIGNATURE, check_model_folder, declared, hex, joined,
    load_request,
};
pub use options::{BackendName, BackendOptions, InferenceFlags, LoadRequest};
pub use packed::pack;
pub use registry::{GraphRegistry, LoadResult, load_with_first};

/// Why an inference, or loading a graph, failed. Each variant is an error code of `wasi:nn`.
#[derive(Clone, Debug, thiserror::Error)]
pub enum InferenceError {
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
