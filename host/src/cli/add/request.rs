//! A request to an added model, as a `curl` command to copy into a shell: its body is the input of a
//! trial run. Names from the file are quoted; a long body is in a file.

use std::path::Path;

use half::{bf16, f16};
use serde_json::{Value, json};
use spinfer_backend::{Tensor, TensorType, strings};

use super::examine::Examined;
use crate::cli::signature;

/// Maximum size of a body within the command, in bytes.
const MAX_IN_LINE: usize = 1 << 10;
/// Maximum size of a JSON body, in bytes. Above it the tensors are binary, which takes a quarter.
const MAX_JSON: usize = 256 << 10;

/// The command, and the file with its body, if there is one.
#[derive(Debug)]
pub(in crate::cli) struct Request {
    pub(in crate::cli) line: String,
    /// Path in the application's folder, and contents.
    pub(in crate::cli) file: Option<(String, Vec<u8>)>,
}

impl Request {
    /// A request to the model at `path` of the default address of `spinfer up`. The file is named `name`,
    /// in `requests/` of the manifest's folder `base`.
    pub(in crate::cli) fn new(path: &str, name: &str, base: &Path, examined: &Examined) -> Self {
        let url = |operation: &str| {
            format!("curl {}", word(&format!("localhost:3000{path}/{operation}")))
        };
        let (operation, body) = match row(examined) {
            Some(row) => ("predict", Some(format!("{{\"features\": {row}}}"))),
            None => ("infer", inference(examined)),
        };
        let in_folder = |extension: &str| {
            let file = format!("requests/{name}.{extension}");
            let path = base.strip_prefix(".").unwrap_or(base).join(&file);
            (word(&format!("@{}", path.display())), file)
        };
        match body {
            Some(body) if body.len() <= MAX_IN_LINE => {
                Self { line: format!("{} -d {}", url(operation), word(&body)), file: None }
            }
            Some(body) if body.len() <= MAX_JSON => {
                let (at, file) = in_folder("json");
                let line = format!("{} -d {at}", url(operation));
                Self { line, file: Some((file, body.into_bytes())) }
            }
            _ => {
                let (length, body) = binary(examined);
                let (at, file) = in_folder("bin");
                let line = format!(
                    "{} -H 'Inference-Header-Content-Length: {length}' --data-binary {at}",
                    url("infer")
                );
                Self { line, file: Some((file, body)) }
            }
        }
    }
}

/// The only row of the sample in the short form, if the model supports that: as an object if each
/// input is a column.
fn row(examined: &Examined) -> Option<String> {
    if !has_short_form(examined) {
        return None;
    }
    let tensors = || examined.inputs.iter().zip(&examined.sample);
    let of_one_row = |(input, tensor): (&signature::DeclaredTensor, &Tensor)| {
        let rows = tensor.dimensions.get(input.batch_axis);
        input.row().is_some() && (!input.counts_rows() || rows == Some(&1))
    };
    if !tensors().all(of_one_row) {
        return None;
    }
    let by_column = examined.inputs.len() > 1 && examined.inputs.iter().all(|i| i.row() == Some(1));
    let mut items = Vec::new();
    for (input, tensor) in tensors() {
        let name = Value::from(input.name.as_str());
        let item =
            |value: Value| if by_column { format!("{name}: {value}") } else { value.to_string() };
        items.extend(values(tensor)?.into_iter().map(item));
    }
    let items = items.join(", ");
    Some(if by_column { format!("{{{items}}}") } else { format!("[{items}]") })
}

/// Whether `model_sdk` serves the short form: one prediction per row.
fn has_short_form(examined: &Examined) -> bool {
    let is_class =
        |output: &signature::DeclaredTensor| !output.is_float() && output.row() == Some(1);
    match examined.outputs.as_slice() {
        [only] => only.is_float() || is_class(only),
        [a, b] => is_class(a) && b.is_float() || a.is_float() && is_class(b),
        _ => false,
    }
}

/// The sample as a request of the Open Inference Protocol.
fn inference(examined: &Examined) -> Option<String> {
    let data = |tensor: &Tensor| {
        let values = values(tensor)?.iter().map(Value::to_string).collect::<Vec<_>>().join(", ");
        Some(format!("\"data\": [{values}]"))
    };
    inputs(examined, data)
}

/// The sample as a request with binary tensors after the JSON: the length of the JSON, in bytes, and
/// the body.
fn binary(examined: &Examined) -> (usize, Vec<u8>) {
    let size = |tensor: &Tensor| {
        Some(format!("\"parameters\": {{\"binary_data_size\": {}}}", tensor.data.len()))
    };
    let mut body = inputs(examined, size).unwrap_or_default().into_bytes();
    let length = body.len();
    examined.sample.iter().for_each(|tensor| body.extend_from_slice(&tensor.data));
    (length, body)
}

/// A request with the elements of each input as rendered by `data`; `None` if that fails for one.
fn inputs(examined: &Examined, data: impl Fn(&Tensor) -> Option<String>) -> Option<String> {
    let inputs = examined.inputs.iter().zip(&examined.sample).map(|(input, tensor)| {
        let name = Value::from(input.name.as_str());
        let (shape, datatype) = (&tensor.dimensions, input.datatype);
        let data = data(tensor)?;
        Some(format!(
            "{{\"name\": {name}, \"shape\": {shape:?}, \"datatype\": \"{datatype}\", {data}}}"
        ))
    });
    Some(format!("{{\"inputs\": [{}]}}", inputs.collect::<Option<Vec<_>>>()?.join(", ")))
}

/// The elements as JSON values; `None` if one cannot be represented. NaN is `null`.
fn values(tensor: &Tensor) -> Option<Vec<Value>> {
    fn each<const N: usize>(data: &[u8], value: impl Fn([u8; N]) -> Value) -> Option<Vec<Value>> {
        Some(data.as_chunks().0.iter().map(|&bytes| value(bytes)).collect())
    }
    let data = tensor.data.as_slice();
    let values = match tensor.ty {
        TensorType::Bool => each(data, |[byte]| (byte != 0).into()),
        TensorType::U8 => each(data, |[byte]| byte.into()),
        TensorType::I8 => each(data, |bytes| i8::from_le_bytes(bytes).into()),
        TensorType::U16 => each(data, |bytes| u16::from_le_bytes(bytes).into()),
        TensorType::I16 => each(data, |bytes| i16::from_le_bytes(bytes).into()),
        TensorType::U32 => each(data, |bytes| u32::from_le_bytes(bytes).into()),
        TensorType::I32 => each(data, |bytes| i32::from_le_bytes(bytes).into()),
        TensorType::U64 => each(data, |bytes| u64::from_le_bytes(bytes).into()),
        TensorType::I64 => each(data, |bytes| i64::from_le_bytes(bytes).into()),
        TensorType::Fp16 => each(data, |bytes| number(f16::from_le_bytes(bytes).to_f32())),
        TensorType::Bf16 => each(data, |bytes| number(bf16::from_le_bytes(bytes).to_f32())),
        TensorType::Fp32 => each(data, |bytes| number(f32::from_le_bytes(bytes))),
        TensorType::Fp64 => each(data, |bytes| json!(f64::from_le_bytes(bytes))),
        TensorType::String => strings(data)
            .map(|string| Some(str::from_utf8(string?).ok()?.into()))
            .collect::<Option<Vec<Value>>>(),
    }?;
    let is_infinite = match tensor.ty {
        TensorType::Fp64 => data.as_chunks().0.iter().any(|&b| f64::from_le_bytes(b).is_infinite()),
        TensorType::Fp32 => data.as_chunks().0.iter().any(|&b| f32::from_le_bytes(b).is_infinite()),
        TensorType::Fp16 => data.as_chunks().0.iter().any(|&b| f16::from_le_bytes(b).is_infinite()),
        TensorType::Bf16 => {
            data.as_chunks().0.iter().any(|&b| bf16::from_le_bytes(b).is_infinite())
        }
        _ => false,
    };
    (!is_infinite).then_some(values)
}

/// `number` with the fewest digits that identify it as an `f32`.
fn number(number: f32) -> Value {
    let text = number.to_string();
    text.parse::<f64>().map_or(Value::Null, |number| json!(number))
}

/// `text` as one word of a shell, in single quotes if necessary.
fn word(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "@%_+:,./-".contains(c);
    if text.chars().all(is_plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn tensor(name: &str, datatype: &'static str, shape: &[i64]) -> signature::DeclaredTensor {
        let (name, shape) = (name.into(), Some(shape.to_vec()));
        signature::DeclaredTensor { name, datatype, shape, batch_axis: 0 }
    }

    fn sample(ty: TensorType, dimensions: &[u32], data: &[u8]) -> Tensor {
        Tensor { ty, dimensions: dimensions.to_vec(), data: data.to_vec() }
    }

    fn examined(
        inputs: Vec<(signature::DeclaredTensor, Tensor)>,
        outputs: Vec<signature::DeclaredTensor>,
    ) -> Examined {
        let (inputs, sample) = inputs.into_iter().unzip();
        Examined {
            backend: "lean",
            reason: String::new(),
            inputs,
            outputs,
            producer: String::new(),
            random: false,
            notes: Vec::new(),
            sample,
        }
    }

    fn request(examined: &Examined) -> Request {
        Request::new("/v2/models/m", "m-1", Path::new("."), examined)
    }

    /// The arguments that `curl` receives from a shell.
    fn arguments(line: &str) -> Vec<String> {
        let script = format!("curl() {{ printf '%s\\n' \"$@\"; }}; {line}");
        let output = Command::new("sh").args(["-c", &script]).output().unwrap();
        String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
    }

    fn floats(numbers: &[f32]) -> Vec<u8> {
        numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
    }

    #[test]
    fn short_form_is_used_for_one_row_and_one_prediction() {
        let data = floats(&[0.5, 0.1, f32::NAN]);
        let x = |rows| {
            let data = data.repeat(rows as usize);
            (tensor("x", "FP32", &[-1, 3]), sample(TensorType::Fp32, &[rows, 3], &data))
        };
        let y = || tensor("y", "FP32", &[-1, 1]);
        assert_eq!(
            request(&examined(vec![x(1)], vec![y()])).line,
            r#"curl localhost:3000/v2/models/m/predict -d '{"features": [0.5, 0.1, null]}'"#
        );
        let two_rows = request(&examined(vec![x(2)], vec![y()])).line;
        assert!(two_rows.contains("/infer -d '{\"inputs\": [{"), "{two_rows}");
        let outputs = vec![y(), tensor("z", "FP32", &[-1])];
        let line = request(&examined(vec![x(1)], outputs)).line;
        assert!(line.contains("/infer -d "), "{line}");
    }

    #[test]
    fn inputs_of_one_column_each_become_an_object() {
        let text = [&4_u32.to_le_bytes()[..], b"Rome"].concat();
        let inputs = vec![
            (
                tensor("age", "INT64", &[-1, 1]),
                sample(TensorType::I64, &[1, 1], &7_i64.to_le_bytes()),
            ),
            (tensor("city", "BYTES", &[-1, 1]), sample(TensorType::String, &[1, 1], &text)),
            (tensor("new", "BOOL", &[-1, 1]), sample(TensorType::Bool, &[1, 1], &[1])),
        ];
        let line = request(&examined(inputs, vec![tensor("label", "BYTES", &[-1])])).line;
        let body = r#"'{"features": {"age": 7, "city": "Rome", "new": true}}'"#;
        assert_eq!(line, format!("curl localhost:3000/v2/models/m/predict -d {body}"));
    }

    #[test]
    fn names_are_quoted_for_the_shell() {
        let name = "'$(echo gone)`echo gone`\"\\ ''";
        let input = (tensor(name, "UINT8", &[-1, -1]), sample(TensorType::U8, &[1, 2], &[1, 2]));
        let hostile = examined(vec![input], Vec::new());
        let arguments = arguments(&Request::new("/m m", "m", Path::new("."), &hostile).line);
        assert_eq!(arguments[..2], ["localhost:3000/m m/infer", "-d"]);
        let body: Value = serde_json::from_str(&arguments[2]).unwrap();
        assert_eq!(body["inputs"][0]["name"], name);
    }

    #[test]
    fn long_bodies_are_in_a_file_and_very_long_ones_are_binary() {
        let of = |width: u32, base: &str| {
            let data = floats(&[0.125]).repeat(width as usize);
            let input = sample(TensorType::Fp32, &[1, width], &data);
            let examined = examined(
                vec![(tensor("x", "FP32", &[-1, width.into()]), input)],
                vec![tensor("y", "FP32", &[-1, 1])],
            );
            Request::new("/v2/models/m", "m-1", Path::new(base), &examined)
        };
        let json = of(1000, "an app");
        assert_eq!(arguments(&json.line)[1..], ["-d", "@an app/requests/m-1.json"]);
        let (file, body) = json.file.unwrap();
        let body: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(
            (file.as_str(), body["features"].as_array().unwrap().len()),
            ("requests/m-1.json", 1000)
        );
        let binary = of(150_528, ".");
        let (file, body) = binary.file.unwrap();
        let length = body.len() - 4 * 150_528;
        assert_eq!(
            binary.line,
            format!(
                "curl localhost:3000/v2/models/m/infer -H 'Inference-Header-Content-Length: {length}' \
                 --data-binary @requests/m-1.bin"
            )
        );
        assert_eq!(file, "requests/m-1.bin");
        let head: Value = serde_json::from_slice(&body[..length]).unwrap();
        assert_eq!(head["inputs"][0]["parameters"]["binary_data_size"], 4 * 150_528);
        // JSON has no infinity.
        let x =
            (tensor("x", "FP32", &[1]), sample(TensorType::Fp32, &[1], &floats(&[f32::INFINITY])));
        assert!(request(&examined(vec![x], Vec::new())).line.contains("--data-binary"));
    }
}
