//! What the author of a model wrote, apart from its type: as a type parameter it would have all of the
//! decoders compiled again with the model.

use crate::error::Error;
use crate::file::File;
use crate::graph::{Graph, unloadable};
use crate::prediction::Predict;
use crate::signature::Signature;
use crate::tensor::Tensor;
use crate::{Model, signature::TensorSignature};

/// Computes the outputs that `model.toml` describes from its inputs, which come in its order. See
/// [`Model::MAPPING`].
pub type Mapping = fn(&Graph, &[Tensor]) -> Result<Vec<Tensor>, Error>;

/// Whether rows may hold something other than numbers.
pub(crate) const fn takes_other<M: Model>() -> bool {
    M::MAPPING.is_some() || M::FILE.is_some()
}

#[derive(Clone, Copy)]
pub(crate) struct Author {
    pub(crate) predict: Predict,
    pub(crate) mapping: Option<Mapping>,
    pub(crate) file: Option<File>,
}

impl Author {
    pub(crate) const fn of<M: Model>() -> Self {
        Self { predict: M::predict, mapping: M::MAPPING, file: M::FILE }
    }

    /// Refuses a model that this component cannot serve.
    pub(crate) fn check(&self, signature: &Signature) -> Result<(), Error> {
        let mut tensors = signature.inputs.iter().chain(&signature.outputs);
        let unmapped = |tensor: &&TensorSignature| !tensor.datatype.is_of_graphs();
        match (self.mapping, tensors.find(unmapped)) {
            (None, Some(tensor)) => {
                let problem = format!(
                    "{:?} is {}, which no graph takes or gives; the component has to map it: `const MAPPING` \
                     of its `impl Model`",
                    tensor.name,
                    tensor.datatype.name()
                );
                Err(unloadable(&signature.name, "model.toml", &problem))
            }
            _ => Ok(()),
        }
    }
}
