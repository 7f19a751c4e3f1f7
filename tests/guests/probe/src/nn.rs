//! Calls `wasi:nn` with the arguments of the query. The response is 200 with the concatenated data of the outputs
//! and `x-outputs: name:type:dims;...`, or 422 with `x-code` and the text of the error.

use super::ProbeResponse;
use crate::bindings::wasi::nn::errors::Error;
use crate::bindings::wasi::nn::graph::{ExecutionTarget, Graph, GraphEncoding, load, load_by_name};
use crate::bindings::wasi::nn::tensor::{Tensor, TensorType};

pub(super) fn respond(path: &str, query: &str, body: &[u8]) -> ProbeResponse {
    let result = match path {
        "/nn/compute" => compute(query, body),
        "/nn/load" => load_bytes(query, body).map(|_| ProbeResponse::text(200, "loaded")),
        "/nn/tensors" => keep_tensors(query),
        _ => Ok(ProbeResponse::text(404, path)),
    };
    result.unwrap_or_else(|error| ProbeResponse {
        status: 422,
        headers: vec![("x-code".into(), format!("{:?}", error.code()).into_bytes())],
        body: error.data().into_bytes(),
    })
}

/// `graph=NAME&input=name:TYPE:2,3&input=...`: the body is the data of the inputs, in order, each as long as its type
/// and dimensions require; the last one takes the rest.
fn compute(query: &str, mut body: &[u8]) -> Result<ProbeResponse, Error> {
    let graph = load_by_name(value(query, "graph"))?;
    let context = graph.init_execution_context()?;
    let specs: Vec<_> = query.split('&').filter_map(|pair| pair.strip_prefix("input=")).collect();
    let mut inputs = Vec::new();
    for (index, spec) in specs.iter().enumerate() {
        let mut parts = spec.split(':');
        let name = parts.next().unwrap_or_default().to_owned();
        let (ty, size) = tensor_type(parts.next().unwrap_or_default());
        let dims: Vec<u32> =
            parts.next().unwrap_or_default().split(',').filter_map(|d| d.parse().ok()).collect();
        let wanted = dims.iter().fold(size, |bytes, &d| bytes.saturating_mul(d as usize));
        let taken = if index + 1 == specs.len() { body.len() } else { wanted.min(body.len()) };
        let (data, rest) = body.split_at(taken);
        body = rest;
        inputs.push((name, Tensor::new(&dims, ty, data)));
    }
    let outputs = context.compute(inputs)?;
    let (mut header, mut body) = (Vec::new(), Vec::new());
    for (name, tensor) in outputs {
        header.push(format!("{name}:{:?}:{:?}", tensor.ty(), tensor.dimensions()));
        body.extend(tensor.data());
    }
    let headers = vec![("x-outputs".into(), header.join(";").into_bytes())];
    Ok(ProbeResponse { headers, ..ProbeResponse::text(200, body) })
}

/// `encoding=onnx&target=cpu`, or `parts=N` to cut the body into N builders.
fn load_bytes(query: &str, body: &[u8]) -> Result<Graph, Error> {
    let encoding = match value(query, "encoding") {
        "openvino" => GraphEncoding::Openvino,
        "tensorflow" => GraphEncoding::Tensorflow,
        "pytorch" => GraphEncoding::Pytorch,
        "tensorflowlite" => GraphEncoding::Tensorflowlite,
        "ggml" => GraphEncoding::Ggml,
        "autodetect" => GraphEncoding::Autodetect,
        _ => GraphEncoding::Onnx,
    };
    let target = match value(query, "target") {
        "gpu" => ExecutionTarget::Gpu,
        "tpu" => ExecutionTarget::Tpu,
        _ => ExecutionTarget::Cpu,
    };
    let parts = value(query, "parts").parse().unwrap_or(1);
    let builder: Vec<Vec<u8>> = vec![body.to_vec(); parts];
    load(&builder, encoding, target)
}

/// `count=N&bytes=M`: N tensors of M bytes, all alive at once.
fn keep_tensors(query: &str) -> Result<ProbeResponse, Error> {
    let count: usize = value(query, "count").parse().unwrap_or(0);
    let bytes: u32 = value(query, "bytes").parse().unwrap_or(0);
    let data = vec![0; bytes as usize];
    let tensors: Vec<_> =
        (0..count).map(|_| Tensor::new(&[bytes], TensorType::U8, &data)).collect();
    Ok(ProbeResponse::text(200, tensors.len().to_string()))
}

fn value<'a>(query: &'a str, key: &str) -> &'a str {
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs.into_iter().find(|(k, _)| *k == key).map_or("", |(_, value)| value)
}

fn tensor_type(name: &str) -> (TensorType, usize) {
    match name {
        "FP16" => (TensorType::Fp16, 2),
        "FP64" => (TensorType::Fp64, 8),
        "BF16" => (TensorType::Bf16, 2),
        "U8" => (TensorType::U8, 1),
        "I32" => (TensorType::I32, 4),
        "I64" => (TensorType::I64, 8),
        _ => (TensorType::Fp32, 4),
    }
}
