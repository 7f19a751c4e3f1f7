//! What a model is, and whether it can serve, as the Open Inference Protocol and MLflow ask.

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

/// The protocol's name for ONNX.
const PLATFORM: &str = "onnx_onnxv1";

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

pub(crate) fn ready(name: &str) -> Result<Response, Error> {
    let readiness = Readiness { name, ready: true, error: None };
    Ok(Response::json(200, json::encode(Vec::new(), &readiness)?))
}

/// The answer to a readiness probe when `error` keeps the model from loading.
pub(crate) fn not_ready(name: &str, error: &Error) -> Result<Response, Error> {
    let readiness = Readiness { name, ready: false, error: Some(error.to_string()) };
    Ok(Response::json(error.status(), json::encode(Vec::new(), &readiness)?))
}

/// MLflow's `ping`: its whole answer is that there is one.
pub(crate) fn ping() -> Response {
    Response::json(200, b"\n".to_vec())
}

/// Of this library, where MLflow's server gives its own.
pub(crate) fn version() -> Response {
    Response::new(200, "text/plain", env!("CARGO_PKG_VERSION").into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datatype::Datatype;
    use crate::signature::tests::signature;

    #[test]
    fn datatypes_are_the_protocols() {
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
