//! Epochs: the intervals between exports, in which records and feedback were written. The writer of a
//! transaction notes the present epoch in its rows, and an export ends that epoch before it reads the
//! file. So it sees every row of the epochs up to that one, whatever time or id a row has, and the
//! next export starts with those after it.

use std::time::{SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};
use uuid::{Builder, Uuid};

use super::schema::SchemaError;

/// What one transaction wrote.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct EpochPart {
    pub(super) records: u64,
    pub(super) feedback: u64,
    /// The smallest id of the records.
    pub(super) first_id: Option<Uuid>,
}

impl EpochPart {
    pub(super) fn add_record(&mut self, id: Uuid) {
        self.records += 1;
        self.first_id = Some(self.first_id.map_or(id, |first| first.min(id)));
    }
}

/// The epoch of the rows that `transaction` writes.
pub(super) fn present(transaction: &Transaction<'_>) -> rusqlite::Result<i64> {
    let mut statement = transaction.prepare_cached("SELECT max(number) FROM epochs")?;
    statement.query_row([], |row| row.get(0))
}

/// Adds what `transaction` wrote to its epoch.
pub(super) fn extend(
    transaction: &Transaction<'_>,
    epoch: i64,
    part: EpochPart,
) -> rusqlite::Result<()> {
    let EpochPart { records, feedback, first_id } = part;
    if records + feedback == 0 {
        return Ok(());
    }
    let count = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    let mut statement = transaction.prepare_cached(
        "UPDATE epochs SET records = records + ?1, feedback = feedback + ?2,
             first_id = CASE WHEN first_id < ?3 THEN first_id ELSE coalesce(?3, first_id) END
         WHERE number = ?4",
    )?;
    let first_id = first_id.map(Uuid::into_bytes);
    statement.execute(params![count(records), count(feedback), first_id, epoch])?;
    Ok(())
}

/// Computes the epochs from the rows, some of which may be lost. The present epoch is a new one, so that
/// it is after every epoch that was exported.
pub(super) fn rebuild(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(
        "DELETE FROM epochs;
         INSERT INTO epochs (number, records, feedback, first_id)
             SELECT epoch, sum(record), sum(1 - record), min(id) FROM
                 (SELECT epoch, 1 AS record, id FROM predictions
                  UNION ALL SELECT epoch, 0, NULL FROM feedback)
             GROUP BY epoch;
         INSERT INTO epochs (number) SELECT 1 + max(number) FROM
             (SELECT 0 AS number UNION ALL SELECT number FROM epochs
              UNION ALL SELECT max(epoch, coalesce(pending, 0)) FROM exports);",
    )
}

/// The epochs that an export to one destination covers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ExportRange {
    /// The last epoch of the export before; -1 if this is the first.
    pub(super) after: i64,
    /// The last epoch.
    pub(super) through: i64,
    /// Lower bound of the ids of its records.
    pub(super) first_id: Uuid,
    /// Number of records that were written in these epochs.
    pub(super) written: u64,
    /// Name of the objects, which no other export has.
    pub(super) name: Uuid,
    /// Whether an earlier attempt may have written some of the objects.
    pub(super) resumed: bool,
}

/// Starts an export to `destination`, or resumes the one that was not completed: it has the same
/// epochs and names. With `all`, it starts with the first epoch instead of the one after the last
/// export. `None` if nothing was written since then.
pub(super) fn begin(
    connection: &mut Connection,
    destination: &str,
    all: bool,
) -> Result<Option<ExportRange>, SchemaError> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    if all {
        transaction.execute("DELETE FROM exports WHERE destination = ?1", [destination])?;
    }
    let known: Option<(i64, Option<i64>, Option<String>)> = transaction
        .query_row(
            "SELECT epoch, pending, name FROM exports WHERE destination = ?1",
            [destination],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
        )
        .optional()?;
    let after = known.as_ref().map_or(-1, |(epoch, ..)| *epoch);
    let pending =
        known.and_then(|(_, pending, name)| Some((pending?, Uuid::try_parse(&name?).ok()?)));
    let present = present(&transaction)?;
    let (through, name) = pending.unwrap_or_else(|| (present, new_name()));
    let (first_id, written, feedback): (Option<Vec<u8>>, i64, i64) = transaction.query_row(
        "SELECT min(first_id), coalesce(sum(records), 0), coalesce(sum(feedback), 0)
         FROM epochs WHERE number > ?1 AND number <= ?2",
        [after, through],
        |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
    )?;
    if pending.is_none() {
        if written + feedback == 0 {
            return Ok(None);
        }
        transaction.execute("INSERT INTO epochs (number) VALUES (?1)", [present + 1])?;
        transaction.execute(
            "INSERT INTO exports (destination, epoch, pending, name) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT DO UPDATE SET pending = ?3, name = ?4",
            params![destination, after, through, name.to_string()],
        )?;
    }
    transaction.commit()?;
    Ok(Some(ExportRange {
        after,
        through,
        first_id: first_id.and_then(|id| Uuid::from_slice(&id).ok()).unwrap_or_default(),
        written: u64::try_from(written).unwrap_or(0),
        name,
        resumed: pending.is_some(),
    }))
}

/// A new UUIDv7, so that names of later exports are greater.
fn new_name() -> Uuid {
    let millis = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let mut random = [0; 10];
    fastrand::fill(&mut random);
    Builder::from_unix_timestamp_millis(u64::try_from(millis).unwrap_or(0), &random).into_uuid()
}

/// Completes the export of `range` to `destination`.
pub(super) fn complete(
    connection: &Connection,
    destination: &str,
    range: &ExportRange,
) -> Result<(), SchemaError> {
    connection.execute(
        "UPDATE exports SET epoch = pending, pending = NULL, name = NULL
         WHERE destination = ?1 AND name = ?2",
        params![destination, range.name.to_string()],
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::schema;
    use super::*;

    fn write(connection: &mut Connection, records: &[u128], feedback: u64) {
        let transaction = connection.transaction().unwrap();
        let epoch = present(&transaction).unwrap();
        let mut part = EpochPart { feedback, ..EpochPart::default() };
        records.iter().for_each(|id| part.add_record(Uuid::from_u128(*id)));
        extend(&transaction, epoch, part).unwrap();
        transaction.commit().unwrap();
    }

    #[test]
    fn rebuilt_epochs_are_those_of_the_rows_and_what_follows_is_new() {
        let folder = tempfile::tempdir().unwrap();
        let mut connection = schema::open(&folder.path().join(schema::FILE)).unwrap();
        write(&mut connection, &[7], 0);
        let exported = begin(&mut connection, "a", false).unwrap().unwrap();
        complete(&connection, "a", &exported).unwrap();
        write(&mut connection, &[5], 1);
        let rows = "
            INSERT INTO sources VALUES (1, 'm', '1', '/', 'c', '', '');
            INSERT INTO predictions (id, row, time, source, cache, status, latency_us, inputs,
                outputs, attributes, epoch)
                VALUES (zeroblob(16), 0, 0, 1, 'miss', 200, 0, '{}', '{}', '{}', 2);
            INSERT INTO feedback VALUES (zeroblob(16), 0, 'label', 'a', NULL, 0, 0, 1);
            DELETE FROM epochs; INSERT INTO epochs (number) VALUES (0), (1);";
        connection.execute_batch(rows).unwrap();
        rebuild(&connection).unwrap();
        write(&mut connection, &[9, 8], 0);
        let range = begin(&mut connection, "a", false).unwrap().unwrap();
        assert_eq!((range.after, range.through, range.written), (1, 3, 3));
        assert_eq!(range.first_id, Uuid::nil());
    }

    #[test]
    fn exports_cover_each_epoch_once_and_an_aborted_one_is_resumed() {
        let folder = tempfile::tempdir().unwrap();
        let mut connection = schema::open(&folder.path().join(schema::FILE)).unwrap();
        assert_eq!(begin(&mut connection, "a", false).unwrap(), None, "nothing was written");
        write(&mut connection, &[7, 5], 0);
        write(&mut connection, &[6], 1);
        let first = begin(&mut connection, "a", false).unwrap().unwrap();
        assert_eq!((first.after, first.through, first.written, first.resumed), (-1, 1, 3, false));
        assert_eq!(first.first_id, Uuid::from_u128(5));
        // What is written meanwhile is for the next export, also after a crash.
        write(&mut connection, &[3], 0);
        let again = begin(&mut connection, "a", false).unwrap().unwrap();
        assert_eq!(again, ExportRange { resumed: true, ..first });
        complete(&connection, "a", &again).unwrap();
        let next = begin(&mut connection, "a", false).unwrap().unwrap();
        assert_eq!((next.after, next.through, next.written), (1, 2, 1));
        assert_eq!(next.first_id, Uuid::from_u128(3), "ids do not have to grow");
        assert_ne!(next.name, first.name);
        complete(&connection, "a", &first).unwrap();
        assert!(begin(&mut connection, "a", false).unwrap().unwrap().resumed, "not that one");
        complete(&connection, "a", &next).unwrap();
        assert_eq!(begin(&mut connection, "a", false).unwrap(), None);
        // Another destination has a position of its own.
        let other = begin(&mut connection, "b", false).unwrap().unwrap();
        assert_eq!((other.after, other.through, other.written), (-1, 3, 4));
        write(&mut connection, &[], 2);
        let feedback = begin(&mut connection, "a", false).unwrap().unwrap();
        assert_eq!((feedback.after, feedback.through, feedback.written), (2, 4, 0));
        let all = begin(&mut connection, "a", true).unwrap().unwrap();
        assert_eq!((all.after, all.written, all.resumed), (-1, 4, false));
    }
}
