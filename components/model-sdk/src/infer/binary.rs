//! The binary tensor data extension: tensors as bytes after the JSON of a request or response.
//! <https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md>

use std::str::FromStr;

use serde_json::value::RawValue;

use crate::datatype::Datatype;
use crate::error::{Error, quoted};
use crate::json::Entries;
use crate::packed::check;
use crate::request::{JSON_LENGTH, Request};

/// The `parameters` of a request, an input or an output that concern binary data. Others belong to extensions
/// that are not supported.
#[derive(Default)]
pub(super) struct TensorParameters {
    /// For an input: length of its data after the JSON, in bytes.
    pub(super) binary_data_size: Option<u64>,
    /// For an output: whether to return it as binary data.
    pub(super) binary_data: Option<bool>,
    /// For a request: default of `binary_data` for its outputs.
    pub(super) binary_data_output: Option<bool>,
}

impl TensorParameters {
    /// Decodes parameters. A derived decoder would add 3 kB of code.
    ///
    /// # Errors
    /// If a parameter that would change the response is not supported.
    #[inline(never)]
    pub(super) fn read(json: Option<&RawValue>) -> Result<Self, Error> {
        let Some(json) = json else { return Ok(Self::default()) };
        let what = "parameters";
        let names = [
            "binary_data_size",
            "binary_data",
            "binary_data_output",
            "shared_memory_region",
            "classification",
        ];
        let [size, data, output, shared_memory, classification] =
            Entries::of_part(&what, json)?.pick(&what, names)?;
        if shared_memory.is_some() {
            return Err(Error::invalid(
                "shared memory is not supported; send the tensor in the body",
            ));
        }
        if classification.is_some() {
            return Err(Error::invalid(
                "`classification` is not supported; POST .../predict returns class names",
            ));
        }
        Ok(Self {
            binary_data_size: value("binary_data_size", "a number of bytes", size)?,
            binary_data: value("binary_data", "true or false", data)?,
            binary_data_output: value("binary_data_output", "true or false", output)?,
        })
    }
}

/// Parses a parameter.
fn value<T: FromStr>(
    name: &str,
    expected: &str,
    json: Option<&RawValue>,
) -> Result<Option<T>, Error> {
    let Some(json) = json else { return Ok(None) };
    let value = json.get().parse().map_err(|_| {
        let got = quoted(json.get());
        Error::invalid(format!("parameters: {name}: expected {expected}, got {got}"))
    });
    value.map(Some)
}

/// The data after the JSON that is not consumed yet. `None` if the request has no [`JSON_LENGTH`].
pub(super) struct BinaryTensors<'a>(Option<&'a [u8]>);

/// Splits the body into its JSON and the binary data after it.
pub(super) fn split(request: &Request) -> Result<(&[u8], BinaryTensors<'_>), Error> {
    let body = request.body.as_slice();
    let Some(value) = request.header(JSON_LENGTH) else {
        return Ok((body, BinaryTensors(None)));
    };
    let length = std::str::from_utf8(&value).ok().and_then(|value| value.parse().ok());
    let (json, tensors) = length.and_then(|length| body.split_at_checked(length)).ok_or_else(|| {
        Error::invalid(format!(
            "Inference-Header-Content-Length: expected the length of the JSON, at most {} bytes (the body), got {:?}",
            body.len(),
            String::from_utf8_lossy(&value)
        ))
    })?;
    Ok((json, BinaryTensors(Some(tensors))))
}

impl<'a> BinaryTensors<'a> {
    /// The data of the next tensor, of `size` bytes and `elements` elements according to the request.
    pub(super) fn take(
        &mut self,
        size: u64,
        datatype: Datatype,
        elements: u64,
    ) -> Result<&'a [u8], String> {
        let Some(rest) = self.0 else {
            return Err("binary_data_size requires the header Inference-Header-Content-Length, the length of the JSON".to_owned());
        };
        let expected = elements.saturating_mul(datatype.size() as u64);
        if size != expected && datatype != Datatype::Bytes {
            return Err(format!(
                "binary_data_size is {size}, but its shape and datatype require {expected} bytes"
            ));
        }
        let taken = usize::try_from(size).ok().and_then(|size| rest.split_at_checked(size));
        let Some((tensor, rest)) = taken else {
            return Err(format!(
                "binary_data_size is {size}, but only {} bytes are left after the JSON",
                rest.len()
            ));
        };
        self.0 = Some(rest);
        if matches!(datatype, Datatype::Bytes | Datatype::Bool) {
            check(datatype, tensor, elements)?;
        }
        Ok(tensor)
    }

    /// Fails if there is data that no input claims.
    pub(super) fn finish(&self) -> Result<(), String> {
        match self.0 {
            None | Some([]) => Ok(()),
            Some(rest) => Err(format!(
                "the body has {} bytes after the JSON that no input's binary_data_size claims",
                rest.len()
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::request::decode;
    use super::*;
    use crate::signature::Signature;
    use crate::signature::tests::IRIS;

    impl BinaryTensors<'_> {
        pub(in crate::infer) fn none() -> Self {
            Self(None)
        }
    }

    /// Decodes a request for the inputs `a` and `b`, both FP32 of shape [2]; their data.
    fn decoded(json: &str, header: &str, behind: &[u8]) -> Result<[Vec<u8>; 2], String> {
        let inputs = ["a", "b"]
            .map(|name| format!("{{ name = '{name}', datatype = 'FP32', shape = [2] }}"))
            .join(",");
        let (start, rest) = IRIS.split_at(IRIS.find("[[inputs]]").unwrap());
        let outputs = &rest[rest.find("[[outputs]]").unwrap()..];
        let text = format!("{start}\ninputs = [{inputs}]\n{outputs}");
        let signature = Signature::parse(&text, "iris-classifier").unwrap();
        let mut request = Request::post("/infer", json.as_bytes());
        request.body.extend_from_slice(behind);
        let header = header.replace("LENGTH", &json.len().to_string());
        let request = request.with_header(JSON_LENGTH, &header);
        let inputs = split(&request)
            .and_then(|(json, tensors)| decode(&signature, json, tensors))
            .map_err(|error| error.to_string())?
            .inputs;
        let data: Vec<_> = inputs.into_iter().map(|tensor| tensor.data).collect();
        Ok(data.try_into().unwrap())
    }

    fn inputs(a: &str, b: &str) -> String {
        let input = |name: &str, more: &str| {
            format!(r#"{{"name":"{name}","shape":[2],"datatype":"FP32",{more}}}"#)
        };
        format!(r#"{{"inputs":[{},{}]}}"#, input("a", a), input("b", b))
    }

    const BEHIND: &str = r#""parameters":{"binary_data_size":8}"#;

    #[test]
    fn binary_data_is_in_the_order_of_the_inputs() {
        let bytes: Vec<u8> = (0..16).collect();
        let both = decoded(&inputs(BEHIND, BEHIND), "LENGTH", &bytes).unwrap();
        assert_eq!(both.concat(), bytes);
        let one = decoded(&inputs(r#""data":[0,1]"#, BEHIND), "LENGTH", &bytes[..8]).unwrap();
        assert_eq!(one, [vec![0, 0, 0, 0, 0, 0, 0x80, 0x3f], bytes[..8].to_vec()]);
        let none = decoded(&inputs(r#""data":[0,1]"#, r#""data":[0,1]"#), "LENGTH", &[]);
        assert!(none.is_ok());
    }

    #[test]
    fn inconsistent_sizes_are_refused() {
        let both = inputs(BEHIND, BEHIND);
        let with_size = |size: &str| inputs(BEHIND, &BEHIND.replace('8', size));
        for (json, header, behind, message) in [
            (
                &both,
                "LENGTH",
                15,
                r#"input "b": binary_data_size is 8, but only 7 bytes are left after the JSON"#,
            ),
            (
                &both,
                "LENGTH",
                17,
                "the body has 1 bytes after the JSON that no input's binary_data_size claims",
            ),
            (
                &with_size("12"),
                "LENGTH",
                20,
                r#"input "b": binary_data_size is 12, but its shape and datatype require 8 bytes"#,
            ),
            (
                &with_size("18446744073709551615"),
                "LENGTH",
                16,
                r#"input "b": binary_data_size is 18446744073709551615, but its shape and datatype require 8 bytes"#,
            ),
            (
                &both,
                "1000",
                16,
                r#"Inference-Header-Content-Length: expected the length of the JSON, at most 186 bytes (the body), got "1000""#,
            ),
            (
                &both,
                "-1",
                16,
                r#"Inference-Header-Content-Length: expected the length of the JSON, at most 186 bytes (the body), got "-1""#,
            ),
            (&both, "0", 16, "the body: EOF while parsing a value at line 1 column 0"),
        ] {
            assert_eq!(decoded(json, header, &vec![0; behind]).unwrap_err(), message);
        }
    }

    proptest::proptest! {
        #[test]
        fn no_binary_data_panics(
            a: u64,
            header in "[0-9]{0,20}|LENGTH|.*",
            behind in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..40),
        ) {
            let size = BEHIND.replace('8', &a.to_string());
            let _ = decoded(&inputs(BEHIND, &size), &header, &behind);
        }
    }
}
