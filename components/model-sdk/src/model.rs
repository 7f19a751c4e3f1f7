//! What a component author writes.

use crate::default_predict;
use crate::error::Error;
use crate::file::File;
use crate::graph::Graph;
use crate::hooks::{Mapping, ModelHooks};
use crate::prediction::Prediction;
use crate::rows::Rows;

/// A model: what a component author writes.
pub trait Model {
    /// Of the model: it is mounted at `/models/<NAME>`. [`MOUNTED`](crate::MOUNTED) stands for the one that is.
    const NAME: &'static str;

    /// For a model that takes or gives something else than its graph: how the inputs and outputs of
    /// `model.toml` become the graph's. Without it they are the graph's, of whichever datatype. Strings of
    /// rows are in [`Rows::bytes`].
    const MAPPING: Option<Mapping> = None;

    /// For a model that takes files in place of features: [`Rows::bytes`] then holds one.
    const FILE: Option<File> = None;

    /// Predicts from rows: one, or where the model takes several, all of a request.
    ///
    /// Unless a component says otherwise, features (or strings) become the model's inputs in their order,
    /// and the signature tells what its outputs are: a class for each row, with the probability of each
    /// where there are such; or numbers. They come from [`Self::MAPPING`], if there is one. A model of
    /// other outputs has no short form: 400. What a file means only a component can say.
    fn predict(graph: &Graph, rows: Rows<'_>) -> Result<Prediction, Error> {
        default_predict::predict(graph, rows, Self::MAPPING)
    }
}

impl ModelHooks {
    pub(crate) const fn of<M: Model>() -> Self {
        Self { predict: M::predict, mapping: M::MAPPING, file: M::FILE }
    }
}
