//! What comes over a connection, measured.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::storage::redis::Stream;

/// Bytes of one answer. A longer one ends its connection: nothing else would stop it.
const MAX_ANSWER: u64 = 64 << 20;

/// What has come over a connection, in bytes.
#[derive(Debug, Default)]
pub(super) struct Wire {
    heard: AtomicU64,
    /// How much of that before the last answer that was complete.
    answered: AtomicU64,
}

impl Wire {
    fn heard(&self) -> u64 {
        self.heard.load(Ordering::Relaxed)
    }

    pub(super) fn answered(&self) {
        self.answered.store(self.heard(), Ordering::Relaxed);
    }

    /// Bytes that are part of no complete answer yet.
    fn unanswered(&self) -> u64 {
        self.heard().saturating_sub(self.answered.load(Ordering::Relaxed))
    }

    fn hear(&self, bytes: usize) -> io::Result<()> {
        self.heard.fetch_add(bytes as u64, Ordering::Relaxed);
        if self.unanswered() > MAX_ANSWER {
            return Err(io::Error::other(format!("an answer of more than {MAX_ANSWER} bytes")));
        }
        Ok(())
    }
}

/// A stream that breaks off when an answer gets too long.
pub(super) struct Measured {
    stream: Box<dyn Stream>,
    wire: Arc<Wire>,
}

impl Measured {
    pub(super) fn new(stream: Box<dyn Stream>) -> (Self, Arc<Wire>) {
        let wire = Arc::new(Wire::default());
        (Self { stream, wire: Arc::clone(&wire) }, wire)
    }
}

impl AsyncRead for Measured {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        Poll::Ready(self.wire.hear(buffer.filled().len() - before))
    }
}

impl AsyncWrite for Measured {
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
    async fn an_answer_without_end_ends_the_stream() {
        let (mut measured, wire) = Measured::new(Box::new(zeros()));
        let mut part = vec![0; 1 << 20];
        let most = usize::try_from(MAX_ANSWER).unwrap();
        for _ in 0..most / part.len() {
            assert!(measured.read_exact(&mut part).await.is_ok());
        }
        assert!(measured.read_exact(&mut part).await.is_err());
        // What was answered does not count.
        wire.answered();
        assert!(measured.read_exact(&mut part).await.is_ok());
    }

    /// Zeros for ever; what is written is gone.
    fn zeros() -> impl Stream {
        tokio::io::join(tokio::io::repeat(0), tokio::io::sink())
    }
}
