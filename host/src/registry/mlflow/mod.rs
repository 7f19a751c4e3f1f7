//! MLflow models: locates a model ([`ModelSource`]) on a tracking server or in a folder, and fetches its
//! ONNX graph with external weights and provenance.
//!
//! Nothing is written: the model is completed and checked in memory, with external weights in unnamed
//! temporary files, before [`crate::cli::pull`] adds it to an application.

pub mod api;
pub mod client;
pub mod error;
pub mod fetch;
pub mod locate;
pub mod mlmodel;
pub mod paths;
mod provenance;
pub mod settings;
pub mod source;
pub mod store;

pub use fetch::FetchedGraph;
pub use locate::Locator;
pub use settings::MlflowSettings;
pub use source::ModelSource;

#[cfg(test)]
mod tests;
