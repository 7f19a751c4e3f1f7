//! An inference response, written straight from the bytes of the tensors.

use half::{bf16, f16};
use serde::ser::{Error as _, SerializeSeq};
use serde::{Serialize, Serializer};

use crate::error::Error;
use crate::json;
use crate::signature::Signature;
use crate::tensor::{Datatype, Tensor};

pub(crate) fn encode(
    signature: &Signature,
    id: Option<&str>,
    outputs: &[Tensor],
) -> Result<Vec<u8>, Error> {
    json::encode(&Response {
        model_name: &signature.name,
        model_version: &signature.version,
        id,
        outputs: Outputs(outputs),
    })
}

#[derive(Serialize)]
struct Response<'a> {
    model_name: &'a str,
    model_version: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    outputs: Outputs<'a>,
}

struct Outputs<'a>(&'a [Tensor]);

#[derive(Serialize)]
struct Output<'a> {
    name: &'a str,
    datatype: Datatype,
    shape: &'a [u32],
    data: Data<'a>,
}

/// The elements of a tensor, flat.
struct Data<'a>(&'a Tensor);

impl Serialize for Outputs<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(|tensor| Output {
            name: &tensor.name,
            datatype: tensor.datatype,
            shape: &tensor.dimensions,
            data: Data(tensor),
        }))
    }
}

impl Serialize for Data<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(tensor) = self;
        match tensor.datatype {
            Datatype::F16 => {
                write(serializer, tensor, |bytes| finite(f16::from_le_bytes(bytes).to_f32()))
            }
            Datatype::Bf16 => {
                write(serializer, tensor, |bytes| finite(bf16::from_le_bytes(bytes).to_f32()))
            }
            Datatype::F32 => write(serializer, tensor, |bytes| finite(f32::from_le_bytes(bytes))),
            Datatype::F64 => write(serializer, tensor, |bytes| {
                Some(f64::from_le_bytes(bytes)).filter(|element| element.is_finite())
            }),
            Datatype::U8 => write(serializer, tensor, |bytes| Some(u8::from_le_bytes(bytes))),
            Datatype::I32 => write(serializer, tensor, |bytes| Some(i32::from_le_bytes(bytes))),
            Datatype::I64 => write(serializer, tensor, |bytes| Some(i64::from_le_bytes(bytes))),
        }
    }
}

/// Writes the elements, of which `from_bytes` gives none that JSON cannot carry.
fn write<S: Serializer, T: Serialize, const SIZE: usize>(
    serializer: S,
    tensor: &Tensor,
    from_bytes: impl Fn([u8; SIZE]) -> Option<T>,
) -> Result<S::Ok, S::Error> {
    let (elements, _) = tensor.data.as_chunks();
    let mut list = serializer.serialize_seq(Some(elements.len()))?;
    for (index, &bytes) in elements.iter().enumerate() {
        let element = from_bytes(bytes).ok_or_else(|| {
            S::Error::custom(format_args!(
                "output {:?}: element {index} is NaN or infinite, which JSON cannot carry",
                tensor.name
            ))
        })?;
        list.serialize_element(&element)?;
    }
    list.end()
}

fn finite(element: f32) -> Option<f32> {
    element.is_finite().then_some(element)
}
