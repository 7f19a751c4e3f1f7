//! One statement of a guest: executed as a whole, with exact values and a bounded result.

use rusqlite::fallible_iterator::FallibleIterator;
use rusqlite::types::{Value, ValueRef};
use rusqlite::{Batch, Connection, Error, ErrorCode, Row, Statement, params_from_iter};

use super::{MAX_RESULT, SqliteError};
use crate::process::memory_budget::{Charge, MemoryBudget};

/// Overhead of a row or of a value, in bytes.
const OVERHEAD: usize = 32;
/// Maximum length of a message of SQLite, in characters: it may repeat names of the statement.
const MAX_MESSAGE: usize = 500;

/// All rows of a statement.
#[derive(Debug)]
pub struct QueryResult {
    pub columns: Vec<String>,
    /// A value for each column.
    pub rows: Vec<Vec<Value>>,
    size: Size,
}

impl QueryResult {
    /// The columns, the rows, and the charge for their memory.
    #[must_use]
    pub fn into_parts(self) -> (Vec<String>, Vec<Vec<Value>>, Charge) {
        (self.columns, self.rows, self.size.charge)
    }
}

/// The size of a result.
#[derive(Debug)]
struct Size {
    bytes: usize,
    charge: Charge,
}

impl Size {
    fn add(&mut self, bytes: usize) -> Result<(), SqliteError> {
        self.bytes += OVERHEAD + bytes;
        if self.bytes > MAX_RESULT {
            return Err(SqliteError::Failed(format!(
                "the result exceeds {MAX_RESULT} bytes (each row and value counts {OVERHEAD} bytes \
                 more): select fewer columns, or pages of rows with LIMIT"
            )));
        }
        self.charge.grow(OVERHEAD + bytes).map_err(|error| SqliteError::Failed(error.to_string()))
    }
}

/// Executes the one statement in `sql`. The memory of the result is charged to `memory`.
///
/// # Errors
/// The statement fails, is not exactly one, or a value is not exact; nothing is returned then. Outside
/// of a transaction, a statement with RETURNING changes nothing then.
pub(super) fn execute(
    connection: &Connection,
    sql: &str,
    parameters: &[Value],
    memory: &MemoryBudget,
) -> Result<QueryResult, SqliteError> {
    if sql.contains('\0') {
        return Err(SqliteError::failed("the statement contains a NUL character"));
    }
    let is_nan = |value: &Value| matches!(value, Value::Real(real) if real.is_nan());
    if let Some(index) = parameters.iter().position(is_nan) {
        return Err(SqliteError::Failed(format!(
            "parameter {} is not a number, which SQLite cannot store; pass null",
            index + 1
        )));
    }
    let mut statements = Batch::new(connection, sql);
    let Some(mut statement) = statements.next()? else {
        return Err(SqliteError::failed("the statement is empty"));
    };
    // The next statement may also be one that does not compile before this one is executed.
    if !matches!(statements.next(), Ok(None)) {
        return Err(SqliteError::failed("execute one statement at a time: this text has several"));
    }
    let mut size = Size { bytes: 0, charge: memory.empty_charge() };
    let mut columns = names(&statement, &mut size)?;
    let mut rows = Vec::new();
    // A statement with RETURNING has made all changes before its first row, and a row may be an error.
    let returning = statement.column_count() > 0 && !statement.readonly();
    let own = returning && connection.is_autocommit();
    // Rolled back on an error, after `found` is dropped.
    let transaction = own.then(|| connection.unchecked_transaction()).transpose()?;
    let mut found = statement.query(params_from_iter(parameters))?;
    while let Some(row) = found.next()? {
        if row.as_ref().column_count() != columns.len() {
            // Another connection has changed the schema after the statement was compiled.
            columns = names(row.as_ref(), &mut size)?;
        }
        rows.push(values(row, &columns, &mut size)?);
    }
    drop(found);
    if let Some(transaction) = transaction {
        transaction.commit()?;
    }
    Ok(QueryResult { columns, rows, size })
}

fn names(statement: &Statement<'_>, size: &mut Size) -> Result<Vec<String>, SqliteError> {
    let name = |index| {
        let name = statement.column_name(index)?;
        size.add(name.len())?;
        Ok(name.to_owned())
    };
    (0..statement.column_count()).map(name).collect()
}

fn values(row: &Row<'_>, columns: &[String], size: &mut Size) -> Result<Vec<Value>, SqliteError> {
    size.add(0)?;
    let value = |(index, column): (usize, &String)| {
        let value = row.get_ref(index)?;
        size.add(match value {
            ValueRef::Text(bytes) | ValueRef::Blob(bytes) => bytes.len(),
            ValueRef::Null | ValueRef::Integer(_) | ValueRef::Real(_) => 0,
        })?;
        Value::try_from(value).map_err(|_| {
            SqliteError::Failed(format!(
                "column {}, \"{column}\": the text is not UTF-8; select CAST(... AS BLOB)",
                index + 1
            ))
        })
    };
    columns.iter().enumerate().map(value).collect()
}

impl From<Error> for SqliteError {
    fn from(error: Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::Full,
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::failed(
                "the database is locked: another connection has not finished its write",
            ),
            Some(ErrorCode::OutOfMemory) => {
                Self::failed("the statement needs more memory than SQLite has in this host")
            }
            _ => {
                let message = match error {
                    // Its text repeats the statement.
                    Error::SqlInputError { msg, offset, .. } => match offset {
                        0.. => format!("{msg} (at byte {offset} of the statement)"),
                        _ => msg,
                    },
                    error => error.to_string(),
                };
                Self::Failed(message.chars().take(MAX_MESSAGE).collect())
            }
        }
    }
}
