use std::cell::RefCell;
use std::rc::Rc;

use serde_json::value::RawValue;

use super::*;
use crate::graph::stub::graph;
use crate::prediction::Prediction;
use crate::rows::Rows;
use crate::signature::Signature;
use crate::signature::tests::{IRIS, iris};
use crate::tensor::Tensor;
use crate::{File, Model};

/// Predicts its features: the class, then the probabilities.
struct Echo;

impl Model for Echo {
    const NAME: &'static str = "iris-classifier";

    fn predict(graph: &Graph, rows: Rows<'_>) -> Result<Prediction, Error> {
        let features = rows.tensor("features", &[4]);
        let [indices, probabilities] = graph.compute([features], ["label", "probabilities"])?;
        Ok(Prediction::Classes { indices, probabilities })
    }
}

struct Sum;

impl Model for Sum {
    const NAME: &'static str = "iris-classifier";

    fn predict(_: &Graph, rows: Rows<'_>) -> Result<Prediction, Error> {
        let sums: Vec<f32> = rows.features.chunks(4).map(|row| row.iter().sum()).collect();
        Ok(Prediction::Numbers(Tensor::f32("sum", &[rows.count], &sums)))
    }
}

/// The response, and the number of rows of each inference.
fn response_of<M: Model>(
    signature: Signature,
    body: &str,
) -> (Result<String, (u16, String)>, Vec<u32>) {
    let inferences = Rc::new(RefCell::new(Vec::new()));
    let seen = Rc::clone(&inferences);
    let graph = graph(signature, move |inputs| {
        let features = inputs[0].f32s()?;
        let rows = inputs[0].dimensions[0];
        seen.borrow_mut().push(rows);
        #[expect(clippy::cast_possible_truncation, reason = "small in these tests")]
        let labels: Vec<i64> = features.chunks(4).map(|row| row[0] as i64).collect();
        let probabilities: Vec<f32> =
            features.chunks(4).flat_map(|row| row[1..].to_vec()).collect();
        Ok(vec![
            Tensor::i64("label", &[rows], &labels),
            Tensor::f32("probabilities", &[rows, 3], &probabilities),
        ])
    });
    let request = Request::post("/predict", body.as_bytes());
    let response = predict(&graph, &request, &ModelHooks::of::<M>())
        .map(|response| String::from_utf8(response.body).unwrap())
        .map_err(|error| (error.status(), error.to_string()));
    let inferences = inferences.borrow().clone();
    (response, inferences)
}

fn response<M: Model>(body: &str) -> Result<String, (u16, String)> {
    response_of::<M>(iris(), body).0
}

#[test]
fn class() {
    assert_eq!(
        response::<Echo>(r#"{"features": [1, 0.021, 0.979, 1.5e-9], "id": "a", "more": [[{}]]}"#)
            .unwrap(),
        r#"{"model":"iris-classifier","version":"1","id":"a","prediction":"versicolor","probability":0.979,"probabilities":{"setosa":0.021,"versicolor":0.979,"virginica":1.5e-9}}"#
    );
}

#[test]
fn row_may_be_an_object() {
    let named = r#"{"features": {"petal_width": 1.5e-9, "sepal_length": 1, "petal_length": 0.979, "sepal_width": 0.021}}"#;
    let array = r#"{"features": [1, 0.021, 0.979, 1.5e-9]}"#;
    assert_eq!(response::<Echo>(named), response::<Echo>(array));
    assert!(response::<Echo>(named).is_ok());
}

#[test]
fn missing_value_is_nan() {
    for body in [
        r#"{"features": [1, 2, null, 4]}"#,
        r#"{"features": {"sepal_length": 1, "sepal_width": 2, "petal_length": null, "petal_width": 4}}"#,
    ] {
        let start = r#"{"model":"iris-classifier","version":"1","#;
        assert_eq!(response::<Sum>(body), Ok(format!("{start}\"prediction\":null}}")));
        assert_eq!(
            response::<Echo>(body),
            Ok(format!(
                r#"{start}"prediction":"versicolor","probability":null,"probabilities":{{"setosa":2.0,"versicolor":null,"virginica":4.0}}}}"#
            ))
        );
    }
}

#[test]
fn number() {
    assert_eq!(
        response::<Sum>(r#"{"features": [0.1, 0.2, -4e-1, 7]}"#).unwrap(),
        r#"{"model":"iris-classifier","version":"1","prediction":6.9}"#
    );
}

const TWO: &str = r#"{"instances": [[1, 0.021, 0.979, 1.5e-9], [0, 1, 0, 0]], "id": "a"}"#;
const ITEMS: &str = r#"[{"prediction":"versicolor","probability":0.979,"probabilities":{"setosa":0.021,"versicolor":0.979,"virginica":1.5e-9}},{"prediction":"setosa","probability":1.0,"probabilities":{"setosa":1.0,"versicolor":0.0,"virginica":0.0}}]"#;

#[test]
fn several_rows_are_one_inference() {
    let (response, inferences) = response_of::<Echo>(iris(), TWO);
    let start = r#"{"model":"iris-classifier","version":"1","id":"a","predictions":"#;
    assert_eq!(response.unwrap(), format!("{start}{ITEMS}}}"));
    assert_eq!(inferences, [2]);
    let (response, _) = response_of::<Sum>(iris(), TWO);
    assert_eq!(
        response.unwrap(),
        format!(r#"{start}[{{"prediction":2.0}},{{"prediction":1.0}}]}}"#)
    );
}

/// If the first axis of an input, or of an output, is not free.
#[test]
fn model_of_one_row_has_an_inference_per_row() {
    for (from, to) in [("[-1, 4]", "[1, 4]"), ("[-1, 3]", "[1, 3]")] {
        let one = Signature::parse(&IRIS.replace(from, to), "iris-classifier").unwrap();
        let (response, inferences) = response_of::<Echo>(one, TWO);
        assert!(response.unwrap().contains(ITEMS), "{to}");
        assert_eq!(inferences, [1, 1], "{to}");
    }
}

#[test]
fn row_may_be_nested() {
    let picture = IRIS.replace("[-1, 4]", "[-1, 2, 2]");
    let signature = || Signature::parse(&picture, "iris-classifier").unwrap();
    let body = r#"{"instances": [[[1, 2], [3, 4]], [5, 6, 7, 8]]}"#;
    let (response, _) = response_of::<Sum>(signature(), body);
    assert!(response.unwrap().contains(r#"[{"prediction":10.0},{"prediction":26.0}]"#));
    let (response, _) = response_of::<Sum>(signature(), r#"{"features": [[1, 2], [3]]}"#);
    assert_eq!(
        response.unwrap_err().1,
        "features[3]: expected arrays nested as in the shape [2, 2], got an array of 1"
    );
}

#[test]
fn messages_name_the_place_and_what_was_expected() {
    for (body, message) in [
        (
            r#"{"features": [5.1, 3.5, 1.4]}"#,
            "features: expected 4 numbers (sepal_length, sepal_width, petal_length, petal_width), got 3",
        ),
        (r#"{"features": [5.1, "3.5", 1.4, 0.2]}"#, r#"features[1]: expected a number, got "3.5""#),
        (r#"{"features": [[5.1, 3.5, 1.4, 0.2]]}"#, "features[0]: expected a number, got an array"),
        (r#"{"features": "5.1"}"#, r#"features: expected an array of numbers, got "5.1""#),
        (r#"{"features": [1, 2, 1e39, 4]}"#, "features[2]: 1e39 is out of range for FP32"),
        (
            r#"{"features": [1, NaN, 3, 4]}"#,
            "the body: expected value at line 1 column 18; write null for a missing value, or NaN, Infinity or -Infinity as Python's json does",
        ),
        (
            "{}",
            r#"the body: expected either "features", one row of numbers, or "instances", an array of rows"#,
        ),
        (
            r#"{"features": [1, 2, 3, 4], "instances": [[1, 2, 3, 4]]}"#,
            r#"the body: expected either "features", one row of numbers, or "instances", an array of rows"#,
        ),
        (r#"{"instances": []}"#, "instances: expected at least one row, got none"),
        (r#"{"instances": [1, 2, 3, 4]}"#, "instances[0]: expected an array of numbers, got 1"),
        (
            r#"{"instances": {"features": [1, 2, 3, 4]}}"#,
            "instances: invalid type: map, expected a sequence at line 1 column 0",
        ),
        (
            r#"{"instances": [[1, 2, 3, 4], [1, 2, 3]]}"#,
            "instances[1]: expected 4 numbers (sepal_length, sepal_width, petal_length, petal_width), got 3",
        ),
        (
            r#"{"instances": [[1, 2, 3, 4], [1, 2, true, 4]]}"#,
            "instances[1][2]: expected a number, got true",
        ),
        (
            r#"{"features": {"sepal_length": 1, "petal_length": 3, "colour": 4, "petal_width": 4}}"#,
            r#"features: "sepal_width" is missing; "colour" is not a column of this model; expected sepal_length, sepal_width, petal_length, petal_width"#,
        ),
        (
            r#"{"features": {"sepal_length": 1, "sepal_length": 1}}"#,
            r#"features: duplicate column "sepal_length"; expected sepal_length, sepal_width, petal_length, petal_width"#,
        ),
        (
            r#"{"instances": [[1, 2, 3, 4], [1, 2, 3, 4e39]]}"#,
            "instances[1][3]: 4e39 is out of range for FP32",
        ),
        (r#"{"features": [1, 2, 3, 4], "features": []}"#, r#"the body: duplicate key "features""#),
        ("[1, 2, 3, 4]", "the body: invalid type: sequence, expected an object at line 1 column 0"),
        (r#"{"features": [1, 2, 3, 4]} {}"#, "the body: trailing characters at line 1 column 28"),
    ] {
        assert_eq!(response::<Sum>(body), Err((400, message.to_owned())), "{body}");
    }
}

/// Predicts the lengths of its texts.
struct TextLengths;

impl Model for TextLengths {
    const NAME: &'static str = "lengths";
    const MAPPING: Option<crate::Mapping> = Some(|_, _| Ok(Vec::new()));

    fn predict(_: &Graph, rows: Rows<'_>) -> Result<Prediction, Error> {
        assert!(rows.features.is_empty());
        let lengths: Vec<_> = rows.each().map(|row| row.bytes[0].len() as f32).collect();
        Ok(Prediction::Numbers(Tensor::f32("lengths", &[rows.count], &lengths)))
    }
}

fn lengths(body: &str) -> Result<String, String> {
    let text = "name = 'lengths'\nversion = '1'\n\
        inputs = [{ name = 'text', datatype = 'BYTES', shape = [-1] }]\n\
        outputs = [{ name = 'lengths', datatype = 'FP32', shape = [-1] }]";
    let graph = graph(Signature::parse(text, "lengths").unwrap(), |_| Ok(Vec::new()));
    predict(&graph, &Request::post("/predict", body.as_bytes()), &ModelHooks::of::<TextLengths>())
        .map(|response| String::from_utf8(response.body).unwrap())
        .map_err(|error| error.to_string())
}

#[test]
fn rows_of_strings() {
    let start = r#"{"model":"lengths","version":"1","#;
    for (body, expected) in [
        (r#"{"text": "a\u00e9", "id": "7"}"#, r#""id":"7","prediction":3.0}"#),
        (r#"{"texts": ["", "a, ]"]}"#, r#""predictions":[{"prediction":0.0},{"prediction":4.0}]}"#),
        (
            r#"{"instances": ["a", ["bc"], {"text": "def"}]}"#,
            r#""predictions":[{"prediction":1.0},{"prediction":2.0},{"prediction":3.0}]}"#,
        ),
    ] {
        assert_eq!(lengths(body), Ok(format!("{start}{expected}")), "{body}");
    }
    for (body, message) in [
        (
            "{}",
            r#"the body: expected either "text", a string, or "texts" or "instances", an array of them"#,
        ),
        (
            r#"{"features": ["a"]}"#,
            r#"the body: expected either "text", a string, or "texts" or "instances", an array of them"#,
        ),
        (
            r#"{"text": "a", "texts": ["a"]}"#,
            r#"the body: expected either "text", a string, or "texts" or "instances", an array of them"#,
        ),
        (r#"{"text": 5}"#, "text: expected an array of strings, got 5"),
        (
            r#"{"text": "\ud800"}"#,
            r#"text[0] (text): got "\ud800", which is not a Unicode string (BYTES)"#,
        ),
        (
            r#"{"texts": "a"}"#,
            r#"texts: invalid type: string "a", expected a sequence at line 1 column 3"#,
        ),
        (
            r#"{"texts": ["a", null]}"#,
            "texts[1][0] (text): got null, which is a missing value; only floating-point inputs can have one: write a string",
        ),
        (r#"{"texts": ["a", 5]}"#, "texts[1]: expected an array of strings, got 5"),
        (r#"{"texts": [["a", "b"]]}"#, "texts[0]: expected 1 strings (text), got 2"),
        (
            r#"{"instances": [{"words": "a"}]}"#,
            r#"instances[0]: "text" is missing; "words" is not a column of this model; expected text"#,
        ),
        (r#"{"texts": []}"#, "texts: expected at least one row, got none"),
        (r#"{"text": "a", "id": 7}"#, "id: expected a string, got 7"),
    ] {
        assert_eq!(lengths(body), Err(message.to_owned()), "{body}");
    }
}

/// Predicts the length of its file, or the sum of its features.
struct Size;

impl Model for Size {
    const NAME: &'static str = "iris-classifier";
    const FILE: Option<File> = Some(File::new("picture", "image/x"));

    fn predict(graph: &Graph, rows: Rows<'_>) -> Result<Prediction, Error> {
        match rows.bytes {
            [file] => {
                assert!(rows.features.is_empty());
                Ok(Prediction::Numbers(Tensor::f32("size", &[1], &[file.len() as f32])))
            }
            _ => Sum::predict(graph, rows),
        }
    }
}

#[test]
fn file_instead_of_features() {
    let sized = |content_type: &str, body: &str| {
        let request = Request::post("/predict", body.as_bytes());
        let request = request.with_header("content-type", content_type);
        predict(&graph(iris(), |_| Ok(Vec::new())), &request, &ModelHooks::of::<Size>())
            .map(|response| String::from_utf8(response.body).unwrap())
            .map_err(|error| error.to_string())
    };
    let size = |size: f32| {
        Ok(format!(r#"{{"model":"iris-classifier","version":"1","prediction":{size:.1}}}"#))
    };
    assert_eq!(sized("image/x", "{abc"), size(4.0));
    assert_eq!(sized("application/json", r#"{"picture": "AP/+"}"#), size(3.0));
    assert_eq!(sized("", r#"{"features": [1, 2, 3, 4]}"#), size(10.0));
    let refused = r#"the body: expected either "features", one row of numbers, or "instances", an array of rows, or "picture", image/x in base64"#;
    for body in ["{}", r#"{"picture": "", "features": []}"#] {
        assert_eq!(sized("", body), Err(refused.to_owned()));
    }
}

#[test]
fn errors_of_the_graph_are_500() {
    for (features, message) in [
        ("[3, 0, 0, 0]", "the graph returned class 3, but model.toml has 3 labels"),
        ("[-1, 0, 0, 0]", "the graph returned class -1, but model.toml has 3 labels"),
    ] {
        let body = format!(r#"{{"features": {features}}}"#);
        assert_eq!(response::<Echo>(&body), Err((500, message.to_owned())));
    }
    let labels = IRIS.replace(r#", "virginica""#, "").replace("[-1, 3]", "[-1, -1]");
    let labels = Signature::parse(&labels, "iris-classifier").unwrap();
    assert_eq!(
        response_of::<Echo>(labels, TWO).0,
        Err((
            500,
            "the graph returned 2 classes and 6 probabilities for 2 rows, but model.toml has 2 labels"
                .to_owned()
        ))
    );
    assert_eq!(
        response::<Sum>(r#"{"features": [3e38, 3e38, 0, 0]}"#).unwrap(),
        r#"{"model":"iris-classifier","version":"1","prediction":null}"#
    );
}

proptest::proptest! {
    #[test]
    fn no_body_panics(
        bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..64),
        features in r#"([-0-9.e]{1,9}|\[|\]|,|null|"){0,9}"#,
    ) {
        let request = Request::post("/predict", &bytes);
        let _ = predict(&graph(iris(), |_| Ok(Vec::new())), &request, &ModelHooks::of::<Sum>());
        let _ = response::<Echo>(&format!(r#"{{"features":[{features}]}}"#));
        let _ = response::<Echo>(&format!(r#"{{"instances":[{features}]}}"#));
        let _ = lengths(&format!(r#"{{"texts":[{features}]}}"#));
    }

    #[test]
    fn features_decode_to_the_nearest(features: [f32; 4]) {
        let json = serde_json::to_string(&features).unwrap();
        let json: &RawValue = serde_json::from_str(&json).unwrap();
        if features.iter().all(|feature| feature.is_finite()) {
            let signature = iris();
            let mut reader = RowReader::new(&signature, 0).unwrap();
            let twice: Box<RawValue> = RawValue::from_string(format!("[{json},{json}]")).unwrap();
            reader.each("instances", &twice).unwrap();
            let rows = reader.rows("instances").unwrap();
            proptest::prop_assert_eq!(rows.count, 2);
            proptest::prop_assert_eq!(&rows.features[..4], &features);
            proptest::prop_assert_eq!(&rows.features[4..], &features);
        }
    }
}
