//! The short form: `{"features": [5.1, 3.5, 1.4, 0.2]}` -> `{"prediction": "setosa", ...}`.

use std::borrow::Cow;

use serde::ser::{Error as _, SerializeMap};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;

use crate::error::Error;
use crate::graph::Graph;
use crate::json;
use crate::numbers;
use crate::signature::Signature;
use crate::tensor::parse_f32;

/// What a model says of one row of features.
#[derive(Clone, Debug, PartialEq)]
pub enum Prediction {
    /// The answer of a classifier: a class, by its position in the labels of `model.toml`, and the
    /// probability of each.
    Class {
        /// Position in the labels.
        index: i64,
        /// In the order of the labels.
        probabilities: Vec<f32>,
    },
    /// The answer of a regression.
    Number(f32),
}

#[derive(Deserialize)]
struct Request<'a> {
    #[serde(borrow, default)]
    id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    features: &'a RawValue,
}

struct Response<'a> {
    signature: &'a Signature,
    id: Option<&'a str>,
    prediction: &'a Prediction,
}

/// `predict` is [`crate::Model::predict`]. As a type parameter it would have all of the JSON decoder
/// compiled again with the model.
pub(crate) fn predict(
    graph: &Graph,
    body: &[u8],
    predict: fn(&Graph, &[f32]) -> Result<Prediction, Error>,
) -> Result<Vec<u8>, Error> {
    let signature = graph.signature();
    let request: Request<'_> = json::decode(body)?;
    let features = read_features(signature, request.features)?;
    let prediction = predict(graph, &features)?;
    json::encode(&Response { signature, id: request.id.as_deref(), prediction: &prediction })
}

fn read_features(signature: &Signature, json: &RawValue) -> Result<Vec<f32>, Error> {
    let expected = signature.features();
    let mut features = Vec::with_capacity(expected.unwrap_or_default().min(json.get().len()));
    let count = numbers::read(&"features", json, &[], |number| {
        features.push(parse_f32(number).ok_or("is out of range for FP32")?);
        Ok(())
    })
    .map_err(Error::invalid)?;
    match expected {
        Some(expected) if count != expected => {
            let mut message = format!("features: expected {expected} numbers");
            let fields = signature.fields();
            if !fields.is_empty() {
                message += &format!(" ({})", fields.join(", "));
            }
            Err(Error::invalid(format!("{message}, got {count}")))
        }
        _ => Ok(features),
    }
}

impl Serialize for Response<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Signature { name, version, labels, .. } = self.signature;
        let mut object = serializer.serialize_map(None)?;
        object.serialize_entry("model", name)?;
        object.serialize_entry("version", version)?;
        if let Some(id) = self.id {
            object.serialize_entry("id", id)?;
        }
        match self.prediction {
            &Prediction::Number(number) => {
                object.serialize_entry("prediction", &finite(number)?)?;
            }
            Prediction::Class { index, probabilities } => {
                let position = usize::try_from(*index).unwrap_or(usize::MAX);
                if position >= labels.len() || probabilities.len() != labels.len() {
                    return Err(S::Error::custom(format_args!(
                        "the graph gave class {index} and {} probabilities, but model.toml has {} labels",
                        probabilities.len(),
                        labels.len()
                    )));
                }
                object.serialize_entry("prediction", &labels[position])?;
                object.serialize_entry("probability", &finite(probabilities[position])?)?;
                object
                    .serialize_entry("probabilities", &Probabilities { labels, probabilities })?;
            }
        }
        object.end()
    }
}

/// `{"setosa": 0.979, ...}`
struct Probabilities<'a> {
    labels: &'a [String],
    probabilities: &'a [f32],
}

impl Serialize for Probabilities<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_map(Some(self.labels.len()))?;
        for (label, &probability) in self.labels.iter().zip(self.probabilities) {
            object.serialize_entry(label, &finite(probability)?)?;
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
    use super::*;
    use crate::Model;
    use crate::graph::tests::graph;
    use crate::signature::tests::iris;
    use crate::tensor::Tensor;

    /// Answers with its features: the class, then the probabilities.
    struct Echo;

    impl Model for Echo {
        const NAME: &'static str = "iris-classifier";

        fn predict(graph: &Graph, features: &[f32]) -> Result<Prediction, Error> {
            let input = Tensor::f32("features", &[1, 4], features);
            let [label, probabilities] = graph.compute([input], ["label", "probabilities"])?;
            Ok(Prediction::Class {
                index: label.first_i64()?,
                probabilities: probabilities.f32s()?,
            })
        }
    }

    struct Sum;

    impl Model for Sum {
        const NAME: &'static str = "iris-classifier";

        fn predict(_: &Graph, features: &[f32]) -> Result<Prediction, Error> {
            Ok(Prediction::Number(features.iter().sum()))
        }
    }

    fn answer<M: Model>(body: &str) -> Result<String, (u16, String)> {
        let graph = graph(iris(), |inputs| {
            let features = inputs[0].f32s()?;
            #[expect(clippy::cast_possible_truncation, reason = "small in these tests")]
            let label = features[0] as i64;
            Ok(vec![
                Tensor::i64("label", &[1], &[label]),
                Tensor::f32("probabilities", &[1, 3], &features[1..]),
            ])
        });
        predict(&graph, body.as_bytes(), M::predict)
            .map(|body| String::from_utf8(body).unwrap())
            .map_err(|error| (error.status(), error.to_string()))
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
            ("{}", "the body: missing field `features` at line 1 column 2"),
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
            (
                "[3, 0, 0, 0]",
                "the graph gave class 3 and 3 probabilities, but model.toml has 3 labels",
            ),
            (
                "[-1, 0, 0, 0]",
                "the graph gave class -1 and 3 probabilities, but model.toml has 3 labels",
            ),
        ] {
            let body = format!(r#"{{"features": {features}}}"#);
            assert_eq!(answer::<Echo>(&body), Err((500, message.to_owned())));
        }
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
        }

        #[test]
        fn features_decode_to_the_nearest(features: [f32; 4]) {
            let json = serde_json::to_string(&features).unwrap();
            let json: &RawValue = serde_json::from_str(&json).unwrap();
            if features.iter().all(|feature| feature.is_finite()) {
                proptest::prop_assert_eq!(read_features(&iris(), json).unwrap(), features);
            }
        }
    }
}
