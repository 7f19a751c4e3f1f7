//! The Open Inference Protocol, version 2: tensors in, tensors out.
//! <https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md>

mod request;
mod response;

use crate::error::Error;
use crate::graph::Graph;

pub(crate) fn infer(graph: &Graph, body: &[u8]) -> Result<Vec<u8>, Error> {
    let request = request::decode(graph.signature(), body)?;
    let outputs = graph.compute_all(request.inputs, &request.outputs)?;
    response::encode(graph.signature(), request.id.as_deref(), &outputs)
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
        let tensor =
            format!(r#"{{ name = "x", datatype = "{}", shape = [-1, 2] }}"#, datatype.name());
        let text =
            format!("name = 'echo'\nversion = '1'\ninputs = [{tensor}]\noutputs = [{tensor}]");
        Signature::parse(&text, "echo").unwrap()
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
        let body = r#"{"id":"a\"b","inputs":[{"name":"features","shape":[1,4],"datatype":"FP32","data":[1,2,3,4]}]}"#;
        assert_eq!(
            String::from_utf8(infer(&graph, body.as_bytes()).unwrap()).unwrap(),
            r#"{"model_name":"iris-classifier","model_version":"1","id":"a\"b","outputs":[{"name":"label","datatype":"INT64","shape":[1],"data":[2]},{"name":"probabilities","datatype":"FP32","shape":[1,3],"data":[0.1,1.5e-9,1.0]}]}"#
        );
        let body = r#"{"inputs":[{"name":"features","shape":[1,4],"datatype":"FP32","data":[1,2,3,4]}],"outputs":[{"name":"label"}]}"#;
        assert_eq!(
            String::from_utf8(infer(&graph, body.as_bytes()).unwrap()).unwrap(),
            r#"{"model_name":"iris-classifier","model_version":"1","outputs":[{"name":"label","datatype":"INT64","shape":[1],"data":[2]}]}"#
        );
    }

    #[test]
    fn what_json_cannot_carry_is_the_models_fault() {
        let graph =
            graph(echo(Datatype::F32), |_| Ok(vec![Tensor::f32("x", &[1, 2], &[0.0, f32::NAN])]));
        let body = r#"{"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","data":[1,2]}]}"#;
        let error = infer(&graph, body.as_bytes()).unwrap_err();
        assert_eq!(error.status(), 500);
        assert_eq!(
            error.to_string(),
            r#"output "x": element 1 is NaN or infinite, which JSON cannot carry"#
        );
    }

    proptest! {
        /// What a response says is what a request with the same data means, bit for bit.
        #[test]
        fn elements_survive_encoding_and_decoding(
            datatype in prop::sample::select(vec![
                Datatype::F16, Datatype::F32, Datatype::F64, Datatype::Bf16, Datatype::U8, Datatype::I32, Datatype::I64,
            ]),
            bytes in prop::collection::vec(any::<u8>(), 0..128),
        ) {
            let rows = bytes.len() / (2 * datatype.size());
            prop_assume!(rows > 0);
            let tensor = Tensor {
                name: "x".to_owned(),
                datatype,
                dimensions: vec![u32::try_from(rows).unwrap(), 2],
                data: bytes[..rows * 2 * datatype.size()].to_vec(),
            };
            let signature = echo(datatype);
            // NaN and infinities are refused.
            if let Ok(body) = response::encode(&signature, None, std::slice::from_ref(&tensor)) {
                let body = String::from_utf8(body).unwrap().replace(r#""outputs""#, r#""inputs""#);
                let request = request::decode(&signature, body.as_bytes()).unwrap();
                prop_assert_eq!(request.inputs, [tensor]);
            }
        }
    }
}
