//! The number of parts of a request body. A chunk of HTTP/1.1 or a DATA frame of HTTP/2 costs about the
//! same processor time whether it has one byte or some kilobytes, so a body in tiny parts is refused.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};

use super::error::BodyError;

/// Number of parts that a body may have whatever their size.
const FREE_PARTS: u64 = 16 << 10;
/// Number of bytes for each further part: the average size that a client has to send.
const BYTES_PER_PART: u64 = 16;
/// Number of further parts for each second, for streams of small messages.
const PARTS_PER_SECOND: u64 = 200;

/// A body that fails if it arrives in too many parts.
#[derive(Debug)]
pub struct LimitedParts<B> {
    body: B,
    parts: u64,
    bytes: u64,
    start: Instant,
}

impl<B> LimitedParts<B> {
    #[must_use]
    pub fn new(body: B) -> Self {
        Self { body, parts: 0, bytes: 0, start: Instant::now() }
    }

    /// Counts a part of `size` bytes. Whether the body may have it.
    fn count(&mut self, size: usize) -> bool {
        self.parts += 1;
        self.bytes += size as u64;
        let allowed = FREE_PARTS + self.bytes / BYTES_PER_PART;
        self.parts <= allowed
            || self.parts <= allowed + PARTS_PER_SECOND * self.start.elapsed().as_secs()
    }
}

impl<B> HttpBody for LimitedParts<B>
where
    B: HttpBody<Data = Bytes, Error: Into<BodyError>> + Unpin,
{
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
            None => return Poll::Ready(None),
        };
        let size = frame.data_ref().map_or(0, Bytes::len);
        Poll::Ready(Some(if self.count(size) { Ok(frame) } else { Err(BodyError::Fragmented) }))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::time::Duration;

    use http_body_util::{BodyExt, StreamBody};

    use super::*;

    /// The result of a body in `count` parts of `size` bytes, which started `ago`.
    async fn read(count: u64, size: usize, ago: Duration) -> Result<usize, BodyError> {
        let part = Bytes::from(vec![1; size]);
        let parts = (0..count).map(move |_| Ok::<_, Infallible>(Frame::data(part.clone())));
        let mut body = LimitedParts::new(StreamBody::new(futures::stream::iter(parts)));
        body.start = body.start.checked_sub(ago).unwrap();
        body.collect().await.map(|body| body.to_bytes().len())
    }

    #[tokio::test]
    async fn body_in_tiny_parts_fails() {
        let read = |count, size| read(count, size, Duration::ZERO);
        for size in [0, 1, 2, 15] {
            assert!(matches!(read(1 << 20, size).await, Err(BodyError::Fragmented)), "{size}");
            let length = size * usize::try_from(FREE_PARTS).unwrap();
            assert_eq!(read(FREE_PARTS, size).await.unwrap(), length);
        }
        for size in [16, 17, 1000] {
            assert_eq!(read(100_000, size).await.unwrap(), 100_000 * size);
        }
    }

    #[tokio::test]
    async fn stream_of_small_messages_goes_on() {
        let hour = Duration::from_secs(3600);
        let messages = FREE_PARTS + 100 * hour.as_secs();
        assert!(read(messages, 1, hour).await.is_ok());
        assert!(matches!(read(10 * messages, 1, hour).await, Err(BodyError::Fragmented)));
    }
}
