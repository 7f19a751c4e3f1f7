//! A body as its reader sees it: its deadlines, and the error if it is cut off.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::{Sleep, sleep_until};
use wasmtime_wasi_http::Error as WasiHttpError;

use super::shared::{BodySource, SharedBody};
use super::{InstanceBodies, MAX_UNREAD_COMPUTING};
use crate::http::body::cut_off::CutOff;

/// The body of a response or a request, as its reader sees it.
pub struct InstanceBody {
    shared: Arc<SharedBody>,
    /// `None` if the body does not depend on the instance, which passes on one it has received.
    registered: Option<u64>,
    instance: Arc<InstanceBodies>,
    timer: Option<Pin<Box<Sleep>>>,
    /// Why it failed, once its reader knows.
    cut: Option<CutOff>,
}

impl fmt::Debug for InstanceBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InstanceBody").field("cut", &self.cut).finish_non_exhaustive()
    }
}

impl InstanceBody {
    pub(super) fn new(
        shared: Arc<SharedBody>,
        registered: Option<u64>,
        instance: Arc<InstanceBodies>,
    ) -> Self {
        Self { shared, registered, instance, timer: None, cut: None }
    }

    /// Why it failed, if its reader has received the error.
    #[must_use]
    pub fn cut_off(&self) -> Option<&CutOff> {
        self.cut.as_ref()
    }

    /// Sets the deadline of the next part, at most that of the body.
    pub(super) fn limit(&self, deadline: Instant) -> Instant {
        let deadline = self.shared.total.map_or(deadline, |total| total.min(deadline));
        let nanos = deadline.saturating_duration_since(self.instance.created).as_nanos();
        let nanos = u64::try_from(nanos).unwrap_or(u64::MAX).max(1);
        self.shared.deadline.store(nanos, Ordering::Relaxed);
        deadline
    }

    fn is_response(&self) -> bool {
        self.shared.deadline.load(Ordering::Relaxed) > 0
    }

    /// Starts the idle timeout, or checks it.
    fn poll_timeout(&mut self, cx: &mut Context<'_>) -> Poll<CutOff> {
        if !self.is_response() {
            return Poll::Pending;
        }
        if self.timer.is_none() {
            let deadline = self.limit(Instant::now() + self.instance.limits.idle);
            self.timer = Some(Box::pin(sleep_until(deadline.into())));
        }
        let timer = self.timer.as_mut().map_or(Poll::Pending, |timer| timer.as_mut().poll(cx));
        timer.map(|()| self.shared.late())
    }

    fn fail(&mut self, cut: CutOff) -> WasiHttpError {
        self.shared.state.lock().source = BodySource::Ended(Some(cut.clone()));
        let error = match self.is_response() {
            true => WasiHttpError::from(&cut),
            false => WasiHttpError::ConnectionTerminated,
        };
        self.cut = Some(cut);
        error
    }
}

impl HttpBody for InstanceBody {
    type Data = Bytes;
    type Error = WasiHttpError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, WasiHttpError>>> {
        let polled = self.shared.state.lock().poll_next(cx);
        let cut = match polled {
            Poll::Ready(Ok(None)) => return Poll::Ready(None),
            Poll::Ready(Ok(Some(_))) if self.shared.is_over() => CutOff::Total,
            Poll::Ready(Ok(Some(frame))) => {
                self.timer = None;
                if self.is_response() {
                    self.limit(Instant::now() + MAX_UNREAD_COMPUTING);
                }
                return Poll::Ready(Some(Ok(frame)));
            }
            Poll::Ready(Err(cut)) => cut,
            Poll::Pending => ready!(self.poll_timeout(cx)),
        };
        Poll::Ready(Some(Err(self.fail(cut))))
    }

    fn is_end_stream(&self) -> bool {
        let state = self.shared.state.lock();
        let all = state.announced.is_none_or(|announced| state.sent >= announced);
        let ended = match &state.source {
            BodySource::Open(body) => body.is_end_stream(),
            BodySource::Ended(cut) => cut.is_none(),
        };
        state.ahead.is_empty() && all && ended
    }

    fn size_hint(&self) -> SizeHint {
        let state = self.shared.state.lock();
        let left = state.announced.map(|announced| announced.saturating_sub(state.sent));
        left.map_or_else(SizeHint::new, SizeHint::with_exact)
    }
}

impl Drop for InstanceBody {
    fn drop(&mut self) {
        let Some(number) = self.registered else { return };
        let mut open = self.instance.open.lock();
        open.bodies.remove(&number);
        if self.is_response() {
            // A body that was cut off gives the instance no more time.
            if self.cut.is_none() {
                open.linger = Some(Instant::now() + self.instance.limits.linger);
            }
            drop(open);
            self.instance.worker.wake();
        }
    }
}
