//! Bodies of responses that guests requested from other servers.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Sleep, sleep};
use wasmtime_wasi_http::{Error as WasiHttpError, WasiBody};

/// The body of another server's response, and its permit.
pub(super) struct OutboundResponseBody {
    body: WasiBody,
    between_frames: Duration,
    /// Set while the next frame is awaited.
    timeout: Option<Pin<Box<Sleep>>>,
    _permit: OwnedSemaphorePermit,
}

impl OutboundResponseBody {
    pub(super) fn new(
        body: WasiBody,
        between_frames: Duration,
        permit: OwnedSemaphorePermit,
    ) -> Self {
        Self { body, between_frames, timeout: None, _permit: permit }
    }

    pub(super) fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }

    pub(super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, WasiHttpError>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            self.timeout = None;
            return Poll::Ready(frame);
        }
        let between_frames = self.between_frames;
        let timeout = self.timeout.get_or_insert_with(|| Box::pin(sleep(between_frames)));
        ready!(timeout.as_mut().poll(cx));
        Poll::Ready(Some(Err(WasiHttpError::ConnectionReadTimeout)))
    }
}
