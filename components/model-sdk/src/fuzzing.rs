//! The fuzz targets of this crate: everything foreign it reads. `make fuzz` runs them for long, the
//! tests below for a moment.

use crate::answer::respond;
use crate::error::Error;
use crate::graph::{self, Graph};
use crate::infer::HEADER;
use crate::prediction::Prediction;
use crate::request::{Method, Request, needed_headers};
use crate::rows::Rows;
use crate::signature::Signature;
use crate::tensor::Tensor;
use crate::{Model, request};

const NAME: &str = "iris-classifier";
const IRIS: &str = include_str!("../../../models/iris-classifier/1/model.toml");

struct Iris;

impl Model for Iris {
    const NAME: &'static str = NAME;

    fn predict(graph: &Graph, rows: Rows<'_>) -> Result<Prediction, Error> {
        let features = rows.tensor("features", &[4]);
        let [indices, probabilities] = graph.compute([features], ["label", "probabilities"])?;
        Ok(Prediction::Classes { indices, probabilities })
    }
}

/// A request: method and path, the length that a client says its JSON has, and the body, each on a
/// line of its own. It is answered, or refused as the client's mistake.
pub fn request(data: &[u8]) {
    let mut parts = data.splitn(3, |&byte| byte == b'\n');
    let mut line = || parts.next().unwrap_or_default();
    let (first, length, body) = (line(), line(), line());
    let Ok(first) = std::str::from_utf8(first) else { return };
    let (method, path) = first.split_once(' ').unwrap_or(("", first));
    let method = match method {
        "GET" => Method::Get,
        "HEAD" => Method::Head,
        "POST" => Method::Post,
        _ => Method::Other,
    };
    let index = (0..).zip(needed_headers::<Iris>()).find(|(_, name)| **name == HEADER);
    let header = index.filter(|_| !length.is_empty()).map(|(index, _)| (index, length.to_vec()));
    let request = Request {
        method,
        path_with_query: path.to_owned(),
        headers: header.into_iter().collect(),
        body: body.to_vec(),
    };
    let response = answer(&request).unwrap_or_else(Error::into_response);
    let body = String::from_utf8_lossy(&response.body);
    assert!((200..500).contains(&response.status), "{}: {body}", response.status);
    if response.status >= 400 {
        assert!(body.starts_with("{\"error\":\""), "{body}");
    }
}

fn answer(request: &Request) -> Result<request::Response, Error> {
    let signature = Signature::parse(IRIS, NAME).map_err(Error::internal)?;
    let compute = |inputs: Vec<Tensor>| {
        let rows = inputs[0].dimensions[0];
        let many = |each: usize| each * rows as usize;
        Ok(vec![
            Tensor::i64("label", &[rows], &vec![1; many(1)]),
            Tensor::f32("probabilities", &[rows, 3], &vec![0.25; many(3)]),
        ])
    };
    respond::<Iris>(request, NAME, || Ok(graph::tests::graph(signature, compute)))
}

/// A `model.toml`.
pub fn model_toml(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    // What it says is for an operator.
    let _ = Signature::parse(text, NAME);
}

#[cfg(test)]
mod tests {
    use spinfer_mutations::run_briefly;

    #[test]
    fn requests() {
        run_briefly("request", super::request);
    }

    #[test]
    fn model_tomls() {
        run_briefly("model_toml", super::model_toml);
    }
}
