//! Bodies of responses on their way to clients: passed to hyper in parts, charged to the memory budget
//! while they are in memory, and abandoned if the client does not read them.
//!
//! Over HTTP/1.1 a client that does not read fills the socket, and the write timeout ends the
//! connection. Over HTTP/2 each stream has its own flow-control window: a client that leaves it closed
//! stalls one response while the connection goes on. So each stream has a timeout of its own. When
//! others need what an unread response holds, its connection (HTTP/1.1) or its stream (HTTP/2) ends
//! earlier ([`Abort`]).

use std::cell::Cell;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use http::Response;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::rt::Executor;
use tokio::time::{Sleep, sleep};
use tracing::debug;
use wasmtime_wasi_http::Error as WasiHttpError;

use crate::http::body::Body;
use crate::http::body::cut_off::CutOff;
use crate::http::body::delivery::{Abort, DeliveredRoute, Delivery};
use crate::http::body::instance_body::MAX_UNREAD;
use crate::http::body::response_memory::OpenDelivery;
use crate::process::memory_budget::OverBudget;
use crate::server::connections::RequestInFlight;

/// Maximum size of one part, in bytes: a request is in flight until hyper has taken the last part.
const PART: usize = 64 << 10;

tokio::task_local! {
    /// In the task of an HTTP/2 stream.
    static STREAM: H2Stream;
}

#[derive(Default)]
struct H2Stream {
    /// The number of the part that hyper can take next; 0 while the component has not produced one.
    parts: Cell<u64>,
    abort: Arc<Abort>,
}

/// The body of a response. Its request is in flight until this is dropped.
pub struct OutgoingBody {
    body: Body,
    /// What is left of the last frame.
    rest: Bytes,
    /// A frame that waits for memory.
    waiting: Option<BoxFuture<'static, Result<Bytes, OverBudget>>>,
    /// The error that cuts the body off, until hyper has flushed the parts before it.
    error: Option<WasiHttpError>,
    parts: u64,
    /// Dropped after what it holds. `None` for a short response.
    delivery: Option<OpenDelivery>,
    in_flight: RequestInFlight,
}

impl std::fmt::Debug for OutgoingBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OutgoingBody").field("body", &self.body).finish_non_exhaustive()
    }
}

impl OutgoingBody {
    /// `response`, on its way to the client of the request `in_flight`.
    #[must_use]
    pub fn of(mut response: Response<Body>, in_flight: RequestInFlight) -> Response<Self> {
        let route = response.extensions_mut().remove::<DeliveredRoute>();
        response.map(|body| {
            let delivery = route.map(|DeliveredRoute(route)| {
                // HTTP/1.1 has no task for each response: its connection ends.
                let abort = STREAM.try_with(|stream| Arc::clone(&stream.abort));
                let abort = abort.unwrap_or_else(|_| Arc::clone(in_flight.abort()));
                let delivery = Delivery::new(in_flight.client(), route, abort);
                let open = in_flight.response_memory().deliver(delivery);
                body.set_delivery(open.delivery());
                open
            });
            let (rest, waiting, error, parts) = (Bytes::new(), None, None, 0);
            let mut body = Self { body, rest, waiting, error, parts, delivery, in_flight };
            body.set_available(true);
            body
        })
    }

    /// Publishes whether a part is available.
    fn set_available(&mut self, available: bool) {
        self.parts += 1;
        let parts = if available { self.parts } else { 0 };
        // HTTP/1.1 has no such task.
        let _ = STREAM.try_with(|stream| stream.parts.set(parts));
    }

    fn poll_part(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, WasiHttpError>>> {
        if let Some(error) = self.error.take() {
            return Poll::Ready(Some(Err(error)));
        }
        if let Some(waiting) = &mut self.waiting {
            let held = ready!(waiting.poll_unpin(cx));
            self.waiting = None;
            match held {
                Ok(data) => self.rest = data,
                Err(_) => {
                    let cut = CutOff::MemoryBudget;
                    self.body.report_cut_off(&cut);
                    return Poll::Ready(Some(Err(WasiHttpError::from(&cut))));
                }
            }
        } else if self.rest.is_empty() {
            let frame = match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => frame,
                Some(Err(error)) => {
                    // On an error, hyper drops an HTTP/1.1 connection with all that it has buffered.
                    self.error = Some(error);
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                None => return Poll::Ready(None),
            };
            let data = match frame.into_data() {
                Ok(data) => data,
                Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
            };
            if self.body.is_charged() {
                self.rest = data;
            } else {
                let (memory, client) =
                    (self.in_flight.response_memory(), Some(self.in_flight.client().ip()));
                match memory.try_hold(data.clone(), client) {
                    Ok(data) => self.rest = data,
                    Err(_) => {
                        let memory = memory.clone();
                        self.waiting = Some(async move { memory.hold(data, client).await }.boxed());
                        return self.poll_part(cx);
                    }
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
        if let Some(open) = &self.delivery {
            open.delivery().progress(part.is_pending());
        }
        part
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.waiting.is_none() && self.body.is_end_stream()
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
        tokio::spawn(STREAM.scope(H2Stream::default(), until_stalled(stream)));
    }
}

/// Runs `stream`; drops it if its response is given up, or if its client leaves an available part unread
/// for too long.
async fn until_stalled(stream: impl Future<Output = ()>) {
    let mut stream = pin!(stream);
    let mut stalled: Option<(u64, Pin<Box<Sleep>>)> = None;
    std::future::poll_fn(|cx| {
        if stream.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        if STREAM.with(|stream| stream.abort.poll_requested(cx)).is_ready() {
            return Poll::Ready(());
        }
        let parts = STREAM.with(|stream| stream.parts.get());
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
    use std::time::Duration;

    use http_body_util::BodyExt;

    use crate::http::body::response_memory::ResponseMemory;
    use crate::server::connections::{ConnectionLimiter, ConnectionLimits};

    use super::*;

    #[tokio::test]
    async fn a_body_is_passed_in_parts_and_its_request_in_flight_until_the_last() {
        let limits = ConnectionLimits { max: 1, keep_alive: Duration::from_secs(60) };
        let memory = ResponseMemory::new(1 << 20, 1 << 20);
        let all = Arc::new(ConnectionLimiter::new(limits, memory));
        let one = all.open(all.permit().await, ([127, 0, 0, 1], 1).into());
        for length in [0, 1, PART, PART + 1, 3 * PART] {
            let bytes: Vec<u8> = (0..length).map(|n| u8::try_from(n % 251).unwrap()).collect();
            let response = Response::new(Body::whole(bytes.clone()));
            let in_flight = one.begin(http::Version::HTTP_11);
            let mut outgoing = OutgoingBody::of(response, in_flight).into_body();
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
