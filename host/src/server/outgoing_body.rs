//! Bodies of responses on their way to clients: passed to hyper in parts, charged to the memory budget
//! while they are in memory, and abandoned if the client does not read them.
//!
//! Over HTTP/1.1 a client that does not read fills the socket, and the write timeout ends the
//! connection. Over HTTP/2 each stream has its own flow-control window: a client that leaves it closed
//! stalls one response while the connection goes on. So each stream has a timeout of its own.

use std::cell::Cell;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::rt::Executor;
use tokio::time::{Sleep, sleep};
use tracing::debug;
use wasmtime_wasi_http::Error as WasiHttpError;

use crate::http::body::guest_body::MAX_UNREAD;
use crate::http::body::{Body, charged};
use crate::server::connections::RequestInFlight;

/// Maximum size of one part, in bytes: a request is in flight until hyper has taken the last part.
const PART: usize = 64 << 10;

tokio::task_local! {
    /// In the task of an HTTP/2 stream: the number of the part that hyper can take next; 0 while the
    /// component has not produced one.
    static PARTS: Cell<u64>;
}

/// The body of a response. Its request is in flight until this is dropped.
#[derive(Debug)]
pub struct OutgoingBody {
    body: Body,
    /// What is left of the last frame.
    rest: Bytes,
    parts: u64,
    in_flight: RequestInFlight,
}

impl OutgoingBody {
    #[must_use]
    pub fn new(body: Body, in_flight: RequestInFlight) -> Self {
        let mut body = Self { body, rest: Bytes::new(), parts: 0, in_flight };
        body.set_available(true);
        body
    }

    /// Publishes whether a part is available.
    fn set_available(&mut self, available: bool) {
        self.parts += 1;
        let parts = if available { self.parts } else { 0 };
        // HTTP/1.1 has no such task.
        let _ = PARTS.try_with(|cell| cell.set(parts));
    }

    fn poll_part(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, WasiHttpError>>> {
        if self.rest.is_empty() {
            let frame = match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => frame,
                end => return Poll::Ready(end),
            };
            let data = match frame.into_data() {
                Ok(data) => data,
                Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
            };
            // A body that was whole from the start is charged already.
            let charged = if self.body.is_whole() {
                Ok(data)
            } else {
                charged(data, self.in_flight.response_budget())
            };
            match charged {
                Ok(data) => self.rest = data,
                Err(error) => {
                    let problem = error.to_string();
                    return Poll::Ready(Some(Err(WasiHttpError::InternalError(Some(problem)))));
                }
            }
        }
        let part = self.rest.len().min(PART);
        Poll::Ready(Some(Ok(Frame::data(self.rest.split_to(part)))))
    }
}

impl HttpBody for OutgoingBody {
    type Data = Bytes;
    type Error = WasiHttpError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, WasiHttpError>>> {
        let part = self.poll_part(cx);
        self.set_available(part.is_ready());
        part
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (body, rest) = (self.body.size_hint(), self.rest.len() as u64);
        let mut hint = SizeHint::new();
        hint.set_lower(body.lower() + rest);
        if let Some(upper) = body.upper() {
            hint.set_upper(upper + rest);
        }
        hint
    }
}

/// Spawns the streams of an HTTP/2 connection. A stream whose client reads nothing of its response for
/// [`MAX_UNREAD`] is reset (`RST_STREAM`); the others go on.
#[derive(Clone, Copy, Debug)]
pub struct H2Executor;

impl<F> Executor<F> for H2Executor
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        tokio::spawn(PARTS.scope(Cell::new(0), until_stalled(stream)));
    }
}

/// Runs `stream`; drops it if its client leaves an available part unread for too long.
async fn until_stalled(stream: impl Future<Output = ()>) {
    let mut stream = pin!(stream);
    let mut stalled: Option<(u64, Pin<Box<Sleep>>)> = None;
    std::future::poll_fn(|cx| {
        if stream.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        let parts = PARTS.with(Cell::get);
        stalled = stalled.take().filter(|(before, _)| *before == parts);
        if parts == 0 {
            return Poll::Pending;
        }
        let (_, timeout) = stalled.get_or_insert_with(|| (parts, Box::pin(sleep(MAX_UNREAD))));
        ready!(timeout.as_mut().poll(cx));
        debug!("the client does not read its response");
        Poll::Ready(())
    })
    .await;
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use http_body_util::BodyExt;

    use crate::process::memory_budget::MemoryBudget;
    use crate::server::connections::{ConnectionLimiter, ConnectionLimits};

    use super::*;

    #[tokio::test]
    async fn a_body_is_passed_in_parts_and_its_request_in_flight_until_the_last() {
        let limits = ConnectionLimits { max: 1, keep_alive: Duration::from_secs(60) };
        let all = Arc::new(ConnectionLimiter::new(limits, MemoryBudget::new(1 << 20, "responses")));
        let one = all.open(all.permit().await);
        for length in [0, 1, PART, PART + 1, 3 * PART] {
            let bytes: Vec<u8> = (0..length).map(|n| u8::try_from(n % 251).unwrap()).collect();
            let mut outgoing = OutgoingBody::new(Body::whole(bytes.clone()), one.begin());
            let mut received = Vec::new();
            while !outgoing.is_end_stream() {
                assert_eq!(outgoing.size_hint().exact(), Some((length - received.len()) as u64));
                let frame = outgoing.frame().await.unwrap().unwrap().into_data().unwrap();
                assert!(frame.len() <= PART && !one.is_idle());
                received.extend_from_slice(&frame);
            }
            assert!(received == bytes, "{length}");
            drop(outgoing);
            assert!(one.is_idle());
        }
    }
}
