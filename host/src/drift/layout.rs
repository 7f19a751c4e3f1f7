//! Maps the columns of records to the fields of a baseline. Names are looked up once for each order
//! of columns. After that, a record costs a binary search among the edges for each value.

use std::ops::Range;

use super::baseline::{
    Baseline, BaselineField, Bins, CalibratedClasses, Categories, ReferenceMoments, Role,
};
use super::window::{SubWindow, WindowSize};
use crate::prediction_log::names::Names;
use crate::prediction_log::record::{ColumnValues, Columns, Predictions};

/// Indices of a field's counters: its bins, followed by the counter of missing values.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct CounterRange {
    /// Index of the field in the baseline.
    pub(super) field: usize,
    pub(super) bins: Range<usize>,
    /// Of numbers with known moments.
    pub(super) moments: Option<MomentRange>,
}

/// Where the moments of a field's bins are summed: for each bin the standardized values, and their
/// squares.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct MomentRange {
    first: usize,
    /// Of the reference.
    mean: f64,
    /// Reciprocal of the standard deviation of the reference.
    scale: f64,
}

/// Where the expected confusion matrix is summed: a row of actual classes for each predicted one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ConfusionRange {
    /// Counter of the rows.
    pub(super) rows: usize,
    pub(super) first: usize,
    pub(super) classes: usize,
}

/// The counters of a baseline.
#[derive(Debug)]
pub(super) struct Slots {
    /// Of each field, in their order.
    pub(super) fields: Vec<CounterRange>,
    pub(super) confusion: Option<ConfusionRange>,
    /// Counter of the records.
    pub(super) records: usize,
    pub(super) size: WindowSize,
}

impl CounterRange {
    pub(super) fn missing(&self) -> usize {
        self.bins.end
    }
}

impl MomentRange {
    fn add(&self, bin: usize, value: f64, sums: &mut [f64]) {
        let standardized = (value - self.mean) * self.scale;
        let at = self.first + 2 * bin;
        sums[at] += standardized;
        sums[at + 1] += standardized * standardized;
    }

    /// The sums of each bin.
    pub(super) fn of<'a>(
        &self,
        bins: usize,
        sums: &'a [f64],
    ) -> impl Iterator<Item = [f64; 2]> + 'a {
        let sums = sums.get(self.first..).unwrap_or_default().chunks_exact(2).take(bins);
        sums.map(|sums| [sums[0], sums[1]])
    }
}

impl Slots {
    pub(super) fn new(baseline: &Baseline) -> Self {
        let mut size = WindowSize { counts: 0, sums: 0 };
        let fields = baseline.fields.iter().enumerate().map(|(index, field)| {
            let bins = size.counts..size.counts + field.counts.len();
            size.counts = bins.end + 1;
            let moments = field.moments.as_ref().map(|ReferenceMoments { mean, std, .. }| {
                let first = size.sums;
                size.sums += 2 * bins.len();
                MomentRange { first, mean: *mean, scale: std.recip() }
            });
            CounterRange { field: index, bins, moments }
        });
        let fields = fields.collect();
        let confusion = baseline.calibration.as_ref().map(|calibrated| {
            let classes = calibrated.probabilities.len();
            let range = ConfusionRange { rows: size.counts, first: size.sums, classes };
            size.counts += 1;
            size.sums += classes * classes;
            range
        });
        let records = size.counts;
        size.counts += 1;
        Self { fields, confusion, records, size }
    }
}

/// The columns of records with the same names in the same order.
#[derive(Debug)]
pub(super) struct CounterLayout {
    inputs: Vec<ColumnGroup>,
    outputs: Vec<ColumnGroup>,
    /// If the records have the class and all of its probabilities.
    calibrated: Option<CalibratedColumns>,
}

/// The columns that expected accuracy is computed from.
#[derive(Debug)]
struct CalibratedColumns {
    /// Group and column of the predicted class.
    class: (usize, usize),
    /// Group and column of the probability of each class.
    probabilities: Vec<(usize, usize)>,
    /// The probabilities of one row.
    row: Vec<f64>,
}

/// Columns of one datatype.
#[derive(Debug)]
struct ColumnGroup {
    names: Names,
    /// Pairs of column and field.
    fields: Vec<(usize, usize)>,
}

impl CounterLayout {
    pub(super) fn new(baseline: &Baseline, predictions: &Predictions) -> Self {
        let Predictions { inputs, outputs, .. } = predictions;
        let find = |role, groups| find(baseline, role, groups);
        let calibrated = baseline.calibration.as_ref().and_then(|calibrated| {
            let class = &baseline.fields[calibrated.class];
            let names = calibrated.probabilities.iter();
            let probabilities: Vec<_> =
                names.map(|name| position(outputs, name)).collect::<Option<_>>()?;
            let class =
                position(outputs, &class.name).or_else(|| position(outputs, class.alias?))?;
            Some(CalibratedColumns { class, row: vec![0.0; probabilities.len()], probabilities })
        });
        let (inputs, outputs) = (find(Role::Feature, inputs), find(Role::Output, outputs));
        Self { inputs, outputs, calibrated }
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
        &mut self,
        baseline: &Baseline,
        slots: &Slots,
        predictions: &Predictions,
        rows: &Range<usize>,
        part: &mut SubWindow,
    ) {
        part.counts[slots.records] += u32::try_from(rows.len()).unwrap_or(u32::MAX);
        let inputs = self.inputs.iter().zip(&predictions.inputs);
        for (group, columns) in inputs.chain(self.outputs.iter().zip(&predictions.outputs)) {
            for &(column, field) in &group.fields {
                let width = group.names.len();
                let column = ColumnSlice { values: &columns.values, column, width, rows };
                column.count(&baseline.fields[field].bins, &slots.fields[field], part);
            }
        }
        let calibrated = baseline.calibration.as_ref().zip(self.calibrated.as_mut());
        if let (Some((calibration, columns)), Some(confusion)) = (calibrated, &slots.confusion) {
            columns.count(baseline, calibration, confusion, &predictions.outputs, rows, part);
        }
    }
}

impl CalibratedColumns {
    /// Adds the calibrated probabilities of each row to those of its predicted class.
    fn count(
        &mut self,
        baseline: &Baseline,
        calibrated: &CalibratedClasses,
        confusion: &ConfusionRange,
        outputs: &[Columns],
        rows: &Range<usize>,
        part: &mut SubWindow,
    ) {
        let Bins::Category(categories) = &baseline.fields[calibrated.class].bins else { return };
        let at = |(group, column): (usize, usize), row: usize| {
            let columns = outputs.get(group)?;
            Some((&columns.values, row * columns.names.len() + column))
        };
        for row in rows.clone() {
            let Some((values, index)) = at(self.class, row) else { return };
            let Some(class) = category(values, index, categories) else { continue };
            for (probability, &column) in self.row.iter_mut().zip(&self.probabilities) {
                let value = at(column, row).and_then(|(values, index)| number(values, index));
                *probability = value.unwrap_or(f64::NAN);
            }
            if class < confusion.classes && calibrated.calibration.calibrate(&mut self.row) {
                part.counts[confusion.rows] += 1;
                let first = confusion.first + class * confusion.classes;
                let cells = part.sums[first..].iter_mut();
                cells.zip(&self.row).for_each(|(cell, probability)| *cell += probability);
            }
        }
    }
}

/// The bin of the value at `index`; `None` if it is missing.
fn category(values: &ColumnValues, index: usize, categories: &Categories) -> Option<usize> {
    match values {
        ColumnValues::Int64(values) => values.get(index).map(|&x| categories.of_number(x)),
        ColumnValues::Text(values) => values.get(index).map(|x| categories.of_text(x)),
        ColumnValues::Boolean(values) => {
            values.get(index).map(|&x| categories.of_number(i64::from(x)))
        }
        ColumnValues::Fp32(_) | ColumnValues::Fp64(_) => {
            let value = number(values, index).filter(|value| !value.is_nan())?;
            Some(categories.of_float(value))
        }
    }
}

/// The number at `index`.
fn number(values: &ColumnValues, index: usize) -> Option<f64> {
    match values {
        ColumnValues::Fp32(values) => values.get(index).map(|&x| f64::from(x)),
        ColumnValues::Fp64(values) => values.get(index).copied(),
        ColumnValues::Int64(values) => values.get(index).map(|&x| float(x)),
        ColumnValues::Boolean(_) | ColumnValues::Text(_) => None,
    }
}

/// Group and column of the name.
fn position(groups: &[Columns], name: &str) -> Option<(usize, usize)> {
    let mut groups = groups.iter().enumerate();
    groups.find_map(|(group, columns)| {
        Some((group, columns.names.iter().position(|other| other == name)?))
    })
}

/// Finds the fields of one role among `groups` of columns: by name or, if no column has it, by
/// alias.
fn find(baseline: &Baseline, role: Role, groups: &[Columns]) -> Vec<ColumnGroup> {
    let mut found: Vec<ColumnGroup> = groups
        .iter()
        .map(|columns| ColumnGroup { names: columns.names.clone(), fields: Vec::new() })
        .collect();
    for (index, BaselineField { name, alias, .. }) in baseline.fields.iter().enumerate() {
        if baseline.fields[index].role != role {
            continue;
        }
        if let Some((group, column)) =
            position(groups, name).or_else(|| position(groups, (*alias)?))
        {
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
    fn count(&self, bins: &Bins, slot: &CounterRange, part: &mut SubWindow) {
        match bins {
            Bins::Number { edges } => self.count_numbers(edges, slot, part),
            Bins::Category(categories) => self.count_categories(categories, slot, part),
        }
    }

    fn count_numbers(&self, edges: &[f64], slot: &CounterRange, part: &mut SubWindow) {
        let bin = |x: f64| (!x.is_nan()).then(|| (edges.partition_point(|&edge| edge <= x), x));
        // An edge is written as the shortest decimal that parses to the 32-bit float.
        let single = |x: f32| {
            (!x.is_nan()).then(|| (edges.partition_point(|&edge| narrow(edge) <= x), f64::from(x)))
        };
        match self.values {
            ColumnValues::Fp32(values) => self.each(values, slot, part, |&x| single(x)),
            ColumnValues::Fp64(values) => self.each(values, slot, part, |&x| bin(x)),
            ColumnValues::Int64(values) => self.each(values, slot, part, |&x| bin(float(x))),
            ColumnValues::Boolean(values) => {
                self.each(values, slot, part, |&x| bin(f64::from(u8::from(x))));
            }
            // Most likely hashed by the operator: not the number.
            ColumnValues::Text(_) => {}
        }
    }

    /// Counts each value in its bin, or as missing if `bin` returns `None`.
    fn each<T>(
        &self,
        values: &[T],
        slot: &CounterRange,
        part: &mut SubWindow,
        bin: impl Fn(&T) -> Option<(usize, f64)>,
    ) {
        for value in self.rows(values) {
            match bin(value) {
                None => part.counts[slot.missing()] += 1,
                Some((bin, value)) => {
                    part.counts[slot.bins.start + bin] += 1;
                    if let Some(moments) = &slot.moments {
                        moments.add(bin, value, &mut part.sums);
                    }
                }
            }
        }
    }

    fn count_categories(&self, categories: &Categories, slot: &CounterRange, part: &mut SubWindow) {
        let bin = |x: f64| (!x.is_nan()).then(|| categories.of_float(x));
        let other = categories.other();
        let mut add = |bin: Option<usize>, name: &dyn Fn() -> String| {
            part.counts[bin.map_or(slot.missing(), |bin| slot.bins.start + bin)] += 1;
            if bin == Some(other) {
                part.count_unseen(slot.field, &name());
            }
        };
        match self.values {
            ColumnValues::Fp32(values) => {
                self.rows(values).for_each(|x| add(bin(f64::from(*x)), &|| x.to_string()));
            }
            ColumnValues::Fp64(values) => {
                self.rows(values).for_each(|x| add(bin(*x), &|| x.to_string()));
            }
            ColumnValues::Int64(values) => self
                .rows(values)
                .for_each(|x| add(Some(categories.of_number(*x)), &|| x.to_string())),
            ColumnValues::Boolean(values) => self
                .rows(values)
                .for_each(|x| add(Some(categories.of_number(i64::from(*x))), &|| x.to_string())),
            ColumnValues::Text(values) => {
                self.rows(values).for_each(|x| add(Some(categories.of_text(x)), &|| x.clone()));
            }
        }
    }

    /// The values of the rows.
    fn rows<'v, T>(&self, values: &'v [T]) -> impl Iterator<Item = &'v T> + use<'v, T> {
        let first = self.rows.start * self.width + self.column;
        let values = values.get(first..).unwrap_or_default();
        values.iter().step_by(self.width.max(1)).take(self.rows.len())
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
