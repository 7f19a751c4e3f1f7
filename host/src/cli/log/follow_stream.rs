//! `spinfer log tail --follow --redis`: prints what sinks add to a stream, alone or as one of a consumer
//! group. Runs until its output is closed; a Redis that does not reply is asked again.

use std::io::{self, Write};
use std::thread;
use std::time::Duration;

use anyhow::Result;

use super::Foreign;
use crate::prediction_log::reader::Filter;
use crate::prediction_log::sinks::SinkEvent;
use crate::prediction_log::sinks::settings::StreamSettings;
use crate::prediction_log::sinks::stream::{Duplicates, GroupReader, RawEntry, StreamReader};

/// Interval at which the stream is polled.
const POLL_INTERVAL: Duration = Duration::from_millis(200);
/// Pause after an error of Redis.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// Prints the entries after the entry `after`, or all of a stream that had none.
pub(super) fn follow(
    settings: &StreamSettings,
    mut after: Option<String>,
    filter: &Filter,
    out: &mut impl Write,
) -> Result<()> {
    let mut reader = StreamReader::connect(settings)?;
    let mut printer = Printer { duplicates: Duplicates::default(), filter };
    loop {
        match reader.next(after.as_deref()) {
            Ok(entries) => {
                printer.print(&entries, out)?;
                match entries.last() {
                    Some(last) => after = Some(last.id.clone()),
                    None => thread::sleep(POLL_INTERVAL),
                }
            }
            Err(error) => wait_after(&error),
        }
    }
}

/// Prints the entries that the consumer group `name` gives this reader. An entry is acknowledged after
/// it is printed.
pub(super) fn share(
    settings: &StreamSettings,
    name: &str,
    filter: &Filter,
    out: &mut impl Write,
) -> Result<()> {
    let mut group = GroupReader::join(StreamReader::connect(settings)?, name)?;
    let mut printer = Printer { duplicates: Duplicates::default(), filter };
    loop {
        let entries = match group.read() {
            Ok(entries) => entries,
            Err(error) => {
                wait_after(&error);
                // The group may have been lost with the data of Redis.
                if let Err(error) = group.join_again() {
                    wait_after(&error);
                }
                continue;
            }
        };
        printer.print(&entries, out)?;
        if entries.is_empty() {
            thread::sleep(POLL_INTERVAL);
        } else if let Err(error) = group.acknowledge(&entries) {
            // This or another reader receives them again.
            wait_after(&error);
        }
    }
}

fn wait_after(error: &anyhow::Error) {
    // Standard error may be closed.
    let _ = writeln!(io::stderr(), "Redis: {error:#}; trying again");
    thread::sleep(RETRY_PAUSE);
}

struct Printer<'a> {
    duplicates: Duplicates,
    filter: &'a Filter,
}

impl Printer<'_> {
    /// Prints what matches the filter and is new. Feedback, which has no model, matches no filter but
    /// the empty one.
    fn print(&mut self, entries: &[RawEntry], out: &mut impl Write) -> Result<()> {
        let mut lines = Vec::new();
        for entry in entries {
            match entry.event() {
                Err(error) => Foreign::Skip.handle(&error)?,
                Ok(event) => {
                    let is_wanted = match &event {
                        SinkEvent::Record(record) => self.filter.matches(record),
                        SinkEvent::Feedback(_) => *self.filter == Filter::default(),
                    };
                    if is_wanted && self.duplicates.is_new(&event) {
                        event.write_line(&mut lines);
                    }
                }
            }
        }
        out.write_all(&lines)?;
        Ok(out.flush()?)
    }
}
