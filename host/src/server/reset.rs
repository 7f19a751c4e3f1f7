//! A connection that is reset, not closed, if the response on it is given up: the system drops what it
//! still had to send, and the client cannot take the response for complete, whatever its framing.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::http::body::delivery::Abort;

/// The stream of a connection that `abort` ends.
#[derive(Debug)]
pub struct ResetOnAbort {
    stream: TcpStream,
    abort: Arc<Abort>,
}

impl ResetOnAbort {
    #[must_use]
    pub fn new(stream: TcpStream, abort: Arc<Abort>) -> Self {
        Self { stream, abort }
    }
}

impl Drop for ResetOnAbort {
    fn drop(&mut self) {
        if self.abort.is_requested() {
            // Fails only if the connection is closed already.
            let _ = self.stream.set_zero_linger();
        }
    }
}

impl AsyncRead for ResetOnAbort {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for ResetOnAbort {
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
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn aborted_connection_is_reset_and_another_is_closed() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        for aborts in [false, true] {
            let client = TcpStream::connect(listener.local_addr().unwrap());
            let (client, accepted) = tokio::join!(client, listener.accept());
            let (mut client, (stream, _)) = (client.unwrap(), accepted.unwrap());
            let abort = Arc::new(Abort::default());
            let mut stream = ResetOnAbort::new(stream, Arc::clone(&abort));
            stream.write_all(b"begun").await.unwrap();
            client.read_exact(&mut [0; 5]).await.unwrap();
            if aborts {
                abort.request();
            }
            drop(stream);
            let end = client.read(&mut [0]).await;
            let is_reset = end.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionReset);
            assert_eq!(is_reset, aborts);
        }
    }
}
