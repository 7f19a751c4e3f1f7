//! The inputs and outputs in `model.toml`, and the names of their elements in records and in
//! `baseline.json`.

use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::inference::SIGNATURE;
use crate::process::read_file::read_file;
use crate::process::toml_text;

/// Maximum size of a `model.toml`, in bytes.
const MAX_BYTES: u64 = 1 << 20;
/// Maximum number of elements per row of a tensor that is logged (docs/prediction-log.md).
pub const MAX_ELEMENTS: usize = 256;

#[derive(Clone, Debug, Default, Deserialize)]
pub struct FieldSignature {
    pub name: Option<String>,
    pub version: Option<String>,
    #[serde(default)]
    pub labels: Vec<ClassLabel>,
    #[serde(default)]
    pub inputs: Vec<SignatureTensor>,
    #[serde(default)]
    pub outputs: Vec<SignatureTensor>,
}

/// A class: its name, or its number in the graph's output of classes.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged, expecting = "a string or an integer")]
pub enum ClassLabel {
    Number(i64),
    Name(String),
}

#[derive(Clone, Debug, Deserialize)]
pub struct SignatureTensor {
    pub name: String,
    pub datatype: String,
    #[serde(default)]
    pub shape: Vec<i64>,
    /// The axis that counts rows.
    #[serde(default)]
    pub batch_axis: usize,
    #[serde(default)]
    pub fields: Vec<String>,
}

impl FieldSignature {
    pub fn parse(text: &str) -> Result<Self> {
        toml_text::parse(text)
    }

    /// Reads the signature of the version in `folder`.
    ///
    /// # Errors
    /// Names the file.
    pub fn read(folder: &Path) -> Result<Self> {
        let path = folder.join(SIGNATURE);
        let text = read_file(&path, MAX_BYTES).and_then(|bytes| Ok(String::from_utf8(bytes)?));
        text.and_then(|text| Self::parse(&text)).with_context(|| path.display().to_string())
    }

    /// The value of each label in the output of classes.
    #[must_use]
    pub fn classes(&self) -> Vec<i64> {
        let class = |(index, label): (usize, &ClassLabel)| match label {
            ClassLabel::Number(number) => *number,
            ClassLabel::Name(_) => i64::try_from(index).unwrap_or(i64::MAX),
        };
        self.labels.iter().enumerate().map(class).collect()
    }
}

impl SignatureTensor {
    /// Number of elements per row; `None` if the shape leaves it open.
    #[must_use]
    pub fn width(&self) -> Option<usize> {
        let row = self.shape.iter().enumerate().filter(|(axis, _)| *axis != self.batch_axis);
        row.map(|(_, &size)| size)
            .try_fold(1_usize, |width, size| width.checked_mul(usize::try_from(size).ok()?))
    }

    /// The names of the elements of a row: those of the fields, or formed from the tensor's name.
    /// `None` if the shape leaves their number open, or there are too many to log.
    #[must_use]
    pub fn element_names(&self) -> Option<Vec<String>> {
        if !self.fields.is_empty() {
            return Some(self.fields.clone());
        }
        let width = self.width()?;
        (width <= MAX_ELEMENTS).then(|| element_names(&self.name, width))
    }
}

/// The names of the elements of a `tensor` with `width` elements per row: `x`, or `x[0]`, `x[1]`.
#[must_use]
pub fn element_names(tensor: &str, width: usize) -> Vec<String> {
    if width == 1 {
        vec![tensor.to_owned()]
    } else {
        (0..width).map(|index| format!("{tensor}[{index}]")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(shape: &[i64], fields: &[&str]) -> SignatureTensor {
        SignatureTensor {
            name: "x".into(),
            datatype: "FP32".into(),
            shape: shape.to_vec(),
            batch_axis: 0,
            fields: fields.iter().map(ToString::to_string).collect(),
        }
    }

    #[test]
    fn elements_are_named_by_field_or_by_index() {
        assert_eq!(tensor(&[-1, 2], &["a", "b"]).element_names().unwrap(), ["a", "b"]);
        assert_eq!(tensor(&[-1, 2], &[]).element_names().unwrap(), ["x[0]", "x[1]"]);
        assert_eq!(tensor(&[-1, 1], &[]).element_names().unwrap(), ["x"]);
        assert_eq!(tensor(&[-1], &[]).element_names().unwrap(), ["x"]);
        assert_eq!(tensor(&[-1, 2, 2], &[]).element_names().unwrap().len(), 4);
        assert_eq!(tensor(&[-1, -1], &[]).element_names(), None);
        assert_eq!(tensor(&[-1, 257], &[]).element_names(), None);
        assert_eq!(tensor(&[-1, i64::MAX, i64::MAX], &[]).element_names(), None);
        let second = SignatureTensor { batch_axis: 1, ..tensor(&[3, -1], &[]) };
        assert_eq!(second.width(), Some(3));
    }

    #[test]
    fn classes_are_label_numbers_or_indices() {
        let classes = |labels| FieldSignature::parse(labels).unwrap().classes();
        assert_eq!(classes("labels = ['a', 'b']"), [0, 1]);
        assert_eq!(classes("labels = [3, 5]"), [3, 5]);
        assert!(FieldSignature::parse("labels = [1.5]").is_err());
    }
}
