//! The columns of a table. Inputs and outputs are separate columns if all records are of one model
//! version; otherwise they are JSON text, as they differ between models.

use anyhow::Result;
use indexmap::IndexMap;

use super::super::reader::{Filter, LogSnapshot};
use super::super::scalar::{Members, Scalar};
use super::{AFTER, BEFORE, ExportProgress, REPORT};

/// Maximum number of columns of the inputs, and of the outputs. With more they are JSON text.
const MAX_COLUMNS: usize = 2_000;

#[derive(Debug)]
pub(super) struct ExportLayout {
    /// Columns of every record, before and after the inputs and outputs.
    pub(super) before: Vec<&'static str>,
    pub(super) inputs: FieldLayout,
    pub(super) outputs: FieldLayout,
    pub(super) after: Vec<&'static str>,
}

/// How inputs, or outputs, are written.
#[derive(Debug)]
pub(super) enum FieldLayout {
    /// As JSON text, in one column of this name.
    Json(&'static str),
    /// In separate columns, by the name in the record.
    Columns(IndexMap<String, ExportColumn>),
}

/// The columns of a member of records, or of their feedback.
#[derive(Debug)]
pub(super) enum MemberColumns<'a> {
    /// None: a dataset has it in a folder's name, or in another table.
    Omitted,
    One,
    /// Those of the inputs, or of the outputs.
    Fields(&'a FieldLayout),
}

#[derive(Debug)]
pub(super) struct ExportColumn {
    /// `input.<name>` or `output.<name>`.
    pub(super) name: String,
    pub(super) kind: ColumnKind,
}

/// The type of all values of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ColumnKind {
    Missing,
    Boolean,
    Integer,
    Number,
    Text,
}

impl ColumnKind {
    fn of(value: &Scalar<'_>) -> Self {
        match value {
            Scalar::Null | Scalar::Nested => Self::Missing,
            Scalar::Boolean(_) => Self::Boolean,
            Scalar::Integer(_) => Self::Integer,
            Scalar::Number(_) => Self::Number,
            Scalar::Text(_) => Self::Text,
        }
    }

    /// The type of a column with values of both types.
    fn join(self, other: Self) -> Self {
        match (self, other) {
            (one, other) if one == other => one,
            (Self::Missing, one) | (one, Self::Missing) => one,
            (Self::Integer, Self::Number) | (Self::Number, Self::Integer) => Self::Number,
            _ => Self::Text,
        }
    }
}

impl ExportLayout {
    /// Determines the layout of the matching records, which takes one pass over them.
    pub(super) fn find(
        snapshot: &LogSnapshot<'_>,
        filter: &Filter,
        report: &mut dyn FnMut(ExportProgress),
    ) -> Result<Self> {
        let mut layout = Self {
            before: BEFORE.to_vec(),
            inputs: FieldLayout::Json("inputs"),
            outputs: FieldLayout::Json("outputs"),
            after: AFTER.to_vec(),
        };
        if snapshot.models(filter)?.len() != 1 {
            return Ok(layout);
        }
        let (mut inputs, mut outputs) = (ColumnScan::default(), ColumnScan::default());
        let mut count = 0;
        snapshot.each(filter, |record| {
            inputs.scan(&record.inputs);
            outputs.scan(&record.outputs);
            count += 1;
            if count % REPORT == 0 {
                report(ExportProgress::Scanned(count));
            }
            anyhow::Ok(())
        })?;
        inputs.finish("input", &mut layout.inputs);
        outputs.finish("output", &mut layout.outputs);
        Ok(layout)
    }

    /// The layout of the matching records of one model version in a dataset. It has no columns for
    /// its partitions, nor for feedback, which is a table of its own.
    pub(super) fn of_partition(
        snapshot: &LogSnapshot<'_>,
        filter: &Filter,
        report: &mut dyn FnMut(ExportProgress),
    ) -> Result<Self> {
        let mut layout = Self::find(snapshot, filter, report)?;
        layout.before.retain(|name| !["model", "version"].contains(name));
        layout.after.retain(|name| !name.starts_with("feedback."));
        Ok(layout)
    }

    /// The columns of the member of this name.
    pub(super) fn columns_of(&self, member: &str) -> MemberColumns<'_> {
        match member {
            "inputs" => MemberColumns::Fields(&self.inputs),
            "outputs" => MemberColumns::Fields(&self.outputs),
            _ if self.before.contains(&member) || self.after.contains(&member) => {
                MemberColumns::One
            }
            _ => MemberColumns::Omitted,
        }
    }

    /// The names of all columns, in their order.
    pub(super) fn names(&self) -> Vec<&str> {
        let mut names = self.before.clone();
        for fields in [&self.inputs, &self.outputs] {
            match fields {
                FieldLayout::Json(name) => names.push(name),
                FieldLayout::Columns(columns) => {
                    names.extend(columns.values().map(|column| column.name.as_str()));
                }
            }
        }
        names.extend(&self.after);
        names
    }
}

impl FieldLayout {
    /// Calls `take` with the values of a record, in the order of the columns.
    pub(super) fn cells(&self, json: &str, take: impl FnOnce(&[Option<Scalar<'_>>])) {
        let Self::Columns(columns) = self else { return take(&[]) };
        let mut cells: Vec<Option<Scalar<'_>>> = vec![None; columns.len()];
        let members = Members::of(json).0;
        for (position, (name, value)) in members.into_iter().enumerate() {
            // Most records have their columns in the same order.
            let same = columns.get_index(position).is_some_and(|(known, _)| *known == name);
            let index = if same { Some(position) } else { columns.get_index_of(&*name) };
            if let Some(index) = index {
                cells[index] = Some(value);
            }
        }
        take(&cells);
    }
}

/// The columns found so far.
#[derive(Default)]
struct ColumnScan {
    kinds: IndexMap<String, ColumnKind>,
    too_many: bool,
}

impl ColumnScan {
    fn scan(&mut self, json: &str) {
        if self.too_many {
            return;
        }
        for (position, (name, value)) in Members::of(json).0.iter().enumerate() {
            let same = self.kinds.get_index(position).is_some_and(|(known, _)| known == name);
            let index = if same { Some(position) } else { self.kinds.get_index_of(&**name) };
            match index {
                Some(index) => self.kinds[index] = self.kinds[index].join(ColumnKind::of(value)),
                None if self.kinds.len() < MAX_COLUMNS => {
                    self.kinds.insert(name.clone().into_owned(), ColumnKind::of(value));
                }
                None => self.too_many = true,
            }
        }
    }

    fn finish(self, prefix: &str, fields: &mut FieldLayout) {
        if !self.too_many {
            let column = |(name, kind): (String, ColumnKind)| {
                let column = ExportColumn { name: format!("{prefix}.{name}"), kind };
                (name, column)
            };
            *fields = FieldLayout::Columns(self.kinds.into_iter().map(column).collect());
        }
    }
}
