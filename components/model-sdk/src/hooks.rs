//! What the author of a model wrote, apart from its type: as a type parameter it would have all of the
//! decoders compiled again with the model.

use crate::Model;
use crate::error::Error;
use crate::file::File;
use crate::graph::Graph;
use crate::prediction::Predict;
use crate::tensor::Tensor;

/// Computes the outputs that `model.toml` describes from its inputs, which come in its order. See
/// [`Model::MAPPING`].
pub type Mapping = fn(&Graph, &[Tensor]) -> Result<Vec<Tensor>, Error>;

#[derive(Clone, Copy)]
pub(crate) struct ModelHooks {
    pub(crate) predict: Predict,
    pub(crate) mapping: Option<Mapping>,
    pub(crate) file: Option<File>,
}

impl ModelHooks {
    pub(crate) const fn of<M: Model>() -> Self {
        Self { predict: M::predict, mapping: M::MAPPING, file: M::FILE }
    }
}
