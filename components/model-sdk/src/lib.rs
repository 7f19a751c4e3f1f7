//! The guest library: with it, a model component is one `impl`.
//!
//! ```
//! use model_sdk::{Error, Graph, Model, Prediction, Rows};
//!
//! struct Iris;
//!
//! impl Model for Iris {
//!     const NAME: &'static str = "iris-classifier";
//!
//!     fn predict(graph: &Graph, rows: Rows<'_>) -> Result<Prediction, Error> {
//!         let features = rows.tensor("features", &[4]);
//!         let [indices, probabilities] = graph.compute([features], ["label", "probabilities"])?;
//!         Ok(Prediction::Classes { indices, probabilities })
//!     }
//! }
//!
//! model_sdk::export!(Iris);
//! # fn main() {}
//! ```
//!
//! # Life of a request in a component
//!
//! ```text
//! host -> fast door (doors/fast)          one call with the whole request
//!      -> standard door (doors/standard)  wasi:http/handler: reads the body, then as above
//!           request                 the same type from either door
//!           handler                 the list of steps
//!             operation             path -> operation, model, version     404, 405
//!             graph                 first request only: model.toml, load-by-name    503
//!             predict               {"features": [...]} or {"instances": [[...], ...]}, a row also as
//!                                     {"column": value, ...}: rows
//!                                     -> Model::predict, or default_predict -> {"prediction", ...}
//!             infer                 Open Inference Protocol: tensors -> graph, or Model::MAPPING
//!                                     -> tensors
//!             invocations           MLflow: a table as JSON or CSV -> {"predictions": [...]}
//!             metadata              what the model is, and whether it is ready
//!           reserve                 memory for the answer, before it is computed         413
//!           prediction_log          the rows, and what the model said of them, to the host
//!           error                   what went wrong -> status and {"error": "..."}
//! ```
//!
//! The model is the folder mounted at `/models/<NAME>`: `model.toml` is read here, and the graph
//! beside it stays with whoever implements `wasi:nn`. Both are loaded by the first request and kept
//! for the life of the instance.
//!
//! # Datatypes, missing values, axes
//!
//! Inputs and outputs are of any [`Datatype`]. `wasi:nn` carries seven of them as they are, and the rest
//! packed in a tensor of bytes, whose form `wit/wasi-nn` gives; [`Graph::compute`] packs and unpacks, so
//! that a component never sees it.
//!
//! A missing value is `null` in JSON (`NaN` and infinities as Python's json writes them are read as well),
//! and an empty cell in CSV. It is NaN for an input of a floating-point type; for any other it is refused,
//! and the message names the column. What an output has of NaN or infinity is `null` in the short form and
//! for MLflow; tensors with them go as binary data alone.
//!
//! `batch_axis` of an input or output in `model.toml` is the axis that counts rows, 0 unless it says
//! otherwise. Rows are put together along that axis of each input, and taken apart along that of each
//! output. A model of which one has no free axis there infers row by row.
//!
//! Beside WASI and `wasi:nn` a component imports `spinfer:prediction-log/log`. On a host without it, it is
//! composed with a component that exports one, as with one for `wasi:nn`.

mod doors;
mod handler;

mod request;
mod response;

mod operation;

mod default_predict;
mod infer;
mod invocations;
mod metadata;
mod predict;

mod file;
mod hooks;
mod model;
mod prediction;
mod prediction_log;
mod row_prediction;
mod row_reader;
mod rows;

mod json;
mod json_array;
mod reserve;
mod response_buffer;

mod byte_strings;
mod datatype;
mod graph;
mod model_loader;
mod model_name;
mod nn;
mod packed;
mod shape;
mod signature;
mod tensor;

mod error;

#[doc(hidden)]
pub mod bindings;

#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;

pub use datatype::Datatype;
#[doc(hidden)]
pub use doors::Doors;
pub use error::Error;
pub use file::File;
pub use graph::Graph;
pub use hooks::Mapping;
pub use model::Model;
pub use model_name::MOUNTED;
pub use prediction::Prediction;
pub use row_prediction::NO_CLASS;
pub use rows::Rows;
pub use shape::Shape;
pub use signature::{Signature, TensorSignature};
#[doc(hidden)]
pub use spin_sdk::wasip3;
pub use tensor::Tensor;

/// Exports the component's two doors, for the host to choose from: `spinfer:serve/buffered-handler`
/// and `wasi:http/handler`. Takes the type that implements [`Model`]; once in a component.
#[macro_export]
macro_rules! export {
    ($model:ty) => {
        const _: () = {
            type ComponentDoors = $crate::Doors<$model>;
            $crate::bindings::export! { ComponentDoors with_types_in $crate::bindings }
            $crate::wasip3::http::service::export!(ComponentDoors);
        };
    };
}
