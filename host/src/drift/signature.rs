//! The names of a version's features and outputs in records and in `baseline.json`, and its classes, as
//! its `model.toml` declares them.

use spinfer_model_toml::{ModelToml, TensorEntry};

/// Maximum number of elements per row of a tensor that is logged (docs/prediction-log.md).
pub const MAX_ELEMENTS: usize = 256;

/// The value of each label in the output of classes: the label, or its index if labels are names.
#[must_use]
pub fn classes(model: &ModelToml) -> Vec<i64> {
    if model.classes.is_empty() {
        (0_i64..).take(model.labels.len()).collect()
    } else {
        model.classes.clone()
    }
}

/// The names of the elements of a row: those of the fields, or formed from the tensor's name.
/// `None` if the shape leaves their number open, or there are too many to log.
#[must_use]
pub fn names_of(tensor: &TensorEntry) -> Option<Vec<String>> {
    if !tensor.fields.is_empty() {
        return Some(tensor.fields.clone());
    }
    let width = tensor.row()?;
    (width <= MAX_ELEMENTS).then(|| element_names(&tensor.name, width))
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

    fn tensor(shape: &[i64], fields: &[&str]) -> TensorEntry {
        TensorEntry {
            name: "x".into(),
            datatype: "FP32",
            shape: shape.to_vec(),
            batch_axis: 0,
            fields: fields.iter().map(ToString::to_string).collect(),
        }
    }

    #[test]
    fn elements_are_named_by_field_or_by_index() {
        assert_eq!(names_of(&tensor(&[-1, 2], &["a", "b"])).unwrap(), ["a", "b"]);
        assert_eq!(names_of(&tensor(&[-1, 2], &[])).unwrap(), ["x[0]", "x[1]"]);
        assert_eq!(names_of(&tensor(&[-1, 1], &[])).unwrap(), ["x"]);
        assert_eq!(names_of(&tensor(&[-1], &[])).unwrap(), ["x"]);
        assert_eq!(names_of(&tensor(&[-1, 2, 2], &[])).unwrap().len(), 4);
        assert_eq!(names_of(&tensor(&[-1, -1], &[])), None);
        assert_eq!(names_of(&tensor(&[-1, 257], &[])), None);
        assert_eq!(names_of(&tensor(&[-1, i64::MAX, i64::MAX], &[])), None);
        // Only a free axis counts rows, as in the component that names the elements.
        assert_eq!(names_of(&tensor(&[2], &[])).unwrap(), ["x[0]", "x[1]"]);
        let second = TensorEntry { batch_axis: 1, ..tensor(&[3, -1], &[]) };
        assert_eq!(names_of(&second).unwrap().len(), 3);
    }

    #[test]
    fn classes_are_label_numbers_or_indices() {
        let classes = |labels| {
            let text = format!("name = 'm'\nversion = '1'\ninputs = []\noutputs = []\n{labels}");
            super::classes(&ModelToml::parse(&text).unwrap())
        };
        assert_eq!(classes("labels = ['a', 'b']"), [0, 1]);
        assert_eq!(classes("labels = [3, 5]"), [3, 5]);
        assert!(classes("").is_empty());
    }
}
