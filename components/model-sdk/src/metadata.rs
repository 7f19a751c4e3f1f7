//! Metadata and health of the model, in the Open Inference Protocol and for MLflow.

use serde::Serialize;

use crate::error::Error;
use crate::json;
use crate::response::Response;
use crate::signature::{Signature, TensorSignature};

#[derive(Serialize)]
struct Metadata<'a> {
    name: &'a str,
    versions: [&'a str; 1],
    platform: &'static str,
    inputs: &'a [TensorSignature],
    outputs: &'a [TensorSignature],
}

#[derive(Serialize)]
struct Readiness<'a> {
    name: &'a str,
    ready: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// ONNX in the Open Inference Protocol.
const PLATFORM: &str = "onnx_onnxv1";

/// The metadata of the model.
pub(crate) fn metadata(signature: &Signature) -> Result<Response, Error> {
    let body = json::encode(
        Vec::new(),
        &Metadata {
            name: &signature.name,
            versions: [&signature.version],
            platform: PLATFORM,
            inputs: &signature.inputs,
            outputs: &signature.outputs,
        },
    )?;
    Ok(Response::json(200, body))
}

/// The response to a readiness probe.
pub(crate) fn ready(name: &str) -> Result<Response, Error> {
    let readiness = Readiness { name, ready: true, error: None };
    Ok(Response::json(200, json::encode(Vec::new(), &readiness)?))
}

/// The response to a readiness probe if the model cannot be loaded.
pub(crate) fn not_ready(name: &str, error: &Error) -> Result<Response, Error> {
    let readiness = Readiness { name, ready: false, error: Some(error.to_string()) };
    Ok(Response::json(error.status(), json::encode(Vec::new(), &readiness)?))
}

/// The response to `ping` of MLflow: a newline, as from its server.
pub(crate) fn ping() -> Response {
    Response::json(200, b"\n".to_vec())
}

/// The response to `version` of MLflow: the version of this library.
pub(crate) fn version() -> Response {
    Response::new(200, "text/plain", env!("CARGO_PKG_VERSION").into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datatype::Datatype;
    use crate::signature::tests::signature;

    #[test]
    fn datatypes_have_the_names_of_the_protocol() {
        for datatype in Datatype::ALL {
            let name = datatype.name();
            let model = format!("in x {name} [2, -1]\nbatch_axis = 1\nout y {name} []");
            let body = metadata(&signature(&model)).unwrap().body;
            let tensor = |tensor: &str, shape: &str| {
                format!(r#"{{"name":"{tensor}","datatype":"{name}","shape":{shape}}}"#)
            };
            let (x, y) = (tensor("x", "[2,-1]"), tensor("y", "[]"));
            assert!(
                String::from_utf8(body).unwrap().ends_with(&format!(
                    r#""platform":"onnx_onnxv1","inputs":[{x}],"outputs":[{y}]}}"#
                )),
                "{name}"
            );
        }
    }
}
