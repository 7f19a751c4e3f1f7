//! What comes over a connection, measured.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes of one answer. A longer one ends its connection: nothing else would stop it.
pub(super) const ANSWER_MOST: u64 = 64 << 20;

/// What has come over a connection, in bytes.
#[derive(Debug, Default)]
pub(crate) struct Wire {
    heard: AtomicU64,
    /// How much of that before the last answer that was complete.
    answered: AtomicU64,
}

impl Wire {
    pub(super) fn heard(&self) -> u64 {
        self.heard.load(Ordering::Relaxed)
    }

    pub(crate) fn answered(&self) {
        self.answered.store(self.heard(), Ordering::Relaxed);
    }

    /// Bytes that are part of no complete answer yet.
    pub(super) fn unanswered(&self) -> u64 {
        self.heard().saturating_sub(self.answered.load(Ordering::Relaxed))
    }

    fn hear(&self, bytes: usize) -> io::Result<()> {
        self.heard.fetch_add(bytes as u64, Ordering::Relaxed);
        if self.unanswered() > ANSWER_MOST {
            return Err(io::Error::other(format!("an answer of more than {ANSWER_MOST} bytes")));
        }
        Ok(())
    }
}

pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// A stream that breaks off when an answer gets too long.
pub(crate) struct Measured {
    pub(super) stream: Box<dyn Stream>,
    pub(super) wire: Arc<Wire>,
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
