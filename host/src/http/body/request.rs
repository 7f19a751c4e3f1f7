//! Request bodies: admitted whole, or as a stream within a limit.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::{Body as HttpBody, Frame};
use http_body_util::{BodyExt, Full};
use tokio::time::timeout;
use wasmtime_wasi_http::{Error as WasiHttpError, WasiBody};

use super::coalesced::Coalesced;
use super::error::BodyError;
use crate::http::error::Failure;

/// Maximum number of bytes of a refused body that are read and discarded. A client that is still sending
/// when the connection closes would never receive the response.
pub(crate) const MAX_DISCARD: usize = 8 << 20;
/// Maximum time for that.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(2);

/// The progress of a streamed body, from which the client learns why it failed: the guest's response
/// cannot tell.
#[derive(Debug, Default)]
pub struct Arrival {
    too_large: AtomicBool,
    fragmented: AtomicBool,
    broken: AtomicBool,
    /// The coding in which it is invalid, and the problem.
    undecodable: OnceLock<(&'static str, &'static str)>,
    /// Whether the guest waits for more of it.
    awaited: AtomicBool,
    complete: AtomicBool,
}

impl Arrival {
    /// Why the body failed, if it did.
    #[must_use]
    pub fn failure(&self, limit: usize) -> Option<Failure> {
        if self.too_large.load(Ordering::Relaxed) {
            return Some(Failure::BodyTooLarge { limit });
        }
        if let Some(&(coding, problem)) = self.undecodable.get() {
            return Some(Failure::BodyUndecodable { coding, problem });
        }
        if self.fragmented.load(Ordering::Relaxed) {
            return Some(Failure::BodyFragmented);
        }
        let broken = self.broken.load(Ordering::Relaxed);
        broken.then(|| Failure::BodyBroken("it failed while it was streamed".into()))
    }

    fn failed(&self, error: &BodyError) {
        match *error {
            BodyError::Broken { .. } => self.broken.store(true, Ordering::Relaxed),
            BodyError::TooLarge => self.too_large.store(true, Ordering::Relaxed),
            BodyError::Fragmented => self.fragmented.store(true, Ordering::Relaxed),
            BodyError::Undecodable { coding, problem } => {
                // A body fails only once.
                let _ = self.undecodable.set((coding, problem));
            }
        }
    }

    /// Whether the guest waits for more of it.
    #[must_use]
    pub fn is_awaited(&self) -> bool {
        self.awaited.load(Ordering::Relaxed)
    }

    /// Whether it was read to its end.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.complete.load(Ordering::Relaxed)
    }
}

/// An admitted request body.
#[derive(Debug)]
pub enum RequestBody {
    /// Complete, and small enough for the fast door.
    Whole(Bytes),
    /// Still arriving, with its progress.
    Streamed(WasiBody, Arc<Arrival>),
}

impl RequestBody {
    /// Admits `body`: whole if it has at most `whole` bytes, else as a stream that fails after `limit`
    /// bytes. A body that can only be streamed is admitted before any of it has arrived: its client may
    /// wait for the head of the response first. A client that `waits` for `100 Continue` sends no body
    /// that is refused.
    ///
    /// # Errors
    /// The body exceeds `limit`, or cannot be read.
    pub async fn admit<B>(
        mut body: B,
        whole: usize,
        limit: usize,
        waits: bool,
    ) -> Result<Self, Failure>
    where
        B: HttpBody<Data = Bytes, Error: Into<BodyError>> + Unpin + Send + 'static,
    {
        let announced = body.size_hint().lower();
        if announced > limit as u64 {
            if !waits {
                Self::discard(body).await;
            }
            return Err(Failure::BodyTooLarge { limit });
        }
        if body.is_end_stream() {
            return Ok(Self::Whole(Bytes::new()));
        }
        let mut first = BytesMut::new();
        if whole > 0 && announced <= whole as u64 {
            while let Some(frame) = body.frame().await {
                let frame = frame.map_err(|error| error.into().into_failure(limit))?;
                let Ok(data) = frame.into_data() else { continue };
                if first.is_empty() && body.is_end_stream() && data.len() <= whole {
                    return Ok(Self::Whole(data));
                }
                first.extend_from_slice(&data);
                if first.len() > whole {
                    return Ok(Self::stream(first.freeze(), body, limit));
                }
            }
            return Ok(Self::Whole(first.freeze()));
        }
        Ok(Self::stream(Bytes::new(), body, limit))
    }

    /// Reads and discards a part of a body that is refused, so that a client that is still sending
    /// receives the response.
    pub async fn discard<B>(body: B)
    where
        B: HttpBody<Data = Bytes, Error: Into<BodyError>> + Unpin,
    {
        let mut refused = Limited::new(Bytes::new(), body, 0);
        // Fails at the limit, or times out for a client that sends slowly.
        let _ = timeout(DISCARD_TIMEOUT, refused.frame()).await;
    }

    fn stream<B>(first: Bytes, rest: B, limit: usize) -> Self
    where
        B: HttpBody<Data = Bytes, Error: Into<BodyError>> + Unpin + Send + 'static,
    {
        let body = Limited::new(first, Coalesced::new(rest), limit);
        let arrival = Arc::clone(&body.arrival);
        Self::Streamed(body.boxed_unsync(), arrival)
    }

    /// The complete body, if it was admitted whole.
    #[must_use]
    pub fn whole(&self) -> Option<&Bytes> {
        match self {
            Self::Whole(bytes) => Some(bytes),
            Self::Streamed(..) => None,
        }
    }

    /// The progress of a body that was admitted as a stream.
    #[must_use]
    pub fn arrival(&self) -> Option<Arc<Arrival>> {
        match self {
            Self::Whole(_) => None,
            Self::Streamed(_, arrival) => Some(Arc::clone(arrival)),
        }
    }

    /// The body for the standard door, which accepts every body as a stream.
    #[must_use]
    pub fn into_wasi(self) -> WasiBody {
        match self {
            Self::Whole(bytes) => Full::new(bytes).map_err(|never| match never {}).boxed_unsync(),
            Self::Streamed(body, _) => body,
        }
    }
}

/// The bytes read ahead, then the rest of the body: at most `left` bytes in all. What exceeds them is
/// discarded, up to a limit, and then the body fails.
struct Limited<B> {
    first: Bytes,
    rest: B,
    left: usize,
    discarded: usize,
    arrival: Arc<Arrival>,
}

impl<B> Limited<B> {
    fn new(first: Bytes, rest: B, limit: usize) -> Self {
        Self { first, rest, left: limit, discarded: 0, arrival: Arc::default() }
    }
}

impl<B> HttpBody for Limited<B>
where
    B: HttpBody<Data = Bytes, Error: Into<BodyError>> + Unpin,
{
    type Data = Bytes;
    type Error = WasiHttpError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, WasiHttpError>>> {
        let too_large = || Poll::Ready(Some(Err(WasiHttpError::HttpRequestBodySize(None))));
        loop {
            let frame = if self.first.is_empty() {
                let polled = Pin::new(&mut self.rest).poll_frame(cx);
                self.arrival.awaited.store(polled.is_pending(), Ordering::Relaxed);
                match ready!(polled) {
                    Some(Ok(frame)) => frame,
                    _ if self.arrival.too_large.load(Ordering::Relaxed) => return too_large(),
                    Some(Err(error)) => {
                        let error = error.into();
                        self.arrival.failed(&error);
                        return Poll::Ready(Some(Err(error.into())));
                    }
                    None => {
                        self.arrival.complete.store(true, Ordering::Relaxed);
                        return Poll::Ready(None);
                    }
                }
            } else {
                Frame::data(std::mem::take(&mut self.first))
            };
            let size = frame.data_ref().map_or(0, Bytes::len);
            if let Some(left) = self.left.checked_sub(size) {
                self.left = left;
                if self.is_end_stream() {
                    self.arrival.complete.store(true, Ordering::Relaxed);
                }
                return Poll::Ready(Some(Ok(frame)));
            }
            self.arrival.too_large.store(true, Ordering::Relaxed);
            self.left = 0;
            self.discarded = self.discarded.saturating_add(size);
            if self.discarded > MAX_DISCARD {
                return too_large();
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_empty()
            && self.rest.is_end_stream()
            && !self.arrival.too_large.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::convert::Infallible;

    use futures::FutureExt;
    use http_body_util::StreamBody;

    use super::*;

    /// A body of unknown length, in pieces of `size` bytes.
    fn pieces(count: u8, size: usize) -> impl HttpBody<Data = Bytes, Error = Infallible> + Unpin {
        let frames: VecDeque<_> =
            (0..count).map(|n| Ok(Frame::data(Bytes::from(vec![n; size])))).collect();
        StreamBody::new(futures::stream::iter(frames))
    }

    async fn admit(count: u8, size: usize, whole: usize, limit: usize) -> RequestBody {
        RequestBody::admit(pieces(count, size), whole, limit, false).await.unwrap()
    }

    #[tokio::test]
    async fn short_body_is_admitted_whole() {
        for (count, size) in [(0, 0), (1, 10), (2, 5), (10, 1)] {
            let body = admit(count, size, 10, 100).await;
            assert!(
                matches!(&body, RequestBody::Whole(b) if b.len() == usize::from(count) * size),
                "{body:?}"
            );
        }
    }

    #[tokio::test]
    async fn longer_body_is_streamed_completely() {
        for (count, size) in [(1, 11), (2, 6), (100, 1)] {
            let RequestBody::Streamed(body, arrival) = admit(count, size, 10, 100).await else {
                panic!("{count} times {size} is more than 10");
            };
            let bytes = body.collect().await.unwrap().to_bytes();
            let expected = pieces(count, size).collect().await.unwrap().to_bytes();
            assert_eq!(bytes, expected);
            assert!(arrival.is_complete());
            assert!(arrival.failure(100).is_none());
        }
    }

    #[tokio::test]
    async fn body_that_can_only_be_streamed_is_admitted_before_it_arrives() {
        let arriving = || {
            let frames = futures::stream::pending::<Result<Frame<Bytes>, Infallible>>();
            StreamBody::new(frames)
        };
        let admitted = RequestBody::admit(arriving(), 0, 100, false).now_or_never();
        assert!(matches!(admitted, Some(Ok(RequestBody::Streamed(..)))), "{admitted:?}");
        let buffered = RequestBody::admit(arriving(), 10, 100, false).now_or_never();
        assert!(buffered.is_none(), "its door takes a whole body, if it is short");
        let empty = RequestBody::admit(Full::new(Bytes::new()), 0, 100, false).await.unwrap();
        assert!(matches!(&empty, RequestBody::Whole(bytes) if bytes.is_empty()), "{empty:?}");
    }

    #[tokio::test]
    async fn stream_over_the_limit_fails_with_body_too_large() {
        for size in [1, 7, 101] {
            let RequestBody::Streamed(body, arrival) = admit(200, size, 10, 100).await else {
                panic!("more than 10");
            };
            let error = body.collect().await.unwrap_err();
            assert!(matches!(error, WasiHttpError::HttpRequestBodySize(None)), "{error}");
            assert!(matches!(arrival.failure(100), Some(Failure::BodyTooLarge { limit: 100 })));
            assert!(!arrival.is_complete());
        }
    }

    #[tokio::test]
    async fn announced_size_over_the_limit_is_refused_at_once() {
        for waits in [false, true] {
            let body = Full::new(Bytes::from(vec![0; 101]));
            let refused = RequestBody::admit(body, 10, 100, waits).await.unwrap_err();
            assert!(matches!(refused, Failure::BodyTooLarge { limit: 100 }), "{refused}");
        }
    }
}
