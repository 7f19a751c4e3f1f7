//! The Open Inference Protocol, version 2: tensors in, tensors out.
//! <https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md>

mod binary;
mod request;
mod response;

use crate::default_predict;
use crate::error::Error;
use crate::graph::Graph;
use crate::hooks::{Mapping, map};
use crate::prediction_log::Draft;
use crate::request::Request;
use crate::response::Response;
use crate::response_buffer;
use crate::signature::{Signature, TensorSignature};
use crate::tensor::Tensor;

/// Handles a request to `/infer`, with the mapping instead of the graph if there is one.
pub(crate) fn infer(
    graph: &Graph,
    request: &Request,
    mapping: Option<Mapping>,
) -> Result<Response, Error> {
    let (json, tensors) = binary::split(request)?;
    let signature = graph.signature();
    let mut decoded = request::decode(signature, json, tensors)?;
    let rows = rows(signature, &decoded.inputs);
    let mut buffer = response_buffer::for_outputs(rows, &decoded.outputs, &decoded.binary)?;
    let mut draft = Draft::new(signature, "infer", rows as usize);
    draft.inputs(&decoded.inputs);
    let outputs = match mapping {
        None => graph.compute_all(decoded.inputs, &decoded.outputs)?,
        Some(mapping) => {
            order(&mut decoded.inputs, &signature.inputs);
            map(graph, mapping, &decoded.inputs, &decoded.outputs)?
        }
    };
    response_buffer::grow_for(&mut buffer, &outputs, &decoded.binary)?;
    let id = decoded.id.as_deref();
    let response = response::encode(buffer, signature, id, &outputs, &decoded.binary)?;
    // Without rows there is no prediction to log.
    if rows == 0 {
        return Ok(response);
    }
    draft.id(id);
    let prediction = default_predict::from_outputs(signature, &outputs, rows);
    if let Some(prediction) = &prediction {
        draft.short_form(std::slice::from_ref(prediction));
    }
    draft.outputs(&outputs);
    draft.append(request.prediction_id().as_deref());
    Ok(response)
}

/// Sorts the inputs into the order of `model.toml`. They are few, and `sort` would add 10 kB of code.
fn order(inputs: &mut [Tensor], of_model: &[TensorSignature]) {
    for (index, expected) in of_model.iter().enumerate() {
        let mut rest = inputs.iter().skip(index);
        if let Some(ahead) = rest.position(|given| given.name == expected.name) {
            inputs.swap(index, index + ahead);
        }
    }
}

/// The number of rows of the inputs: 1, unless the batch axis of every input and output is free.
fn rows(signature: &Signature, inputs: &[Tensor]) -> u32 {
    let rows = |input: &Tensor| {
        let of_input = signature.inputs.iter().find(|it| it.name == input.name);
        input.dimensions.get(of_input.map_or(0, |it| it.batch_axis)).copied()
    };
    let first = inputs.first().and_then(rows).filter(|_| signature.takes_rows());
    first.filter(|_| inputs.iter().all(|input| rows(input) == first)).unwrap_or(1)
}

#[cfg(test)]
mod tests;
