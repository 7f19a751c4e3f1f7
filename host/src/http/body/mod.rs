//! Bodies: whole where they are small, streamed where they are not.

pub mod error;
pub mod guest_body;

use std::ops::Deref;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::{BodyExt, Full};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Sleep, sleep, timeout};
use wasmtime_wasi_http::{Error as WasiHttpError, WasiBody};

use crate::http::body::error::BodyError;
use crate::http::error::Failure;
use crate::http::body::guest_body::Streaming;

/// A response body.
pub struct Body(Kind);

enum Kind {
    Whole(Full<Bytes>),
    /// From a guest.
    Streamed(Streaming),
    /// The same, copied on its way.
    Copied(Streaming, Copy),
    Fetched(Fetched),
}

/// A body from elsewhere, and its place among those.
struct Fetched {
    body: WasiBody,
    silence: Duration,
    /// While the next part is waited for.
    late: Option<Pin<Box<Sleep>>>,
    _place: OwnedSemaphorePermit,
}

impl Fetched {
    fn poll_frame(
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

/// Whoever is given a whole body, or is told that there is none.
type Take = dyn FnOnce(Option<&[u8]>) + Send;

/// What came of a body so far.
struct Copy {
    bytes: BytesMut,
    most: usize,
    /// `None` once it has been told.
    take: Option<Box<Take>>,
}

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self.0 {
            Kind::Whole(_) => "Body::Whole",
            Kind::Streamed(_) => "Body::Streamed",
            Kind::Copied(..) => "Body::Copied",
            Kind::Fetched(_) => "Body::Fetched",
        })
    }
}

impl Body {
    pub fn whole(bytes: impl Into<Bytes>) -> Self {
        Self(Kind::Whole(Full::new(bytes.into())))
    }

    /// A guest's body. The guest has its turn until the body's end.
    #[must_use]
    pub fn streamed(body: Streaming) -> Self {
        Self(Kind::Streamed(body))
    }

    /// A body from elsewhere, which keeps its place until its end. It breaks off if nothing of it
    /// comes for as long as `silence`.
    #[must_use]
    pub fn fetched(body: WasiBody, silence: Duration, place: OwnedSemaphorePermit) -> Self {
        Self(Kind::Fetched(Fetched { body, silence, late: None, _place: place }))
    }

    /// Whether all of it is there.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        matches!(self.0, Kind::Whole(_))
    }

    /// How long it is, if all of it is there.
    #[must_use]
    pub fn whole_size(&self) -> Option<usize> {
        match &self.0 {
            Kind::Whole(body) => usize::try_from(body.size_hint().exact()?).ok(),
            _ => None,
        }
    }

    /// All of it, if it is there; nothing is left then.
    pub fn take_whole(&mut self) -> Option<Bytes> {
        match &mut self.0 {
            Kind::Whole(body) => std::mem::take(body).into_inner(),
            _ => None,
        }
    }

    /// The same body, counted among `answers` until all of it is sent if it is there already.
    pub fn counted(self, answers: &Arc<Holding>) -> Result<Self, Failure> {
        match self.0 {
            Kind::Whole(body) => {
                let bytes = body.into_inner().unwrap_or_default();
                Ok(Self::whole(answers.count(bytes).ok_or(Failure::Crowded)?))
            }
            kind => Ok(Self(kind)),
        }
    }

    /// The same body, all of which is given to `take` too: at once, or when it has ended. If it is
    /// longer than `most` bytes, breaks off or has trailers, `take` is given `None`, and if nobody reads
    /// it to its end nothing.
    #[must_use]
    pub fn copied(self, most: usize, take: impl FnOnce(Option<&[u8]>) + Send + 'static) -> Self {
        match self.0 {
            Kind::Whole(body) => {
                let bytes = body.into_inner().unwrap_or_default();
                take(Some(&*bytes).filter(|bytes| bytes.len() <= most));
                Self::whole(bytes)
            }
            Kind::Streamed(body) => {
                let copy = Copy { bytes: BytesMut::new(), most, take: Some(Box::new(take)) };
                Self(Kind::Copied(body, copy))
            }
            Kind::Copied(..) | Kind::Fetched(_) => self,
        }
    }
}

impl Copy {
    fn see(&mut self, frame: Option<&Result<Frame<Bytes>, WasiHttpError>>) {
        match frame {
            Some(Ok(frame)) => match frame.data_ref() {
                Some(data) if self.bytes.len() + data.len() <= self.most => {
                    if self.take.is_some() {
                        self.bytes.extend_from_slice(data);
                    }
                    return;
                }
                _ => self.end(false),
            },
            Some(Err(_)) => self.end(false),
            None => self.end(true),
        }
        self.bytes = BytesMut::new();
    }

    /// All of it has come, or never will.
    fn end(&mut self, whole: bool) {
        if let Some(take) = self.take.take() {
            take(Some(&*self.bytes).filter(|_| whole));
        }
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = WasiHttpError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, WasiHttpError>>> {
        match &mut self.0 {
            Kind::Whole(body) => Pin::new(body).poll_frame(cx).map_err(|never| match never {}),
            Kind::Streamed(body) => Pin::new(body).poll_frame(cx),
            Kind::Fetched(body) => body.poll_frame(cx),
            Kind::Copied(body, copy) => {
                let frame = ready!(Pin::new(&mut *body).poll_frame(cx));
                copy.see(frame.as_ref());
                // Whoever sends it does not ask for an end it knows of.
                if body.is_end_stream() || body.size_hint().exact() == Some(0) {
                    copy.see(None);
                }
                Poll::Ready(frame)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Whole(body) => body.is_end_stream(),
            Kind::Streamed(body) | Kind::Copied(body, _) => body.is_end_stream(),
            Kind::Fetched(Fetched { body, .. }) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Whole(body) => body.size_hint(),
            Kind::Streamed(body) | Kind::Copied(body, _) => body.size_hint(),
            Kind::Fetched(Fetched { body, .. }) => body.size_hint(),
        }
    }
}

/// How much of a body over its limit is read and thrown away. A client that is still sending when
/// the connection closes would never see the answer.
pub(crate) const DISCARD_MOST: usize = 8 << 20;
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

/// Bytes of request bodies that are taken whole, of all requests together, as each waits for its turn
/// with its body in memory; and of answers that clients have not taken yet. More are refused.
const HELD_MOST: usize = 256 << 20;
/// An answer that is shorter is not counted: what knows of its request takes more.
const COUNTED_LEAST: usize = 1 << 10;

/// What bodies take of the host's memory.
#[derive(Debug)]
pub struct Holding {
    held: AtomicUsize,
    most: usize,
}

impl Default for Holding {
    fn default() -> Self {
        Self { held: AtomicUsize::new(0), most: HELD_MOST }
    }
}

impl Holding {
    /// Makes room for a body of `size`, if it may be taken whole, for as long as the result lives.
    /// One of unknown size may be as long as `whole`.
    pub fn hold(&self, size: &SizeHint, whole: usize) -> Result<Held<&Self>, Failure> {
        let bytes = match size.upper().map(usize::try_from) {
            Some(Ok(bytes)) if bytes <= whole => bytes,
            // It will be a stream.
            Some(_) => 0,
            None => whole,
        };
        Held::take(self, bytes).ok_or(Failure::Crowded)
    }

    /// The same bytes, counted until the last part of them is dropped; `None` if there is no room.
    #[must_use]
    pub fn count(self: &Arc<Self>, bytes: Bytes) -> Option<Bytes> {
        if bytes.len() < COUNTED_LEAST {
            return Some(bytes);
        }
        let _held = Held::take(Arc::clone(self), bytes.len())?;
        Some(Bytes::from_owner(Counted { bytes, _held }))
    }
}

/// Bytes, and the room they have.
struct Counted {
    bytes: Bytes,
    _held: Held<Arc<Holding>>,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Room for a body.
#[derive(Debug)]
pub struct Held<H: Deref<Target = Holding>> {
    holding: H,
    bytes: usize,
}

impl<H: Deref<Target = Holding>> Held<H> {
    fn take(holding: H, bytes: usize) -> Option<Self> {
        let before = holding.held.fetch_add(bytes, Ordering::Relaxed);
        let most = holding.most;
        let held = Self { holding, bytes };
        (bytes == 0 || before.saturating_add(bytes) <= most).then_some(held)
    }
}

impl<H: Deref<Target = Holding>> Drop for Held<H> {
    fn drop(&mut self) {
        self.holding.held.fetch_sub(self.bytes, Ordering::Relaxed);
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
            if self.discarded > DISCARD_MOST {
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

    /// What is told of a body of these frames that nothing comes after, unless it has ended.
    fn told(frames: &[Option<Result<Frame<Bytes>, WasiHttpError>>]) -> Option<Option<Vec<u8>>> {
        let (tells, told) = std::sync::mpsc::channel();
        let take = move |body: Option<&[u8]>| tells.send(body.map(<[u8]>::to_vec)).unwrap();
        let mut copy = Copy { bytes: BytesMut::new(), most: 4, take: Some(Box::new(take)) };
        frames.iter().for_each(|frame| copy.see(frame.as_ref()));
        drop(copy);
        let told: Vec<_> = told.iter().collect();
        assert!(told.len() <= 1, "told twice");
        told.into_iter().next()
    }

    #[test]
    fn what_is_copied_is_whole_or_nothing() {
        let data = |text: &'static str| Some(Ok(Frame::data(Bytes::from(text))));
        let broken = || Some(Err(WasiHttpError::ConnectionTerminated));
        let trailers = || Some(Ok(Frame::trailers(http::HeaderMap::new())));
        assert_eq!(told(&[data("ab"), data(""), data("cd"), None]), Some(Some(b"abcd".into())));
        assert_eq!(told(&[None]), Some(Some(vec![])));
        for frames in [
            vec![data("ab"), broken(), None],
            vec![data("ab"), trailers(), None],
            vec![data("ab"), data("cde"), data(""), None],
        ] {
            assert_eq!(told(&frames), Some(None));
        }
        assert_eq!(told(&[data("ab")]), None, "nobody reads it to its end");
    }

    async fn admit(count: u8, size: usize, whole: usize, limit: usize) -> RequestBody {
        RequestBody::admit(pieces(count, size), whole, limit, false).await.unwrap()
    }

    #[test]
    fn bodies_are_held_up_to_a_limit() {
        let holding = Holding { held: AtomicUsize::new(0), most: 100 };
        let exactly = SizeHint::with_exact;
        let sixty = holding.hold(&exactly(60), 60).unwrap();
        assert!(matches!(holding.hold(&exactly(41), 60), Err(Failure::Crowded)));
        // Of unknown size: it could be as long as that.
        assert!(matches!(holding.hold(&SizeHint::new(), 60), Err(Failure::Crowded)));
        // Streamed, or none at all.
        assert!(holding.hold(&exactly(61), 60).is_ok() && holding.hold(&exactly(0), 60).is_ok());
        let _forty = holding.hold(&exactly(40), 60).unwrap();
        assert!(holding.hold(&exactly(1), 60).is_err());
        drop(sixty);
        assert!(holding.hold(&SizeHint::new(), 60).is_ok(), "what was refused holds nothing");
    }

    #[test]
    fn answers_are_counted_until_the_last_of_them_is_gone() {
        let holding = Arc::new(Holding { held: AtomicUsize::new(0), most: 3 * COUNTED_LEAST });
        let held = || holding.held.load(Ordering::Relaxed);
        let bytes = |length: usize| Bytes::from(vec![7; length]);
        let mut whole = holding.count(bytes(2 * COUNTED_LEAST)).unwrap();
        let end = whole.split_off(2 * COUNTED_LEAST - 1);
        drop(whole);
        assert_eq!((held(), &*end), (2 * COUNTED_LEAST, &[7][..]), "a part keeps all of it");
        assert!(holding.count(bytes(COUNTED_LEAST + 1)).is_none());
        assert_eq!(held(), 2 * COUNTED_LEAST, "what was refused holds nothing");
        assert_eq!(holding.count(bytes(COUNTED_LEAST - 1)).unwrap(), bytes(COUNTED_LEAST - 1));
        let refused = Body::whole(bytes(2 * COUNTED_LEAST)).counted(&holding);
        assert!(matches!(refused, Err(Failure::Crowded)));
        drop(end);
        assert!(Body::whole(bytes(2 * COUNTED_LEAST)).counted(&holding).is_ok());
        assert_eq!(held(), 0);
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
