//! A copy of a stream in a temporary file with the schema of the log, so that everything that reads
//! the log also reads a stream: records and feedback are joined, and duplicates dropped.

use std::path::PathBuf;

use anyhow::{Context, Result};
use rusqlite::{Connection, Transaction, params};
use tempfile::TempDir;

use super::{EntryError, StreamReader};
use crate::prediction_log::feedback::observed_at;
use crate::prediction_log::reader::{Filter, StoredRecord};
use crate::prediction_log::schema;
use crate::prediction_log::sinks::{FeedbackEvent, SinkEvent};
use crate::prediction_log::store::{INSERT, Sources};

/// A log in a temporary folder, which is removed on drop.
#[derive(Debug)]
pub struct ImportedLog {
    folder: TempDir,
    connection: Connection,
    sources: Sources,
}

impl ImportedLog {
    /// Copies the whole stream. `malformed` is called for each entry that is not one of this program;
    /// an error from it aborts the import.
    ///
    /// # Errors
    /// Fails if Redis does not reply, the disk is full, or `malformed` returns an error.
    pub fn read(
        reader: &mut StreamReader,
        mut malformed: impl FnMut(EntryError) -> Result<()>,
    ) -> Result<Self> {
        let mut log = Self::empty()?;
        let mut after: Option<String> = None;
        loop {
            let page = reader.next(after.as_deref())?;
            let Some(last) = page.last() else { return Ok(log) };
            after = Some(last.id.clone());
            let Self { connection, sources, .. } = &mut log;
            let transaction = connection.transaction()?;
            for entry in &page {
                match entry.event() {
                    Ok(event) => {
                        insert(&transaction, sources, &event, entry.received())?;
                    }
                    Err(error) => malformed(error)?,
                }
            }
            transaction.commit()?;
        }
    }

    /// Copies the end of the stream: `count` records that match `filter`, and what was added after the
    /// first of them. Returns the id of the last entry too.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn read_last(
        reader: &mut StreamReader,
        count: u32,
        filter: &Filter,
        mut malformed: impl FnMut(EntryError) -> Result<()>,
    ) -> Result<(Self, Option<String>)> {
        let mut log = Self::empty()?;
        let (mut newest, mut before) = (None, None::<String>);
        let mut found = 0;
        loop {
            let page = reader.previous(before.as_deref())?;
            newest = newest.or_else(|| page.first().map(|entry| entry.id.clone()));
            let Some(last) = page.last() else { return Ok((log, newest)) };
            before = Some(last.id.clone());
            let Self { connection, sources, .. } = &mut log;
            let transaction = connection.transaction()?;
            for entry in &page {
                if found >= count {
                    break;
                }
                match entry.event() {
                    Ok(event) => {
                        let is_new = insert(&transaction, sources, &event, entry.received())?;
                        let is_found = is_new
                            && matches!(&event, SinkEvent::Record(record) if filter.matches(record));
                        found += u32::from(is_found);
                    }
                    Err(error) => malformed(error)?,
                }
            }
            transaction.commit()?;
            if found >= count {
                return Ok((log, newest));
            }
        }
    }

    fn empty() -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("spinfer-log-").tempdir();
        let folder = folder.context("cannot create a temporary folder; set TMPDIR to another")?;
        let connection = schema::open(&folder.path().join(schema::FILE))?;
        // It is read once, by this process.
        connection.pragma_update(None, "synchronous", "off")?;
        Ok(Self { folder, connection, sources: Sources::default() })
    }

    /// Path of the file.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.folder.path().join(schema::FILE)
    }
}

/// Stores an event that Redis `received` at this time. Returns false if it is there already, or later
/// feedback.
fn insert(
    transaction: &Transaction<'_>,
    sources: &mut Sources,
    event: &SinkEvent,
    received: Option<i64>,
) -> rusqlite::Result<bool> {
    match event {
        SinkEvent::Record(record) => insert_record(transaction, sources, record),
        SinkEvent::Feedback(feedback) => {
            insert_feedback(transaction, feedback, received.unwrap_or(feedback.time))
        }
    }
}

fn insert_record(
    transaction: &Transaction<'_>,
    sources: &mut Sources,
    record: &StoredRecord,
) -> rusqlite::Result<bool> {
    let StoredRecord {
        id,
        row,
        time,
        model,
        version,
        route,
        component,
        experiment,
        variant,
        unit,
        propensity,
        failed_over,
        cache,
        status,
        latency_us,
        sample,
        trace_id,
        inputs,
        outputs,
        attributes,
        omitted,
        feedback: _,
    } = record;
    let [experiment, variant] =
        [experiment, variant].map(|name| name.as_deref().unwrap_or_default());
    let source =
        sources.number(transaction, [model, version, route, component, experiment, variant])?;
    /// The file is not exported by epochs.
    const EPOCH: i64 = 0;
    let inserted = transaction.prepare_cached(INSERT)?.execute(params![
        id.as_bytes(),
        row,
        time,
        source,
        cache,
        status,
        latency_us,
        trace_id,
        inputs,
        outputs,
        attributes,
        omitted,
        unit,
        propensity,
        failed_over,
        sample,
        EPOCH
    ])?;
    Ok(inserted > 0)
}

/// Of several items the latest wins, as in a log: none was known after it was `received`.
fn insert_feedback(
    transaction: &Transaction<'_>,
    feedback: &FeedbackEvent,
    received: i64,
) -> rusqlite::Result<bool> {
    let FeedbackEvent { id, row, truth, time } = feedback;
    let time = observed_at(*time, received);
    let mut insert = transaction.prepare_cached(
        "INSERT INTO feedback (prediction_id, row, kind, label, number, time, received)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
         ON CONFLICT DO UPDATE SET label = excluded.label, number = excluded.number,
            time = excluded.time, received = excluded.received
         WHERE (excluded.time, coalesce(excluded.label, excluded.number))
            > (time, coalesce(label, number))",
    )?;
    let (label, number) = (truth.label(), truth.number());
    let kind = truth.kind();
    let changed =
        insert.execute(params![id.as_bytes(), row, kind, label, number, time, received])?;
    Ok(changed > 0)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::prediction_log::feedback::Truth;
    use crate::prediction_log::reader::{LogReader, StoredFeedback};

    /// Whether each of `events`, which Redis received at these times, is new; and the records then.
    fn imported(events: &[(SinkEvent, i64)]) -> (Vec<bool>, Vec<StoredRecord>) {
        let mut log = ImportedLog::empty().unwrap();
        let ImportedLog { connection, sources, .. } = &mut log;
        let transaction = connection.transaction().unwrap();
        let new = events.iter().map(|(event, received)| {
            insert(&transaction, sources, event, Some(*received)).unwrap()
        });
        let new = new.collect();
        transaction.commit().unwrap();
        let mut reader = LogReader::open(&log.path()).unwrap().unwrap();
        let records = reader.snapshot().unwrap().last(&Filter::default(), 9).unwrap();
        (new, records)
    }

    fn record(id: Uuid) -> StoredRecord {
        StoredRecord {
            id,
            row: 0,
            time: 5,
            model: "m".into(),
            version: "1".into(),
            route: "/".into(),
            component: "c".into(),
            experiment: Some("e".into()),
            variant: Some("v".into()),
            unit: Some("0123456789abcdef".into()),
            propensity: Some(0.25),
            failed_over: Some("w".into()),
            cache: "hit".into(),
            status: 200,
            latency_us: 1,
            sample: Some(0.5),
            trace_id: None,
            inputs: "{}".into(),
            outputs: "{}".into(),
            attributes: "{}".into(),
            omitted: None,
            feedback: StoredFeedback::default(),
        }
    }

    /// As in the file of a host, which rejects such feedback, and may have it from an earlier version.
    #[test]
    fn feedback_from_the_future_was_known_when_it_was_received() {
        const HOUR: i64 = 3600 * 1_000_000;
        let id = Uuid::from_u128(1 << 80);
        let label = |text: &str, time| {
            let truth = Truth::Label(text.into());
            SinkEvent::Feedback(FeedbackEvent { id, row: 0, truth, time })
        };
        let future = (label("future", 1000 * HOUR), 10 * HOUR);
        let (before, after) =
            ((label("before", 9 * HOUR), 9 * HOUR), (label("after", 11 * HOUR), 11 * HOUR));
        for (events, expected) in [
            ([future.clone(), after.clone()], "after"),
            ([after, future.clone()], "after"),
            ([future.clone(), before.clone()], "future"),
            ([before, future], "future"),
        ] {
            let record = (SinkEvent::Record(record(id)), 8 * HOUR);
            let (_, records) = imported(&[&[record][..], &events].concat());
            assert_eq!(records[0].feedback.label.as_deref(), Some(expected), "{events:?}");
        }
    }

    #[test]
    fn duplicates_are_dropped_and_the_latest_feedback_wins_in_any_order() {
        let id = Uuid::from_u128(1 << 80);
        let record = record(id);
        let feedback =
            |truth: Truth, time| SinkEvent::Feedback(FeedbackEvent { id, row: 0, truth, time });
        let label = |text: &str, time| feedback(Truth::Label(text.into()), time);
        let events = [
            label("b", 2),
            label("a", 1),
            SinkEvent::Record(record.clone()),
            feedback(Truth::Reward(0.5), 3),
            feedback(Truth::Reward(0.25), 3),
            SinkEvent::Record(record.clone()),
        ];
        let (new, records) = imported(&events.map(|event| (event, 5)));
        assert_eq!(new, [true, false, true, true, false, false]);
        let (label, reward) = (Some("b".into()), Some(0.5));
        let feedback = StoredFeedback { label, value: None, reward };
        assert_eq!(records, [StoredRecord { feedback, ..record }]);
    }
}
