//! Bodies of responses that guests requested from other servers.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Sleep, sleep};
use wasmtime_wasi_http::{Error as WasiHttpError, WasiBody};

/// A body from elsewhere, and its place among those.
pub(super) struct Fetched {
    body: WasiBody,
    silence: Duration,
    /// While the next part is waited for.
    late: Option<Pin<Box<Sleep>>>,
    _place: OwnedSemaphorePermit,
}

impl Fetched {
    pub(super) fn new(body: WasiBody, silence: Duration, place: OwnedSemaphorePermit) -> Self {
        Self { body, silence, late: None, _place: place }
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
            self.late = None;
            return Poll::Ready(frame);
        }
        let silence = self.silence;
        let late = self.late.get_or_insert_with(|| Box::pin(sleep(silence)));
        ready!(late.as_mut().poll(cx));
        Poll::Ready(Some(Err(WasiHttpError::ConnectionReadTimeout)))
    }
}
