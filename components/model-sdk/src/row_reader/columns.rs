//! Maps the columns of a table, or the keys of an object, to features.

use std::borrow::Cow;
use std::fmt;

use super::{Columns, RowReader};
use crate::error::Error;

impl RowReader<'_> {
    /// Finds the feature of each column in `names`. If the model's features have no names, by position.
    pub(crate) fn columns_in_order(
        &self,
        what: &dyn fmt::Display,
        names: &[Cow<'_, str>],
    ) -> Result<Columns, Error> {
        if self.signature.fields().is_empty() {
            return Ok((0..names.len()).map(Some).collect());
        }
        self.columns(what, names)
    }

    /// Finds the feature of each column in `names`, by name.
    ///
    /// # Errors
    /// If features are missing or duplicate, or columns are unknown.
    #[inline(never)]
    pub(crate) fn columns(
        &self,
        what: &dyn fmt::Display,
        names: &[Cow<'_, str>],
    ) -> Result<Columns, Error> {
        let fields = self.signature.fields();
        if fields.is_empty() {
            return Err(Error::invalid(format!(
                "{what}: expected an array: model.toml has no feature names (`fields`)"
            )));
        }
        let expected = || fields.join(", ");
        let mut found = vec![false; fields.len()];
        let mut unknown = Vec::new();
        let mut columns = Columns::with_capacity(names.len());
        for name in names {
            let column = self.signature.column(name);
            match column.and_then(|column| found.get_mut(column)) {
                Some(true) => {
                    let expected = expected();
                    return Err(Error::invalid(format!(
                        "{what}: duplicate column {name:?}; expected {expected}"
                    )));
                }
                Some(found) => *found = true,
                None => unknown.push(&**name),
            }
            columns.push(column);
        }
        let missing = fields.iter().zip(&found).filter(|(_, found)| !**found);
        let missing: Vec<_> = missing.map(|(field, _)| *field).collect();
        if missing.is_empty() && (self.ignores_unknown || unknown.is_empty()) {
            return Ok(columns);
        }
        let listed = |names: &[&str]| {
            let names: Vec<_> = names.iter().map(|name| format!("{name:?}")).collect();
            names.join(", ")
        };
        let mut problems = Vec::new();
        match &*missing {
            [] => {}
            [name] => problems.push(format!("{name:?} is missing")),
            [name, rest @ ..] => {
                problems.push(format!("{name:?} is missing, as are {}", listed(rest)));
            }
        }
        match &*unknown {
            [] => {}
            [name] => problems.push(format!("{name:?} is not a column of this model")),
            names => problems.push(format!("{} are not columns of this model", listed(names))),
        }
        let problems = problems.join("; ");
        Err(Error::invalid(format!("{what}: {problems}; expected {}", expected())))
    }
}
