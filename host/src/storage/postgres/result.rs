//! The rows of a statement, decoded as they arrive, and their memory.

use futures::TryStreamExt as _;
use tokio_postgres::{Row, RowStream};

use super::decode::{self, DecodeError, Raw};
use super::value::{Column, PostgresValue};
use super::{MAX_RESULT, PostgresError};
use crate::process::memory_budget::{Charge, MemoryBudget};

/// Overhead of a row or of a value, in bytes.
pub(super) const OVERHEAD: usize = 64;
const _: () = assert!(size_of::<PostgresValue>() <= OVERHEAD);

/// All rows of a statement.
#[derive(Debug)]
pub struct ResultSet {
    pub columns: Vec<Column>,
    /// A value for each column.
    pub rows: Vec<Vec<PostgresValue>>,
    size: ResultSize,
}

impl ResultSet {
    /// The columns, the rows, and the charge for their memory.
    #[must_use]
    pub fn into_parts(self) -> (Vec<Column>, Vec<Vec<PostgresValue>>, Charge) {
        (self.columns, self.rows, self.size.charge)
    }

    /// Reads all rows.
    pub(super) async fn read(
        columns: &[tokio_postgres::Column],
        rows: RowStream,
        memory: &MemoryBudget,
    ) -> Result<Self, PostgresError> {
        let mut size = ResultSize::new(memory);
        let column = |column: &tokio_postgres::Column| {
            size.add(OVERHEAD + column.name().len()).map_err(PostgresError::Query)?;
            Ok(Column { name: column.name().to_owned(), data_type: column.type_().into() })
        };
        let columns = columns.iter().map(column).collect::<Result<_, PostgresError>>()?;
        let mut found = std::pin::pin!(rows);
        let mut rows = Vec::new();
        while let Some(row) = found.try_next().await? {
            match values(&row, &mut size) {
                Ok(values) => rows.push(values),
                Err(error) => {
                    if error.leaves_open() {
                        // The connection is free for the next statement then.
                        while found.try_next().await?.is_some() {}
                    }
                    return Err(error);
                }
            }
        }
        Ok(Self { columns, rows, size })
    }
}

fn values(row: &Row, size: &mut ResultSize) -> Result<Vec<PostgresValue>, PostgresError> {
    size.add(OVERHEAD).map_err(PostgresError::Query)?;
    let value = |(index, column): (usize, &tokio_postgres::Column)| {
        size.add(OVERHEAD).map_err(PostgresError::Query)?;
        let Some(Raw(raw)) = row.try_get(index)? else { return Ok(PostgresValue::Null) };
        decode::value(column.type_(), raw, size).map_err(|error| match error {
            DecodeError::TooLarge(problem) => PostgresError::Query(problem),
            error => PostgresError::Value(format!(
                "column {}, \"{}\": {error}",
                index + 1,
                column.name()
            )),
        })
    };
    row.columns().iter().enumerate().map(value).collect()
}

/// The size of a result.
#[derive(Debug)]
pub(super) struct ResultSize {
    bytes: usize,
    charge: Charge,
}

impl ResultSize {
    pub(super) fn new(memory: &MemoryBudget) -> Self {
        Self { bytes: 0, charge: memory.empty_charge() }
    }

    /// Bytes counted so far.
    #[cfg(any(test, fuzzing))]
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Counts `bytes` more.
    ///
    /// # Errors
    /// The result is too large, or the memory budget is exhausted.
    pub(super) fn add(&mut self, bytes: usize) -> Result<(), String> {
        self.bytes += bytes;
        if self.bytes > MAX_RESULT {
            return Err(format!(
                "the result exceeds {MAX_RESULT} bytes (each row and value counts {OVERHEAD} bytes \
                 more): select fewer columns, or pages of rows with LIMIT"
            ));
        }
        self.charge.grow(bytes).map_err(|error| error.to_string())
    }
}
