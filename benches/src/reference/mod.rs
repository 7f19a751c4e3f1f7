//! What the native reference server does with a request: hyper's types, serde_json, and the evaluator
//! of the host's own choice, as an engineer would write it without WebAssembly in an afternoon.

mod image;
mod iris;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use bytes::Bytes;
use clap::ValueEnum;
use http_body_util::{BodyExt, Full};
use hyper::body::Body;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use serde::Serialize;
use spinfer_backend::{Backend, Encoding, Graph};
use spinfer_backend_lean::Lean;
use spinfer_backend_ort::{Library, OnnxRuntime, Options};

use crate::application::onnxruntime_library;
pub use image::Image;
pub use iris::Iris;

/// A library that runs the graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Evaluator {
    Lean,
    #[value(name = "onnxruntime")]
    OnnxRuntime,
}

/// A model as a service.
pub trait Service: Send + Sync + 'static {
    /// The JSON of the response to a POST request.
    ///
    /// # Errors
    /// If the request is not valid.
    fn respond(&self, path: &str, headers: &HeaderMap, body: &[u8]) -> Result<Vec<u8>>;
}

#[derive(Serialize)]
struct Output<T> {
    name: &'static str,
    datatype: &'static str,
    shape: Vec<usize>,
    data: Vec<T>,
}

#[derive(Serialize)]
struct Failure {
    error: String,
}

/// Loads a graph into `evaluator`; if `None`, into the one that the host prefers: lean, or ONNX Runtime
/// for what lean does not support. `library` is that of ONNX Runtime, by default the repository's.
fn load(
    path: &Path,
    evaluator: Option<Evaluator>,
    library: Option<PathBuf>,
) -> Result<Arc<dyn Graph>> {
    let bytes = std::fs::read(path).with_context(|| path.display().to_string())?;
    let lean = || Lean.load(&bytes, Encoding::Onnx);
    let onnxruntime = || {
        let library = library.unwrap_or_else(onnxruntime_library);
        let options = Options { library: Library::At(library), memory: 1 << 30 };
        anyhow::Ok(OnnxRuntime::new(options).load(&bytes, Encoding::Onnx)?)
    };
    match evaluator {
        Some(Evaluator::Lean) => Ok(lean()?),
        Some(Evaluator::OnnxRuntime) => onnxruntime(),
        None => lean().or_else(|_| onnxruntime()),
    }
}

/// Serves one request.
pub async fn handle<B>(service: &impl Service, request: Request<B>) -> Response<Full<Bytes>>
where
    B: Body<Error: std::error::Error + Send + Sync + 'static>,
{
    let (head, body) = request.into_parts();
    let result = match (head.method, head.uri.path()) {
        (Method::GET, "/empty") => Ok(b"{}".to_vec()),
        (Method::POST, path) => match body.collect().await {
            Ok(body) => service.respond(path, &head.headers, &body.to_bytes()),
            Err(error) => Err(error.into()),
        },
        _ => Err(anyhow::anyhow!("unknown path")),
    };
    let (status, json) = match result {
        Ok(json) => (StatusCode::OK, json),
        Err(error) => {
            let failure = Failure { error: error.to_string() };
            (StatusCode::BAD_REQUEST, serde_json::to_vec(&failure).unwrap_or_default())
        }
    };
    let mut response = Response::new(Full::new(json.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
