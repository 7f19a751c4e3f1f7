//! Streams of small parts. A guest that reads a stream allocates a buffer of some kilobytes for each part,
//! whatever its size, so small parts that arrive faster than a guest can be expected to read them one by
//! one are joined.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http_body::{Body as HttpBody, Frame};
use tokio::time::{Sleep, sleep};

use super::error::BodyError;

/// Size below which a part is small, in bytes.
const SMALL: usize = 256;
/// Number of small parts that are passed on one by one, without delay.
const BURST: f64 = 1024.0;
/// Number of small parts that are passed on one by one for each second.
const PER_SECOND: f64 = 100.0;
/// Time that a part waits to be joined with the next.
const WAIT: Duration = Duration::from_millis(10);
/// Size at which joined parts are passed on, in bytes.
const MAX_JOINED: usize = 16 << 10;

/// A body whose small parts are joined once there are many.
#[derive(Debug)]
pub(super) struct Coalesced<B> {
    body: B,
    joined: BytesMut,
    /// What follows the joined parts: a larger part, trailers, an error or the end.
    after: Option<Option<Result<Frame<Bytes>, BodyError>>>,
    wait: Option<Pin<Box<Sleep>>>,
    /// Number of small parts that may be passed on now, as of `counted`.
    allowed: f64,
    counted: Instant,
}

impl<B> Coalesced<B> {
    pub(super) fn new(body: B) -> Self {
        Self {
            body,
            joined: BytesMut::new(),
            after: None,
            wait: None,
            allowed: BURST,
            counted: Instant::now(),
        }
    }

    /// Whether a small part may be passed on alone.
    fn take_allowance(&mut self) -> bool {
        if self.allowed < 1.0 {
            let now = Instant::now();
            let elapsed = now.saturating_duration_since(self.counted);
            let more = elapsed.as_secs_f64() * PER_SECOND;
            (self.allowed, self.counted) = ((self.allowed + more).min(BURST), now);
        }
        let taken = self.allowed >= 1.0;
        if taken {
            self.allowed -= 1.0;
        }
        taken
    }

    fn take_joined(&mut self) -> Frame<Bytes> {
        self.wait = None;
        Frame::data(self.joined.split().freeze())
    }
}

impl<B> HttpBody for Coalesced<B>
where
    B: HttpBody<Data = Bytes, Error: Into<BodyError>> + Unpin,
{
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        if let Some(after) = this.after.take() {
            return Poll::Ready(after);
        }
        loop {
            let frame = match Pin::new(&mut this.body).poll_frame(cx) {
                Poll::Ready(frame) => frame.map(|frame| frame.map_err(Into::into)),
                Poll::Pending if this.joined.is_empty() => return Poll::Pending,
                Poll::Pending => {
                    let wait = this.wait.get_or_insert_with(|| Box::pin(sleep(WAIT)));
                    ready!(wait.as_mut().poll(cx));
                    return Poll::Ready(Some(Ok(this.take_joined())));
                }
            };
            let data = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref());
            match data.filter(|data| data.len() < SMALL) {
                None if this.joined.is_empty() => return Poll::Ready(frame),
                None => {
                    this.after = Some(frame);
                    return Poll::Ready(Some(Ok(this.take_joined())));
                }
                Some(_) if this.joined.is_empty() && this.take_allowance() => {
                    return Poll::Ready(frame);
                }
                Some(data) => this.joined.extend_from_slice(data),
            }
            if this.joined.len() >= MAX_JOINED {
                return Poll::Ready(Some(Ok(this.take_joined())));
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.joined.is_empty() && self.after.is_none() && self.body.is_end_stream()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures::StreamExt;
    use futures::channel::mpsc;
    use http::{HeaderMap, HeaderValue};
    use http_body_util::{BodyExt, StreamBody};
    use wasmtime_wasi_http::Error as WasiHttpError;

    use super::*;

    type Part = Result<Frame<Bytes>, WasiHttpError>;

    fn data(bytes: &[u8]) -> Part {
        Ok(Frame::data(Bytes::copy_from_slice(bytes)))
    }

    /// The sizes of the parts that are passed on, and all bytes.
    async fn read(parts: Vec<Part>) -> (Vec<usize>, Vec<u8>) {
        let mut body = Coalesced::new(StreamBody::new(futures::stream::iter(parts)));
        let (mut sizes, mut bytes) = (Vec::new(), Vec::new());
        while let Some(frame) = body.frame().await {
            let data = frame.unwrap().into_data().unwrap();
            sizes.push(data.len());
            bytes.extend_from_slice(&data);
        }
        (sizes, bytes)
    }

    #[tokio::test]
    async fn many_small_parts_are_joined() {
        let count: usize = 100_000;
        let bytes: Vec<u8> = (0..count).map(|n| u8::try_from(n % 251).unwrap()).collect();
        let (sizes, read_bytes) = read(bytes.chunks(1).map(data).collect()).await;
        assert!(read_bytes == bytes);
        assert!(sizes.iter().all(|size| *size <= MAX_JOINED), "{sizes:?}");
        let least = 1024 + count / MAX_JOINED;
        assert!((least..least + 100).contains(&sizes.len()), "{}", sizes.len());
    }

    #[tokio::test]
    async fn few_small_parts_and_large_ones_are_passed_on_unchanged() {
        let sizes: Vec<_> = [1, 255, 256, 20_000].repeat(500);
        let parts = sizes.iter().map(|size| data(&vec![7; *size])).collect();
        assert_eq!(read(parts).await.0, sizes);
    }

    #[tokio::test]
    async fn what_follows_joined_parts_is_passed_on_after_them() {
        let trailers = HeaderMap::from_iter([(http::header::AGE, HeaderValue::from_static("1"))]);
        let broken = Err(WasiHttpError::ConnectionTerminated);
        for (end, expected) in [
            (data(&[1; 1000]), "data"),
            (Ok(Frame::trailers(trailers)), "trailers"),
            (broken, "error"),
        ] {
            let small = (0..1100).map(|_| data(b"x"));
            let parts: Vec<_> = small.chain([end]).collect();
            let mut body = Coalesced::new(StreamBody::new(futures::stream::iter(parts)));
            let mut length = 0;
            while length < 1100 {
                assert!(!body.is_end_stream());
                length += body.frame().await.unwrap().unwrap().into_data().unwrap().len();
            }
            let last = match body.frame().await.unwrap() {
                Ok(frame) if frame.is_trailers() => "trailers",
                Ok(_) => "data",
                Err(_) => "error",
            };
            assert_eq!(last, expected);
            assert!(body.frame().await.is_none());
        }
    }

    #[tokio::test]
    async fn small_part_waits_only_briefly_for_the_next() {
        let (sender, parts) = mpsc::unbounded::<Result<Frame<Bytes>, Infallible>>();
        let mut body = Coalesced::new(StreamBody::new(parts.boxed()));
        body.allowed = 1.0;
        // However long this test takes, there is none for the second part.
        body.counted = Instant::now() + Duration::from_secs(3600);
        let send = |bytes: &'static [u8]| {
            sender.unbounded_send(Ok(Frame::data(Bytes::from_static(bytes)))).unwrap();
        };
        let mut next = async || body.frame().await.unwrap().unwrap().into_data().unwrap();
        let start = Instant::now();
        send(b"a");
        assert_eq!(next().await, "a");
        send(b"b");
        send(b"c");
        assert_eq!(next().await, "bc");
        assert!(start.elapsed() >= WAIT, "{:?}", start.elapsed());
    }
}
