//! Columns of a record against fields of a baseline. Names are looked up once for each order of
//! columns; after that a record is a search among the edges for each value.

use std::ops::Range;

use super::baseline::{Baseline, Bins, Categories, Field, Role};
use crate::prediction_log::record::{Columns, Predictions, Values};

/// Where a field's counters are: its bins, then how many were missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    pub(super) bins: Range<usize>,
}

impl Slot {
    pub(super) fn missing(&self) -> usize {
        self.bins.end
    }
}

/// The slots of a baseline's fields, in their order, and how many counters they take.
pub(super) fn slots(baseline: &Baseline) -> (Vec<Slot>, usize) {
    let mut end = 0;
    let slots = baseline.fields.iter().map(|field| {
        let bins = end..end + field.counts.len();
        end = bins.end + 1;
        Slot { bins }
    });
    (slots.collect(), end)
}

/// The columns of records that look the same.
#[derive(Debug)]
pub(super) struct Layout {
    inputs: Vec<Group>,
    outputs: Vec<Group>,
}

/// Columns of one datatype.
#[derive(Debug)]
struct Group {
    names: Vec<String>,
    /// Which column is which field.
    fields: Vec<(usize, usize)>,
}

impl Layout {
    pub(super) fn new(baseline: &Baseline, predictions: &Predictions) -> Self {
        let Predictions { inputs, outputs, .. } = predictions;
        let find = |role, groups| find(baseline, role, groups);
        Self { inputs: find(Role::Feature, inputs), outputs: find(Role::Output, outputs) }
    }

    pub(super) fn fits(&self, predictions: &Predictions) -> bool {
        let same = |groups: &[Group], columns: &[Columns]| {
            groups.len() == columns.len()
                && groups.iter().zip(columns).all(|(group, columns)| group.names == columns.names)
        };
        same(&self.inputs, &predictions.inputs) && same(&self.outputs, &predictions.outputs)
    }

    /// Counts the `rows` of what it fits.
    pub(super) fn count(
        &self,
        baseline: &Baseline,
        slots: &[Slot],
        predictions: &Predictions,
        rows: &Range<usize>,
        counters: &mut [u32],
    ) {
        let inputs = self.inputs.iter().zip(&predictions.inputs);
        for (group, columns) in inputs.chain(self.outputs.iter().zip(&predictions.outputs)) {
            for &(column, field) in &group.fields {
                let width = group.names.len();
                let column = Column { values: &columns.values, column, width, rows };
                column.count(&baseline.fields[field].bins, &slots[field], counters);
            }
        }
    }
}

/// The fields of one role among `groups` of columns: by name, or if no column has that, by alias.
fn find(baseline: &Baseline, role: Role, groups: &[Columns]) -> Vec<Group> {
    let mut found: Vec<Group> = groups
        .iter()
        .map(|columns| Group { names: columns.names.clone(), fields: Vec::new() })
        .collect();
    let at = |name: &str| {
        let mut groups = groups.iter().enumerate();
        groups.find_map(|(group, columns)| {
            Some((group, columns.names.iter().position(|other| other == name)?))
        })
    };
    for (index, Field { name, alias, .. }) in baseline.fields.iter().enumerate() {
        if baseline.fields[index].role != role {
            continue;
        }
        if let Some((group, column)) = at(name).or_else(|| at((*alias)?)) {
            found[group].fields.push((column, index));
        }
    }
    found
}

/// One column's values of some rows.
struct Column<'a> {
    values: &'a Values,
    column: usize,
    width: usize,
    rows: &'a Range<usize>,
}

impl Column<'_> {
    fn count(&self, bins: &Bins, slot: &Slot, counters: &mut [u32]) {
        match bins {
            Bins::Number { edges } => self.count_numbers(edges, slot, counters),
            Bins::Category(categories) => self.count_categories(categories, slot, counters),
        }
    }

    fn count_numbers(&self, edges: &[f64], slot: &Slot, counters: &mut [u32]) {
        let bin = |x: f64| (!x.is_nan()).then(|| edges.partition_point(|&edge| edge <= x));
        // An edge is written as the shortest decimal that reads back as a float of 32 bits.
        let single =
            |x: f32| (!x.is_nan()).then(|| edges.partition_point(|&edge| narrow(edge) <= x));
        match self.values {
            Values::Fp32(values) => self.each(values, slot, counters, |&x| single(x)),
            Values::Fp64(values) => self.each(values, slot, counters, |&x| bin(x)),
            Values::Int64(values) => self.each(values, slot, counters, |&x| bin(float(x))),
            Values::Boolean(values) => {
                self.each(values, slot, counters, |&x| bin(f64::from(u8::from(x))));
            }
            // What the operator has hashed, most likely: it is not the number.
            Values::Text(_) => {}
        }
    }

    fn count_categories(&self, categories: &Categories, slot: &Slot, counters: &mut [u32]) {
        let bin = |x: f64| (!x.is_nan()).then(|| categories.of_float(x));
        match self.values {
            Values::Fp32(values) => self.each(values, slot, counters, |&x| bin(f64::from(x))),
            Values::Fp64(values) => self.each(values, slot, counters, |&x| bin(x)),
            Values::Int64(values) => {
                self.each(values, slot, counters, |&x| Some(categories.of_number(x)));
            }
            Values::Boolean(values) => {
                self.each(values, slot, counters, |&x| Some(categories.of_number(i64::from(x))));
            }
            Values::Text(values) => {
                self.each(values, slot, counters, |x| Some(categories.of_text(x)));
            }
        }
    }

    /// Counts each value in its bin; `None`: it is missing.
    fn each<T>(
        &self,
        values: &[T],
        slot: &Slot,
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

#[expect(clippy::cast_possible_truncation, reason = "to the nearest float of 32 bits")]
fn narrow(edge: f64) -> f32 {
    edge as f32
}

#[expect(clippy::cast_precision_loss, reason = "bins are wider than that")]
fn float(value: i64) -> f64 {
    value as f64
}
