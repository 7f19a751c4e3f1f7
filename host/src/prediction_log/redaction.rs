//! Redaction: columns and attributes that are dropped, and values that are replaced by a keyed
//! hash. Applied when predictions are appended, so that the rest of the host, including the
//! response cache, never has the values.

use super::hash_key::HashKey;
use super::record::{ColumnValues, Columns, Predictions};
use super::settings::base_name;

/// Names of the fields to drop or hash. `pixels` also stands for every `pixels[i]`.
#[derive(Clone, Debug, Default)]
pub struct Redaction {
    drop: Vec<String>,
    hash: Option<(Vec<String>, HashKey)>,
}

/// How a column is logged.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Treatment {
    Plain,
    Dropped,
    Hashed,
}

impl Redaction {
    #[must_use]
    pub fn new(drop: Vec<String>, hash: Option<(Vec<String>, HashKey)>) -> Self {
        Self { drop, hash }
    }

    /// Removes from `predictions` what must not be logged.
    pub fn apply(&self, predictions: &mut Predictions) {
        if self.drop.is_empty() && self.hash.is_none() {
            return;
        }
        for columns in [&mut predictions.inputs, &mut predictions.outputs] {
            let all = std::mem::take(columns);
            all.into_iter().for_each(|some| self.columns(some, columns));
        }
        predictions.attributes.retain(|(name, _)| self.treatment(name) != Treatment::Dropped);
        for (name, value) in &mut predictions.attributes {
            if self.treatment(name) == Treatment::Hashed {
                *value = self.token(value);
            }
        }
    }

    fn treatment(&self, name: &str) -> Treatment {
        let is = |field: &String| field == name || field == base_name(name);
        if self.drop.iter().any(is) {
            Treatment::Dropped
        } else if self.hash.iter().flat_map(|(names, _)| names).any(is) {
            Treatment::Hashed
        } else {
            Treatment::Plain
        }
    }

    fn token(&self, text: &str) -> String {
        self.hash.as_ref().map(|(_, key)| key.token(text)).unwrap_or_default()
    }

    /// Appends `columns` to `redacted`: unchanged, or split into the plain and the hashed ones.
    fn columns(&self, columns: Columns, redacted: &mut Vec<Columns>) {
        let treatments: Vec<Treatment> =
            columns.names.iter().map(|name| self.treatment(name)).collect();
        if treatments.iter().all(|treatment| *treatment == Treatment::Plain) {
            redacted.push(columns);
            return;
        }
        let Columns { names, values } = columns;
        let width = treatments.len();
        let with = |treatment| {
            let columns = treatments.iter().enumerate();
            let matching = columns.filter(move |(_, other)| **other == treatment);
            matching.map(|(column, _)| column).collect::<Vec<_>>()
        };
        let names =
            |columns: &[usize]| columns.iter().map(|&column| names[column].clone()).collect();
        let plain = with(Treatment::Plain);
        if !plain.is_empty() {
            let values = match &values {
                ColumnValues::Fp32(values) => ColumnValues::Fp32(select(values, width, &plain)),
                ColumnValues::Fp64(values) => ColumnValues::Fp64(select(values, width, &plain)),
                ColumnValues::Int64(values) => ColumnValues::Int64(select(values, width, &plain)),
                ColumnValues::Boolean(values) => {
                    ColumnValues::Boolean(select(values, width, &plain))
                }
                ColumnValues::Text(values) => ColumnValues::Text(select(values, width, &plain)),
            };
            redacted.push(Columns { names: names(&plain), values });
        }
        let hashed = with(Treatment::Hashed);
        if !hashed.is_empty() {
            let texts = select(&texts(values), width, &hashed);
            let tokens = texts.iter().map(|text| self.token(text)).collect();
            redacted.push(Columns { names: names(&hashed), values: ColumnValues::Text(tokens) });
        }
    }
}

/// The values of some `columns` in each row of `width` values.
fn select<T: Clone>(values: &[T], width: usize, columns: &[usize]) -> Vec<T> {
    let row = |row: &[T]| columns.iter().map(|&column| row[column].clone()).collect::<Vec<_>>();
    values.chunks_exact(width).flat_map(row).collect()
}

/// The texts of the values, empty for a missing one.
fn texts(values: ColumnValues) -> Vec<String> {
    fn to_texts<T: ToString>(values: &[T], is_missing: impl Fn(&T) -> bool) -> Vec<String> {
        let text = |value| if is_missing(value) { String::new() } else { value.to_string() };
        values.iter().map(text).collect()
    }
    match values {
        ColumnValues::Fp32(values) => to_texts(&values, |value| value.is_nan()),
        ColumnValues::Fp64(values) => to_texts(&values, |value| value.is_nan()),
        ColumnValues::Int64(values) => to_texts(&values, |_| false),
        ColumnValues::Boolean(values) => to_texts(&values, |_| false),
        ColumnValues::Text(values) => values,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prediction_log::validate::tests::iris;
    use crate::prediction_log::validate::validate;

    fn redacted(drop: &[&str], hash: &[&str]) -> (Predictions, HashKey) {
        let dir = tempfile::tempdir().unwrap();
        let key = HashKey::open(dir.path()).unwrap();
        let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        let redaction = Redaction::new(names(drop), Some((names(hash), key.clone())));
        let mut predictions = iris(2);
        predictions.attributes.push(("id".into(), "ada".into()));
        redaction.apply(&mut predictions);
        assert_eq!(validate(&predictions), Ok(()));
        (predictions, key)
    }

    #[test]
    fn dropped_fields_are_removed() {
        let (redacted, _) = redacted(&["sepal_width", "probabilities", "label", "id"], &[]);
        assert_eq!(redacted.inputs[0].names, ["sepal_length", "petal_length", "petal_width"]);
        assert_eq!(redacted.inputs[0].values, ColumnValues::Fp32([5.1, 1.4, 0.2].repeat(2)));
        let outputs: Vec<_> = redacted.outputs.iter().flat_map(|some| &some.names).collect();
        assert_eq!(outputs, ["prediction", "probability"]);
        assert_eq!(redacted.attributes, [("operation".to_owned(), "predict".to_owned())]);
    }

    #[test]
    fn hashed_values_become_tokens_of_their_texts() {
        let (redacted, key) = redacted(&["petal_width"], &["sepal_length", "prediction", "id"]);
        assert_eq!(redacted.inputs[0].names, ["sepal_width", "petal_length"]);
        assert_eq!(redacted.inputs[0].values, ColumnValues::Fp32([3.5, 1.4].repeat(2)));
        assert_eq!(redacted.inputs[1].names, ["sepal_length"]);
        assert_eq!(redacted.inputs[1].values, ColumnValues::Text(vec![key.token("5.1"); 2]));
        assert_eq!(redacted.outputs[0].values, ColumnValues::Text(vec![key.token("setosa"); 2]));
        assert_eq!(redacted.attributes[1], ("id".to_owned(), key.token("ada")));
    }

    #[test]
    fn single_element_is_redacted_by_its_own_name() {
        let (redacted, _) = redacted(&["probabilities[1]"], &["probabilities[2]"]);
        assert_eq!(redacted.outputs[3].names, ["probabilities[0]"]);
        assert_eq!(redacted.outputs[4].names, ["probabilities[2]"]);
    }

    #[test]
    fn redaction_without_matching_fields_changes_nothing() {
        let mut predictions = iris(3);
        Redaction::default().apply(&mut predictions);
        assert_eq!(predictions, iris(3));
        let (redacted, _) = redacted(&["other"], &["others"]);
        assert_eq!(redacted.inputs, iris(2).inputs);
    }
}
