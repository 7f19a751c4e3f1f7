//! Request bodies: admitted whole, or as a stream within a limit.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::{BodyExt, Full};
use tokio::time::timeout;
use wasmtime_wasi_http::{Error as WasiHttpError, WasiBody};

use super::error::BodyError;
use crate::http::error::Failure;

/// How much of a body over its limit is read and thrown away. A client that is still sending when
/// the connection closes would never see the answer.
pub(crate) const MAX_DISCARD: usize = 8 << 20;
/// And for how long.
const DISCARD_TIME: Duration = Duration::from_secs(2);

/// How a streamed body arrives: what a guest that answers an error cannot tell the client.
#[derive(Debug, Default)]
pub struct Arrival {
    over: AtomicBool,
    broken: AtomicBool,
    /// The coding that it is not in, and what is wrong.
    undecodable: OnceLock<(&'static str, &'static str)>,
    /// Whether the guest has asked for more than has come.
    awaited: AtomicBool,
    complete: AtomicBool,
}

impl Arrival {
    /// Why the body did not arrive, if it did not.
    #[must_use]
    pub fn failure(&self, limit: usize) -> Option<Failure> {
        if self.over.load(Ordering::Relaxed) {
            return Some(Failure::BodyTooLarge { limit });
        }
        if let Some(&(coding, problem)) = self.undecodable.get() {
            return Some(Failure::BodyUndecodable { coding, problem });
        }
        let broken = self.broken.load(Ordering::Relaxed);
        broken.then(|| Failure::BodyBroken("while it was streamed".into()))
    }

    fn failed(&self, error: &BodyError) {
        match *error {
            BodyError::Broken { .. } => self.broken.store(true, Ordering::Relaxed),
            BodyError::TooLarge => self.over.store(true, Ordering::Relaxed),
            BodyError::Undecodable { coding, problem } => {
                // It fails once.
                let _ = self.undecodable.set((coding, problem));
            }
        }
    }

    /// Whether the guest waits for more of it.
    #[must_use]
    pub fn is_awaited(&self) -> bool {
        self.awaited.load(Ordering::Relaxed)
    }

    /// Whether it has come to its end, and was read.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.complete.load(Ordering::Relaxed)
    }
}

/// A request body as it was admitted.
#[derive(Debug)]
pub enum RequestBody {
    /// Complete, and within what the fast door takes.
    Whole(Bytes),
    /// Still arriving, and how that goes.
    Streamed(WasiBody, Arc<Arrival>),
}

impl RequestBody {
    /// Takes `body` in: whole if it ends within `whole` bytes, else as a stream that breaks off
    /// after `limit` bytes. A client that `waits` for our consent sends nothing that is refused.
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
        let mut first = BytesMut::new();
        if announced <= whole as u64 {
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

    /// Reads some of a body that is refused: a client that is still sending would not see why.
    pub async fn discard<B>(body: B)
    where
        B: HttpBody<Data = Bytes, Error: Into<BodyError>> + Unpin,
    {
        let mut refused = Limited::new(Bytes::new(), body, 0);
        // Ends with the limit's error; a client that goes on for too long is cut off.
        let _ = timeout(DISCARD_TIME, refused.frame()).await;
    }

    fn stream<B>(first: Bytes, rest: B, limit: usize) -> Self
    where
        B: HttpBody<Data = Bytes, Error: Into<BodyError>> + Unpin + Send + 'static,
    {
        let body = Limited::new(first, rest, limit);
        let arrival = Arc::clone(&body.arrival);
        Self::Streamed(body.boxed_unsync(), arrival)
    }

    /// All of it, if that is here.
    #[must_use]
    pub fn whole(&self) -> Option<&Bytes> {
        match self {
            Self::Whole(bytes) => Some(bytes),
            Self::Streamed(..) => None,
        }
    }

    /// How it arrives, if it still does.
    #[must_use]
    pub fn arrival(&self) -> Option<Arc<Arrival>> {
        match self {
            Self::Whole(_) => None,
            Self::Streamed(_, arrival) => Some(Arc::clone(arrival)),
        }
    }

    /// For the standard door, which takes every body as a stream.
    #[must_use]
    pub fn into_wasi(self) -> WasiBody {
        match self {
            Self::Whole(bytes) => Full::new(bytes).map_err(|never| match never {}).boxed_unsync(),
            Self::Streamed(body, _) => body,
        }
    }
}

/// What was read ahead, then the rest, `left` bytes in all. What is more is discarded, and ends in
/// an error.
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
                    _ if self.arrival.over.load(Ordering::Relaxed) => return too_large(),
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
            self.arrival.over.store(true, Ordering::Relaxed);
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
            && !self.arrival.over.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::convert::Infallible;

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
    async fn a_short_body_is_whole() {
        for (count, size) in [(0, 0), (1, 10), (2, 5), (10, 1)] {
            let body = admit(count, size, 10, 100).await;
            assert!(
                matches!(&body, RequestBody::Whole(b) if b.len() == usize::from(count) * size),
                "{body:?}"
            );
        }
    }

    #[tokio::test]
    async fn a_longer_one_is_a_stream_of_all_of_it() {
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
    async fn a_stream_over_the_limit_ends_in_an_error_and_says_so() {
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
    async fn what_is_announced_over_the_limit_is_refused_at_once() {
        for waits in [false, true] {
            let body = Full::new(Bytes::from(vec![0; 101]));
            let refused = RequestBody::admit(body, 10, 100, waits).await.unwrap_err();
            assert!(matches!(refused, Failure::BodyTooLarge { limit: 100 }), "{refused}");
        }
    }
}
