//! How far the predictions of a shadow agree with those of the variant that served the client.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::prediction_log::Appended;
use crate::prediction_log::record::{ColumnValues, Columns, Predictions};

/// The comparisons of one shadow.
#[derive(Debug, Default)]
pub struct Agreement(Mutex<AgreementCounts>);

/// What was compared since the start of the host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AgreementCounts {
    /// Requests whose predictions were compared.
    pub compared: u64,
    /// Requests for which one of both has no predictions, or for other rows or outputs.
    pub incomparable: u64,
    /// Rows with a label: an output that is a text, an integer or a Boolean.
    pub labelled: u64,
    /// Those whose labels are all equal.
    pub agreeing: u64,
    /// Numbers that both have.
    pub numbers: u64,
    /// Numbers that one of both lacks.
    pub missing: u64,
    /// Sum of the absolute differences of the numbers.
    pub difference_sum: f64,
    /// Largest absolute difference of two numbers.
    pub difference_max: f64,
}

impl Agreement {
    /// Compares the predictions of one request. `None`: there are none.
    pub fn add(&self, primary: Option<&Appended>, shadow: Option<&Appended>) {
        let compared = primary.zip(shadow).and_then(|(one, other)| compare(one, other));
        let incomparable = AgreementCounts { incomparable: 1, ..AgreementCounts::default() };
        let added = compared.unwrap_or(incomparable);
        self.0.lock().add(&added);
    }

    #[must_use]
    pub fn counts(&self) -> AgreementCounts {
        *self.0.lock()
    }
}

impl AgreementCounts {
    /// Share of the rows with labels whose labels are equal, from 0 to 1.
    #[must_use]
    pub fn rate(&self) -> Option<f64> {
        ratio(self.agreeing as f64, self.labelled)
    }

    /// Mean absolute difference of two numbers.
    #[must_use]
    pub fn mean_difference(&self) -> Option<f64> {
        ratio(self.difference_sum, self.numbers)
    }

    fn add(&mut self, other: &Self) {
        self.compared += other.compared;
        self.incomparable += other.incomparable;
        self.labelled += other.labelled;
        self.agreeing += other.agreeing;
        self.numbers += other.numbers;
        self.missing += other.missing;
        self.difference_sum += other.difference_sum;
        self.difference_max = self.difference_max.max(other.difference_max);
    }

    fn add_number(&mut self, one: f64, other: f64) {
        match (one.is_nan(), other.is_nan()) {
            (true, true) => {}
            (false, false) => {
                // Equal infinities have no difference.
                let difference = if one == other { 0.0 } else { (one - other).abs() };
                self.numbers += 1;
                self.difference_sum += difference;
                self.difference_max = self.difference_max.max(difference);
            }
            _ => self.missing += 1,
        }
    }
}

fn ratio(part: f64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part / whole as f64)
}

/// Compares the outputs of two responses; `None` if they are of other rows or outputs.
fn compare(one: &Appended, other: &Appended) -> Option<AgreementCounts> {
    let mut counts = AgreementCounts { compared: 1, ..AgreementCounts::default() };
    let (mut ones, mut others) = (one.iter(), other.iter());
    loop {
        match (ones.next(), others.next()) {
            (Some(one), Some(other)) => compare_calls(one, other, &mut counts)?,
            (None, None) => return Some(counts),
            _ => return None,
        }
    }
}

fn compare_calls(
    one: &Arc<Predictions>,
    other: &Arc<Predictions>,
    counts: &mut AgreementCounts,
) -> Option<()> {
    let (ones, others) = (outputs(one), outputs(other));
    if one.rows != other.rows || !ones.keys().eq(others.keys()) {
        return None;
    }
    let pairs: Vec<_> = ones.into_values().zip(others.into_values()).collect();
    for row in 0..one.rows as usize {
        let mut labels = None;
        for (one, other) in &pairs {
            match (one.at(row)?, other.at(row)?) {
                (Value::Number(one), Value::Number(other)) => counts.add_number(one, other),
                (one, other) => labels = Some(labels.unwrap_or(true) && one == other),
            }
        }
        counts.labelled += u64::from(labels.is_some());
        counts.agreeing += u64::from(labels == Some(true));
    }
    Some(())
}

/// The outputs by name.
fn outputs(predictions: &Predictions) -> BTreeMap<&str, OutputColumn<'_>> {
    let columns = predictions.outputs.iter().flat_map(|columns| {
        let names = columns.names.iter().enumerate();
        names.map(move |(index, name)| (name.as_str(), OutputColumn { columns, index }))
    });
    columns.collect()
}

/// One of the columns of a datatype.
struct OutputColumn<'a> {
    columns: &'a Columns,
    index: usize,
}

#[derive(PartialEq)]
enum Value<'a> {
    Number(f64),
    Integer(i64),
    Boolean(bool),
    Text(&'a str),
}

impl<'a> OutputColumn<'a> {
    fn at(&self, row: usize) -> Option<Value<'a>> {
        let at = row * self.columns.names.len() + self.index;
        Some(match &self.columns.values {
            ColumnValues::Fp32(values) => Value::Number(f64::from(*values.get(at)?)),
            ColumnValues::Fp64(values) => Value::Number(*values.get(at)?),
            ColumnValues::Int64(values) => Value::Integer(*values.get(at)?),
            ColumnValues::Boolean(values) => Value::Boolean(*values.get(at)?),
            ColumnValues::Text(values) => Value::Text(values.get(at)?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Predictions of a label and two numbers for each row.
    fn predictions(rows: &[(&str, [f64; 2])]) -> Predictions {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let labels = rows.iter().map(|(label, _)| (*label).to_owned()).collect();
        let numbers = rows.iter().flat_map(|(_, numbers)| *numbers).collect();
        Predictions {
            model: "iris".into(),
            version: "1".into(),
            rows: u32::try_from(rows.len()).unwrap(),
            inputs: Vec::new(),
            outputs: vec![
                Columns { names: names(&["label"]), values: ColumnValues::Text(labels) },
                Columns { names: names(&["p[0]", "p[1]"]), values: ColumnValues::Fp64(numbers) },
            ],
            omitted: Vec::new(),
            attributes: Vec::new(),
        }
    }

    fn appended(calls: impl IntoIterator<Item = Predictions>) -> Appended {
        calls.into_iter().collect()
    }

    fn added(primary: Option<&Appended>, shadow: Option<&Appended>) -> AgreementCounts {
        let agreement = Agreement::default();
        agreement.add(primary, shadow);
        agreement.counts()
    }

    #[test]
    fn labels_agree_by_row_and_numbers_differ_by_value() {
        let one = appended([predictions(&[("a", [0.75, 0.25]), ("b", [0.5, f64::NAN])])]);
        let other = appended([predictions(&[("a", [0.5, 0.25]), ("c", [0.0, 1.0])])]);
        let counts = added(Some(&one), Some(&other));
        let expected = AgreementCounts {
            compared: 1,
            incomparable: 0,
            labelled: 2,
            agreeing: 1,
            numbers: 3,
            missing: 1,
            difference_sum: 0.75,
            difference_max: 0.5,
        };
        assert_eq!(counts, expected);
        assert_eq!((counts.rate(), counts.mean_difference()), (Some(0.5), Some(0.25)));
    }

    #[test]
    fn counts_add_up_and_the_largest_difference_stays() {
        let agreement = Agreement::default();
        let one = appended([predictions(&[("a", [1.0, f64::INFINITY])])]);
        for (number, label) in [(3.0, "a"), (1.5, "b"), (1.0, "a")] {
            let other = appended([predictions(&[(label, [number, f64::INFINITY])])]);
            agreement.add(Some(&one), Some(&other));
        }
        let counts = agreement.counts();
        assert_eq!((counts.compared, counts.labelled, counts.agreeing), (3, 3, 2));
        assert_eq!((counts.numbers, counts.difference_max), (6, 2.0));
        assert_eq!(counts.mean_difference(), Some(2.5 / 6.0));
    }

    #[test]
    fn order_and_width_of_outputs_do_not_matter() {
        let one = predictions(&[("a", [0.5, 0.25])]);
        let mut other = one.clone();
        other.outputs.reverse();
        other.outputs[0].names = other.outputs[0].names.iter().rev().cloned().collect();
        other.outputs[0].values = ColumnValues::Fp32(vec![0.25, 0.5]);
        let counts = added(Some(&appended([one])), Some(&appended([other])));
        assert_eq!((counts.rate(), counts.difference_max), (Some(1.0), 0.0));
    }

    #[test]
    fn other_rows_or_outputs_are_incomparable() {
        let row = ("a", [0.5, 0.5]);
        let one = appended([predictions(&[row])]);
        let mut renamed = predictions(&[row]);
        renamed.outputs[0].names = vec!["class".to_owned()].into();
        let mut truncated = predictions(&[row]);
        truncated.outputs[1].values = ColumnValues::Fp64(vec![0.5]);
        for other in [
            Some(appended([predictions(&[row, row])])),
            Some(appended([predictions(&[row]), predictions(&[row])])),
            Some(appended([renamed])),
            Some(appended([truncated])),
            Some(appended([])),
            None,
        ] {
            let counts = added(Some(&one), other.as_ref());
            let expected = AgreementCounts { incomparable: 1, ..AgreementCounts::default() };
            assert_eq!(counts, expected, "{other:?}");
            assert_eq!((counts.rate(), counts.mean_difference()), (None, None));
        }
    }

    #[test]
    fn labels_of_other_types_disagree() {
        let one = predictions(&[("1", [0.5, 0.5])]);
        let mut other = one.clone();
        other.outputs[0].values = ColumnValues::Int64(vec![1]);
        let counts = added(Some(&appended([one])), Some(&appended([other])));
        assert_eq!(counts.rate(), Some(0.0));
    }
}
