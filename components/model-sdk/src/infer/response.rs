//! An inference response, written straight from the bytes of the tensors.

use std::iter;

use serde::ser::{Error as _, SerializeSeq};
use serde::{Serialize, Serializer};

use super::binary::HEADER;
use crate::error::Error;
use crate::json;
use crate::request::Response;
use crate::room::reserve;
use crate::signature::Signature;
use crate::tensor::{Datatype, Element, Tensor, split_bytes};

/// `binary`: which outputs go behind the JSON, by position; beyond its end, none. `OTHER`: whether they
/// may be BOOL or BYTES.
pub(super) fn encode<const OTHER: bool>(
    room: Vec<u8>,
    signature: &Signature,
    id: Option<&str>,
    outputs: &[Tensor],
    binary: &[bool],
) -> Result<Response, Error> {
    let body = Body {
        model_name: &signature.name,
        model_version: &signature.version,
        id,
        outputs: Outputs::<OTHER> { outputs, binary },
    };
    if OTHER {
        let carried = binary.iter().copied().chain(iter::repeat(false));
        iter::zip(outputs, carried)
            .filter(|&(output, binary)| !binary && output.datatype == Datatype::Bytes)
            .try_for_each(|(output, _)| check_text(output))?;
    }
    let mut body = json::encode(room, &body)?;
    if !binary.contains(&true) {
        return Ok(Response::json(200, body));
    }
    let json = body.len();
    for (output, _) in iter::zip(outputs, binary).filter(|&(_, &binary)| binary) {
        reserve(&mut body, output.data.len())?;
        body.extend_from_slice(&output.data);
    }
    let response = Response::new(200, "application/octet-stream", body);
    Ok(response.with_header(HEADER, json.to_string()))
}

/// Bytes that are no text are no mistake, but of whoever asked for them as JSON.
fn check_text(output: &Tensor) -> Result<(), Error> {
    let is_text =
        |element: Option<&[u8]>| element.is_some_and(|bytes| str::from_utf8(bytes).is_ok());
    let Some(index) = split_bytes(&output.data).position(|element| !is_text(element)) else {
        return Ok(());
    };
    Err(Error::invalid(format!(
        "output {:?}: element {index} is no UTF-8, which JSON cannot carry; ask for the output as binary \
         data: \"parameters\": {{\"binary_data\": true}}",
        output.name
    )))
}

#[derive(Serialize)]
struct Body<'a, const OTHER: bool> {
    model_name: &'a str,
    model_version: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    outputs: Outputs<'a, OTHER>,
}

struct Outputs<'a, const OTHER: bool> {
    outputs: &'a [Tensor],
    binary: &'a [bool],
}

#[derive(Serialize)]
struct Output<'a, const OTHER: bool> {
    name: &'a str,
    datatype: Datatype,
    shape: &'a [u32],
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters: Option<Parameters>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Data<'a, OTHER>>,
}

#[derive(Serialize)]
struct Parameters {
    binary_data_size: usize,
}

/// The elements of a tensor, flat.
struct Data<'a, const OTHER: bool>(&'a Tensor);

impl<const OTHER: bool> Serialize for Outputs<'_, OTHER> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let binary = self.binary.iter().copied().chain(iter::repeat(false));
        serializer.collect_seq(iter::zip(self.outputs, binary).map(|(tensor, binary)| Output {
            name: &tensor.name,
            datatype: tensor.datatype,
            shape: &tensor.dimensions,
            parameters: binary.then_some(Parameters { binary_data_size: tensor.data.len() }),
            data: (!binary).then_some(Data::<OTHER>(tensor)),
        }))
    }
}

impl<const OTHER: bool> Serialize for Data<'_, OTHER> {
    /// One loop for every datatype: one for each would be 5 kB more, and no faster.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(tensor) = self;
        if OTHER && tensor.datatype == Datatype::Bytes {
            return self.serialize_bytes(serializer);
        }
        let size = tensor.datatype.size();
        let mut list = serializer.serialize_seq(Some(tensor.data.len() / size))?;
        for (index, element) in tensor.data.chunks_exact(size).enumerate() {
            match tensor.datatype.element(element) {
                Element::F32(element) if element.is_finite() => list.serialize_element(&element)?,
                Element::F64(element) if element.is_finite() => list.serialize_element(&element)?,
                Element::I64(element) if OTHER && tensor.datatype == Datatype::Bool => {
                    list.serialize_element(&(element != 0))?;
                }
                Element::I64(element) => list.serialize_element(&element)?,
                Element::F32(_) | Element::F64(_) => {
                    return Err(S::Error::custom(format_args!(
                        "output {:?}: element {index} is NaN or infinite, which JSON cannot carry",
                        tensor.name
                    )));
                }
            }
        }
        list.end()
    }
}

impl<const OTHER: bool> Data<'_, OTHER> {
    fn serialize_bytes<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(tensor) = self;
        let mut list = serializer.serialize_seq(None)?;
        // Checked before (`check_text`).
        for element in split_bytes(&tensor.data).flatten() {
            list.serialize_element(str::from_utf8(element).map_err(S::Error::custom)?)?;
        }
        list.end()
    }
}
