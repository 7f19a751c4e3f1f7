//! The Open Inference Protocol, version 2: tensors in, tensors out.
//! <https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md>

mod binary;
mod request;
mod response;

pub(crate) use binary::HEADER;

use crate::error::Error;
use crate::graph::Graph;
use crate::request::{Request, Response};

pub(crate) fn infer(graph: &Graph, request: &Request) -> Result<Response, Error> {
    let (json, tensors) = binary::split(request)?;
    let request = request::decode(graph.signature(), json, tensors)?;
    let outputs = graph.compute_all(request.inputs, &request.outputs)?;
    response::encode(graph.signature(), request.id.as_deref(), &outputs, &request.binary)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::graph::tests::graph;
    use crate::signature::Signature;
    use crate::signature::tests::iris;
    use crate::tensor::{Datatype, Tensor};

    /// A graph that gives back what it takes.
    fn echo(datatype: Datatype) -> Signature {
        let tensor = |name| {
            format!(r#"{{ name = "{name}", datatype = "{}", shape = [-1, 2] }}"#, datatype.name())
        };
        let tensors = format!("[{}, {}]", tensor("x"), tensor("y"));
        let text = format!("name = 'echo'\nversion = '1'\ninputs = {tensors}\noutputs = {tensors}");
        Signature::parse(&text, "echo").unwrap()
    }

    fn post(json: &str, binary: Option<&[u8]>) -> Request {
        let mut request = Request::post("/v2/models/m/infer", json.as_bytes());
        let Some(binary) = binary else {
            return request;
        };
        request.body.extend_from_slice(binary);
        request.with_header(HEADER, &json.len().to_string())
    }

    /// The JSON of a response, and what stands behind it.
    fn split(response: &Response) -> (&str, &[u8]) {
        let header = response.headers.iter().find(|(name, _)| *name == HEADER);
        let json = header.map_or(response.body.len(), |(_, length)| length.parse().unwrap());
        let (json, binary) = response.body.split_at(json);
        (std::str::from_utf8(json).unwrap(), binary)
    }

    #[test]
    fn a_response_has_the_outputs_asked_for() {
        let graph = graph(iris(), |inputs| {
            assert_eq!(inputs, [Tensor::f32("features", &[1, 4], &[1.0, 2.0, 3.0, 4.0])]);
            Ok(vec![
                Tensor::i64("label", &[1], &[2]),
                Tensor::f32("probabilities", &[1, 3], &[0.1, 1.5e-9, 1.0]),
            ])
        });
        let infer = |more: &str| {
            let body = format!(
                r#"{{"inputs":[{{"name":"features","shape":[1,4],"datatype":"FP32","data":[1,2,3,4]}}]{more}}}"#
            );
            let response = infer(&graph, &post(&body, None)).unwrap();
            let (json, binary) = split(&response);
            let content_type =
                if binary.is_empty() { "application/json" } else { "application/octet-stream" };
            assert_eq!(response.headers[0], ("content-type", content_type.into()));
            (json.to_owned(), binary.to_owned())
        };
        let start = r#"{"model_name":"iris-classifier","model_version":"1","#;
        let label = r#"{"name":"label","datatype":"INT64","shape":[1],"data":[2]}"#;
        let probabilities =
            r#"{"name":"probabilities","datatype":"FP32","shape":[1,3],"data":[0.1,1.5e-9,1.0]}"#;
        let label_behind = r#"{"name":"label","datatype":"INT64","shape":[1],"parameters":{"binary_data_size":8}}"#;
        let probabilities_behind = r#"{"name":"probabilities","datatype":"FP32","shape":[1,3],"parameters":{"binary_data_size":12}}"#;
        let two = 2_i64.to_le_bytes();
        let floats = Tensor::f32("", &[3], &[0.1, 1.5e-9, 1.0]).data;
        for (more, outputs, binary) in [
            (r#","outputs":[{"name":"label"}]"#, label.to_owned(), vec![]),
            (
                r#","outputs":[{"name":"probabilities"},{"name":"label"}]"#,
                format!("{probabilities},{label}"),
                vec![],
            ),
            (
                r#","parameters":{"binary_data_output":true}"#,
                format!("{label_behind},{probabilities_behind}"),
                [&two[..], &floats].concat(),
            ),
            (
                r#","outputs":[{"name":"probabilities","parameters":{"binary_data":true}},{"name":"label"}]"#,
                format!("{probabilities_behind},{label}"),
                floats.clone(),
            ),
            (
                r#","outputs":[{"name":"label"},{"name":"probabilities","parameters":{"binary_data":true}}]"#,
                format!("{label},{probabilities_behind}"),
                floats.clone(),
            ),
            (
                r#","outputs":[{"name":"label"},{"name":"probabilities","parameters":{"binary_data":false}}],"parameters":{"binary_data_output":true}"#,
                format!("{label_behind},{probabilities}"),
                two.to_vec(),
            ),
        ] {
            assert_eq!(
                infer(more),
                (format!(r#"{start}"outputs":[{outputs}]}}"#), binary),
                "{more}"
            );
        }
        let id = r#","id":"a\"b""#;
        let with_id = format!(r#"{start}"id":"a\"b","outputs":[{label},{probabilities}]}}"#);
        assert_eq!(infer(id).0, with_id);
    }

    #[test]
    fn what_json_cannot_carry_is_the_models_fault() {
        let graph =
            graph(echo(Datatype::F32), |_| Ok(vec![Tensor::f32("x", &[1, 2], &[0.0, f32::NAN])]));
        let input =
            |name| format!(r#"{{"name":"{name}","shape":[1,2],"datatype":"FP32","data":[1,2]}}"#);
        let body =
            format!(r#"{{"inputs":[{},{}],"outputs":[{{"name":"x"}}]}}"#, input("x"), input("y"));
        let error = infer(&graph, &post(&body, None)).unwrap_err();
        assert_eq!(error.status(), 500);
        assert_eq!(
            error.to_string(),
            r#"output "x": element 1 is NaN or infinite, which JSON cannot carry"#
        );
        // Behind the JSON anything goes.
        let body = body.replace("}]}", r#","parameters":{"binary_data":true}}]}"#);
        let response = infer(&graph, &post(&body, None)).unwrap();
        assert_eq!(split(&response).1, Tensor::f32("", &[2], &[0.0, f32::NAN]).data);
    }

    proptest! {
        /// What a response says is what a request with the same data means, bit for bit; as JSON, as
        /// bytes behind it, and as one of each.
        #[test]
        fn elements_survive_encoding_and_decoding(
            datatype in prop::sample::select(Datatype::ALL.to_vec()),
            bytes in prop::collection::vec(any::<u8>(), 0..128),
            binary in any::<[bool; 2]>(),
        ) {
            let rows = bytes.len() / (2 * datatype.size());
            prop_assume!(rows > 0);
            let tensor = |name: &str| Tensor {
                name: name.to_owned(),
                datatype,
                dimensions: vec![u32::try_from(rows).unwrap(), 2],
                data: bytes[..rows * 2 * datatype.size()].to_vec(),
            };
            let tensors = [tensor("x"), tensor("y")];
            let signature = echo(datatype);
            // NaN and infinities are refused in JSON.
            match response::encode(&signature, None, &tensors, &binary) {
                Ok(response) => {
                    let (json, behind) = split(&response);
                    let json = json.replace(r#""outputs""#, r#""inputs""#);
                    let request = post(&json, Some(behind));
                    let (json, behind) = binary::split(&request).unwrap();
                    let decoded = request::decode(&signature, json, behind).unwrap();
                    prop_assert_eq!(decoded.inputs, tensors);
                }
                Err(_) => prop_assert!(binary != [true; 2]),
            }
        }
    }
}
