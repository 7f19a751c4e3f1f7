//! The inference response, encoded from the data of the tensors without a copy.

use std::iter;

use serde::ser::{Error as _, SerializeSeq};
use serde::{Serialize, Serializer};

use crate::byte_strings::split_bytes;
use crate::datatype::{Datatype, Element};
use crate::error::Error;
use crate::json;
use crate::request::JSON_LENGTH;
use crate::reserve::reserve;
use crate::response::Response;
use crate::signature::Signature;
use crate::tensor::Tensor;

/// Encodes a response. `binary`: which outputs are binary data, by position; those beyond its end are JSON.
pub(super) fn encode(
    buffer: Vec<u8>,
    signature: &Signature,
    id: Option<&str>,
    outputs: &[Tensor],
    binary: &[bool],
) -> Result<Response, Error> {
    let body = InferResponseBody {
        model_name: &signature.name,
        model_version: &signature.version,
        id,
        outputs: OutputList { outputs, binary },
    };
    let mut body = json::encode(buffer, &body)
        .map_err(|error| not_in_json(outputs, binary).unwrap_or(error))?;
    if !binary.contains(&true) {
        return Ok(Response::json(200, body));
    }
    let json = body.len();
    for (output, _) in iter::zip(outputs, binary).filter(|&(_, &binary)| binary) {
        reserve(&mut body, output.data.len())?;
        body.extend_from_slice(&output.data);
    }
    let response = Response::new(200, "application/octet-stream", body);
    Ok(response.with_header(JSON_LENGTH, json.to_string()))
}

/// The error for the first element that JSON cannot represent: the client has to request binary data.
#[cold]
#[inline(never)]
fn not_in_json(outputs: &[Tensor], binary: &[bool]) -> Option<Error> {
    let binary = binary.iter().copied().chain(iter::repeat(false));
    let (output, index) = iter::zip(outputs, binary)
        .filter(|(_, binary)| !binary)
        .find_map(|(output, _)| Some((output, first_not_in_json(output)?)))?;
    let what = match output.datatype {
        Datatype::Bytes => "is not UTF-8",
        _ => "is NaN or infinite",
    };
    Some(Error::invalid(format!(
        "output {:?}: element {index} {what}, which JSON cannot represent; request the output as binary data: \
         \"parameters\": {{\"binary_data\": true}}",
        output.name
    )))
}

/// The position of the first element that JSON cannot represent.
fn first_not_in_json(output: &Tensor) -> Option<usize> {
    if output.datatype == Datatype::Bytes {
        let is_text =
            |element: Option<&[u8]>| element.is_some_and(|bytes| str::from_utf8(bytes).is_ok());
        return split_bytes(&output.data).position(|element| !is_text(element));
    }
    let mut elements = output.data.chunks_exact(output.datatype.size());
    elements.position(|element| match output.datatype.element(element) {
        Element::F32(element) => !element.is_finite(),
        Element::F64(element) => !element.is_finite(),
        Element::I64(_) | Element::U64(_) => false,
    })
}

#[derive(Serialize)]
struct InferResponseBody<'a> {
    model_name: &'a str,
    model_version: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    outputs: OutputList<'a>,
}

struct OutputList<'a> {
    outputs: &'a [Tensor],
    binary: &'a [bool],
}

#[derive(Serialize)]
struct Output<'a> {
    name: &'a str,
    datatype: Datatype,
    shape: &'a [u32],
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters: Option<OutputParameters>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<TensorData<'a>>,
}

#[derive(Serialize)]
struct OutputParameters {
    binary_data_size: usize,
}

/// The elements of a tensor, as a flat array.
struct TensorData<'a>(&'a Tensor);

impl Serialize for OutputList<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let binary = self.binary.iter().copied().chain(iter::repeat(false));
        serializer.collect_seq(iter::zip(self.outputs, binary).map(|(tensor, binary)| Output {
            name: &tensor.name,
            datatype: tensor.datatype,
            shape: &tensor.dimensions,
            parameters: binary.then_some(OutputParameters { binary_data_size: tensor.data.len() }),
            data: (!binary).then_some(TensorData(tensor)),
        }))
    }
}

impl Serialize for TensorData<'_> {
    /// One loop for all datatypes: a loop for each would add 5 kB of code and not be faster.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(tensor) = self;
        if tensor.datatype == Datatype::Bytes {
            return self.serialize_bytes(serializer);
        }
        let size = tensor.datatype.size();
        let mut list = serializer.serialize_seq(Some(tensor.data.len() / size))?;
        for (index, element) in tensor.data.chunks_exact(size).enumerate() {
            match tensor.datatype.element(element) {
                Element::F32(element) if element.is_finite() => list.serialize_element(&element)?,
                Element::F64(element) if element.is_finite() => list.serialize_element(&element)?,
                Element::I64(element) if tensor.datatype == Datatype::Bool => {
                    list.serialize_element(&(element != 0))?;
                }
                Element::I64(element) => list.serialize_element(&element)?,
                Element::U64(element) => list.serialize_element(&element)?,
                Element::F32(_) | Element::F64(_) => {
                    // `encode` replaces this error (`not_in_json`).
                    return Err(S::Error::custom(index));
                }
            }
        }
        list.end()
    }
}

impl TensorData<'_> {
    fn serialize_bytes<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(tensor) = self;
        let mut list = serializer.serialize_seq(None)?;
        for element in split_bytes(&tensor.data).flatten() {
            list.serialize_element(str::from_utf8(element).map_err(S::Error::custom)?)?;
        }
        list.end()
    }
}
