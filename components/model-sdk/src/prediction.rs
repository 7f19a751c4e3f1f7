//! What a model says of rows, and what that is for each of them.

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use crate::error::Error;
use crate::graph::Graph;
use crate::rows::Rows;
use crate::tensor::{Datatype, Tensor};

/// What a model says of rows.
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

pub(crate) fn predict_rows(
    graph: &Graph,
    rows: Rows<'_>,
    predict: Predict,
) -> Result<Prediction, Error> {
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
    /// As entries of an object.
    pub(crate) fn write<M: SerializeMap>(self, object: &mut M) -> Result<(), M::Error> {
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
