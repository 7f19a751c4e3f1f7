//! What the author of a model wrote, apart from its type: as a type parameter it would have all of the
//! decoders compiled again with the model.

use crate::error::Error;
use crate::file::File;
use crate::graph::Graph;
use crate::prediction::Predict;
use crate::request::NEEDED_HEADERS;
use crate::signature::TensorSignature;
use crate::tensor::Tensor;

/// Computes the outputs that `model.toml` describes from its inputs, which come in its order. See
/// [`crate::Model::MAPPING`].
pub type Mapping = fn(&Graph, &[Tensor]) -> Result<Vec<Tensor>, Error>;

#[derive(Clone, Copy)]
pub(crate) struct ModelHooks {
    pub(crate) predict: Predict,
    pub(crate) mapping: Option<Mapping>,
    pub(crate) file: Option<File>,
}

impl ModelHooks {
    /// The request headers that the protocols read for this model.
    pub(crate) const fn needed_headers(&self) -> &'static [&'static str] {
        let (json_length, _) = NEEDED_HEADERS.split_at(1);
        if self.file.is_some() { NEEDED_HEADERS } else { json_length }
    }
}

/// Those of a mapping's outputs that are wanted; `inputs` are in the order of `model.toml`.
pub(crate) fn map(
    graph: &Graph,
    mapping: Mapping,
    inputs: &[Tensor],
    wanted: &[&TensorSignature],
) -> Result<Vec<Tensor>, Error> {
    pick(&mapping(graph, inputs)?, wanted)
}

/// Those of a mapping's outputs that were asked for.
fn pick(outputs: &[Tensor], wanted: &[&TensorSignature]) -> Result<Vec<Tensor>, Error> {
    let mut picked = Vec::with_capacity(wanted.len());
    for wanted in wanted {
        let Some(output) = outputs.iter().find(|output| output.name == wanted.name) else {
            let problem = format!("the component's mapping gave no output {:?}", wanted.name);
            return Err(Error::internal(problem));
        };
        wanted.check_output("the component's mapping", output.datatype, &output.dimensions)?;
        picked.push(output.clone());
    }
    Ok(picked)
}
