//! What a model says of rows, and what that is for each of them.

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use crate::datatype::Datatype;
use crate::error::Error;
use crate::graph::Graph;
use crate::rows::Rows;
use crate::signature::Signature;
use crate::tensor::{SplitBytes, Tensor, split_bytes};

/// What a model says of rows.
#[derive(Clone, Debug, PartialEq)]
pub enum Prediction {
    /// The answers of a classifier: for each row a class, by its position in the labels of
    /// `model.toml`, and the probability of each.
    Classes {
        /// INT64: the position in the labels of each row's class; [`NO_CLASS`] for a row that has none.
        indices: Tensor,
        /// FP32: for each row as many as there are labels, in their order. One that is no number is null in
        /// a response.
        probabilities: Tensor,
    },
    /// The same of one that has no probabilities. Without labels in `model.toml` the INT64 numbers
    /// themselves are the classes.
    Labels(Tensor),
    /// The answers of a regression. FP32 or FP64: one number for each row, or as many for each. One that is
    /// NaN or infinite is null in a response.
    Numbers(Tensor),
    /// BYTES, in UTF-8, or BOOL: a string or a truth value for each row.
    Values(Tensor),
}

/// In place of a class: the model has none for a row, and `null` is answered.
pub const NO_CLASS: i64 = i64::MIN;

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
    let mut prediction = predict(graph, rows)?;
    prediction.check(&graph.signature().labels, rows.count as usize)?;
    Ok(prediction)
}

impl Prediction {
    /// Refuses what is not of so many rows. Numbers then have an axis of rows and one of each row's.
    fn check(&mut self, labels: &[String], rows: usize) -> Result<(), Error> {
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
            Self::Labels(indices) => {
                indices.check_datatype(Datatype::I64)?;
                let classes = indices.data.len() / 8;
                if classes != rows {
                    return Err(Error::internal(format!(
                        "the graph gave {classes} classes for {rows} rows"
                    )));
                }
            }
            Self::Numbers(numbers) => {
                if numbers.datatype != Datatype::F64 {
                    numbers.check_datatype(Datatype::F32)?;
                }
                let count = numbers.data.len() / numbers.datatype.size();
                if count % rows != 0 {
                    return Err(Error::internal(format!(
                        "the graph gave {count} numbers for {rows} rows"
                    )));
                }
                let axes = [rows, count / rows].map(|axis| u32::try_from(axis).unwrap_or(u32::MAX));
                numbers.dimensions = axes.to_vec();
            }
            Self::Values(values) => {
                if values.datatype != Datatype::Bool {
                    values.check_datatype(Datatype::Bytes)?;
                }
                let count = values.count();
                if count != rows {
                    return Err(Error::internal(format!(
                        "the graph gave {count} values for {rows} rows"
                    )));
                }
            }
        }
        Ok(())
    }

    /// Refuses what is not of so many rows, and is from outputs rather than from [`crate::Model`].
    pub(crate) fn checked(mut self, labels: &[String], rows: usize) -> Result<Self, Error> {
        self.check(labels, rows)?;
        Ok(self)
    }

    /// What it is made of.
    pub(crate) fn tensors(&self) -> [Option<&Tensor>; 2] {
        match self {
            Self::Classes { indices, probabilities } => [Some(indices), Some(probabilities)],
            Self::Labels(tensor) | Self::Numbers(tensor) | Self::Values(tensor) => {
                [Some(tensor), None]
            }
        }
    }

    /// What it says of each row.
    pub(crate) fn answers<'a>(
        &'a self,
        signature: &'a Signature,
    ) -> impl Iterator<Item = Result<RowPrediction<'a>, String>> {
        let rows = match self {
            Self::Classes { indices, .. } | Self::Labels(indices) => indices.data.len() / 8,
            Self::Numbers(numbers) => numbers.dimensions.first().map_or(0, |&rows| rows as usize),
            Self::Values(values) => values.count(),
        };
        let mut texts = split_bytes(match self {
            Self::Values(values) if values.datatype == Datatype::Bytes => &values.data,
            _ => &[],
        });
        (0..rows).map(move |row| self.answer(signature, row, &mut texts))
    }

    /// `texts`: those of the rows that come.
    fn answer<'a>(
        &'a self,
        signature: &'a Signature,
        row: usize,
        texts: &mut SplitBytes<'a>,
    ) -> Result<RowPrediction<'a>, String> {
        match self {
            Self::Values(values) if values.datatype == Datatype::Bool => {
                Ok(RowPrediction::Flag(values.data.get(row).is_some_and(|&byte| byte != 0)))
            }
            Self::Values(_) => {
                let text = texts.next().flatten().and_then(|text| str::from_utf8(text).ok());
                let text = text.ok_or_else(|| format!("the string of row {row} is no UTF-8"))?;
                Ok(RowPrediction::Text(text))
            }
            Self::Classes { indices, probabilities } => {
                let labels = signature.labels.len();
                let probabilities = &probabilities.data.as_chunks().0[row * labels..][..labels];
                let class = Class::of(indices, signature, row)?;
                Ok(RowPrediction::Class { class, probabilities })
            }
            Self::Labels(indices) => {
                let class = Class::of(indices, signature, row)?;
                Ok(RowPrediction::Class { class, probabilities: &[] })
            }
            Self::Numbers(numbers) => {
                let width = numbers.dimensions.get(1).map_or(0, |&width| width as usize);
                if numbers.datatype == Datatype::F64 {
                    return Ok(RowPrediction::Doubles(
                        &numbers.data.as_chunks().0[row * width..][..width],
                    ));
                }
                Ok(RowPrediction::Numbers(&numbers.data.as_chunks().0[row * width..][..width]))
            }
        }
    }
}

/// What a class is called.
pub(crate) enum ClassValue<'a> {
    Label(&'a str),
    Number(i64),
    /// There is none.
    Missing,
}

/// What a model says of one row.
#[derive(Clone, Copy)]
pub(crate) enum RowPrediction<'a> {
    /// `probabilities`: FP32, one for each label, or none.
    Class {
        class: Class<'a>,
        probabilities: &'a [[u8; 4]],
    },
    /// FP32.
    Numbers(&'a [[u8; 4]]),
    /// FP64.
    Doubles(&'a [[u8; 8]]),
    Text(&'a str),
    Flag(bool),
}

/// One of a model's classes.
#[derive(Clone, Copy)]
pub(crate) struct Class<'a> {
    signature: &'a Signature,
    /// Its position in the labels.
    index: usize,
    /// What the graph gave.
    number: i64,
}

impl<'a> Class<'a> {
    fn of(indices: &Tensor, signature: &'a Signature, row: usize) -> Result<Self, String> {
        let number = i64::from_le_bytes(indices.data.as_chunks().0[row]);
        let labels = signature.labels.len();
        match usize::try_from(number) {
            Ok(index) if index < labels => Ok(Self { signature, index, number }),
            _ if labels == 0 || number == NO_CLASS => {
                Ok(Self { signature, index: usize::MAX, number })
            }
            _ => Err(format!("the graph gave class {number}, but model.toml has {labels} labels")),
        }
    }

    /// Its position in the labels.
    pub(crate) fn index(&self) -> usize {
        self.index
    }

    /// Its label, unless labels are numbers or there are none.
    pub(crate) fn value(&self) -> ClassValue<'a> {
        let Self { signature, index, number } = *self;
        match (signature.classes.get(index), signature.labels.get(index)) {
            (None, Some(label)) => ClassValue::Label(label),
            (None, None) if number == NO_CLASS => ClassValue::Missing,
            (class, _) => ClassValue::Number(class.copied().unwrap_or(number)),
        }
    }
}

impl RowPrediction<'_> {
    /// As entries of an object.
    pub(crate) fn write<M: SerializeMap>(self, object: &mut M) -> Result<(), M::Error> {
        object.serialize_entry("prediction", &self)?;
        if let Self::Class { class: Class { signature, index, .. }, probabilities } = self
            && !probabilities.is_empty()
        {
            let labels = &signature.labels;
            let nan = f32::NAN.to_le_bytes();
            let probability = Number(probabilities.get(index).copied().unwrap_or(nan));
            object.serialize_entry("probability", &probability)?;
            object.serialize_entry("probabilities", &Probabilities { labels, probabilities })?;
        }
        Ok(())
    }
}

/// The class or the numbers alone.
impl Serialize for RowPrediction<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match *self {
            Self::Class { class, .. } => match class.value() {
                ClassValue::Label(label) => serializer.serialize_str(label),
                ClassValue::Number(number) => serializer.serialize_i64(number),
                ClassValue::Missing => serializer.serialize_unit(),
            },
            Self::Text(text) => serializer.serialize_str(text),
            Self::Flag(flag) => serializer.serialize_bool(flag),
            Self::Numbers([number]) => Number(*number).serialize(serializer),
            Self::Numbers(numbers) => {
                serializer.collect_seq(numbers.iter().map(|&number| Number(number)))
            }
            Self::Doubles([number]) => Double(*number).serialize(serializer),
            Self::Doubles(numbers) => {
                serializer.collect_seq(numbers.iter().map(|&number| Double(number)))
            }
        }
    }
}

/// FP32; JSON has none that is not finite.
struct Number([u8; 4]);

impl Serialize for Number {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let number = f32::from_le_bytes(self.0);
        if number.is_finite() {
            serializer.serialize_f32(number)
        } else {
            serializer.serialize_unit()
        }
    }
}

/// FP64, as [`Number`].
struct Double([u8; 8]);

impl Serialize for Double {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let number = f64::from_le_bytes(self.0);
        if number.is_finite() {
            serializer.serialize_f64(number)
        } else {
            serializer.serialize_unit()
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
            object.serialize_entry(label, &Number(probability))?;
        }
        object.end()
    }
}
