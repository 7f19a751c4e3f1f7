//! Which columns a table has. Inputs and outputs are columns of their own where all records are of
//! one model version; otherwise they are JSON text, as each model has others.

use anyhow::Result;
use indexmap::IndexMap;

use super::super::reader::{Filter, Snapshot};
use super::super::scalar::{Members, Scalar};
use super::{AFTER, BEFORE, Progress, REPORT};

/// Columns of inputs, and of outputs. With more they are JSON text.
const MAX_COLUMNS: usize = 2_000;

#[derive(Debug)]
pub(super) struct Layout {
    pub(super) inputs: Fields,
    pub(super) outputs: Fields,
}

/// How inputs, or outputs, are written.
#[derive(Debug)]
pub(super) enum Fields {
    /// In one column of this name.
    Json(&'static str),
    /// In these, by the name in the record.
    Columns(IndexMap<String, Column>),
}

#[derive(Debug)]
pub(super) struct Column {
    /// `input.<name>` or `output.<name>`.
    pub(super) name: String,
    pub(super) kind: Kind,
}

/// What all values of a column are. Without any, it is text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Missing,
    Boolean,
    Integer,
    Number,
    Text,
}

impl Kind {
    fn of(value: &Scalar<'_>) -> Self {
        match value {
            Scalar::Null | Scalar::Nested => Self::Missing,
            Scalar::Boolean(_) => Self::Boolean,
            Scalar::Integer(_) => Self::Integer,
            Scalar::Number(_) => Self::Number,
            Scalar::Text(_) => Self::Text,
        }
    }

    /// What holds values of both kinds.
    fn join(self, other: Self) -> Self {
        match (self, other) {
            (one, other) if one == other => one,
            (Self::Missing, one) | (one, Self::Missing) => one,
            (Self::Integer, Self::Number) | (Self::Number, Self::Integer) => Self::Number,
            _ => Self::Text,
        }
    }
}

impl Layout {
    /// That of the records that fit: they are looked at once before they are written.
    pub(super) fn find(
        snapshot: &Snapshot<'_>,
        filter: &Filter,
        report: &mut dyn FnMut(Progress),
    ) -> Result<Self> {
        let mut layout = Self { inputs: Fields::Json("inputs"), outputs: Fields::Json("outputs") };
        if snapshot.models(filter)?.len() != 1 {
            return Ok(layout);
        }
        let (mut inputs, mut outputs) = (Found::default(), Found::default());
        let mut count = 0;
        snapshot.each(filter, |record| {
            inputs.look(&record.inputs);
            outputs.look(&record.outputs);
            count += 1;
            if count % REPORT == 0 {
                report(Progress::Looked(count));
            }
            anyhow::Ok(())
        })?;
        inputs.settle("input", &mut layout.inputs);
        outputs.settle("output", &mut layout.outputs);
        Ok(layout)
    }

    /// The names of all columns, in their order.
    pub(super) fn names(&self) -> Vec<&str> {
        let mut names = BEFORE.to_vec();
        for fields in [&self.inputs, &self.outputs] {
            match fields {
                Fields::Json(name) => names.push(name),
                Fields::Columns(columns) => {
                    names.extend(columns.values().map(|column| column.name.as_str()));
                }
            }
        }
        names.extend(AFTER);
        names
    }
}

impl Fields {
    /// Gives `take` the values of a record in the order of the columns.
    pub(super) fn cells(&self, json: &str, take: impl FnOnce(&[Option<Scalar<'_>>])) {
        let Self::Columns(columns) = self else { return take(&[]) };
        let mut cells: Vec<Option<Scalar<'_>>> = vec![None; columns.len()];
        let members = Members::of(json).0;
        for (position, (name, value)) in members.into_iter().enumerate() {
            // Mostly all records have the same columns.
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
struct Found {
    kinds: IndexMap<String, Kind>,
    too_many: bool,
}

impl Found {
    fn look(&mut self, json: &str) {
        if self.too_many {
            return;
        }
        for (position, (name, value)) in Members::of(json).0.iter().enumerate() {
            let same = self.kinds.get_index(position).is_some_and(|(known, _)| known == name);
            let index = if same { Some(position) } else { self.kinds.get_index_of(&**name) };
            match index {
                Some(index) => self.kinds[index] = self.kinds[index].join(Kind::of(value)),
                None if self.kinds.len() < MAX_COLUMNS => {
                    self.kinds.insert(name.clone().into_owned(), Kind::of(value));
                }
                None => self.too_many = true,
            }
        }
    }

    fn settle(self, prefix: &str, fields: &mut Fields) {
        if !self.too_many {
            let column = |(name, kind): (String, Kind)| {
                let column = Column { name: format!("{prefix}.{name}"), kind };
                (name, column)
            };
            *fields = Fields::Columns(self.kinds.into_iter().map(column).collect());
        }
    }
}
