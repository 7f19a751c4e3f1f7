//! Models out of MLflow: what a [`Source`] names is found on a tracking server, or in a folder, and its
//! ONNX graph is fetched, with every side file in it, and with what MLflow knows of its origin.
//!
//! Nothing is written: a model is complete and checked in memory, its side files in files without a
//! name, before [`crate::cli::pull`] adds it to an application.

pub mod api;
pub mod client;
pub mod error;
pub mod fetch;
pub mod mlmodel;
pub mod paths;
pub mod settings;
pub mod source;
pub mod store;

pub use fetch::{Fetched, Locator};
pub use settings::Settings;
pub use source::Source;

#[cfg(test)]
mod tests;
