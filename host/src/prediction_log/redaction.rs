//! Redaction: columns and attributes that are dropped, and values that are replaced by a keyed
//! hash or rounded. Applied when predictions are appended, so that the rest of the host, including
//! the response cache, never has the values.

use super::hash_key::HashKey;
use super::record::{ColumnValues, Columns, Predictions};
use super::rounding::RoundingStep;
use super::settings::base_name;

/// The rules of the fields that are not recorded verbatim. `pixels` also stands for every
/// `pixels[i]`. Of several rules for a field, the first of these applies.
#[derive(Clone, Debug, Default)]
pub struct Redaction {
    pub drop: Vec<String>,
    /// Fields whose values are replaced by their hashes with the key.
    pub hash: Option<(Vec<String>, HashKey)>,
    pub round: Vec<(String, RoundingStep)>,
    /// The only fields that are recorded without one of the rules above; `None`: all.
    pub keep: Option<Vec<String>>,
}

/// How a column is logged.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Treatment {
    Plain,
    Dropped,
    Hashed,
    Rounded(RoundingStep),
}

impl Redaction {
    /// Removes from `predictions` what must not be logged.
    pub fn apply(&self, predictions: &mut Predictions) {
        let Self { drop, hash, round, keep } = self;
        if drop.is_empty() && hash.is_none() && round.is_empty() && keep.is_none() {
            return;
        }
        for columns in [&mut predictions.inputs, &mut predictions.outputs] {
            let all = std::mem::take(columns);
            all.into_iter().for_each(|some| self.columns(some, columns));
        }
        predictions.attributes.retain_mut(|(name, value)| match self.treatment(name) {
            Treatment::Plain => true,
            Treatment::Hashed => {
                *value = self.token(value);
                true
            }
            // A text that should be rounded is not a number that could be.
            Treatment::Dropped | Treatment::Rounded(_) => false,
        });
    }

    fn treatment(&self, name: &str) -> Treatment {
        let is = |field: &String| field == name || field == base_name(name);
        if self.drop.iter().any(is) {
            Treatment::Dropped
        } else if self.hash.iter().flat_map(|(names, _)| names).any(is) {
            Treatment::Hashed
        } else if let Some((_, step)) = self.round.iter().find(|(field, _)| is(field)) {
            Treatment::Rounded(*step)
        } else if self.keep.as_ref().is_some_and(|keep| !keep.iter().any(is)) {
            Treatment::Dropped
        } else {
            Treatment::Plain
        }
    }

    fn token(&self, text: &str) -> String {
        self.hash.as_ref().map(|(_, key)| key.token(text)).unwrap_or_default()
    }

    /// Appends `columns` to `redacted`: unchanged, or split into the numbers and texts that remain
    /// and the hashes.
    fn columns(&self, columns: Columns, redacted: &mut Vec<Columns>) {
        let treatments: Vec<Treatment> =
            columns.names.iter().map(|name| self.treatment(name)).collect();
        if treatments.iter().all(|treatment| *treatment == Treatment::Plain) {
            redacted.push(columns);
            return;
        }
        let Columns { names, values } = columns;
        let width = treatments.len();
        let rounds = is_numeric(&values);
        let with = |wanted: &dyn Fn(Treatment) -> bool| {
            let columns = treatments.iter().enumerate();
            let matching = columns.filter(|(_, treatment)| wanted(**treatment));
            matching.map(|(column, _)| column).collect::<Vec<_>>()
        };
        let names =
            |columns: &[usize]| columns.iter().map(|&column| names[column].clone()).collect();
        let kept = with(&|treatment| match treatment {
            Treatment::Plain => true,
            Treatment::Rounded(_) => rounds,
            Treatment::Dropped | Treatment::Hashed => false,
        });
        if !kept.is_empty() {
            let mut values = match &values {
                ColumnValues::Fp32(values) => ColumnValues::Fp32(select(values, width, &kept)),
                ColumnValues::Fp64(values) => ColumnValues::Fp64(select(values, width, &kept)),
                ColumnValues::Int64(values) => ColumnValues::Int64(select(values, width, &kept)),
                ColumnValues::Boolean(values) => {
                    ColumnValues::Boolean(select(values, width, &kept))
                }
                ColumnValues::Text(values) => ColumnValues::Text(select(values, width, &kept)),
            };
            for (column, &from) in kept.iter().enumerate() {
                if let Treatment::Rounded(step) = treatments[from] {
                    round(&mut values, kept.len(), column, step);
                }
            }
            redacted.push(Columns { names: names(&kept), values });
        }
        let hashed = with(&|treatment| treatment == Treatment::Hashed);
        if !hashed.is_empty() {
            let texts = select(&texts(values), width, &hashed);
            let tokens = texts.iter().map(|text| self.token(text)).collect();
            redacted.push(Columns { names: names(&hashed), values: ColumnValues::Text(tokens) });
        }
    }
}

fn is_numeric(values: &ColumnValues) -> bool {
    match values {
        ColumnValues::Fp32(_) | ColumnValues::Fp64(_) | ColumnValues::Int64(_) => true,
        ColumnValues::Boolean(_) | ColumnValues::Text(_) => false,
    }
}

/// Rounds a column of rows of `width` values.
fn round(values: &mut ColumnValues, width: usize, column: usize, step: RoundingStep) {
    fn each<T: Copy>(values: &mut [T], width: usize, column: usize, round: impl Fn(T) -> T) {
        let of_column = values.iter_mut().skip(column).step_by(width);
        of_column.for_each(|value| *value = round(*value));
    }
    match values {
        ColumnValues::Fp32(values) => each(values, width, column, |value| step.round_f32(value)),
        ColumnValues::Fp64(values) => each(values, width, column, |value| step.round_f64(value)),
        ColumnValues::Int64(values) => each(values, width, column, |value| step.round_i64(value)),
        ColumnValues::Boolean(_) | ColumnValues::Text(_) => {}
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
    use proptest::prelude::*;

    use super::*;
    use crate::prediction_log::validate::tests::iris;
    use crate::prediction_log::validate::validate;

    fn redacted(drop: &[&str], hash: &[&str]) -> (Predictions, HashKey) {
        let dir = tempfile::tempdir().unwrap();
        let key = HashKey::open(dir.path()).unwrap();
        let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        let hash = Some((names(hash), key.clone()));
        (applied(&Redaction { drop: names(drop), hash, ..Redaction::default() }), key)
    }

    /// Two rows of iris, with the client's own id.
    fn applied(redaction: &Redaction) -> Predictions {
        let mut predictions = iris(2);
        predictions.attributes.push(("id".into(), "ada".into()));
        redaction.apply(&mut predictions);
        assert_eq!(validate(&predictions), Ok(()));
        predictions
    }

    fn rounding(steps: &[(&str, f64)]) -> Vec<(String, RoundingStep)> {
        let step =
            |&(name, size): &(&str, f64)| (name.to_owned(), RoundingStep::new(size).unwrap());
        steps.iter().map(step).collect()
    }

    /// The names of all columns and attributes, in their order.
    fn names(predictions: &Predictions) -> Vec<&str> {
        let columns = predictions.inputs.iter().chain(&predictions.outputs);
        let attributes = predictions.attributes.iter().map(|(name, _)| name);
        columns.flat_map(|some| &some.names).chain(attributes).map(String::as_str).collect()
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

    #[test]
    fn only_listed_fields_are_kept_and_those_with_another_rule() {
        let keep =
            Some(["sepal_width", "prediction", "probabilities", "id"].map(str::to_owned).into());
        let predictions = applied(&Redaction {
            drop: vec!["probabilities[1]".into()],
            round: rounding(&[("petal_length", 1.0)]),
            keep,
            ..Redaction::default()
        });
        let expected = [
            "sepal_width",
            "petal_length",
            "prediction",
            "probabilities[0]",
            "probabilities[2]",
            "id",
        ];
        assert_eq!(names(&predictions), expected);
        assert_eq!(predictions.inputs[0].values, ColumnValues::Fp32([3.5, 1.0].repeat(2)));
        let nothing = applied(&Redaction { keep: Some(Vec::new()), ..Redaction::default() });
        assert_eq!(names(&nothing), [""; 0]);
    }

    #[test]
    fn numbers_are_rounded_and_what_is_no_number_is_dropped() {
        let steps = [("sepal_length", 0.5), ("probability", 0.1), ("label", 10.0)];
        let others = [("prediction", 1.0), ("operation", 1.0)];
        let rounded = applied(&Redaction {
            round: rounding(&[&steps[..], &others].concat()),
            ..Redaction::default()
        });
        assert_eq!(rounded.inputs[0].values, ColumnValues::Fp32([5.0, 3.5, 1.4, 0.2].repeat(2)));
        assert!(!names(&rounded).iter().any(|name| ["prediction", "operation"].contains(name)));
        let of = |name: &str| rounded.outputs.iter().find(|some| some.names[0] == name).unwrap();
        assert_eq!(of("probability").values, ColumnValues::Fp32(vec![1.0; 2]));
        assert_eq!(of("label").values, ColumnValues::Int64(vec![0; 2]));
    }

    #[test]
    fn stricter_rule_applies_to_a_tensor_and_its_element() {
        let dir = tempfile::tempdir().unwrap();
        let key = HashKey::open(dir.path()).unwrap();
        let redaction = Redaction {
            drop: vec!["probabilities[0]".into()],
            hash: Some((vec!["probabilities[1]".into()], key)),
            round: rounding(&[("probabilities", 0.5)]),
            keep: None,
        };
        let predictions = applied(&redaction);
        let of = |name: &str| predictions.outputs.iter().find(|some| some.names == [name]);
        assert!(of("probabilities[0]").is_none());
        assert!(matches!(of("probabilities[1]").unwrap().values, ColumnValues::Text(_)));
        assert_eq!(of("probabilities[2]").unwrap().values, ColumnValues::Fp32(vec![0.0; 2]));
    }

    proptest! {
        /// Whatever the rules, a value that must not be recorded verbatim appears nowhere.
        #[test]
        fn redacted_values_do_not_remain(rules in prop::collection::vec(0_u8..4, 6), keeps: bool) {
            let dir = tempfile::tempdir().unwrap();
            let key = HashKey::open(dir.path()).unwrap();
            let name = |column: usize| format!("c{column}");
            let with = |rule: u8| {
                let columns = rules.iter().enumerate().filter(move |(_, other)| **other == rule);
                columns.map(|(column, _)| name(column)).collect::<Vec<_>>()
            };
            let steps: Vec<_> = with(2).into_iter().map(|name| (name, 100.0)).collect();
            let steps: Vec<_> = steps.iter().map(|(name, size)| (name.as_str(), *size)).collect();
            let redaction = Redaction {
                drop: with(0),
                hash: Some((with(1), key)),
                round: rounding(&steps),
                keep: keeps.then(|| with(3)),
            };
            // The value of a column tells its row and its number.
            let value = |row: usize, column: usize| 1_000.0 + (row * 10 + column) as f64;
            let (rows, width) = (3_u32, rules.len());
            let all = (0..rows as usize).flat_map(|row| (0..width).map(move |column| value(row, column)));
            let mut predictions = Predictions { rows, ..iris(1) };
            let columns = Columns {
                names: (0..width).map(name).collect(),
                values: ColumnValues::Fp64(all.collect()),
            };
            (predictions.inputs, predictions.outputs) = (vec![columns], Vec::new());
            predictions.attributes.clear();
            redaction.apply(&mut predictions);
            prop_assert_eq!(validate(&predictions), Ok(()));
            for (column, rule) in rules.iter().enumerate() {
                let block = predictions.inputs.iter().find(|some| some.names.contains(&name(column)));
                let expected = match rule {
                    0 => None,
                    1 => Some("text"),
                    _ => Some("number"),
                };
                let found = block.map(|some| match &some.values {
                    ColumnValues::Text(_) => "text",
                    _ => "number",
                });
                prop_assert_eq!(found, expected);
            }
            for block in &predictions.inputs {
                let ColumnValues::Fp64(values) = &block.values else { continue };
                for (index, found) in values.iter().enumerate() {
                    let (row, name) = (index / block.names.len(), index % block.names.len());
                    let column: usize = block.names[name][1..].parse().unwrap();
                    let expected = if rules[column] == 2 { 1_000.0 } else { value(row, column) };
                    prop_assert_eq!(*found, expected);
                }
            }
        }
    }
}
