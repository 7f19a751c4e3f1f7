//! Reads a stream as one of a consumer group, whose readers share its entries: each entry goes to one
//! reader, and is pending until that reader has acknowledged it.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use redis::{Value, cmd};

use super::{RawEntry, StreamReader, entries};

/// Time after which an entry that is not acknowledged is taken from its reader, in milliseconds.
const ABANDONED: u64 = 30_000;
/// Interval at which such entries are looked for.
const CLAIM_INTERVAL: Duration = Duration::from_secs(5);

/// A reader of a consumer group.
#[derive(Debug)]
pub struct GroupReader {
    reader: StreamReader,
    group: String,
    /// Name of this reader within the group.
    consumer: String,
    /// Where the search for abandoned entries continues.
    cursor: String,
    next_claim: Instant,
}

impl GroupReader {
    /// Joins the group, which is created if necessary, and then starts at the oldest entry.
    ///
    /// # Errors
    /// Fails if Redis does not reply, or the user may not create groups.
    pub fn join(reader: StreamReader, group: &str) -> Result<Self> {
        let started = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let started = started.unwrap_or_default().as_nanos();
        let consumer = format!("spinfer-{}-{started}", std::process::id());
        let (group, cursor) = (group.to_owned(), "0-0".to_owned());
        let mut joined = Self { reader, group, consumer, cursor, next_claim: Instant::now() };
        joined.join_again()?;
        Ok(joined)
    }

    /// Creates the group if it does not exist (any more).
    ///
    /// # Errors
    /// As [`Self::join`].
    pub fn join_again(&mut self) -> Result<()> {
        let Self { reader, group, .. } = self;
        let mut create = cmd("XGROUP");
        create.arg("CREATE").arg(reader.stream()).arg(&*group).arg("0").arg("MKSTREAM");
        match reader.query::<Value>(&create) {
            Err(error) if !is_known(&error) => Err(error),
            _ => Ok(()),
        }
    }

    /// The next entries for this reader: those that another one has abandoned, or new ones. None if
    /// there are none at the moment.
    ///
    /// # Errors
    /// Fails if Redis does not reply, or replies something else.
    pub fn read(&mut self) -> Result<Vec<RawEntry>> {
        if Instant::now() >= self.next_claim {
            let claimed = self.claim()?;
            if self.cursor == "0-0" {
                self.next_claim = Instant::now() + CLAIM_INTERVAL;
            }
            if !claimed.is_empty() {
                return Ok(claimed);
            }
        }
        let Self { reader, group, consumer, .. } = self;
        let stream = reader.stream().to_owned();
        let reply = reader.paged(|count| {
            cmd("XREADGROUP")
                .arg("GROUP")
                .arg(&*group)
                .arg(&*consumer)
                .arg("COUNT")
                .arg(count)
                .arg("STREAMS")
                .arg(&stream)
                .arg(">")
                .take()
        })?;
        // A list of streams with their entries.
        let mut streams = match reply {
            Value::Nil => return Ok(Vec::new()),
            Value::Map(pairs) => pairs.into_iter().map(|(_, entries)| entries).collect(),
            Value::Array(list) => {
                let mut streams = Vec::new();
                for pair in list {
                    let Value::Array(mut pair) = pair else { bail!("Redis replied no streams") };
                    streams.extend(pair.pop());
                }
                streams
            }
            _ => bail!("Redis replied no streams"),
        };
        streams.pop().map_or_else(|| Ok(Vec::new()), entries)
    }

    /// Takes entries that another reader has not acknowledged in time.
    fn claim(&mut self) -> Result<Vec<RawEntry>> {
        let Self { reader, group, consumer, cursor, .. } = self;
        let stream = reader.stream().to_owned();
        let reply = reader.paged(|count| {
            cmd("XAUTOCLAIM")
                .arg(&stream)
                .arg(&*group)
                .arg(&*consumer)
                .arg(ABANDONED)
                .arg(&*cursor)
                .arg("COUNT")
                .arg(count)
                .take()
        })?;
        let Value::Array(parts) = reply else { bail!("Redis replied no claimed entries") };
        // Redis 7 also returns the ids of deleted entries.
        let mut parts = parts.into_iter();
        let (Some(next), Some(claimed)) = (parts.next(), parts.next()) else {
            bail!("Redis replied no claimed entries");
        };
        self.cursor = redis::from_redis_value(next)?;
        entries(claimed)
    }

    /// Acknowledges `entries`: no other reader receives them.
    ///
    /// # Errors
    /// Fails if Redis does not reply.
    pub fn acknowledge(&mut self, entries: &[RawEntry]) -> Result<()> {
        if entries.is_empty() {
            return Ok(());
        }
        let mut acknowledge = cmd("XACK");
        acknowledge.arg(self.reader.stream()).arg(&self.group);
        for entry in entries {
            acknowledge.arg(&entry.id);
        }
        self.reader.query::<u64>(&acknowledge).map(drop)
    }
}

/// Whether the error is that the group exists.
fn is_known(error: &anyhow::Error) -> bool {
    let redis = error.downcast_ref::<redis::RedisError>();
    redis.is_some_and(|error| error.code() == Some("BUSYGROUP"))
}
