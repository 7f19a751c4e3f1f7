//! Graphs: where a component's models are ([`mounts`]), what is loaded ([`registry`]), whether
//! tensors fit ([`bind`]), how long an inference takes ([`graph`]), on which thread it runs
//! ([`model`], [`compute`]) and with which others ([`batch`]). What a backend might take any time or
//! memory to load is loaded elsewhere first ([`trial`]). Which backends there are: [`options`]. How
//! tensors of types that `wasi:nn` lacks travel: [`packed`].
//!
//! A graph is compiled once for each SHA-256 of its bytes and shared by every instance of every
//! component that may use it. No lock is held while it computes.

mod batch;
mod bind;
mod compute;
mod graph;
mod model;
pub mod model_states;
mod mounts;
mod options;
mod packed;
mod registry;
pub mod trial;

pub use bind::bind;
pub use compute::ComputeThreads;
pub use graph::LoadedGraph;
pub use model::Model;
#[cfg(any(test, fuzzing))]
pub(crate) use mounts::check_settings;
pub use mounts::{
    GRAPH, MODELS, MountedModel, Mounts, SIGNATURE, check_model_folder, hex, load_request,
};
pub use options::{BackendName, BackendOptions, InferenceFlags, LoadRequest};
pub use packed::pack;
pub use registry::{Loaded, Models, Registry, load_with_first};

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
