//! The guest library of spinfer: with it, a model component is one `impl`.
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
//! host -> doors/fast             one call with the whole request
//!      -> doors/standard         wasi:http/handler: reads the body, then as above
//!           handler              the steps of a request
//!             operation          path -> operation, model, version            404, 405
//!             model_loader       first request only: model.toml, load-by-name      503
//!             predict            {"features": [...]} or {"instances": [[...], ...]}: rows
//!                                  -> Model::predict (or default_predict)
//!                                  -> {"prediction": ...}
//!             infer              Open Inference Protocol: tensors -> graph (or Model::MAPPING)
//!                                  -> tensors
//!             invocations        MLflow: a table as JSON or CSV -> {"predictions": [...]}
//!             metadata           metadata, readiness, health, version
//!           response_buffer      memory for the response, before the inference     413
//!           prediction_log       the rows and their predictions, appended to the host's log
//!           response             the response, also from an error: {"error": "..."}
//! ```
//!
//! The model is mounted at `/models/<NAME>`. Its `model.toml` is read by the component; its graph stays with
//! the implementation of `wasi:nn`. The first request loads both for the life of the instance.
//!
//! # Datatypes, missing values, axes
//!
//! Inputs and outputs may have any [`Datatype`]. `wasi:nn` has seven of them; the others cross the component
//! boundary packed in a tensor of bytes (`wit/wasi-nn`). [`Graph::compute`] packs and unpacks.
//!
//! A missing value is `null` in JSON and an empty cell in CSV. `NaN`, `Infinity` and `-Infinity`, as Python's
//! json module writes them, are accepted as well. A missing value is NaN in a floating-point input; in any
//! other it is refused, and the message names the column. NaN and infinities in outputs are `null` in the
//! responses of `/predict` and `/invocations`; `/infer` returns such tensors as binary data only.
//!
//! `batch_axis` of an input or output in `model.toml` is the axis that counts rows, by default 0. Rows are
//! joined along that axis of each input, and split along that of each output. If an input or output has no
//! free batch axis, there is one inference per row.
//!
//! # Imports
//!
//! WASI, `wasi:nn` and `spinfer:prediction-log/log`. For a host without the last two, the component is composed
//! with components that export them.

#![deny(missing_docs)]

mod doors;
mod handler;

mod operation;
mod request;
mod response;

mod infer;
mod invocations;
mod metadata;
mod predict;

mod default_predict;
mod model;

mod file;
mod hooks;
mod prediction;
mod prediction_log;
mod response_buffer;
mod row_prediction;
mod row_reader;
mod rows;

mod model_loader;
mod model_name;
mod nn;

mod graph;
mod packed;
mod signature;
mod tensor;

mod byte_strings;
mod datatype;
mod error;
mod json;
mod json_array;
mod reserve;
mod shape;

#[doc(hidden)]
pub mod bindings;

#[cfg(any(test, fuzzing, feature = "fuzzing"))]
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

/// Exports the component's doors, `spinfer:serve/buffered-handler` and `wasi:http/handler`. Takes the type
/// that implements [`Model`]. To be called once in a component.
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
