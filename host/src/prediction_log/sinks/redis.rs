//! The sink `redis`: a stream that several hosts append to.
//!
//! A batch is one script, which the server executes as a whole. In addition, it sets a key of
//! this host to the last entry that it has added, and skips the entries of a batch up to it. So a
//! batch whose reply was lost, or whose delivery a crash cut off, is not added twice. Where the key
//! is lost (a failover to a replica), [`super::stream`] drops duplicates by id and row.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use redis::cmd;
use tokio::time::timeout;
use tokio_rustls::rustls::ClientConfig;

use super::settings::{StreamSettings, hash_tag};
use super::stream::StreamEntry;
use super::{OutboxEntry, Sink, SinkError};
use crate::cache::redis::{Commands, Dialer};

/// Time limit of a batch.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Time for which the server remembers what it has received, in seconds: longer than a record stays
/// in the outbox by default.
const REMEMBERED: u64 = 90 * 24 * 60 * 60;

/// KEYS: the stream, and the mark of its last entry from this host. ARGV: the maximum length, the
/// time for which the mark is remembered, and for each entry its mark, the number of its arguments,
/// and these. A batch without the mark is added as a whole.
const ADD: &str = "local seen, first, i = redis.call('GET', KEYS[2]), 3, 3 \
    while i <= #ARGV do \
        local next = i + 2 + tonumber(ARGV[i + 1]) \
        if ARGV[i] == seen then first = next end \
        i = next \
    end \
    i = first \
    while i <= #ARGV do \
        local next = i + 2 + tonumber(ARGV[i + 1]) \
        redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], '*', unpack(ARGV, i + 2, next - 1)) \
        redis.call('SET', KEYS[2], ARGV[i], 'EX', ARGV[2]) \
        i = next \
    end";

/// A stream in Redis.
pub(super) struct StreamSink {
    settings: StreamSettings,
    dialer: Dialer,
    /// `None` after a failure.
    connection: Option<Commands>,
}

impl StreamSink {
    pub(super) fn new(settings: StreamSettings, tls: Arc<ClientConfig>) -> Self {
        let dialer = Dialer::new(settings.topology.clone(), tls.into());
        Self { settings, dialer, connection: None }
    }

    async fn add(&mut self, producer: &str, entries: &[OutboxEntry]) -> anyhow::Result<()> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.dialer.commands(TIMEOUT).await?,
        };
        let StreamSettings { stream, max_length, .. } = &self.settings;
        let mut command = cmd("EVAL");
        command.arg(ADD).arg(2).arg(stream).arg(mark_key(stream, producer));
        command.arg(max_length).arg(REMEMBERED);
        for OutboxEntry { seq, event } in entries {
            let (id, row) = event.key();
            let fields = StreamEntry::from(event).into_fields();
            command.arg(format!("{seq} {} {id} {row}", event.kind())).arg(2 * fields.len());
            for (name, value) in &fields {
                command.arg(name).arg(value);
            }
        }
        connection.send(&command).await?;
        self.connection = Some(connection);
        Ok(())
    }
}

/// The key of the mark, which has the hash tag of the stream: a Cluster has both on one node.
fn mark_key(stream: &str, producer: &str) -> String {
    match hash_tag(stream) {
        Some(_) => format!("{stream}:producer:{producer}"),
        None => format!("{{{stream}}}:producer:{producer}"),
    }
}

impl Sink for StreamSink {
    fn deliver<'a>(
        &'a mut self,
        producer: &'a str,
        entries: &'a [OutboxEntry],
        delivered: &'a mut usize,
    ) -> BoxFuture<'a, Result<(), SinkError>> {
        async move {
            let added = timeout(TIMEOUT, self.add(producer, entries)).await;
            let added =
                added.unwrap_or_else(|_| Err(anyhow::anyhow!("no reply within {TIMEOUT:?}")));
            added.map_err(|error| SinkError::Retry(format!("Redis: {error:#}")))?;
            *delivered = entries.len();
            Ok(())
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The part of a key that a Cluster hashes, as its specification defines it.
    fn hashed(key: &str) -> &str {
        let tag = key.split_once('{').and_then(|(_, rest)| rest.split_once('}'));
        tag.map_or(key, |(tag, _)| if tag.is_empty() { key } else { tag })
    }

    #[test]
    fn mark_is_on_the_node_of_its_stream() {
        for stream in ["spinfer:predictions", "a{b}c", "{b}", "a{b"] {
            let key = mark_key(stream, "7");
            assert_eq!(hashed(&key), hashed(stream), "{stream}: {key}");
            assert!(key.ends_with(":producer:7"));
        }
    }
}
