//! Maps the columns of records to the fields of a baseline. Names are looked up once for each order
//! of columns. After that, a record costs a binary search among the edges for each value.

use std::ops::Range;

use super::baseline::{Baseline, BaselineField, Bins, Categories, Role};
use crate::prediction_log::record::{ColumnValues, Columns, Predictions};

/// Indices of a field's counters: its bins, followed by the counter of missing values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CounterRange {
    pub(super) bins: Range<usize>,
}

impl CounterRange {
    pub(super) fn missing(&self) -> usize {
        self.bins.end
    }
}

/// The counter ranges of a baseline's fields, in their order, and the total number of counters.
pub(super) fn slots(baseline: &Baseline) -> (Vec<CounterRange>, usize) {
    let mut end = 0;
    let slots = baseline.fields.iter().map(|field| {
        let bins = end..end + field.counts.len();
        end = bins.end + 1;
        CounterRange { bins }
    });
    (slots.collect(), end)
}

/// The columns of records with the same names in the same order.
#[derive(Debug)]
pub(super) struct CounterLayout {
    inputs: Vec<ColumnGroup>,
    outputs: Vec<ColumnGroup>,
}

/// Columns of one datatype.
#[derive(Debug)]
struct ColumnGroup {
    names: Vec<String>,
    /// Pairs of column and field.
    fields: Vec<(usize, usize)>,
}

impl CounterLayout {
    pub(super) fn new(baseline: &Baseline, predictions: &Predictions) -> Self {
        let Predictions { inputs, outputs, .. } = predictions;
        let find = |role, groups| find(baseline, role, groups);
        Self { inputs: find(Role::Feature, inputs), outputs: find(Role::Output, outputs) }
    }

    pub(super) fn fits(&self, predictions: &Predictions) -> bool {
        let same = |groups: &[ColumnGroup], columns: &[Columns]| {
            groups.len() == columns.len()
                && groups.iter().zip(columns).all(|(group, columns)| group.names == columns.names)
        };
        same(&self.inputs, &predictions.inputs) && same(&self.outputs, &predictions.outputs)
    }

    /// Counts the `rows` of predictions that this layout fits.
    pub(super) fn count(
        &self,
        baseline: &Baseline,
        slots: &[CounterRange],
        predictions: &Predictions,
        rows: &Range<usize>,
        counters: &mut [u32],
    ) {
        let inputs = self.inputs.iter().zip(&predictions.inputs);
        for (group, columns) in inputs.chain(self.outputs.iter().zip(&predictions.outputs)) {
            for &(column, field) in &group.fields {
                let width = group.names.len();
                let column = ColumnSlice { values: &columns.values, column, width, rows };
                column.count(&baseline.fields[field].bins, &slots[field], counters);
            }
        }
    }
}

/// Finds the fields of one role among `groups` of columns: by name or, if no column has it, by
/// alias.
fn find(baseline: &Baseline, role: Role, groups: &[Columns]) -> Vec<ColumnGroup> {
    let mut found: Vec<ColumnGroup> = groups
        .iter()
        .map(|columns| ColumnGroup { names: columns.names.clone(), fields: Vec::new() })
        .collect();
    let at = |name: &str| {
        let mut groups = groups.iter().enumerate();
        groups.find_map(|(group, columns)| {
            Some((group, columns.names.iter().position(|other| other == name)?))
        })
    };
    for (index, BaselineField { name, alias, .. }) in baseline.fields.iter().enumerate() {
        if baseline.fields[index].role != role {
            continue;
        }
        if let Some((group, column)) = at(name).or_else(|| at((*alias)?)) {
            found[group].fields.push((column, index));
        }
    }
    found
}

/// The values of some rows of one column.
struct ColumnSlice<'a> {
    values: &'a ColumnValues,
    column: usize,
    width: usize,
    rows: &'a Range<usize>,
}

impl ColumnSlice<'_> {
    fn count(&self, bins: &Bins, slot: &CounterRange, counters: &mut [u32]) {
        match bins {
            Bins::Number { edges } => self.count_numbers(edges, slot, counters),
            Bins::Category(categories) => self.count_categories(categories, slot, counters),
        }
    }

    fn count_numbers(&self, edges: &[f64], slot: &CounterRange, counters: &mut [u32]) {
        let bin = |x: f64| (!x.is_nan()).then(|| edges.partition_point(|&edge| edge <= x));
        // An edge is written as the shortest decimal that parses to the 32-bit float.
        let single =
            |x: f32| (!x.is_nan()).then(|| edges.partition_point(|&edge| narrow(edge) <= x));
        match self.values {
            ColumnValues::Fp32(values) => self.each(values, slot, counters, |&x| single(x)),
            ColumnValues::Fp64(values) => self.each(values, slot, counters, |&x| bin(x)),
            ColumnValues::Int64(values) => self.each(values, slot, counters, |&x| bin(float(x))),
            ColumnValues::Boolean(values) => {
                self.each(values, slot, counters, |&x| bin(f64::from(u8::from(x))));
            }
            // Most likely hashed by the operator: not the number.
            ColumnValues::Text(_) => {}
        }
    }

    fn count_categories(&self, categories: &Categories, slot: &CounterRange, counters: &mut [u32]) {
        let bin = |x: f64| (!x.is_nan()).then(|| categories.of_float(x));
        match self.values {
            ColumnValues::Fp32(values) => self.each(values, slot, counters, |&x| bin(f64::from(x))),
            ColumnValues::Fp64(values) => self.each(values, slot, counters, |&x| bin(x)),
            ColumnValues::Int64(values) => {
                self.each(values, slot, counters, |&x| Some(categories.of_number(x)));
            }
            ColumnValues::Boolean(values) => {
                self.each(values, slot, counters, |&x| Some(categories.of_number(i64::from(x))));
            }
            ColumnValues::Text(values) => {
                self.each(values, slot, counters, |x| Some(categories.of_text(x)));
            }
        }
    }

    /// Counts each value in its bin, or as missing if `bin` returns `None`.
    fn each<T>(
        &self,
        values: &[T],
        slot: &CounterRange,
        counters: &mut [u32],
        bin: impl Fn(&T) -> Option<usize>,
    ) {
        let first = self.rows.start * self.width + self.column;
        let values = values.get(first..).unwrap_or_default();
        for value in values.iter().step_by(self.width.max(1)).take(self.rows.len()) {
            counters[bin(value).map_or(slot.missing(), |bin| slot.bins.start + bin)] += 1;
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "to the nearest 32-bit float")]
fn narrow(edge: f64) -> f32 {
    edge as f32
}

#[expect(clippy::cast_precision_loss, reason = "bins are wider than the error")]
fn float(value: i64) -> f64 {
    value as f64
}
