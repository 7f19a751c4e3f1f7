//! The prediction for one row, and its JSON.

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use crate::signature::Signature;
use crate::tensor::Tensor;

/// Instead of a class: the model has none for the row, and the response contains `null`.
pub const NO_CLASS: i64 = i64::MIN;

/// The value that clients get for a class.
pub(crate) enum ClassValue<'a> {
    Label(&'a str),
    Number(i64),
    /// The row has no class.
    Missing,
}

/// The prediction for one row.
#[derive(Clone, Copy)]
pub(crate) enum RowPrediction<'a> {
    /// `probabilities`: FP32, one per label, or empty.
    Class {
        class: Class<'a>,
        probabilities: &'a [[u8; 4]],
    },
    /// Numbers of a regression, FP32.
    Numbers(&'a [[u8; 4]]),
    /// Numbers of a regression, FP64.
    Doubles(&'a [[u8; 8]]),
    Text(&'a str),
    Flag(bool),
}

/// A class of the model.
#[derive(Clone, Copy)]
pub(crate) struct Class<'a> {
    signature: &'a Signature,
    /// Index into the labels.
    index: usize,
    /// The output of the graph.
    number: i64,
}

impl<'a> Class<'a> {
    /// The class of a row.
    ///
    /// # Errors
    /// If the graph's output is not the index of a label.
    pub(crate) fn of(
        indices: &Tensor,
        signature: &'a Signature,
        row: usize,
    ) -> Result<Self, String> {
        let number = i64::from_le_bytes(indices.data.as_chunks().0[row]);
        let labels = signature.labels.len();
        match usize::try_from(number) {
            Ok(index) if index < labels => Ok(Self { signature, index, number }),
            _ if labels == 0 || number == NO_CLASS => {
                Ok(Self { signature, index: usize::MAX, number })
            }
            _ => Err(format!(
                "the graph returned class {number}, but model.toml has {labels} labels"
            )),
        }
    }

    /// Index into the labels.
    pub(crate) fn index(&self) -> usize {
        self.index
    }

    /// The label, or a number if the labels are numbers or absent.
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
    /// Writes the prediction as entries of an object.
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

/// The class or the numbers alone, without probabilities.
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

/// An FP32, or null if it is not finite.
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

/// An FP64, or null if it is not finite.
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
    /// One FP32 per label.
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
