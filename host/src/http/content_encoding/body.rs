//! A body that is decoded while it arrives.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http_body::{Body as HttpBody, Frame, SizeHint};

use super::{Coding, Decoder};
use crate::http::body::MAX_DISCARD;
use crate::http::body::error::BodyError;

/// Maximum number of bytes decoded at a time.
const PIECE: usize = 64 << 10;
/// After this many bytes without a pause, the task yields to others on its thread: 0.1 to 0.2 ms.
const YIELD_AFTER: usize = 128 << 10;
/// The fixed cost of a call of the decoder, counted as bytes: a member of gzip may be empty.
const CALL_COST: usize = 4 << 10;

/// A request body, decoded. It fails as soon as its decoded size exceeds the limit, and holds one piece
/// at a time.
pub(super) struct DecodedBody<B> {
    body: B,
    decoder: Decoder,
    coding: Coding,
    /// Received bytes that are not decoded yet.
    input: Bytes,
    /// Whether the decoder may have more output without more input.
    more: bool,
    /// Remaining decoded bytes up to the limit.
    left: usize,
    /// Remaining encoded bytes up to their limit: some kinds of blocks decode to nothing.
    coded_left: usize,
    /// Bytes decoded since the task last yielded.
    since_yield: usize,
    state: DecodedBodyState,
}

#[derive(PartialEq, Eq)]
enum DecodedBodyState {
    Decoding,
    /// Over the limit, with the number of bytes discarded since. A client that is still sending when the
    /// connection closes would never receive the response.
    Over(usize),
    End,
}

impl<B> DecodedBody<B> {
    pub(super) fn new(body: B, coding: Coding, limit: usize) -> Self {
        Self {
            body,
            decoder: Decoder::new(coding),
            coding,
            input: Bytes::new(),
            more: false,
            left: limit,
            // Incompressible data grows by less than that.
            coded_left: limit.saturating_add(limit / 64).saturating_add(1 << 10),
            since_yield: 0,
            state: DecodedBodyState::Decoding,
        }
    }

    fn undecodable(&mut self, problem: &'static str) -> BodyError {
        self.state = DecodedBodyState::End;
        BodyError::Undecodable { coding: self.coding.name(), problem }
    }

    /// Decodes the next piece of the input; `None` if that has no output.
    fn decode(&mut self) -> Result<Option<Bytes>, BodyError> {
        let mut output = Vec::with_capacity(PIECE.min(self.left.saturating_add(1)));
        let capacity = output.capacity();
        let mut rest = &self.input[..];
        let decoded = self.decoder.decode(&mut rest, &mut output);
        let used = self.input.len() - rest.len();
        self.input.advance(used);
        self.more = output.len() == capacity;
        if let Err(problem) = decoded {
            return Err(self.undecodable(problem));
        }
        let Some(left) = self.left.checked_sub(output.len()) else {
            self.state = DecodedBodyState::Over(0);
            self.input.clear();
            return Ok(None);
        };
        self.left = left;
        self.since_yield += output.len() + CALL_COST;
        Ok((!output.is_empty()).then(|| output.into()))
    }
}

impl<B> HttpBody for DecodedBody<B>
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
        loop {
            if this.state == DecodedBodyState::End {
                return Poll::Ready(None);
            }
            if this.state == DecodedBodyState::Decoding && (this.more || !this.input.is_empty()) {
                if this.since_yield >= YIELD_AFTER {
                    this.since_yield = 0;
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                match this.decode() {
                    Ok(Some(data)) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                    Ok(None) => continue,
                    Err(error) => return Poll::Ready(Some(Err(error))),
                }
            }
            let polled = Pin::new(&mut this.body).poll_frame(cx);
            if polled.is_pending() {
                this.since_yield = 0;
            }
            let data = match ready!(polled) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => data,
                    // Trailers describe the encoded body.
                    Err(_) => continue,
                },
                ended if matches!(this.state, DecodedBodyState::Over(_)) => {
                    drop(ended);
                    this.state = DecodedBodyState::End;
                    return Poll::Ready(Some(Err(BodyError::TooLarge)));
                }
                Some(Err(error)) => {
                    this.state = DecodedBodyState::End;
                    return Poll::Ready(Some(Err(error.into())));
                }
                None if this.decoder.is_at_end() => {
                    this.state = DecodedBodyState::End;
                    return Poll::Ready(None);
                }
                None => {
                    let error = this.undecodable("the data is truncated");
                    return Poll::Ready(Some(Err(error)));
                }
            };
            match &mut this.state {
                DecodedBodyState::Over(discarded) => {
                    *discarded = discarded.saturating_add(data.len());
                    if *discarded > MAX_DISCARD {
                        this.state = DecodedBodyState::End;
                        return Poll::Ready(Some(Err(BodyError::TooLarge)));
                    }
                }
                _ => match this.coded_left.checked_sub(data.len()) {
                    Some(left) => (this.coded_left, this.input) = (left, data),
                    None => this.state = DecodedBodyState::Over(0),
                },
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.state == DecodedBodyState::End
            || self.state == DecodedBodyState::Decoding
                && !self.more
                && self.input.is_empty()
                && self.decoder.is_at_end()
                && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::new()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::convert::Infallible;

    use http_body_util::{BodyExt, StreamBody};

    use super::super::decoder::tests::{gzip, zlib};
    use super::*;

    fn pieces(
        data: &[u8],
        size: usize,
    ) -> impl HttpBody<Data = Bytes, Error = Infallible> + Unpin + use<> {
        let frames: VecDeque<_> =
            data.chunks(size).map(|piece| Ok(Frame::data(piece.to_vec().into()))).collect();
        StreamBody::new(futures::stream::iter(frames))
    }

    async fn decoded(coding: Coding, data: &[u8], limit: usize) -> Result<Bytes, BodyError> {
        let body = DecodedBody::new(pieces(data, 1000), coding, limit);
        body.collect().await.map(http_body_util::Collected::to_bytes)
    }

    #[tokio::test]
    async fn decoded_body_is_limited() {
        for length in [0, 1, 1000, 3 * PIECE, 3 * YIELD_AFTER + 7] {
            let data = vec![7; length];
            for (coding, coded) in [(Coding::Gzip, gzip(&data)), (Coding::Deflate, zlib(&data))] {
                assert!(decoded(coding, &coded, length).await.unwrap() == data);
                if length > 0 {
                    let error = decoded(coding, &coded, length - 1).await.unwrap_err();
                    assert!(matches!(error, BodyError::TooLarge), "{error:?}");
                }
            }
        }
    }

    #[tokio::test]
    async fn blocks_without_output_are_limited() {
        // Stored blocks without bytes.
        let blocks = [0, 0, 0, 0xff, 0xff].repeat(10_000);
        let error = decoded(Coding::Deflate, &blocks, 1000).await.unwrap_err();
        assert!(matches!(error, BodyError::TooLarge), "{error:?}");
    }

    #[tokio::test]
    async fn undecodable_body_fails_with_the_problem() {
        let coded = gzip(b"a body");
        for (data, part) in [
            (&coded[..coded.len() - 1], "truncated"),
            (&[&coded[..], b"x"].concat(), "truncated"),
            (&[&coded[..], b"xyz"].concat(), "trailing bytes"),
            (&b"a body"[..], "corrupt"),
            (b"", "truncated"),
        ] {
            let error = decoded(Coding::Gzip, data, 100).await.unwrap_err().into_failure(100);
            assert!(error.to_string().contains(part), "{error}");
            assert_eq!(error.status(), 400);
        }
    }

    #[tokio::test]
    async fn long_body_yields_to_other_tasks() {
        let coded = gzip(&vec![0; 64 * YIELD_AFTER]);
        let mut body =
            DecodedBody::new(pieces(&coded, coded.len()), Coding::Gzip, 64 * YIELD_AFTER);
        let mut yields = 0;
        loop {
            match futures::poll!(body.frame()) {
                Poll::Ready(Some(frame)) => {
                    assert!(frame.unwrap().into_data().unwrap().len() <= PIECE);
                }
                Poll::Ready(None) => break,
                Poll::Pending => yields += 1,
            }
        }
        assert!((60..70).contains(&yields), "{yields}");
    }
}
