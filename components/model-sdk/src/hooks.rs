//! The component's hooks as values. With the model as a type parameter, the decoders of the protocols would
//! be generic, and compiled with each component.

use crate::error::Error;
use crate::file::File;
use crate::graph::Graph;
use crate::prediction::Predict;
use crate::request::NEEDED_HEADERS;
use crate::signature::TensorSignature;
use crate::tensor::Tensor;

/// Computes the outputs of `model.toml` from its inputs, given in the order of `model.toml`. See
/// [`crate::Model::MAPPING`].
pub type Mapping = fn(&Graph, &[Tensor]) -> Result<Vec<Tensor>, Error>;

/// The items of [`crate::Model`] that the protocols use.
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

/// Computes the outputs `wanted` with a mapping. `inputs` are in the order of `model.toml`.
pub(crate) fn map(
    graph: &Graph,
    mapping: Mapping,
    inputs: &[Tensor],
    wanted: &[&TensorSignature],
) -> Result<Vec<Tensor>, Error> {
    pick(&mapping(graph, inputs)?, wanted)
}

/// Picks the outputs `wanted` from those of a mapping, and checks them.
fn pick(outputs: &[Tensor], wanted: &[&TensorSignature]) -> Result<Vec<Tensor>, Error> {
    let mut picked = Vec::with_capacity(wanted.len());
    for wanted in wanted {
        let Some(output) = outputs.iter().find(|output| output.name == wanted.name) else {
            let problem = format!("the component's mapping returned no output {:?}", wanted.name);
            return Err(Error::internal(problem));
        };
        wanted.check_output("the component's mapping", output.datatype, &output.dimensions)?;
        picked.push(output.clone());
    }
    Ok(picked)
}
