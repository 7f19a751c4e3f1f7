//! The trait that a component author implements.

use crate::default_predict;
use crate::error::Error;
use crate::file::File;
use crate::graph::Graph;
use crate::hooks::{Mapping, ModelHooks};
use crate::prediction::Prediction;
use crate::rows::Rows;

/// A model component. [`export!`](crate::export) exports it.
///
/// With a name alone it serves every model whose inputs and outputs are those of the graph; the other items
/// are for models that need code of their own.
pub trait Model {
    /// Name of the model, which is mounted at `/models/<NAME>`. [`MOUNTED`](crate::MOUNTED): the one model
    /// that is mounted.
    const NAME: &'static str;

    /// Computes the outputs of `model.toml` from its inputs, for a model whose inputs or outputs are not
    /// those of the graph.
    ///
    /// The mapping receives the inputs of `/infer` in the order of `model.toml`, and returns at least the
    /// outputs that the request names. The default [`Self::predict`] uses it as well.
    ///
    /// ```
    /// use model_sdk::{Error, Graph, Mapping, Model, Tensor};
    ///
    /// /// Clients send `text`, the graph takes `lengths`.
    /// struct Readability;
    ///
    /// impl Model for Readability {
    ///     const NAME: &'static str = "readability";
    ///     const MAPPING: Option<Mapping> = Some(infer);
    /// }
    ///
    /// fn infer(graph: &Graph, inputs: &[Tensor]) -> Result<Vec<Tensor>, Error> {
    ///     let [text] = inputs else {
    ///         return Err(Error::internal("model.toml: expected one input, `text`"));
    ///     };
    ///     let lengths: Vec<f32> = text.byte_strings()?.iter().map(|text| text.len() as f32).collect();
    ///     let lengths = Tensor::f32("lengths", &[text.dimensions[0], 1], &lengths);
    ///     let [score] = graph.compute([lengths], ["score"])?;
    ///     Ok(vec![score])
    /// }
    /// ```
    const MAPPING: Option<Mapping> = None;

    /// The kind of file that the model accepts instead of features. [`Rows::bytes`] then contains one file,
    /// which [`Self::predict`] has to decode.
    ///
    /// ```
    /// use model_sdk::{Error, File, Graph, Model, Prediction, Rows, Tensor};
    ///
    /// /// Accepts 8x8 raw pixels as a file, or 64 features.
    /// struct Digits;
    ///
    /// impl Model for Digits {
    ///     const NAME: &'static str = "digits";
    ///     const FILE: Option<File> = Some(File::new("image", "application/octet-stream"));
    ///
    ///     fn predict(graph: &Graph, rows: Rows<'_>) -> Result<Prediction, Error> {
    ///         let pixels = match rows.bytes {
    ///             [file] => decode(file)?,
    ///             _ => rows.tensor("pixels", &[64]),
    ///         };
    ///         let [indices] = graph.compute([pixels], ["label"])?;
    ///         Ok(Prediction::Labels(indices))
    ///     }
    /// }
    ///
    /// fn decode(file: &[u8]) -> Result<Tensor, Error> {
    ///     if file.len() != 64 {
    ///         return Err(Error::invalid(format!("image: expected 64 bytes, got {}", file.len())));
    ///     }
    ///     let pixels: Vec<f32> = file.iter().map(|&pixel| pixel.into()).collect();
    ///     Ok(Tensor::f32("pixels", &[1, 64], &pixels))
    /// }
    /// ```
    const FILE: Option<File> = None;

    /// Predicts from rows: all rows of a request if the batch axis of every input and output is free, or
    /// else one.
    ///
    /// By default the features and strings of a row become the model's inputs, in their order and datatypes,
    /// and the prediction follows from the outputs that the signature declares:
    ///
    /// - one output with an integer, boolean or string per row: a class; a second output with a probability
    ///   per label is added to it
    /// - one floating-point output with an element per label: the class of the greatest
    /// - another floating-point output: numbers
    ///
    /// With [`Self::MAPPING`] the outputs are those of the mapping.
    ///
    /// # Errors
    /// The error becomes the response. The default fails with 400 if the model has other outputs, and with
    /// 500 if the rows are a file.
    ///
    /// ```
    /// use model_sdk::{Error, Graph, Model, Prediction, Rows};
    ///
    /// struct Diabetes;
    ///
    /// impl Model for Diabetes {
    ///     const NAME: &'static str = "diabetes-regressor";
    ///
    ///     fn predict(graph: &Graph, rows: Rows<'_>) -> Result<Prediction, Error> {
    ///         let features = rows.tensor("features", &[10]);
    ///         let [progression] = graph.compute([features], ["progression"])?;
    ///         Ok(Prediction::Numbers(progression))
    ///     }
    /// }
    /// ```
    fn predict(graph: &Graph, rows: Rows<'_>) -> Result<Prediction, Error> {
        default_predict::predict(graph, rows, Self::MAPPING)
    }
}

impl ModelHooks {
    pub(crate) const fn of<M: Model>() -> Self {
        Self { predict: M::predict, mapping: M::MAPPING, file: M::FILE }
    }
}
