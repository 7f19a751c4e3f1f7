//! The short form: `{"features": [5.1, 3.5, 1.4, 0.2]}` -> `{"prediction": "setosa", ...}`, and the
//! same of many rows: `{"instances": [[5.1, 3.5, 1.4, 0.2], ...]}` -> `{"predictions": [...]}`, as
//! in TensorFlow Serving's row format and KServe's protocol of version 1; there too a row may be an
//! object with a number for each feature's name.

use std::borrow::Cow;

use serde::ser::{Error as _, SerializeMap, SerializeSeq};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;

use crate::error::Error;
use crate::graph::Graph;
use crate::json;
use crate::request::Response;
use crate::rows::{Reader, Rows};
use crate::signature::Signature;
use crate::tensor::{Datatype, Tensor};

/// What a model says of rows of features.
#[derive(Clone, Debug, PartialEq)]
pub enum Prediction {
    /// The answers of a classifier: for each row a class, by its position in the labels of
    /// `model.toml`, and the probability of each.
    Classes {
        /// INT64: the position in the labels of each row's class.
        indices: Tensor,
        /// FP32: for each row as many as there are labels, in their order.
        probabilities: Tensor,
    },
    /// The answers of a regression. FP32: one number for each row.
    Numbers(Tensor),
}

/// [`crate::Model::predict`]. As a type parameter it would have all of the JSON decoder compiled again
/// with the model.
pub(crate) type Predict = fn(&Graph, Rows<'_>) -> Result<Prediction, Error>;

#[derive(Deserialize)]
struct Request<'a> {
    #[serde(borrow, default)]
    id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    features: Option<&'a RawValue>,
    #[serde(borrow, default)]
    instances: Option<&'a RawValue>,
}

pub(crate) fn predict(graph: &Graph, body: &[u8], predict: Predict) -> Result<Response, Error> {
    let signature = graph.signature();
    let request: Request<'_> = json::decode(body)?;
    let id = request.id.as_deref();
    let body = match (request.features, request.instances) {
        (Some(features), None) => {
            let mut reader = Reader::new(signature, features.get().len());
            reader.array(&"features", features)?;
            let prediction = predict_rows(graph, reader.rows("features")?, predict)?;
            json::encode(&Body { signature, id, answers: Answers::One(&prediction) })
        }
        (None, Some(instances)) => {
            let mut reader = Reader::new(signature, body.len());
            reader.each("instances", instances)?;
            let predictions = predict_all(graph, reader.rows("instances")?, predict)?;
            json::encode(&Body { signature, id, answers: Answers::Many(&predictions) })
        }
        _ => Err(Error::invalid(
            "the body: expected either \"features\", one row of numbers, or \"instances\", an array of rows",
        )),
    }?;
    Ok(Response::json(200, body))
}

/// Predicts from all of `rows` in order: with one inference, if the graph takes so many.
pub(crate) fn predict_all(
    graph: &Graph,
    rows: Rows<'_>,
    predict: Predict,
) -> Result<Vec<Prediction>, Error> {
    if graph.signature().takes_rows() {
        return Ok(vec![predict_rows(graph, rows, predict)?]);
    }
    rows.each().map(|row| predict_rows(graph, row, predict)).collect()
}

fn predict_rows(graph: &Graph, rows: Rows<'_>, predict: Predict) -> Result<Prediction, Error> {
    let prediction = predict(graph, rows)?;
    prediction.check(&graph.signature().labels, rows.count as usize)?;
    Ok(prediction)
}

impl Prediction {
    /// Refuses what is not of so many rows.
    fn check(&self, labels: &[String], rows: usize) -> Result<(), Error> {
        match self {
            Self::Classes { indices, probabilities } => {
                indices.check_datatype(Datatype::I64)?;
                probabilities.check_datatype(Datatype::F32)?;
                let (classes, of_each) = (indices.data.len() / 8, probabilities.data.len() / 4);
                if classes != rows || of_each != rows * labels.len() {
                    return Err(Error::internal(format!(
                        "the graph gave {classes} classes and {of_each} probabilities for {rows} rows, \
                         but model.toml has {} labels",
                        labels.len()
                    )));
                }
            }
            Self::Numbers(numbers) => {
                numbers.check_datatype(Datatype::F32)?;
                let count = numbers.data.len() / 4;
                if count != rows {
                    return Err(Error::internal(format!(
                        "the graph gave {count} numbers for {rows} rows"
                    )));
                }
            }
        }
        Ok(())
    }

    /// What it says of each row.
    pub(crate) fn answers<'a>(
        &'a self,
        labels: &'a [String],
    ) -> impl Iterator<Item = Result<Answer<'a>, String>> {
        let rows = match self {
            Self::Classes { indices, .. } => indices.data.len() / 8,
            Self::Numbers(numbers) => numbers.data.len() / 4,
        };
        (0..rows).map(move |row| self.answer(labels, row))
    }

    fn answer<'a>(&'a self, labels: &'a [String], row: usize) -> Result<Answer<'a>, String> {
        match self {
            Self::Classes { indices, probabilities } => {
                let index = i64::from_le_bytes(indices.data.as_chunks().0[row]);
                let probabilities = &probabilities.data.as_chunks().0[row * labels.len()..];
                let probabilities = &probabilities[..labels.len()];
                match usize::try_from(index).ok().filter(|&index| index < labels.len()) {
                    Some(index) => Ok(Answer::Class { index, labels, probabilities }),
                    None => Err(format!(
                        "the graph gave class {index}, but model.toml has {} labels",
                        labels.len()
                    )),
                }
            }
            Self::Numbers(numbers) => {
                Ok(Answer::Number(f32::from_le_bytes(numbers.data.as_chunks().0[row])))
            }
        }
    }
}

/// What a model says of one row.
#[derive(Clone, Copy)]
pub(crate) enum Answer<'a> {
    Class { index: usize, labels: &'a [String], probabilities: &'a [[u8; 4]] },
    Number(f32),
}

impl Answer<'_> {
    fn write<M: SerializeMap>(self, object: &mut M) -> Result<(), M::Error> {
        object.serialize_entry("prediction", &self)?;
        if let Self::Class { index, labels, probabilities } = self {
            let probability = f32::from_le_bytes(probabilities[index]);
            object.serialize_entry("probability", &finite(probability)?)?;
            object.serialize_entry("probabilities", &Probabilities { labels, probabilities })?;
        }
        Ok(())
    }
}

/// The class or the number alone.
impl Serialize for Answer<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match *self {
            Self::Class { index, labels, .. } => serializer.serialize_str(&labels[index]),
            Self::Number(number) => serializer.serialize_f32(finite(number)?),
        }
    }
}

struct Body<'a> {
    signature: &'a Signature,
    id: Option<&'a str>,
    answers: Answers<'a>,
}

enum Answers<'a> {
    /// To `features`: written as fields of the response.
    One(&'a Prediction),
    /// To `instances`.
    Many(&'a [Prediction]),
}

impl Serialize for Body<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Signature { name, version, labels, .. } = self.signature;
        let mut object = serializer.serialize_map(None)?;
        object.serialize_entry("model", name)?;
        object.serialize_entry("version", version)?;
        if let Some(id) = self.id {
            object.serialize_entry("id", id)?;
        }
        match self.answers {
            Answers::One(prediction) => {
                for answer in prediction.answers(labels) {
                    answer.map_err(S::Error::custom)?.write(&mut object)?;
                }
            }
            Answers::Many(predictions) => {
                object.serialize_entry("predictions", &Items { labels, predictions })?;
            }
        }
        object.end()
    }
}

/// `[{"prediction": "setosa", ...}, ...]`
struct Items<'a> {
    labels: &'a [String],
    predictions: &'a [Prediction],
}

impl Serialize for Items<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut items = serializer.serialize_seq(None)?;
        for answer in self.predictions.iter().flat_map(|some| some.answers(self.labels)) {
            items.serialize_element(&Item(answer.map_err(S::Error::custom)?))?;
        }
        items.end()
    }
}

struct Item<'a>(Answer<'a>);

impl Serialize for Item<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_map(None)?;
        self.0.write(&mut object)?;
        object.end()
    }
}

/// `{"setosa": 0.979, ...}`
struct Probabilities<'a> {
    labels: &'a [String],
    /// FP32.
    probabilities: &'a [[u8; 4]],
}

impl Serialize for Probabilities<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_map(Some(self.labels.len()))?;
        for (label, &probability) in self.labels.iter().zip(self.probabilities) {
            object.serialize_entry(label, &finite(f32::from_le_bytes(probability))?)?;
        }
        object.end()
    }
}

fn finite<E: serde::ser::Error>(number: f32) -> Result<f32, E> {
    if number.is_finite() {
        return Ok(number);
    }
    // Formatting floats would be 20 kB of every component.
    let number = match number {
        f32::INFINITY => "inf",
        f32::NEG_INFINITY => "-inf",
        _ => "NaN",
    };
    Err(E::custom(format_args!("the graph gave {number}, which JSON cannot carry")))
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use super::*;
    use crate::Model;
    use crate::graph::tests::graph;
    use crate::signature::tests::{IRIS, iris};

    /// Answers with its features: the class, then the probabilities.
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

    /// The answer, and the rows of each inference.
    fn answer_of<M: Model>(
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
        let answer = predict(&graph, body.as_bytes(), M::predict)
            .map(|response| String::from_utf8(response.body).unwrap())
            .map_err(|error| (error.status(), error.to_string()));
        let inferences = inferences.borrow().clone();
        (answer, inferences)
    }

    fn answer<M: Model>(body: &str) -> Result<String, (u16, String)> {
        answer_of::<M>(iris(), body).0
    }

    #[test]
    fn a_class() {
        assert_eq!(
            answer::<Echo>(r#"{"features": [1, 0.021, 0.979, 1.5e-9], "id": "a", "more": [[{}]]}"#)
                .unwrap(),
            r#"{"model":"iris-classifier","version":"1","id":"a","prediction":"versicolor","probability":0.979,"probabilities":{"setosa":0.021,"versicolor":0.979,"virginica":1.5e-9}}"#
        );
    }

    #[test]
    fn a_number() {
        assert_eq!(
            answer::<Sum>(r#"{"features": [0.1, 0.2, -4e-1, 7]}"#).unwrap(),
            r#"{"model":"iris-classifier","version":"1","prediction":6.9}"#
        );
    }

    const TWO: &str = r#"{"instances": [[1, 0.021, 0.979, 1.5e-9], [0, 1, 0, 0]], "id": "a"}"#;
    const ITEMS: &str = r#"[{"prediction":"versicolor","probability":0.979,"probabilities":{"setosa":0.021,"versicolor":0.979,"virginica":1.5e-9}},{"prediction":"setosa","probability":1.0,"probabilities":{"setosa":1.0,"versicolor":0.0,"virginica":0.0}}]"#;

    #[test]
    fn many_rows_are_one_inference() {
        let (answer, inferences) = answer_of::<Echo>(iris(), TWO);
        let start = r#"{"model":"iris-classifier","version":"1","id":"a","predictions":"#;
        assert_eq!(answer.unwrap(), format!("{start}{ITEMS}}}"));
        assert_eq!(inferences, [2]);
        let (answer, _) = answer_of::<Sum>(iris(), TWO);
        assert_eq!(
            answer.unwrap(),
            format!(r#"{start}[{{"prediction":2.0}},{{"prediction":1.0}}]}}"#)
        );
    }

    /// The first axis of an input, or of an output, is not free.
    #[test]
    fn a_graph_of_one_row_infers_each() {
        for (from, to) in [("[-1, 4]", "[1, 4]"), ("[-1, 3]", "[1, 3]")] {
            let one = Signature::parse(&IRIS.replace(from, to), "iris-classifier").unwrap();
            let (answer, inferences) = answer_of::<Echo>(one, TWO);
            assert!(answer.unwrap().contains(ITEMS), "{to}");
            assert_eq!(inferences, [1, 1], "{to}");
        }
    }

    /// A row may be nested as the input is.
    #[test]
    fn rows_of_pictures() {
        let picture = IRIS.replace("[-1, 4]", "[-1, 2, 2]");
        let signature = || Signature::parse(&picture, "iris-classifier").unwrap();
        let body = r#"{"instances": [[[1, 2], [3, 4]], [5, 6, 7, 8]]}"#;
        let (answer, _) = answer_of::<Sum>(signature(), body);
        assert!(answer.unwrap().contains(r#"[{"prediction":10.0},{"prediction":26.0}]"#));
        let (answer, _) = answer_of::<Sum>(signature(), r#"{"features": [[1, 2], [3]]}"#);
        assert_eq!(
            answer.unwrap_err().1,
            "features[3]: expected arrays nested as the shape [2, 2] says, got an array of 1"
        );
    }

    #[test]
    fn every_refusal_says_where_and_what_was_expected() {
        for (body, message) in [
            (
                r#"{"features": [5.1, 3.5, 1.4]}"#,
                "features: expected 4 numbers (sepal_length, sepal_width, petal_length, petal_width), got 3",
            ),
            (
                r#"{"features": [5.1, "3.5", 1.4, 0.2]}"#,
                r#"features[1]: expected a number, got "3.5""#,
            ),
            (
                r#"{"features": [[5.1, 3.5, 1.4, 0.2]]}"#,
                "features[0]: expected a number, got an array",
            ),
            (r#"{"features": "5.1"}"#, r#"features: expected an array of numbers, got "5.1""#),
            (r#"{"features": [1, 2, 1e39, 4]}"#, "features[2]: 1e39 is out of range for FP32"),
            (
                r#"{"features": [1, NaN, 3, 4]}"#,
                "the body: expected value at line 1 column 18 (JSON has no NaN or Infinity)",
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
                r#"{"instances": [[1, 2, 3, 4], [1, 2, null, 4]]}"#,
                "instances[1][2]: expected a number, got null",
            ),
            (
                r#"{"instances": [[1, 2, 3, 4], [1, 2, 3, 4e39]]}"#,
                "instances[1][3]: 4e39 is out of range for FP32",
            ),
            (
                r#"{"features": [1, 2, 3, 4], "features": []}"#,
                "the body: duplicate field `features` at line 1 column 37",
            ),
            (
                "[1, 2, 3, 4]",
                "the body: invalid type: sequence, expected an object at line 1 column 0",
            ),
            (
                r#"{"features": [1, 2, 3, 4]} {}"#,
                "the body: trailing characters at line 1 column 28 (JSON has no NaN or Infinity)",
            ),
        ] {
            assert_eq!(answer::<Sum>(body), Err((400, message.to_owned())), "{body}");
        }
    }

    #[test]
    fn what_the_graph_got_wrong_is_not_the_clients_fault() {
        for (features, message) in [
            ("[3, 0, 0, 0]", "the graph gave class 3, but model.toml has 3 labels"),
            ("[-1, 0, 0, 0]", "the graph gave class -1, but model.toml has 3 labels"),
        ] {
            let body = format!(r#"{{"features": {features}}}"#);
            assert_eq!(answer::<Echo>(&body), Err((500, message.to_owned())));
        }
        let labels = IRIS.replace(r#", "virginica""#, "");
        let labels = Signature::parse(&labels, "iris-classifier").unwrap();
        assert_eq!(
            answer_of::<Echo>(labels, TWO).0,
            Err((
                500,
                "the graph gave 2 classes and 6 probabilities for 2 rows, but model.toml has 2 labels"
                    .to_owned()
            ))
        );
        assert_eq!(
            answer::<Sum>(r#"{"features": [3e38, 3e38, 0, 0]}"#),
            Err((500, "the graph gave inf, which JSON cannot carry".to_owned()))
        );
    }

    proptest::proptest! {
        #[test]
        fn no_body_panics(
            bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..64),
            features in r#"([-0-9.e]{1,9}|\[|\]|,|null|"){0,9}"#,
        ) {
            let _ = json::decode::<Request<'_>>(&bytes);
            let _ = answer::<Echo>(&format!(r#"{{"features":[{features}]}}"#));
            let _ = answer::<Echo>(&format!(r#"{{"instances":[{features}]}}"#));
        }

        #[test]
        fn features_decode_to_the_nearest(features: [f32; 4]) {
            let json = serde_json::to_string(&features).unwrap();
            let json: &RawValue = serde_json::from_str(&json).unwrap();
            if features.iter().all(|feature| feature.is_finite()) {
                let signature = iris();
                let mut reader = Reader::new(&signature, 0);
                let twice: Box<RawValue> = RawValue::from_string(format!("[{json},{json}]")).unwrap();
                reader.each("instances", &twice).unwrap();
                let rows = reader.rows("instances").unwrap();
                proptest::prop_assert_eq!(rows.count, 2);
                proptest::prop_assert_eq!(&rows.features[..4], &features);
                proptest::prop_assert_eq!(&rows.features[4..], &features);
            }
        }
    }
}
