//! What the operator keeps out of the log: columns and attributes that are dropped, and values that
//! are replaced by a keyed hash. Applied as predictions are appended, so that nothing else in the
//! host, the response cache included, has them.

use super::hash_key::HashKey;
use super::record::{Columns, Predictions, Values};
use super::settings::base_name;

/// Fields that are dropped or hashed, by name; `pixels` stands for each `pixels[i]`, too.
#[derive(Clone, Debug, Default)]
pub struct Redaction {
    drop: Vec<String>,
    hash: Option<(Vec<String>, HashKey)>,
}

/// What becomes of a column.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Kept,
    Dropped,
    Hashed,
}

impl Redaction {
    #[must_use]
    pub fn new(drop: Vec<String>, hash: Option<(Vec<String>, HashKey)>) -> Self {
        Self { drop, hash }
    }

    /// Takes out of `predictions` what is not to be logged.
    pub fn apply(&self, predictions: &mut Predictions) {
        if self.drop.is_empty() && self.hash.is_none() {
            return;
        }
        for columns in [&mut predictions.inputs, &mut predictions.outputs] {
            let all = std::mem::take(columns);
            all.into_iter().for_each(|some| self.columns(some, columns));
        }
        predictions.attributes.retain(|(name, _)| self.fate(name) != Fate::Dropped);
        for (name, value) in &mut predictions.attributes {
            if self.fate(name) == Fate::Hashed {
                *value = self.token(value);
            }
        }
    }

    fn fate(&self, name: &str) -> Fate {
        let is = |field: &String| field == name || field == base_name(name);
        if self.drop.iter().any(is) {
            Fate::Dropped
        } else if self.hash.iter().flat_map(|(names, _)| names).any(is) {
            Fate::Hashed
        } else {
            Fate::Kept
        }
    }

    fn token(&self, text: &str) -> String {
        self.hash.as_ref().map(|(_, key)| key.token(text)).unwrap_or_default()
    }

    /// What is left of `columns`: as they are, or those that stay, and those that are hashed.
    fn columns(&self, columns: Columns, left: &mut Vec<Columns>) {
        let fates: Vec<Fate> = columns.names.iter().map(|name| self.fate(name)).collect();
        if fates.iter().all(|fate| *fate == Fate::Kept) {
            left.push(columns);
            return;
        }
        let Columns { names, values } = columns;
        let with = |fate| {
            let of = fates.iter().enumerate().filter(move |(_, other)| **other == fate);
            of.map(|(column, _)| column).collect::<Vec<_>>()
        };
        let names = |of: &[usize]| of.iter().map(|&column| names[column].clone()).collect();
        let kept = with(Fate::Kept);
        if !kept.is_empty() {
            let values = match &values {
                Values::Fp32(values) => Values::Fp32(select(values, fates.len(), &kept)),
                Values::Fp64(values) => Values::Fp64(select(values, fates.len(), &kept)),
                Values::Int64(values) => Values::Int64(select(values, fates.len(), &kept)),
                Values::Boolean(values) => Values::Boolean(select(values, fates.len(), &kept)),
                Values::Text(values) => Values::Text(select(values, fates.len(), &kept)),
            };
            left.push(Columns { names: names(&kept), values });
        }
        let hashed = with(Fate::Hashed);
        if !hashed.is_empty() {
            let texts = select(&texts(values), fates.len(), &hashed);
            let tokens = texts.iter().map(|text| self.token(text)).collect();
            left.push(Columns { names: names(&hashed), values: Values::Text(tokens) });
        }
    }
}

/// Those of `columns` in each row of `width` values.
fn select<T: Clone>(values: &[T], width: usize, columns: &[usize]) -> Vec<T> {
    let row = |row: &[T]| columns.iter().map(|&column| row[column].clone()).collect::<Vec<_>>();
    values.chunks_exact(width).flat_map(row).collect()
}

/// The values as they would be written. What is missing is written as nothing.
fn texts(values: Values) -> Vec<String> {
    fn written<T: ToString>(values: &[T], is_missing: impl Fn(&T) -> bool) -> Vec<String> {
        let text = |value| if is_missing(value) { String::new() } else { value.to_string() };
        values.iter().map(text).collect()
    }
    match values {
        Values::Fp32(values) => written(&values, |value| value.is_nan()),
        Values::Fp64(values) => written(&values, |value| value.is_nan()),
        Values::Int64(values) => written(&values, |_| false),
        Values::Boolean(values) => written(&values, |_| false),
        Values::Text(values) => values,
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
    fn dropped_fields_are_gone() {
        let (left, _) = redacted(&["sepal_width", "probabilities", "label", "id"], &[]);
        assert_eq!(left.inputs[0].names, ["sepal_length", "petal_length", "petal_width"]);
        assert_eq!(left.inputs[0].values, Values::Fp32([5.1, 1.4, 0.2].repeat(2)));
        let outputs: Vec<_> = left.outputs.iter().flat_map(|some| &some.names).collect();
        assert_eq!(outputs, ["prediction", "probability"]);
        assert_eq!(left.attributes, [("operation".to_owned(), "predict".to_owned())]);
    }

    #[test]
    fn hashed_fields_are_tokens_of_their_texts() {
        let (left, key) = redacted(&["petal_width"], &["sepal_length", "prediction", "id"]);
        assert_eq!(left.inputs[0].names, ["sepal_width", "petal_length"]);
        assert_eq!(left.inputs[0].values, Values::Fp32([3.5, 1.4].repeat(2)));
        assert_eq!(left.inputs[1].names, ["sepal_length"]);
        assert_eq!(left.inputs[1].values, Values::Text(vec![key.token("5.1"); 2]));
        assert_eq!(left.outputs[0].values, Values::Text(vec![key.token("setosa"); 2]));
        assert_eq!(left.attributes[1], ("id".to_owned(), key.token("ada")));
    }

    #[test]
    fn one_element_goes_by_its_own_name() {
        let (left, _) = redacted(&["probabilities[1]"], &["probabilities[2]"]);
        assert_eq!(left.outputs[3].names, ["probabilities[0]"]);
        assert_eq!(left.outputs[4].names, ["probabilities[2]"]);
    }

    #[test]
    fn without_fields_nothing_changes() {
        let mut predictions = iris(3);
        Redaction::default().apply(&mut predictions);
        assert_eq!(predictions, iris(3));
        let (left, _) = redacted(&["other"], &["others"]);
        assert_eq!(left.inputs, iris(2).inputs);
    }
}
