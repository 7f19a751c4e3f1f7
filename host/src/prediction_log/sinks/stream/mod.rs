//! Reads the log from a stream in Redis, to which the sinks of several hosts add.

mod entry;
mod group;
mod import;

use std::collections::{HashSet, VecDeque};
use std::fmt;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use redis::{Cmd, Value, cmd};
use tokio::runtime::Runtime;
use tokio::time::timeout;
use uuid::Uuid;

use super::SinkEvent;
use super::settings::StreamSettings;
use crate::cache::redis::{Commands, Dialer};
use crate::http::client_tls;
pub(super) use entry::StreamEntry;
pub use entry::{EntryError, RawEntry};
pub use group::GroupReader;
pub use import::ImportedLog;

/// Time limit of a command.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Numbers of entries that are requested at a time: fewer if a reply exceeds its limit of 64 MiB.
const PAGES: [usize; 4] = [1000, 100, 10, 1];
/// Maximum number of remembered entries, by which duplicates are found.
const REMEMBERED: usize = 100_000;

/// A connection to the Redis of a stream.
pub struct StreamReader {
    runtime: Runtime,
    dialer: Dialer,
    connection: Option<Commands>,
    stream: String,
    /// Index of the number of entries per reply in [`PAGES`].
    page: usize,
}

impl fmt::Debug for StreamReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamReader").field("stream", &self.stream).finish_non_exhaustive()
    }
}

impl StreamReader {
    /// Connects to the stream of `settings`.
    ///
    /// # Errors
    /// Fails if Redis does not reply. The message does not contain its address.
    pub fn connect(settings: &StreamSettings) -> Result<Self> {
        let StreamSettings { topology, stream, max_length: _ } = settings;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let dialer = Dialer::new(topology.clone(), client_tls::client()?.into());
        let (connection, stream) = (None, stream.clone());
        let mut reader = Self { runtime, dialer, connection, stream, page: 0 };
        let kind: String = reader.query(cmd("TYPE").arg(&settings.stream))?;
        match kind.as_str() {
            "stream" | "none" => Ok(reader),
            other => bail!("{}: is a {other}, not a stream; pass its key", reader.stream),
        }
    }

    /// Key of the stream.
    #[must_use]
    pub fn stream(&self) -> &str {
        &self.stream
    }

    fn query<T: redis::FromRedisValue>(&mut self, command: &Cmd) -> Result<T> {
        let Self { runtime, dialer, connection, .. } = self;
        let sending = async {
            let mut open = match connection.take() {
                Some(open) => open,
                None => dialer.commands(TIMEOUT).await.context("cannot connect to Redis")?,
            };
            let reply = open.send(command).await?;
            *connection = Some(open);
            anyhow::Ok(reply)
        };
        // The timer is created within the runtime.
        let reply = runtime.block_on(async { timeout(TIMEOUT, sending).await });
        let reply = reply.with_context(|| format!("no reply from Redis within {TIMEOUT:?}"))??;
        Ok(redis::from_redis_value(reply)?)
    }

    /// The reply to the command that `command` returns for a number of entries. A smaller number is
    /// tried if the connection fails, as it does for a reply that is too large.
    fn paged(&mut self, command: impl Fn(usize) -> Cmd) -> Result<Value> {
        loop {
            let result = self.query(&command(PAGES[self.page]));
            if result.is_err() && self.connection.is_none() && self.page + 1 < PAGES.len() {
                self.page += 1;
                continue;
            }
            return result;
        }
    }

    /// The next entries after the entry `after`, or the first ones; none at the end of the stream.
    ///
    /// # Errors
    /// Fails if Redis does not reply, or replies something else.
    pub fn next(&mut self, after: Option<&str>) -> Result<Vec<RawEntry>> {
        let start = after.map_or_else(|| "-".to_owned(), |id| format!("({id}"));
        let stream = self.stream.clone();
        let reply = self.paged(|count| {
            cmd("XRANGE").arg(&stream).arg(&start).arg("+").arg("COUNT").arg(count).take()
        })?;
        entries(reply)
    }

    /// The entries before the entry `before`, or the last ones; the newest first.
    ///
    /// # Errors
    /// As [`Self::next`].
    pub fn previous(&mut self, before: Option<&str>) -> Result<Vec<RawEntry>> {
        let end = before.map_or_else(|| "+".to_owned(), |id| format!("({id}"));
        let stream = self.stream.clone();
        let reply = self.paged(|count| {
            cmd("XREVRANGE").arg(&stream).arg(&end).arg("-").arg("COUNT").arg(count).take()
        })?;
        entries(reply)
    }
}

/// The entries of a reply. Those that were deleted have no fields, and are left out.
fn entries(reply: Value) -> Result<Vec<RawEntry>> {
    const UNEXPECTED: &str = "Redis replied something other than entries of a stream";
    let list = match reply {
        Value::Nil => Vec::new(),
        Value::Array(list) => list,
        _ => bail!(UNEXPECTED),
    };
    let mut entries = Vec::with_capacity(list.len());
    for entry in list {
        let Value::Array(parts) = entry else { bail!(UNEXPECTED) };
        let [id, fields] = <[Value; 2]>::try_from(parts).ok().context(UNEXPECTED)?;
        let id = bytes(id).and_then(|id| String::from_utf8(id).ok()).context(UNEXPECTED)?;
        let fields = match fields {
            Value::Nil => continue,
            Value::Array(fields) => fields,
            Value::Map(pairs) => {
                pairs.into_iter().flat_map(|(name, value)| [name, value]).collect()
            }
            _ => bail!(UNEXPECTED),
        };
        let texts: Option<Vec<_>> = fields.into_iter().map(bytes).collect();
        let mut texts = texts.context(UNEXPECTED)?.into_iter();
        let mut pairs = Vec::with_capacity(texts.len() / 2);
        while let (Some(name), Some(value)) = (texts.next(), texts.next()) {
            pairs.push((name, value));
        }
        entries.push(RawEntry { id, fields: pairs });
    }
    Ok(entries)
}

fn bytes(text: Value) -> Option<Vec<u8>> {
    match text {
        Value::BulkString(bytes) => Some(bytes),
        Value::SimpleString(text) => Some(text.into_bytes()),
        _ => None,
    }
}

/// Finds entries that were added more than once, among the last ones.
#[derive(Debug, Default)]
pub struct Duplicates {
    known: HashSet<EventKey>,
    order: VecDeque<EventKey>,
}

/// What distinguishes events: a record is one forever, feedback may be observed again.
type EventKey = (&'static str, Uuid, i64, i64);

impl Duplicates {
    /// Whether `event` is new.
    pub fn is_new(&mut self, event: &SinkEvent) -> bool {
        let time = match event {
            SinkEvent::Record(_) => 0,
            SinkEvent::Feedback(feedback) => feedback.time,
        };
        let (id, row) = event.key();
        let key = (event.kind(), id, row, time);
        if !self.known.insert(key) {
            return false;
        }
        self.order.push_back(key);
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulk(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    #[test]
    fn entries_are_read_in_either_version_of_the_protocol() {
        let fields = vec![bulk("a"), bulk("1"), bulk("b"), bulk("2")];
        let map = Value::Map(vec![(bulk("a"), bulk("1")), (bulk("b"), bulk("2"))]);
        let entry = |fields| Value::Array(vec![Value::Array(vec![bulk("1-0"), fields])]);
        let expected = vec![RawEntry {
            id: "1-0".into(),
            fields: vec![(b"a".to_vec(), b"1".to_vec()), (b"b".to_vec(), b"2".to_vec())],
        }];
        assert_eq!(entries(entry(Value::Array(fields))).unwrap(), expected);
        assert_eq!(entries(entry(map)).unwrap(), expected);
        assert_eq!(entries(entry(Value::Nil)).unwrap(), [], "a deleted entry");
        assert_eq!(entries(Value::Nil).unwrap(), []);
    }

    #[test]
    fn reply_without_entries_is_an_error() {
        for reply in [
            Value::Int(7),
            Value::Array(vec![Value::Int(7)]),
            Value::Array(vec![Value::Array(vec![bulk("1-0")])]),
            Value::Array(vec![Value::Array(vec![Value::Nil, Value::Nil])]),
            Value::Array(vec![Value::Array(vec![bulk("1-0"), Value::Array(vec![Value::Nil])])]),
        ] {
            let error = entries(reply.clone()).unwrap_err().to_string();
            assert!(error.contains("something other than entries"), "{reply:?}: {error}");
        }
    }
}
