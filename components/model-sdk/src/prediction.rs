//! What a model says of rows, and what that is for each of them.

use crate::byte_strings::{SplitBytes, split_bytes};
use crate::datatype::Datatype;
use crate::error::Error;
use crate::graph::Graph;
use crate::row_prediction::{Class, RowPrediction};
use crate::rows::Rows;
use crate::signature::Signature;
use crate::tensor::Tensor;

/// What a model says of rows.
#[derive(Clone, Debug, PartialEq)]
pub enum Prediction {
    /// The answers of a classifier: for each row a class, by its position in the labels of
    /// `model.toml`, and the probability of each.
    Classes {
        /// INT64: the position in the labels of each row's class; [`crate::NO_CLASS`] for a row that has none.
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
