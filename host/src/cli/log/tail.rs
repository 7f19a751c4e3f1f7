//! `spinfer log tail`: prints the latest records, and follows the log.

use std::collections::HashSet;
use std::io::Write;
use std::path::Path;
use std::thread;
use std::time::{Duration, SystemTime};

use anyhow::Result;
use clap::Args;
use uuid::Uuid;

use super::{FilterOptions, Foreign, LogLocation, OpenLog, follow_stream, report_no_match};
use crate::prediction_log::reader::{Filter, LogReader, LogSnapshot, StoredRecord};
use crate::prediction_log::sinks::settings::StreamSettings;
use crate::prediction_log::sinks::stream::{EntryError, ImportedLog, StreamReader};
use crate::prediction_log::times::micros;

/// Interval at which the log is polled.
const POLL_INTERVAL: Duration = Duration::from_millis(200);
/// Maximum delay between the time of a record, that of its request, and its write, in microseconds: the
/// default deadline is 30 s.
const MAX_WRITE_DELAY: i64 = 60 * 1_000_000;

#[derive(Debug, Args)]
pub(super) struct TailOptions {
    /// Number of records
    #[arg(short, long, value_name = "COUNT", default_value_t = 10)]
    number: u32,

    /// Keep printing new records, and with --redis new feedback
    #[arg(long)]
    follow: bool,

    /// Read as one of this consumer group of the stream: its readers share the entries, and each entry
    /// is printed by one of them. A new group starts at the oldest entry
    #[arg(long, value_name = "NAME", requires_all = ["follow", "redis"])]
    group: Option<String>,

    #[command(flatten)]
    filters: FilterOptions,

    #[command(flatten)]
    location: LogLocation,
}

pub(super) fn run(options: &TailOptions, out: &mut impl Write) -> Result<()> {
    let TailOptions { number, follow, group, filters, location } = options;
    let filter = filters.filter()?;
    if let Some(settings) = location.stream()? {
        return match group {
            Some(group) => follow_stream::share(&settings, group, &filter, out),
            None => {
                let after = print_end(&settings, &filter, *number, out)?;
                if *follow { follow_stream::follow(&settings, after, &filter, out) } else { Ok(()) }
            }
        };
    }
    if !follow {
        let mut reader = location.open(Foreign::Skip)?;
        return print_last(&reader.snapshot()?, &filter, *number, out);
    }
    let path = location.path()?;
    if !path.exists() {
        location.check_enabled()?;
    }
    let mut seen = Seen::default();
    let mut from = None;
    loop {
        from = Some(poll(&path, &filter, *number, from, &mut seen, out)?);
        out.flush()?;
        thread::sleep(POLL_INTERVAL);
    }
}

/// Recent records: their time, id and row.
#[derive(Default)]
struct Seen(HashSet<(i64, Uuid, i64)>);

/// Prints the records added since the poll at time `before`, or the last `number` at first; the time of
/// this poll.
fn poll(
    path: &Path,
    filter: &Filter,
    number: u32,
    before: Option<i64>,
    seen: &mut Seen,
    out: &mut impl Write,
) -> Result<i64> {
    let now = micros(SystemTime::now());
    // The log may not exist yet.
    let Some(mut reader) = LogReader::open(path)? else { return Ok(now) };
    let snapshot = reader.snapshot()?;
    let since = before.unwrap_or(now).saturating_sub(MAX_WRITE_DELAY).max(0);
    seen.0.retain(|(time, ..)| *time >= since);
    let key = |record: &StoredRecord| (record.time, record.id, record.row);
    if before.is_none() {
        print_last(&snapshot, filter, number, out)?;
    }
    let since = filter.since.map_or(since, |given| given.max(since));
    let recent = Filter { since: Some(since), ..filter.clone() };
    snapshot.each(&recent, |record| {
        let is_new = seen.0.insert(key(&record));
        if is_new && before.is_some() { print(&record, out) } else { Ok(()) }
    })?;
    Ok(now)
}

/// Prints the last `number` records of a stream. Returns the id of its last entry.
fn print_end(
    settings: &StreamSettings,
    filter: &Filter,
    number: u32,
    out: &mut impl Write,
) -> Result<Option<String>> {
    let mut reader = StreamReader::connect(settings)?;
    let skip = |error: EntryError| Foreign::Skip.handle(&error);
    let (log, last) = ImportedLog::read_last(&mut reader, number, filter, skip)?;
    let mut log = OpenLog::of_stream(log, reader.stream())?;
    print_last(&log.snapshot()?, filter, number, out)?;
    Ok(last)
}

fn print_last(
    snapshot: &LogSnapshot<'_>,
    filter: &Filter,
    number: u32,
    out: &mut impl Write,
) -> Result<()> {
    let records = snapshot.last(filter, number)?;
    if records.is_empty() && number > 0 {
        report_no_match(snapshot, filter)?;
    }
    records.iter().try_for_each(|record| print(record, out))
}

fn print(record: &StoredRecord, out: &mut impl Write) -> Result<()> {
    let mut line = Vec::new();
    record.write_json(&mut line);
    line.push(b'\n');
    Ok(out.write_all(&line)?)
}
