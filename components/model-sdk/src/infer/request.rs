//! The inference request, checked against the signature.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::binary::{BinaryTensors, TensorParameters};
use crate::datatype::Datatype;
use crate::datatype::parse::integer;
use crate::error::{Error, quoted};
use crate::json::{self, Entries, Object};
use crate::json_array::{self, ItemKind};
use crate::shape::Shape;
use crate::signature::{Signature, TensorSignature};
use crate::tensor::Tensor;

/// A decoded inference request.
#[derive(Debug)]
pub(crate) struct InferRequest<'a> {
    pub(crate) id: Option<Cow<'a, str>>,
    /// Every input of the signature, exactly once.
    pub(crate) inputs: Vec<Tensor>,
    /// The outputs to return: those that the request names, or all.
    pub(crate) outputs: Vec<&'a TensorSignature>,
    /// Which outputs to return as binary data, by position. Outputs beyond its end are JSON.
    pub(crate) binary: Vec<bool>,
}

#[derive(Deserialize)]
struct InferRequestBody<'a> {
    #[serde(borrow, default)]
    id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    inputs: Vec<Object<Input<'a>>>,
    /// Decoded by hand, as parameters are: a derived decoder would add 3 kB of code.
    #[serde(borrow, default)]
    outputs: Option<&'a RawValue>,
    #[serde(borrow, default)]
    parameters: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Input<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    /// Read as data is: sizes may have any notation, as the host's cache cannot tell `4` from `4.0`.
    #[serde(borrow)]
    shape: &'a RawValue,
    #[serde(borrow)]
    datatype: Cow<'a, str>,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
    #[serde(borrow, default)]
    parameters: Option<&'a RawValue>,
}

/// Decodes a request. `tensors`: the binary data after the JSON.
pub(super) fn decode<'a>(
    signature: &'a Signature,
    json: &'a [u8],
    tensors: BinaryTensors<'_>,
) -> Result<InferRequest<'a>, Error> {
    let InferRequestBody { id, inputs, outputs, parameters } = json::decode(json)?;
    let all_binary = TensorParameters::read(parameters)?.binary_data_output == Some(true);
    let inputs = check_inputs(&signature.inputs, inputs, tensors).map_err(Error::invalid)?;
    let (outputs, binary) = check_outputs(&signature.outputs, outputs, all_binary)?;
    Ok(InferRequest { id, inputs, outputs, binary })
}

fn check_inputs(
    expected: &[TensorSignature],
    inputs: Vec<Object<Input<'_>>>,
    mut binary: BinaryTensors<'_>,
) -> Result<Vec<Tensor>, String> {
    let mut tensors: Vec<Tensor> = Vec::with_capacity(expected.len());
    for Object(input) in inputs {
        let expected =
            find(expected, &input.name).ok_or_else(|| unknown("input", &input.name, expected))?;
        if tensors.iter().any(|other| other.name == expected.name) {
            return Err(format!("input {:?}: duplicate", expected.name));
        }
        tensors.push(decode_input(expected, &input, &mut binary)?);
    }
    binary.finish()?;
    match expected.iter().find(|input| !tensors.iter().any(|tensor| tensor.name == input.name)) {
        Some(missing) => Err(format!(
            "input {:?}: missing; expected datatype {} and shape {}",
            missing.name,
            missing.datatype.name(),
            missing.shape
        )),
        None => Ok(tensors),
    }
}

fn decode_input(
    expected: &TensorSignature,
    input: &Input<'_>,
    binary: &mut BinaryTensors<'_>,
) -> Result<Tensor, String> {
    let TensorSignature { name, datatype, shape, .. } = expected;
    if input.datatype != datatype.name() {
        return Err(format!(
            "input {name:?}: expected datatype {}, got {:?}",
            datatype.name(),
            quoted(&input.datatype)
        ));
    }
    let dimensions = read_shape(name, input.shape)?;
    if !shape.admits(&dimensions) {
        let got = Shape::of(&dimensions);
        return Err(format!("input {name:?}: expected shape {shape}, got {got}"));
    }
    let axes = dimensions.iter().map(|&axis| u64::from(axis));
    let elements = axes.fold(1, u64::saturating_mul);
    let parameters = TensorParameters::read(input.parameters);
    let binary_size =
        parameters.map_err(|problem| format!("input {name:?}: {problem}"))?.binary_data_size;
    let data = match (input.data, binary_size) {
        (Some(json), None) => read_json(name, *datatype, &dimensions, elements, json)?,
        (None, Some(size)) => {
            let data = binary.take(size, *datatype, elements);
            data.map_err(|problem| format!("input {name:?}: {problem}"))?.to_vec()
        }
        (data, _) => {
            let got = if data.is_some() { "both" } else { "neither" };
            return Err(format!(
                "input {name:?}: expected either \"data\", an array of {}, \
                 or the parameter \"binary_data_size\", got {got}",
                datatype.kind().many()
            ));
        }
    };
    Ok(Tensor { name: name.clone(), datatype: *datatype, dimensions, data })
}

/// Decodes the shape of an input.
fn read_shape(name: &str, json: &RawValue) -> Result<Vec<u32>, String> {
    let mut dimensions = Vec::new();
    let what = format_args!("input {name:?}: shape");
    json_array::read(&what, ItemKind::Numbers, json, &[], |size| {
        let dimension = size.parse().ok().or_else(|| integer(size)?.try_into().ok());
        dimensions.push(
            dimension
                .ok_or("is not the size of an axis: expected an integer from 0 to 4294967295")?,
        );
        Ok(())
    })?;
    Ok(dimensions)
}

/// Decodes the data of an input.
fn read_json(
    name: &str,
    datatype: Datatype,
    shape: &[u32],
    elements: u64,
    json: &RawValue,
) -> Result<Vec<u8>, String> {
    // Whatever the shape claims: an element and its separator take at least two bytes.
    let max = json.get().len() / 2 + 1;
    let capacity = usize::try_from(elements).unwrap_or(max).min(max);
    let mut data = Vec::with_capacity(capacity * datatype.size());
    let what = format_args!("input {name:?}: data");
    let count = json_array::read(&what, datatype.kind(), json, shape, |number| {
        datatype.push(number, &mut data)
    })?;
    if count as u64 != elements {
        let shape = Shape::of(shape);
        return Err(format!(
            "{what}: expected {elements} elements for the shape {shape}, got {count}"
        ));
    }
    Ok(data)
}

/// The outputs to return, and which of them as binary data.
fn check_outputs<'a>(
    expected: &'a [TensorSignature],
    outputs: Option<&RawValue>,
    all_binary: bool,
) -> Result<(Vec<&'a TensorSignature>, Vec<bool>), Error> {
    let outputs = outputs.map_or(Ok(Vec::new()), |outputs| json::items(&"outputs", outputs))?;
    let mut checked: Vec<&TensorSignature> = Vec::with_capacity(expected.len());
    let mut binary = Vec::new();
    for (index, output) in outputs.into_iter().enumerate() {
        let what = format_args!("outputs[{index}]");
        let [name, parameters] =
            Entries::of_part(&what, output)?.pick(&what, ["name", "parameters"])?;
        let name = name.and_then(|name| json::string(name.get()));
        let name =
            name.ok_or_else(|| Error::invalid(format!("{what}: expected \"name\", a string")))?;
        let output = find(expected, &name)
            .ok_or_else(|| Error::invalid(unknown("output", &name, expected)))?;
        if checked.iter().any(|other| other.name == output.name) {
            return Err(Error::invalid(format!("output {:?}: duplicate", output.name)));
        }
        checked.push(output);
        let parameters = TensorParameters::read(parameters)
            .map_err(|problem| Error::invalid(format!("output {name:?}: {problem}")))?;
        if parameters.binary_data.unwrap_or(all_binary) {
            binary.resize(index, false);
            binary.push(true);
        }
    }
    if checked.is_empty() {
        checked.extend(expected);
        if all_binary {
            binary.resize(expected.len(), true);
        }
    }
    Ok((checked, binary))
}

fn find<'a>(tensors: &'a [TensorSignature], name: &str) -> Option<&'a TensorSignature> {
    tensors.iter().find(|tensor| tensor.name == name)
}

fn unknown(kind: &str, name: &str, expected: &[TensorSignature]) -> String {
    let names: Vec<_> = expected.iter().map(|tensor| &tensor.name).collect();
    format!("{kind} {:?}: unknown; this model has {names:?}", quoted(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signature::tests::iris;

    /// Id, inputs, and names of the outputs.
    type Decoded = (Option<String>, Vec<Tensor>, Vec<String>);

    fn decoded(body: &str) -> Result<Decoded, String> {
        let signature = iris();
        let request = decode(&signature, body.as_bytes(), BinaryTensors::none())
            .map_err(|error| error.to_string())?;
        let outputs = request.outputs.iter().map(|output| output.name.clone());
        Ok((request.id.map(Cow::into_owned), request.inputs, outputs.collect()))
    }

    /// The error for a request whose only input has these fields.
    fn refusal(input: &str) -> String {
        decoded(&format!(r#"{{"inputs":[{{{input}}}]}}"#)).unwrap_err()
    }

    #[test]
    fn fields_may_have_any_order() {
        let row = Tensor::f32("features", &[1, 4], &[5.1, 3.5, 1.4, 0.2]);
        let all = vec!["label".to_owned(), "probabilities".to_owned()];
        for (body, id) in [
            (
                r#"{"id":"42","inputs":[{"name":"features","shape":[1,4],"datatype":"FP32","data":[5.1,3.5,1.4,0.2]}]}"#,
                Some("42"),
            ),
            (
                r#"{"outputs":[],"parameters":{"a":[1]},"inputs":[{"data":[[5.1,3.5,1.4,0.2]],"datatype":"FP32",
                    "parameters":{"content_type":"np"},"shape":[1,4],"name":"f\u0065atures"}],"id":null}"#,
                None,
            ),
        ] {
            let expected = (id.map(str::to_owned), vec![row.clone()], all.clone());
            assert_eq!(decoded(body), Ok(expected), "{body}");
        }
    }

    #[test]
    fn outputs_are_those_the_request_names() {
        let input =
            r#""inputs":[{"name":"features","shape":[1,4],"datatype":"FP32","data":[1,2,3,4]}]"#;
        let outputs = |names| {
            decoded(&format!(r#"{{{input},"outputs":{names}}}"#)).map(|(_, _, outputs)| outputs)
        };
        assert_eq!(outputs(r#"[{"name":"label","parameters":{}}]"#).unwrap(), ["label"]);
        assert_eq!(
            outputs(r#"[{"name":"score"}]"#).unwrap_err(),
            r#"output "score": unknown; this model has ["label", "probabilities"]"#
        );
        assert_eq!(
            outputs(r#"[{"name":"label","parameters":{"classification":2}}]"#).unwrap_err(),
            r#"output "label": `classification` is not supported; POST .../predict returns class names"#
        );
        assert_eq!(
            outputs(r#"[{"name":"label"},{"name":"label"}]"#).unwrap_err(),
            r#"output "label": duplicate"#
        );
    }

    #[test]
    fn messages_name_the_place_and_what_was_expected() {
        for (input, message) in [
            (
                r#""name":"x","shape":[1,4],"datatype":"FP32","data":[1,2,3,4]"#,
                r#"input "x": unknown; this model has ["features"]"#,
            ),
            (
                r#""name":"features","shape":[1,4],"datatype":"FP64","data":[1,2,3,4]"#,
                r#"input "features": expected datatype FP32, got "FP64""#,
            ),
            (
                r#""name":"features","shape":[4],"datatype":"FP32","data":[1,2,3,4]"#,
                r#"input "features": expected shape [-1, 4], got [4]"#,
            ),
            (
                r#""name":"features","shape":[0,4],"datatype":"FP32","data":[1]"#,
                r#"input "features": data: expected 0 elements for the shape [0, 4], got 1"#,
            ),
            (
                r#""name":"features","shape":[4294967295,4],"datatype":"FP32","data":[1]"#,
                r#"input "features": data: expected 17179869180 elements for the shape [4294967295, 4], got 1"#,
            ),
            (
                r#""name":"features","shape":[1,4],"datatype":"FP32","data":[1,2,3]"#,
                r#"input "features": data: expected 4 elements for the shape [1, 4], got 3"#,
            ),
            (
                r#""name":"features","shape":[1,4],"datatype":"FP32","data":[1,2,3,"4"]"#,
                r#"input "features": data[3]: expected a number, got "4""#,
            ),
            (
                r#""name":"features","shape":[1,4],"datatype":"FP32","data":[1,2,1e39,4]"#,
                r#"input "features": data[2]: 1e39 is out of range for FP32"#,
            ),
            (
                r#""name":"features","shape":[1,4],"datatype":"FP32""#,
                r#"input "features": expected either "data", an array of numbers, or the parameter "binary_data_size", got neither"#,
            ),
            (
                r#""name":"features","shape":[1,4],"datatype":"FP32","data":[1,2,3,4],"parameters":{"binary_data_size":16}"#,
                r#"input "features": expected either "data", an array of numbers, or the parameter "binary_data_size", got both"#,
            ),
            (
                r#""name":"features","shape":[1,4],"datatype":"FP32","parameters":{"binary_data_size":16}"#,
                r#"input "features": binary_data_size requires the header Inference-Header-Content-Length, the length of the JSON"#,
            ),
            (
                r#""name":"features","shape":[1,4],"datatype":"FP32","parameters":{"shared_memory_region":"a"}"#,
                r#"input "features": shared memory is not supported; send the tensor in the body"#,
            ),
            (
                r#""name":"features","shape":[1,4],"datatype":"BYTES","data":["a"]"#,
                r#"input "features": expected datatype FP32, got "BYTES""#,
            ),
            (
                r#""name":"features","shape":[-1,4],"datatype":"FP32","data":[1]"#,
                r#"input "features": shape[0]: -1 is not the size of an axis: expected an integer from 0 to 4294967295"#,
            ),
            (
                r#""name":"features","shape":[1.5,4],"datatype":"FP32","data":[1]"#,
                r#"input "features": shape[0]: 1.5 is not the size of an axis: expected an integer from 0 to 4294967295"#,
            ),
            (
                r#""name":"features","shape":[[1],4],"datatype":"FP32","data":[1]"#,
                r#"input "features": shape[0]: expected a number, got an array"#,
            ),
            (
                r#""name":"features","shape":4,"datatype":"FP32","data":[1]"#,
                r#"input "features": shape: expected an array of numbers, got 4"#,
            ),
            (
                r#""name":7"#,
                "the body: invalid type: integer `7`, expected a string at line 1 column 20",
            ),
        ] {
            assert_eq!(refusal(input), message, "{input}");
        }
        let features = r#"{"name":"features","shape":[1,4],"datatype":"FP32","data":[1,2,3,4]}"#;
        assert_eq!(
            decoded(&format!(r#"{{"inputs":[{features},{features}]}}"#)).unwrap_err(),
            r#"input "features": duplicate"#
        );
        assert_eq!(
            decoded(r#"{"inputs":[]}"#).unwrap_err(),
            r#"input "features": missing; expected datatype FP32 and shape [-1, 4]"#
        );
        assert_eq!(
            decoded(r#"{"inputs":[["features",[1,4],"FP32",[1,2,3,4]]]}"#).unwrap_err(),
            "the body: invalid type: sequence, expected an object at line 1 column 11"
        );
    }

    #[test]
    fn deep_nesting_is_refused_without_recursion() {
        let deep = "[".repeat(200_000) + &"]".repeat(200_000);
        let message =
            refusal(&format!(r#""name":"features","shape":[1,4],"datatype":"FP32","data":{deep}"#));
        assert!(message.contains("got an array"), "{message}");
        let message = decoded(&format!(r#"{{"id":{deep}}}"#)).unwrap_err();
        assert!(message.contains("expected a string"), "{message}");
    }

    proptest::proptest! {
        #[test]
        fn no_body_panics(
            bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..64),
            input in r#"("name":"features"|"shape":\[[0-9]{1,12},4\]|"datatype":"FP32"|"data":\[([-0-9.e]{1,9}|\[|\]|,|null){0,9}\]|,){0,9}"#,
        ) {
            let signature = iris();
            let _ = decode(&signature, &bytes, BinaryTensors::none());
            let _ = decoded(&format!(r#"{{"inputs":[{{{input}}}]}}"#));
        }
    }
}
