//! The fuzz targets of this crate: everything foreign it reads. `make fuzz` runs them for long, the
//! tests below for a moment.

use crate::datatype::Datatype;
use crate::error::Error;
use crate::graph::{self, Graph};
use crate::handler::respond;
use crate::hooks::{Mapping, ModelHooks};
use crate::prediction::Prediction;
use crate::request::{CONTENT_TYPE, JSON_LENGTH, Method, Request};
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

/// Takes strings, and gives them back with whether they are long.
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

/// Takes two flags a row, or a file in place of them.
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

/// A graph of an input a column, of whichever datatype: says nothing itself.
struct FuzzMixed;

impl Model for FuzzMixed {
    const NAME: &'static str = NAME;
}

/// A request: method and path, the length that a client says its JSON has and after a space its content
/// type, and the body, each on a line of its own. It is answered, or refused as the client's mistake, by
/// models of numbers, of strings, of flags and files, and of several datatypes.
pub fn request(data: &[u8]) {
    statuses(data);
}

/// Of each model's answer; none to what has no method and path.
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
    let mut said = length.splitn(2, |&byte| byte == b' ');
    let mut header = || said.next().filter(|value| !value.is_empty()).map(<[u8]>::to_vec);
    let given = [(JSON_LENGTH, header()), (CONTENT_TYPE, header())];
    let value = |name: &str| given.iter().find(|(given, _)| *given == name)?.1.clone();
    let headers = (0..).zip(ModelHooks::of::<M>().needed_headers());
    let headers = headers.filter_map(|(index, name)| Some((index, value(name)?)));
    let request = Request {
        method,
        path_with_query: path.to_owned(),
        headers: headers.collect(),
        prediction_id: None,
        body: body.to_vec(),
    };
    let response = answer::<M>(&request, signature).unwrap_or_else(Response::from);
    let body = String::from_utf8_lossy(&response.body);
    assert!((200..500).contains(&response.status), "{}: {body}", response.status);
    if response.status >= 400 {
        assert!(body.starts_with("{\"error\":\""), "{body}");
    }
    Some(response.status)
}

fn answer<M: Model>(request: &Request, signature: &str) -> Result<Response, Error> {
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

/// A tensor in the packed form, of each datatype that is packed. What is read is written the same.
pub fn packed(data: &[u8]) {
    for datatype in Datatype::ALL {
        let Some(ty) = datatype.packed() else {
            continue;
        };
        let Ok((dimensions, elements)) = packed::decode(ty, datatype, data.to_vec()) else {
            continue;
        };
        let tensor = Tensor { name: NAME.to_owned(), datatype, dimensions, data: elements };
        // Bytes that are no text are for no graph.
        if let Ok(again) = packed::encode(ty, &tensor) {
            assert_eq!(again, data);
        } else {
            assert_eq!(datatype, Datatype::Bytes);
        }
    }
}

/// A `model.toml`.
pub fn model_toml(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
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

    /// What begins with a mistake reaches little; `not_...` is one that only shows in the end.
    #[test]
    fn each_seed_of_a_request_has_an_answer_from_some_model() {
        let seeds = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/seeds/request");
        let mut answered = [0; 4];
        for seed in std::fs::read_dir(seeds).unwrap() {
            let path = seed.unwrap().path();
            let statuses = super::statuses(&std::fs::read(&path).unwrap());
            let refused =
                path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"not_"));
            assert_eq!(statuses.contains(&Some(200)), !refused, "{}: {statuses:?}", path.display());
            for (count, status) in answered.iter_mut().zip(statuses) {
                *count += usize::from(status == Some(200));
            }
        }
        assert!(answered.iter().all(|count| *count >= 5), "{answered:?}");
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
