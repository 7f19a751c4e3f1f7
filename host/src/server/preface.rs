//! The first bytes of a connection tell its version of HTTP. They have to arrive within a timeout.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// The connection preface of an HTTP/2 client (RFC 9113, 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A stream whose reads fail with `TimedOut` until its client has sent enough to tell the version.
pub struct PrefaceTimeout<S> {
    stream: S,
    /// `None` once the version is known.
    undecided: Option<Undecided>,
}

struct Undecided {
    /// Bytes of the preface that have arrived.
    seen: usize,
    timeout: Pin<Box<Sleep>>,
}

impl<S> PrefaceTimeout<S> {
    pub fn new(stream: S, timeout: Duration) -> Self {
        let timeout = Box::pin(sleep(timeout));
        Self { stream, undecided: Some(Undecided { seen: 0, timeout }) }
    }
}

impl<S> std::fmt::Debug for PrefaceTimeout<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let seen = self.undecided.as_ref().map(|undecided| undecided.seen);
        f.debug_struct("PrefaceTimeout").field("undecided", &seen).finish_non_exhaustive()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for PrefaceTimeout<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let Some(undecided) = &mut this.undecided else {
            return Pin::new(&mut this.stream).poll_read(cx, buffer);
        };
        let before = buffer.filled().len();
        let polled = Pin::new(&mut this.stream).poll_read(cx, buffer);
        if polled.is_pending() {
            ready!(undecided.timeout.as_mut().poll(cx));
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let new = &buffer.filled()[before..];
        let rest = &PREFACE[undecided.seen..];
        if !new.is_empty() && rest.len() > new.len() && rest.starts_with(new) {
            undecided.seen += new.len();
        } else {
            this.undecided = None;
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for PrefaceTimeout<S> {
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

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    /// Whether the version is known after a client has sent `parts`.
    async fn is_decided_after(parts: &[&str]) -> bool {
        let (mut client, server) = duplex(64);
        let mut stream = PrefaceTimeout::new(server, Duration::from_secs(60));
        let mut buffer = [0; 64];
        for part in parts {
            client.write_all(part.as_bytes()).await.unwrap();
            assert_eq!(stream.read(&mut buffer).await.unwrap(), part.len());
        }
        stream.undecided.is_none()
    }

    #[tokio::test]
    async fn the_first_byte_that_differs_from_the_preface_tells_the_version() {
        for (parts, decided) in [
            (&["GET / HTTP/1.1\r\n"][..], true),
            (&["P"], false),
            (&["P", "OST / HTTP/1.1\r\n"], true),
            (&["PRI * HT"], false),
            (&["PRI * HT", "TP/2.0\r\n\r\n", "SM\r\n\r"], false),
            (&["PRI * HT", "TP/2.0\r\n\r\n", "SM\r\n\r", "\n"], true),
            (&["PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n and more"], true),
            (&["PRI * HTTP/1.1\r\n"], true),
        ] {
            assert_eq!(is_decided_after(parts).await, decided, "{parts:?}");
        }
    }

    #[tokio::test]
    async fn an_incomplete_preface_times_out() {
        for sent in ["", "PRI"] {
            let (mut client, server) = duplex(64);
            client.write_all(sent.as_bytes()).await.unwrap();
            let mut stream = PrefaceTimeout::new(server, Duration::from_millis(10));
            let read = stream.read_to_string(&mut String::new()).await;
            assert_eq!(read.unwrap_err().kind(), io::ErrorKind::TimedOut, "{sent}");
        }
    }

    #[tokio::test]
    async fn the_end_of_the_stream_ends_the_timeout() {
        let (client, server) = duplex(64);
        drop(client);
        let mut stream = PrefaceTimeout::new(server, Duration::from_secs(60));
        assert_eq!(stream.read_to_string(&mut String::new()).await.unwrap(), 0);
        assert!(stream.undecided.is_none());
    }
}
