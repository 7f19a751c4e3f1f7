//! Copies the readable rows of one table: from both ends up to the damage, and what is readable in
//! between.

use std::time::Instant;

use rusqlite::types::{ToSqlOutput, Value, ValueRef};
use rusqlite::{Connection, ErrorCode, Row, params, params_from_iter};

use super::gaps::Gaps;
use crate::prediction_log::schema::SchemaError;

/// Number of rows of a transaction.
const BATCH: u64 = 8192;

pub(super) struct TableCopy<'a> {
    from: &'a Connection,
    key: KeyKind,
    /// Selects the rows between two keys in ascending order, and in descending order.
    up: String,
    down: String,
    /// Selects the first key between two keys.
    first: String,
    /// Select all rows through an index, which may be readable where the table is not.
    through_indices: Vec<String>,
    target: Target<'a>,
    end: Instant,
    timed_out: bool,
}

/// The first column of a table's primary key, whose values can be searched by their number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum KeyKind {
    /// BLOB of 16 bytes: the id of a request.
    Id,
    Integer,
    /// Read from both ends only.
    Other,
}

/// How a scan ended before the end of its range, if it did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scanned {
    Completely,
    /// The last key before the damage; `None` if nothing was read.
    UpTo(Option<u128>),
}

impl<'a> TableCopy<'a> {
    /// A copy of the table `name`; `None` if the damaged file does not have it.
    pub(super) fn new(
        from: &'a Connection,
        to: &'a Connection,
        name: &str,
        end: Instant,
    ) -> Result<Option<Self>, SchemaError> {
        let present = columns(from, name).unwrap_or_default();
        let mut columns = columns(to, name)?;
        columns.retain(|column| present.iter().any(|other| other.name == column.name));
        if columns.is_empty() {
            return Ok(None);
        }
        let all: Vec<_> = columns.iter().map(|column| quoted(&column.name)).collect();
        let mut keys: Vec<_> = columns.iter().filter(|column| column.key > 0).collect();
        keys.sort_by_key(|column| column.key);
        let (key, kind, order) = match keys.first() {
            None => ("rowid".to_owned(), KeyKind::Integer, vec!["rowid".to_owned()]),
            Some(first) => {
                let order = keys.iter().map(|column| quoted(&column.name)).collect();
                (quoted(&first.name), KeyKind::of(&first.datatype), order)
            }
        };
        let (table, list) = (quoted(name), all.join(", "));
        let range = match kind {
            KeyKind::Id | KeyKind::Integer => format!("WHERE {key} BETWEEN ?1 AND ?2"),
            // Both parameters are unused.
            KeyKind::Other => "WHERE ?1 IS NOT NULL AND ?2 IS NOT NULL".to_owned(),
        };
        let select = |suffix: &str| {
            let order: Vec<_> = order.iter().map(|column| format!("{column}{suffix}")).collect();
            format!("SELECT {key}, {list} FROM {table} {range} ORDER BY {}", order.join(", "))
        };
        let mut statement =
            to.prepare("SELECT name FROM pragma_index_list(?1) WHERE origin = 'u'")?;
        let indices = statement.query_map([name], |row| row.get::<_, String>(0))?;
        let through = |index: String| {
            format!("SELECT {key}, {list} FROM {table} INDEXED BY {}", quoted(&index))
        };
        let values = (1..=columns.len()).map(|n| format!("?{n}")).collect::<Vec<_>>().join(", ");
        let insert = format!("INSERT OR IGNORE INTO {table} ({list}) VALUES ({values})");
        Ok(Some(Self {
            from,
            key: kind,
            up: select(""),
            down: select(" DESC"),
            first: format!("SELECT {key} FROM {table} {range} ORDER BY {key} LIMIT 1"),
            through_indices: indices.map(|name| name.map(through)).collect::<Result<_, _>>()?,
            target: Target { to, insert, copied: 0 },
            end,
            timed_out: false,
        }))
    }

    /// Whether the time did not suffice for all of the table.
    pub(super) fn timed_out(&self) -> bool {
        self.timed_out
    }

    /// Copies the rows. Returns their number.
    pub(super) fn run(&mut self) -> Result<u64, SchemaError> {
        self.target.begin()?;
        self.copy()?;
        self.target.commit()?;
        Ok(self.target.copied)
    }

    fn copy(&mut self) -> Result<(), SchemaError> {
        let (lowest, highest) = (0, self.key.highest());
        // In ascending order first, which fills the pages of the new file as those of the old.
        let Scanned::UpTo(reached) = self.scan(&self.up.clone(), lowest, highest)? else {
            return Ok(());
        };
        let first = reached.unwrap_or(lowest);
        let Scanned::UpTo(reached) = self.scan(&self.down.clone(), first, highest)? else {
            return Ok(());
        };
        for select in std::mem::take(&mut self.through_indices) {
            if let Scanned::Completely = self.scan(&select, lowest, highest)? {
                return Ok(());
            }
        }
        if self.key != KeyKind::Other {
            self.search(first, reached.unwrap_or(highest))?;
        }
        Ok(())
    }

    /// Copies what is readable between two keys that are next to damage.
    fn search(&mut self, first: u128, last: u128) -> Result<(), SchemaError> {
        let (up, down) = (self.up.clone(), self.down.clone());
        let mut gaps = Gaps::default();
        gaps.add(first, last);
        while let Some((first, middle, last)) = gaps.next() {
            if self.timed_out {
                break;
            }
            let found = self.find(middle, last);
            let (mut below, mut above) = (Some(middle), Some(middle));
            if let Ok(found) = found {
                above = None;
                if let Some(key) = found {
                    if let Scanned::UpTo(reached) = self.scan(&up, key, last)? {
                        above = Some(reached.unwrap_or(key));
                    }
                    // Rows of the key before the gap may be on both sides of the damage.
                    below = match self.scan(&down, first.saturating_sub(1), key)? {
                        Scanned::Completely => None,
                        Scanned::UpTo(reached) => Some(reached.unwrap_or(key)),
                    };
                }
            }
            if let Some(before) = below.and_then(|key| key.checked_sub(1)) {
                gaps.add(first, before);
            }
            if let Some(after) = above.and_then(|key| key.checked_add(1)) {
                gaps.add(after, last);
            }
        }
        Ok(())
    }

    /// The first readable key in a range; an error if there is damage before it.
    fn find(&self, first: u128, last: u128) -> rusqlite::Result<Option<u128>> {
        let mut statement = self.from.prepare_cached(&self.first)?;
        let mut rows = statement.query(params![self.key.value(first), self.key.value(last)])?;
        let Some(row) = rows.next()? else { return Ok(None) };
        // A key that is none is damage, too.
        self.key.number(row.get_ref(0)?).ok_or(rusqlite::Error::InvalidQuery).map(Some)
    }

    /// Copies the rows that `select` returns for a range of keys, up to the first that cannot be read.
    fn scan(&mut self, select: &str, first: u128, last: u128) -> Result<Scanned, SchemaError> {
        let mut reached = None;
        // Any error of the damaged file is damage.
        let Ok(mut statement) = self.from.prepare_cached(select) else {
            return Ok(Scanned::UpTo(reached));
        };
        let bounds = [self.key.value(first), self.key.value(last)];
        let bounds = &bounds[..statement.parameter_count().min(2)];
        let Ok(mut rows) = statement.query(params_from_iter(bounds)) else {
            return Ok(Scanned::UpTo(reached));
        };
        loop {
            match rows.next() {
                Ok(None) => return Ok(Scanned::Completely),
                Err(_) => return Ok(Scanned::UpTo(reached)),
                Ok(Some(row)) => {
                    self.target.insert(row, self.key)?;
                    reached = row.get_ref(0).ok().and_then(|key| self.key.number(key)).or(reached);
                }
            }
            if Instant::now() >= self.end {
                self.timed_out = true;
                return Ok(Scanned::Completely);
            }
        }
    }
}

/// The table of the new file.
struct Target<'a> {
    to: &'a Connection,
    insert: String,
    copied: u64,
}

impl Target<'_> {
    fn begin(&self) -> rusqlite::Result<()> {
        self.to.execute_batch("BEGIN IMMEDIATE")
    }

    fn commit(&self) -> rusqlite::Result<()> {
        self.to.execute_batch("COMMIT")
    }

    /// Inserts a row, whose first column is its key again, unless it is there already or its values
    /// are not those of its columns.
    fn insert(&mut self, row: &Row<'_>, key: KeyKind) -> Result<(), SchemaError> {
        let mut values = Vec::new();
        // The row has no further columns where `get_ref` fails.
        while let Ok(value) = row.get_ref(values.len()) {
            values.push(value);
        }
        let is_text = |value: &ValueRef<'_>| match value {
            ValueRef::Text(text) => std::str::from_utf8(text).is_ok(),
            ValueRef::Null | ValueRef::Integer(_) | ValueRef::Real(_) | ValueRef::Blob(_) => true,
        };
        let has_key =
            key == KeyKind::Other || values.first().is_some_and(|id| key.number(*id).is_some());
        if !has_key || !values.iter().all(is_text) {
            return Ok(());
        }
        let values = values[1..].iter().map(|value| ToSqlOutput::Borrowed(*value));
        let inserted = self.to.prepare_cached(&self.insert)?.execute(params_from_iter(values));
        match inserted {
            Ok(0) => {}
            Ok(_) => {
                self.copied += 1;
                if self.copied.is_multiple_of(BATCH) {
                    self.commit()?;
                    self.begin()?;
                }
            }
            Err(error) => match error.sqlite_error_code() {
                Some(ErrorCode::ConstraintViolation | ErrorCode::TypeMismatch) => {}
                _ => return Err(error.into()),
            },
        }
        Ok(())
    }
}

impl KeyKind {
    fn of(datatype: &str) -> Self {
        match datatype {
            "BLOB" => Self::Id,
            "INTEGER" => Self::Integer,
            _ => Self::Other,
        }
    }

    fn highest(self) -> u128 {
        match self {
            Self::Id => u128::MAX,
            Self::Integer | Self::Other => u128::from(u64::MAX),
        }
    }

    /// The value with a number, in the order of the values.
    fn value(self, number: u128) -> Value {
        match self {
            Self::Id => Value::Blob(number.to_be_bytes().to_vec()),
            Self::Integer | Self::Other => {
                let number = u64::try_from(number).unwrap_or(u64::MAX);
                Value::Integer((number ^ SIGN).cast_signed())
            }
        }
    }

    /// The number of a value; `None` if it is not one of this kind.
    fn number(self, value: ValueRef<'_>) -> Option<u128> {
        match (self, value) {
            (Self::Id, ValueRef::Blob(id)) => Some(u128::from_be_bytes(id.try_into().ok()?)),
            (Self::Integer, ValueRef::Integer(number)) => {
                Some(u128::from(number.cast_unsigned() ^ SIGN))
            }
            _ => None,
        }
    }
}

/// The sign of an integer, which is inverted in its number.
const SIGN: u64 = 1 << 63;

/// A column of a table.
struct Column {
    name: String,
    datatype: String,
    /// Position in the primary key, from 1; 0 if it is not part of it.
    key: i64,
}

fn columns(connection: &Connection, table: &str) -> rusqlite::Result<Vec<Column>> {
    let mut statement = connection.prepare("SELECT name, type, pk FROM pragma_table_info(?1)")?;
    let column =
        |row: &Row<'_>| Ok(Column { name: row.get(0)?, datatype: row.get(1)?, key: row.get(2)? });
    statement.query_map([table], column)?.collect()
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_keys_are_in_the_order_of_the_keys() {
        let integers = [i64::MIN, -1, 0, 1, i64::MAX];
        let numbers = integers.map(|key| KeyKind::Integer.number(ValueRef::Integer(key)).unwrap());
        assert!(numbers.is_sorted());
        for (key, number) in integers.into_iter().zip(numbers) {
            assert_eq!(KeyKind::Integer.value(number), Value::Integer(key));
        }
        let id = [7; 16];
        let number = KeyKind::Id.number(ValueRef::Blob(&id)).unwrap();
        assert_eq!(KeyKind::Id.value(number), Value::Blob(id.to_vec()));
        assert_eq!(KeyKind::Id.number(ValueRef::Blob(&id[1..])), None);
        assert_eq!(KeyKind::Id.number(ValueRef::Null), None);
    }
}
