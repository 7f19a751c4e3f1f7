//! The outbox: a table of the log's file with a row for each record and feedback that sinks have
//! not received. The writer adds rows in the transaction of what they refer to; dispatchers read
//! them, and delete those that every sink has received.

use std::collections::BTreeMap;
use std::fs::Metadata;
use std::io;
use std::ops::RangeInclusive;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};
use tracing::{info, warn};
use uuid::Uuid;

use super::{FeedbackEvent, OutboxEntry, SinkEvent};
use crate::prediction_log::reader::find_record;
use crate::prediction_log::schema::{self, SchemaError};
use crate::prediction_log::store::truth;

/// Maximum number of entries of a batch.
const MAX_ENTRIES: i64 = 1024;
/// Size above which a batch ends, in bytes.
const MAX_BYTES: usize = 1 << 20;
/// Maximum number of consecutive rows of a request that are kept together in one batch, so that a
/// repeated delivery has the same groups of rows.
pub(super) const MAX_RUN: i64 = 512;
/// Maximum number of entries that one transaction deletes.
const MAX_DELETED: i64 = 20_000;

/// What an entry refers to: a record, or the kind of its feedback.
pub(in crate::prediction_log) const RECORD: &str = "record";

/// What the writer adds to the outbox.
#[derive(Clone, Copy, Debug)]
pub(in crate::prediction_log) struct Outgoing {
    /// [`RECORD`], or the kind of the feedback.
    pub(in crate::prediction_log) kind: &'static str,
    pub(in crate::prediction_log) id: Uuid,
    pub(in crate::prediction_log) row: u32,
}

/// Adds entries to the outbox. Returns the number of the last one. `now` is in microseconds of Unix
/// time.
pub(in crate::prediction_log) fn append(
    transaction: &Transaction<'_>,
    entries: &[Outgoing],
    now: i64,
) -> rusqlite::Result<i64> {
    let mut statement = transaction
        .prepare_cached("INSERT INTO outbox (kind, id, row, time) VALUES (?1, ?2, ?3, ?4)")?;
    for Outgoing { kind, id, row } in entries {
        statement.execute(params![kind, id.as_bytes(), row, now])?;
    }
    Ok(transaction.last_insert_rowid())
}

/// The names of the sinks of the file at `path`.
pub(in crate::prediction_log) fn names(path: &Path) -> Result<Vec<String>, SchemaError> {
    Ok(sink_names(&schema::open(path)?)?)
}

/// Adds the sinks with these `names` to the file. A new one receives what is logged from now on. One
/// that is not configured any more keeps what it has not received, with a warning: the configuration
/// may be incomplete by mistake.
pub(in crate::prediction_log) fn configure(
    transaction: &Transaction<'_>,
    names: &[String],
) -> rusqlite::Result<()> {
    add_sinks(transaction, names)?;
    let kept = remove_in_turn(transaction, names)?;
    // Of a file that lost its sinks.
    transaction.execute("DELETE FROM outbox WHERE NOT EXISTS (SELECT 1 FROM sinks)", [])?;
    for name in kept {
        let query = "SELECT count(*) FROM outbox
            WHERE seq > (SELECT position FROM sinks WHERE name = ?1)";
        let undelivered: i64 = transaction.query_row(query, [&name], |row| row.get(0))?;
        warn!(
            sink = %name, undelivered,
            "the sink is not configured any more: the prediction log keeps what it has not received \
             until max_age or max_size deletes it; configure a sink of this name to deliver it"
        );
    }
    Ok(())
}

/// As [`remove_received`], unless another process or a dispatcher of this one delivers, which does
/// the same itself.
fn remove_in_turn(
    transaction: &Transaction<'_>,
    names: &[String],
) -> rusqlite::Result<Vec<String>> {
    let unconfigured = unconfigured(transaction, names)?;
    if unconfigured.is_empty() {
        return Ok(unconfigured);
    }
    let path = transaction.path().map(Path::new);
    let lock = path.and_then(|path| super::try_lock_delivery(path).ok().flatten());
    if lock.is_none() {
        return Ok(unconfigured);
    }
    // With a configured sink, its dispatcher does.
    if names.is_empty() {
        trim(transaction, names, &[])?;
    }
    remove_received(transaction, names)
}

/// Deletes the sinks that are not among `names` and have received everything, or lost it. Returns
/// the others that are not among `names`. Only the delivering process may call it.
fn remove_received(
    transaction: &Transaction<'_>,
    names: &[String],
) -> rusqlite::Result<Vec<String>> {
    let mut kept = Vec::new();
    for name in unconfigured(transaction, names)? {
        let delete = "DELETE FROM sinks
            WHERE name = ?1 AND NOT EXISTS (SELECT 1 FROM outbox WHERE seq > position)";
        if transaction.execute(delete, [&name])? == 0 {
            kept.push(name);
        } else {
            info!(sink = %name, "the sink is not configured any more: it is removed");
        }
    }
    Ok(kept)
}

/// The sinks of the file that are not among `names`.
fn unconfigured(connection: &Connection, names: &[String]) -> rusqlite::Result<Vec<String>> {
    let mut unconfigured = sink_names(connection)?;
    unconfigured.retain(|name| !names.contains(name));
    Ok(unconfigured)
}

fn sink_names(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut statement = connection.prepare("SELECT name FROM sinks")?;
    let names = statement.query_map([], |row| row.get(0))?;
    names.collect()
}

fn add_sinks(transaction: &Transaction<'_>, names: &[String]) -> rusqlite::Result<()> {
    let query = "SELECT max(position) FROM sinks";
    let highest: Option<i64> = transaction.query_row(query, [], |row| row.get(0))?;
    let mut head = head(transaction)?;
    // A file that replaces a damaged one may lack the number of the newest entry, or the positions.
    if let Some(highest) = highest.filter(|highest| *highest > head) {
        transaction.execute("DELETE FROM sqlite_sequence WHERE name = 'outbox'", [])?;
        let insert = "INSERT INTO sqlite_sequence (name, seq) VALUES ('outbox', ?1)";
        transaction.execute(insert, [highest])?;
        head = highest;
    }
    let start = match highest {
        Some(_) => head,
        None => {
            let query = "SELECT min(seq) FROM outbox";
            let oldest: Option<i64> = transaction.query_row(query, [], |row| row.get(0))?;
            oldest.map_or(head, |oldest| oldest - 1)
        }
    };
    for name in names {
        let added = transaction.execute(
            "INSERT OR IGNORE INTO sinks (name, position) VALUES (?1, ?2)",
            params![name, start],
        )?;
        if added > 0 {
            info!(sink = %name, "new sink: it receives predictions from now on");
        }
    }
    Ok(())
}

/// The number of the newest entry ever added.
fn head(connection: &Connection) -> rusqlite::Result<i64> {
    let query = "SELECT seq FROM sqlite_sequence WHERE name = 'outbox'";
    Ok(connection.query_row(query, [], |row| row.get(0)).optional()?.unwrap_or(0))
}

/// Entries for one sink, the oldest first.
#[derive(Debug, Default)]
pub(super) struct OutboxBatch {
    pub(super) entries: Vec<OutboxEntry>,
    /// Numbers of the entries whose subject was deleted before the sink received it.
    pub(super) lost: Vec<i64>,
    /// Numbers of all of the above; `None` if the sink has received everything.
    pub(super) range: Option<RangeInclusive<i64>>,
    /// Identifies the sink in this file: another file has another one.
    pub(super) producer: String,
    pub(super) backlog: Backlog,
}

/// How far a sink is.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Backlog {
    /// Number of the last entry that the sink has received, or that is lost.
    pub(super) position: i64,
    /// Number of the newest entry.
    pub(super) head: i64,
    /// Number of entries that are lost since the sink was added.
    pub(super) lost: i64,
    /// When the oldest entry that the sink has not received was written, in microseconds of Unix
    /// time.
    pub(super) oldest: Option<i64>,
}

/// A dispatcher's connection to the log's file.
#[derive(Debug)]
pub(super) struct OutboxFile {
    connection: Connection,
    path: PathBuf,
    identity: (u64, u64),
    /// Names of the configured sinks.
    names: Vec<String>,
    /// Whether the file has sinks that are not configured any more.
    has_unconfigured: bool,
}

fn identity(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

impl OutboxFile {
    /// Opens the file at `path` with the sinks `names`, for the process that delivers; `None` if
    /// nothing was logged yet.
    pub(super) fn open(path: &Path, names: &[String]) -> Result<Option<Self>, SchemaError> {
        let identity = match path.metadata() {
            Ok(metadata) => identity(&metadata),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let Some(mut connection) = schema::open_existing(path)? else { return Ok(None) };
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        add_sinks(&transaction, names)?;
        let has_unconfigured = !remove_received(&transaction, names)?.is_empty();
        transaction.commit()?;
        let (path, names) = (path.to_owned(), names.to_vec());
        Ok(Some(Self { connection, path, identity, names, has_unconfigured }))
    }

    /// Whether the file has sinks that are not configured any more, and have not received everything.
    pub(super) fn has_unconfigured_sinks(&self) -> bool {
        self.has_unconfigured
    }

    /// Whether the path still leads to this file: the writer moves a damaged one aside.
    pub(super) fn is_current(&self) -> bool {
        self.path.metadata().is_ok_and(|metadata| identity(&metadata) == self.identity)
    }

    /// The next entries for the sink `name`.
    pub(super) fn next(&mut self, name: &str) -> Result<OutboxBatch, SchemaError> {
        // All reads see the same state of the file.
        let transaction = self.connection.transaction()?;
        let query = "SELECT position, lost, producer FROM sinks WHERE name = ?1";
        let sink = transaction.prepare_cached(query)?.query_row([name], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, String>(2)?))
        });
        let Some((position, lost, producer)) = sink.optional()? else {
            let problem = "another process has the same log, and not this sink: configure the same \
                           sinks for all processes of a state folder";
            return Err(SchemaError::Foreign(problem.into()));
        };
        let head = head(&transaction)?;
        let mut batch = OutboxBatch {
            producer,
            backlog: Backlog { position, head, lost, oldest: None },
            ..OutboxBatch::default()
        };
        let mut statement = transaction.prepare_cached(
            "SELECT seq, kind, id, row, time FROM outbox WHERE seq > ?1 ORDER BY seq LIMIT ?2",
        )?;
        let mut rows = statement.query(params![position, MAX_ENTRIES + 1])?;
        let (mut count, mut bytes) = (0, 0);
        while let Some(row) = rows.next()? {
            let (seq, time) = (row.get::<_, i64>(0)?, row.get(4)?);
            let kind = row.get_ref(1)?.as_str().map_err(rusqlite::Error::from)?;
            let id = row.get_ref(2)?.as_blob().map_err(rusqlite::Error::from)?;
            let event = event(&transaction, kind, id, row.get(3)?)?;
            if count >= MAX_ENTRIES || bytes > MAX_BYTES {
                let is_cut = batch.entries.last().zip(event.as_ref());
                if is_cut.is_some_and(|(last, next)| same_run(&last.event, next)) {
                    batch.unread_last_run();
                }
                break;
            }
            count += 1;
            batch.backlog.oldest.get_or_insert(time);
            let first = batch.range.as_ref().map_or(seq, |range| *range.start());
            batch.range = Some(first..=seq);
            match event {
                Some(event) => {
                    bytes += event.size();
                    batch.entries.push(OutboxEntry { seq, event });
                }
                None => batch.lost.push(seq),
            }
        }
        Ok(batch)
    }

    /// Moves the position of the sink `name` to `position`, with `lost` more entries, and deletes
    /// what every sink has received.
    pub(super) fn advance(
        &mut self,
        name: &str,
        position: i64,
        lost: i64,
    ) -> Result<(), SchemaError> {
        let behavior = TransactionBehavior::Immediate;
        let transaction = self.connection.transaction_with_behavior(behavior)?;
        let update = "UPDATE sinks SET position = max(position, ?2), lost = lost + ?3
            WHERE name = ?1";
        transaction.prepare_cached(update)?.execute(params![name, position, lost])?;
        let delete = "DELETE FROM outbox WHERE seq IN (SELECT seq FROM outbox
            WHERE seq <= (SELECT min(position) FROM sinks) ORDER BY seq LIMIT ?1)";
        transaction.prepare_cached(delete)?.execute([MAX_DELETED])?;
        transaction.commit()?;
        Ok(())
    }

    /// As [`trim`]. Also deletes the sinks that are not configured any more and have nothing left.
    pub(super) fn trim(
        &mut self,
        in_flight: &[RangeInclusive<i64>],
    ) -> Result<BTreeMap<String, Backlog>, SchemaError> {
        let behavior = TransactionBehavior::Immediate;
        let transaction = self.connection.transaction_with_behavior(behavior)?;
        let backlogs = trim(&transaction, &self.names, in_flight)?;
        self.has_unconfigured = !remove_received(&transaction, &self.names)?.is_empty();
        transaction.commit()?;
        Ok(backlogs)
    }
}

/// Deletes the oldest entries whose subject was deleted, up to the first that is not or that is
/// `in_flight`. They are lost for the sinks that have not received them. Returns the backlog of these
/// sinks, and warns of those that are not among `names`.
fn trim(
    transaction: &Transaction<'_>,
    names: &[String],
    in_flight: &[RangeInclusive<i64>],
) -> rusqlite::Result<BTreeMap<String, Backlog>> {
    let mut sinks = BTreeMap::new();
    {
        let mut statement = transaction.prepare_cached("SELECT name, position FROM sinks")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            sinks.insert(row.get::<_, String>(0)?, (row.get::<_, i64>(1)?, 0));
        }
    }
    let Some(received) = sinks.values().map(|(position, _)| *position).min() else {
        return Ok(BTreeMap::new());
    };
    let mut end = received;
    {
        let mut statement = transaction.prepare_cached(
            "SELECT seq, CASE kind WHEN 'record'
                THEN EXISTS (SELECT 1 FROM predictions p WHERE p.id = o.id AND p.row = o.row)
                ELSE EXISTS (SELECT 1 FROM feedback f WHERE f.prediction_id = o.id
                    AND f.row = o.row AND f.kind = o.kind) END
             FROM outbox o WHERE seq > ?1 ORDER BY seq LIMIT ?2",
        )?;
        let mut rows = statement.query(params![received, MAX_DELETED])?;
        while let Some(row) = rows.next()? {
            let (seq, exists): (i64, bool) = (row.get(0)?, row.get(1)?);
            if exists || in_flight.iter().any(|range| range.contains(&seq)) {
                break;
            }
            end = seq;
            for (position, lost) in sinks.values_mut().filter(|(at, _)| *at < seq) {
                (*position, *lost) = (seq, *lost + 1);
            }
        }
    }
    transaction.prepare_cached("DELETE FROM outbox WHERE seq <= ?1")?.execute([end])?;
    sinks.retain(|_, (_, lost)| *lost > 0);
    let head = head(transaction)?;
    let mut backlogs = BTreeMap::new();
    for (name, (position, lost)) in sinks {
        if !names.contains(&name) {
            warn!(
                sink = %name, lost,
                "predictions were deleted by max_age or max_size of the log before the sink, \
                 which is not configured any more, received them"
            );
        }
        let update = "UPDATE sinks SET position = ?2, lost = lost + ?3 WHERE name = ?1
            RETURNING lost";
        let total = transaction
            .prepare_cached(update)?
            .query_row(params![name, position, lost], |row| row.get(0))?;
        let backlog = Backlog { position, head, lost: total, oldest: None };
        backlogs.insert(name, backlog);
    }
    Ok(backlogs)
}

impl OutboxBatch {
    /// Removes the last rows, which belong together with the next entry of the outbox. A batch of
    /// nothing else is left unchanged.
    fn unread_last_run(&mut self) {
        let mut start = self.entries.len().saturating_sub(1);
        while start > 0 && same_run(&self.entries[start - 1].event, &self.entries[start].event) {
            start -= 1;
        }
        if start == 0 {
            return;
        }
        let end = self.entries[start - 1].seq;
        self.entries.truncate(start);
        self.lost.retain(|seq| *seq <= end);
        self.range = self.range.take().map(|range| *range.start()..=end);
    }
}

/// What an entry refers to; `None` if it was deleted.
fn event(
    connection: &Connection,
    kind: &str,
    id: &[u8],
    row: i64,
) -> rusqlite::Result<Option<SinkEvent>> {
    if kind == RECORD {
        return Ok(find_record(connection, id, row)?.map(SinkEvent::Record));
    }
    let query = "SELECT kind, label, number, time, received FROM feedback
        WHERE prediction_id = ?1 AND row = ?2 AND kind = ?3";
    let mut statement = connection.prepare_cached(query)?;
    let found = statement.query_row(params![id, row, kind], truth).optional()?.flatten();
    Ok(found.map(|(truth, time)| {
        let id = Uuid::from_slice(id).unwrap_or_default();
        SinkEvent::Feedback(FeedbackEvent { id, row, truth, time })
    }))
}

/// Whether `next` continues the rows of `last`: the same request, model and version, the next row,
/// and the same block of [`MAX_RUN`] rows.
pub(super) fn same_run(last: &SinkEvent, next: &SinkEvent) -> bool {
    let (SinkEvent::Record(last), SinkEvent::Record(next)) = (last, next) else { return false };
    last.id == next.id
        && last.row + 1 == next.row
        && last.row / MAX_RUN == next.row / MAX_RUN
        && (&last.model, &last.version) == (&next.model, &next.version)
}
