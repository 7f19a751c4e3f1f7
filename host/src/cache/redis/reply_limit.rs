//! A limit on the size of a reply.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::storage::redis::RedisStream;

/// Maximum size of a reply, in bytes. A larger one closes its connection: the library has no limit.
const MAX_REPLY: u64 = 64 << 20;

/// Bytes received over a connection.
#[derive(Debug, Default)]
pub(super) struct Wire {
    received: AtomicU64,
    /// The part of `received` up to the last complete reply.
    complete: AtomicU64,
}

impl Wire {
    fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    pub(super) fn reply_complete(&self) {
        self.complete.store(self.received(), Ordering::Relaxed);
    }

    /// Bytes of replies that are not complete.
    fn incomplete(&self) -> u64 {
        self.received().saturating_sub(self.complete.load(Ordering::Relaxed))
    }

    fn receive(&self, bytes: usize) -> io::Result<()> {
        self.received.fetch_add(bytes as u64, Ordering::Relaxed);
        if self.incomplete() > MAX_REPLY {
            return Err(io::Error::other(format!("a reply exceeds {MAX_REPLY} bytes")));
        }
        Ok(())
    }
}

/// A stream that fails when a reply exceeds the limit.
pub(super) struct LimitedReply {
    stream: Box<dyn RedisStream>,
    wire: Arc<Wire>,
}

impl LimitedReply {
    pub(super) fn new(stream: Box<dyn RedisStream>) -> (Self, Arc<Wire>) {
        let wire = Arc::new(Wire::default());
        (Self { stream, wire: Arc::clone(&wire) }, wire)
    }
}

impl AsyncRead for LimitedReply {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        Poll::Ready(self.wire.receive(buffer.filled().len() - before))
    }
}

impl AsyncWrite for LimitedReply {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test]
    async fn endless_reply_fails_the_stream() {
        let (mut stream, wire) = LimitedReply::new(Box::new(zeros()));
        let mut part = vec![0; 1 << 20];
        let limit = usize::try_from(MAX_REPLY).unwrap();
        for _ in 0..limit / part.len() {
            assert!(stream.read_exact(&mut part).await.is_ok());
        }
        assert!(stream.read_exact(&mut part).await.is_err());
        // A complete reply does not count.
        wire.reply_complete();
        assert!(stream.read_exact(&mut part).await.is_ok());
    }

    /// Endless zeros; what is written is discarded.
    fn zeros() -> impl RedisStream {
        tokio::io::join(tokio::io::repeat(0), tokio::io::sink())
    }
}
