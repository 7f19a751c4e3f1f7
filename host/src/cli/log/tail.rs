//! `spinfer log tail`.

use std::collections::HashSet;
use std::io::Write;
use std::path::Path;
use std::thread;
use std::time::{Duration, SystemTime};

use anyhow::Result;
use clap::Args;
use uuid::Uuid;

use super::{Location, Which, tell_none};
use crate::prediction_log::reader::{Filter, Reader, Snapshot, StoredRecord};
use crate::prediction_log::times::micros;

/// How often the file is looked into.
const INTERVAL: Duration = Duration::from_millis(200);
/// A record is found if it is written up to so long after its time, in microseconds: a request has
/// its time when it begins, and the longest deadline is 30 s by default.
const LATE: i64 = 60 * 1_000_000;

#[derive(Debug, Args)]
pub(super) struct Tail {
    /// How many
    #[arg(short, long, value_name = "COUNT", default_value_t = 10)]
    number: u32,

    /// Go on with those that come
    #[arg(long)]
    follow: bool,

    #[command(flatten)]
    which: Which,

    #[command(flatten)]
    place: Location,
}

pub(super) fn run(options: &Tail, out: &mut impl Write) -> Result<()> {
    let Tail { number, follow, which, place } = options;
    let filter = which.filter()?;
    if !follow {
        let mut reader = place.open()?;
        return print_last(&reader.snapshot()?, &filter, *number, out);
    }
    let path = place.path()?;
    if !path.exists() {
        place.check_on()?;
    }
    let mut seen = Seen::default();
    let mut from = None;
    loop {
        from = Some(look(&path, &filter, *number, from, &mut seen, out)?);
        out.flush()?;
        thread::sleep(INTERVAL);
    }
}

/// Records that were printed, with their times.
#[derive(Default)]
struct Seen(HashSet<(i64, Uuid, i64)>);

/// Prints what is new since the look before, which began at `before`; when this one did.
fn look(
    path: &Path,
    filter: &Filter,
    number: u32,
    before: Option<i64>,
    seen: &mut Seen,
    out: &mut impl Write,
) -> Result<i64> {
    let now = micros(SystemTime::now());
    // There may be none yet.
    let Some(mut reader) = Reader::open(path)? else { return Ok(now) };
    let snapshot = reader.snapshot()?;
    let since = before.unwrap_or(now).saturating_sub(LATE).max(0);
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

fn print_last(
    snapshot: &Snapshot<'_>,
    filter: &Filter,
    number: u32,
    out: &mut impl Write,
) -> Result<()> {
    let records = snapshot.last(filter, number)?;
    if records.is_empty() && number > 0 {
        tell_none(snapshot, filter)?;
    }
    records.iter().try_for_each(|record| print(record, out))
}

fn print(record: &StoredRecord, out: &mut impl Write) -> Result<()> {
    let mut line = Vec::new();
    record.write_json(&mut line);
    line.push(b'\n');
    Ok(out.write_all(&line)?)
}
