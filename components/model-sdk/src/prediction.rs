//! Predictions, as [`crate::Model::predict`] returns them.

use crate::byte_strings::{SplitBytes, split_bytes};
use crate::datatype::Datatype;
use crate::error::Error;
use crate::graph::Graph;
use crate::row_prediction::{Class, RowPrediction};
use crate::rows::Rows;
use crate::signature::Signature;
use crate::tensor::Tensor;

/// The prediction of a model for all rows of an inference.
#[derive(Clone, Debug, PartialEq)]
pub enum Prediction {
    /// Classes with probabilities: for each row a class, as an index into `labels` of `model.toml`, and the
    /// probability of each label.
    Classes {
        /// INT64, one per row: an index into the labels, or [`crate::NO_CLASS`].
        indices: Tensor,
        /// FP32: for each row the probability of each label, in order. NaN and infinities are null in
        /// responses.
        probabilities: Tensor,
    },
    /// Classes without probabilities. INT64, one per row: an index into the labels of `model.toml`, or the
    /// class itself if there are no labels.
    Labels(Tensor),
    /// Numbers. FP32 or FP64: one per row, or the same number of them for each row. NaN and infinities are
    /// null in responses.
    Numbers(Tensor),
    /// Strings or booleans. BYTES in UTF-8, or BOOL: one per row.
    Values(Tensor),
}

/// [`crate::Model::predict`].
pub(crate) type Predict = fn(&Graph, Rows<'_>) -> Result<Prediction, Error>;

/// Predicts all `rows`, in order: with one inference if the model accepts several rows, or else with one per
/// row.
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

/// Predicts with one call of [`crate::Model::predict`], and checks the result.
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
    /// Checks that the prediction is of `rows` rows. Sets the dimensions of numbers to rows and numbers per
    /// row.
    fn check(&mut self, labels: &[String], rows: usize) -> Result<(), Error> {
        match self {
            Self::Classes { indices, probabilities } => {
                indices.check_datatype(Datatype::I64)?;
                probabilities.check_datatype(Datatype::F32)?;
                let (classes, of_each) = (indices.data.len() / 8, probabilities.data.len() / 4);
                if classes != rows || of_each != rows * labels.len() {
                    return Err(Error::internal(format!(
                        "the graph returned {classes} classes and {of_each} probabilities for {rows} rows, \
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
                        "the graph returned {classes} classes for {rows} rows"
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
                        "the graph returned {count} numbers for {rows} rows"
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
                        "the graph returned {count} values for {rows} rows"
                    )));
                }
            }
        }
        Ok(())
    }

    /// The prediction, checked to be of `rows` rows.
    pub(crate) fn checked(mut self, labels: &[String], rows: usize) -> Result<Self, Error> {
        self.check(labels, rows)?;
        Ok(self)
    }

    /// The tensors of the prediction.
    pub(crate) fn tensors(&self) -> [Option<&Tensor>; 2] {
        match self {
            Self::Classes { indices, probabilities } => [Some(indices), Some(probabilities)],
            Self::Labels(tensor) | Self::Numbers(tensor) | Self::Values(tensor) => {
                [Some(tensor), None]
            }
        }
    }

    /// The prediction for each row.
    pub(crate) fn by_row<'a>(
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
        (0..rows).map(move |row| self.row(signature, row, &mut texts))
    }

    /// The prediction for one row. `texts`: the strings from this row on.
    fn row<'a>(
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
                let text = text.ok_or_else(|| format!("the string of row {row} is not UTF-8"))?;
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
