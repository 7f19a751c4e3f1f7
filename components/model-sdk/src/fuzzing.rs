//! The fuzz targets of this crate: all foreign input. `make fuzz` runs them for minutes, the tests below
//! briefly.

use crate::datatype::Datatype;
use crate::error::Error;
use crate::graph::{self, Graph};
use crate::handler::respond;
use crate::hooks::{Mapping, ModelHooks};
use crate::prediction::Prediction;
use crate::request::{CONTENT_TYPE, JSON_LENGTH, Method, Request, RequestHeaders};
use crate::response::Response;
use crate::rows::Rows;
use crate::signature::Signature;
use crate::tensor::Tensor;
use crate::{File, Model, packed};

const NAME: &str = "iris-classifier";
const IRIS: &str = include_str!("../../../models/iris-classifier/1/model.toml");

struct FuzzIris;

impl Model for FuzzIris {
    const NAME: &'static str = NAME;

    fn predict(graph: &Graph, rows: Rows<'_>) -> Result<Prediction, Error> {
        let features = rows.tensor("features", &[4]);
        let [indices, probabilities] = graph.compute([features], ["label", "probabilities"])?;
        Ok(Prediction::Classes { indices, probabilities })
    }
}

const WORDS: &str = r#"
    name = "iris-classifier"
    version = "1"
    inputs = [{ name = "word", datatype = "BYTES", shape = [-1] }]
    outputs = [
        { name = "length", datatype = "INT64", shape = [-1] },
        { name = "long", datatype = "BOOL", shape = [-1] },
        { name = "again", datatype = "BYTES", shape = [-1] },
    ]
"#;

/// Returns its strings, and whether they are long.
struct FuzzWords;

impl Model for FuzzWords {
    const NAME: &'static str = NAME;
    const MAPPING: Option<Mapping> = Some(|_, inputs| {
        let (dimensions, words) = (&inputs[0].dimensions, inputs[0].byte_strings()?);
        let lengths: Vec<_> = words.iter().map(|word| word.len() as i64).collect();
        let long: Vec<_> = words.iter().map(|word| word.len() > 4).collect();
        Ok(vec![
            Tensor::i64("length", dimensions, &lengths),
            Tensor::bool("long", dimensions, &long),
            Tensor::bytes("again", dimensions, &words),
        ])
    });

    fn predict(_: &Graph, rows: Rows<'_>) -> Result<Prediction, Error> {
        let lengths: Vec<_> = rows.bytes.iter().map(|word| word.len() as f32).collect();
        Ok(Prediction::Numbers(Tensor::f32("length", &[rows.count], &lengths)))
    }
}

const FLAGS: &str = r#"
    name = "iris-classifier"
    version = "1"
    inputs = [{ name = "flags", datatype = "BOOL", shape = [-1, 2] }]
    outputs = [{ name = "both", datatype = "BOOL", shape = [-1] }]
"#;

/// Accepts two flags per row, or a file instead.
struct FuzzFlags;

impl Model for FuzzFlags {
    const NAME: &'static str = NAME;
    const FILE: Option<File> = Some(File::new("picture", "image/x"));
    const MAPPING: Option<Mapping> = Some(|_, inputs| {
        let flags = inputs[0].bools()?;
        let both: Vec<_> = flags.chunks(2).map(|pair| pair.iter().all(|flag| *flag)).collect();
        Ok(vec![Tensor::bool("both", &inputs[0].dimensions[..1], &both)])
    });

    fn predict(_: &Graph, rows: Rows<'_>) -> Result<Prediction, Error> {
        let sums: Vec<_> = match rows.bytes {
            [file] => vec![file.len() as f32],
            _ => rows.features.chunks(2).map(|pair| pair.iter().sum()).collect(),
        };
        Ok(Prediction::Numbers(Tensor::f32("sum", &[rows.count], &sums)))
    }
}

const MIXED: &str = r#"
    name = "iris-classifier"
    version = "1"
    labels = ["a", "b", "c"]
    inputs = [
        { name = "age", datatype = "FP32", shape = [-1, 1] },
        { name = "city", datatype = "BYTES", shape = [-1] },
        { name = "count", datatype = "UINT64", shape = [1, -1], batch_axis = 1 },
        { name = "owner", datatype = "BOOL", shape = [-1, 1] },
    ]
    outputs = [
        { name = "label", datatype = "INT64", shape = [-1] },
        { name = "probabilities", datatype = "FP32", shape = [-1, 3] },
    ]
"#;

/// One input per column, of several datatypes, with the default `predict`.
struct FuzzMixed;

impl Model for FuzzMixed {
    const NAME: &'static str = NAME;
}

/// A request in lines: method and path; the length of the JSON and, after a space, the content type; the body.
/// Models of numbers, of strings, of flags and files, and of several datatypes respond with success or an
/// error of the client.
pub fn request(data: &[u8]) {
    statuses(data);
}

/// The status of each model's response. `None` without a path.
fn statuses(data: &[u8]) -> [Option<u16>; 4] {
    [
        status::<FuzzIris>(data, IRIS),
        status::<FuzzWords>(data, WORDS),
        status::<FuzzFlags>(data, FLAGS),
        status::<FuzzMixed>(data, MIXED),
    ]
}

fn status<M: Model>(data: &[u8], signature: &str) -> Option<u16> {
    let mut parts = data.splitn(3, |&byte| byte == b'\n');
    let mut line = || parts.next().unwrap_or_default();
    let (first, length, body) = (line(), line(), line());
    let first = std::str::from_utf8(first).ok()?;
    let (method, path) = first.split_once(' ').unwrap_or(("", first));
    let method = match method {
        "GET" => Method::Get,
        "HEAD" => Method::Head,
        "POST" => Method::Post,
        _ => Method::Other,
    };
    let mut values = length.splitn(2, |&byte| byte == b' ');
    let mut header = || values.next().filter(|value| !value.is_empty()).map(<[u8]>::to_vec);
    let sent = [(JSON_LENGTH, header()), (CONTENT_TYPE, header())];
    let value = |name: &str| sent.iter().find(|(sent, _)| *sent == name)?.1.clone();
    let headers = (0..).zip(ModelHooks::of::<M>().needed_headers());
    let headers = headers.filter_map(|(index, name)| Some((index, value(name)?)));
    let request = Request {
        method,
        path_with_query: path.to_owned(),
        headers: RequestHeaders::Passed { needed: headers.collect(), prediction_id: None },
        body: body.to_vec(),
    };
    let response = response::<M>(&request, signature).unwrap_or_else(Response::from);
    let body = String::from_utf8_lossy(&response.body);
    assert!((200..500).contains(&response.status), "{}: {body}", response.status);
    if response.status >= 400 {
        assert!(body.starts_with("{\"error\":\""), "{body}");
    }
    Some(response.status)
}

fn response<M: Model>(request: &Request, signature: &str) -> Result<Response, Error> {
    let signature = Signature::parse(signature, NAME).map_err(Error::internal)?;
    let compute = |inputs: Vec<Tensor>| {
        let rows = inputs[0].dimensions[0];
        let many = |each: usize| each * rows as usize;
        Ok(vec![
            Tensor::i64("label", &[rows], &vec![1; many(1)]),
            Tensor::f32("probabilities", &[rows, 3], &vec![0.25; many(3)]),
        ])
    };
    respond::<M>(request, NAME, || Ok(graph::stub::graph(signature, compute)))
}

/// The status and body of the response of a model that returns its inputs, to a `POST` of JSON.
///
/// # Panics
/// If `signature` is not a valid `model.toml` of the model `iris-classifier`.
pub fn echo(signature: &str, path: &str, body: &str) -> (u16, Vec<u8>) {
    struct Echo;

    impl Model for Echo {
        const NAME: &'static str = NAME;
    }

    let signature = Signature::parse(signature, NAME).expect("a valid model.toml");
    let request = Request {
        method: Method::Post,
        path_with_query: path.to_owned(),
        headers: RequestHeaders::none(),
        body: body.into(),
    };
    let response = respond::<Echo>(&request, NAME, || Ok(graph::stub::graph(signature, Ok)));
    let Response { status, body, .. } = response.unwrap_or_else(Response::from);
    (status, body)
}

/// A tensor in the packed form, decoded as each datatype that is packed. Encoding returns the same bytes.
pub fn packed(data: &[u8]) {
    for datatype in Datatype::ALL {
        let Some(ty) = datatype.packed() else { continue };
        let Ok((dimensions, elements)) = packed::decode(ty, datatype, data.to_vec()) else {
            continue;
        };
        let tensor = Tensor { name: NAME.to_owned(), datatype, dimensions, data: elements };
        // Strings that are not UTF-8 are refused.
        if let Ok(again) = packed::encode(ty, &tensor) {
            assert_eq!(again, data);
        } else {
            assert_eq!(datatype, Datatype::Bytes);
        }
    }
}

/// A `model.toml`.
pub fn model_toml(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    // The message is for an operator.
    let _ = Signature::parse(text, NAME);
}

#[cfg(test)]
mod tests {
    use spinfer_mutations::run_briefly;

    #[test]
    fn requests() {
        run_briefly("request", super::request);
    }

    /// A seed with an early error would reach little. Seeds named `not_...` have a late one.
    #[test]
    fn some_model_accepts_each_seed() {
        let seeds = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/seeds/request");
        let mut accepted = [0; 4];
        for seed in std::fs::read_dir(seeds).unwrap() {
            let path = seed.unwrap().path();
            let statuses = super::statuses(&std::fs::read(&path).unwrap());
            let refused =
                path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"not_"));
            assert_eq!(statuses.contains(&Some(200)), !refused, "{}: {statuses:?}", path.display());
            for (count, status) in accepted.iter_mut().zip(statuses) {
                *count += usize::from(status == Some(200));
            }
        }
        assert!(accepted.iter().all(|count| *count >= 5), "{accepted:?}");
    }

    #[test]
    fn packed_tensors() {
        run_briefly("packed", super::packed);
    }

    #[test]
    fn model_tomls() {
        run_briefly("model_toml", super::model_toml);
    }
}
