//! A body that is decoded while it arrives.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http_body::{Body as HttpBody, Frame, SizeHint};

use super::{Coding, Decoder};
use crate::http::body::MAX_DISCARD;
use crate::http::body::error::BodyError;

/// Bytes decoded at a time.
const PIECE: usize = 64 << 10;
/// After so many bytes in one go others on this thread go first: a tenth of a millisecond or two.
const TURN: usize = 128 << 10;
/// What a call of the decoder costs beside its output, as bytes: a member of gzip may be empty.
const CALL: usize = 4 << 10;

/// The body of a request without its coding. It ends in an error as soon as more than the limit has
/// come of it, and holds one piece at a time.
pub(super) struct Decoded<B> {
    body: B,
    decoder: Decoder,
    coding: Coding,
    /// What came and is not decoded yet.
    input: Bytes,
    /// Whether more may come of no more input.
    more: bool,
    /// Bytes that may come of it still.
    left: usize,
    /// Bytes that may arrive still: some kinds of blocks decode to nothing.
    coded_left: usize,
    /// Bytes decoded since others had their turn.
    turn: usize,
    state: State,
}

#[derive(PartialEq, Eq)]
enum State {
    Decoding,
    /// Over the limit: so many bytes were discarded. A client that is still sending when the connection
    /// closes would never see the response.
    Over(usize),
    End,
}

impl<B> Decoded<B> {
    pub(super) fn new(body: B, coding: Coding, limit: usize) -> Self {
        Self {
            body,
            decoder: Decoder::new(coding),
            coding,
            input: Bytes::new(),
            more: false,
            left: limit,
            // What cannot be compressed becomes longer by less than that.
            coded_left: limit.saturating_add(limit / 64).saturating_add(1 << 10),
            turn: 0,
            state: State::Decoding,
        }
    }

    fn undecodable(&mut self, problem: &'static str) -> BodyError {
        self.state = State::End;
        BodyError::Undecodable { coding: self.coding.name(), problem }
    }

    /// A piece of what there is; `None` if there is nothing yet.
    fn decode(&mut self) -> Result<Option<Bytes>, BodyError> {
        let mut output = Vec::with_capacity(PIECE.min(self.left.saturating_add(1)));
        let room = output.capacity();
        let mut rest = &self.input[..];
        let decoded = self.decoder.decode(&mut rest, &mut output);
        let used = self.input.len() - rest.len();
        self.input.advance(used);
        self.more = output.len() == room;
        if let Err(problem) = decoded {
            return Err(self.undecodable(problem));
        }
        let Some(left) = self.left.checked_sub(output.len()) else {
            self.state = State::Over(0);
            self.input.clear();
            return Ok(None);
        };
        self.left = left;
        self.turn += output.len() + CALL;
        Ok((!output.is_empty()).then(|| output.into()))
    }
}

impl<B> HttpBody for Decoded<B>
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
            if this.state == State::End {
                return Poll::Ready(None);
            }
            if this.state == State::Decoding && (this.more || !this.input.is_empty()) {
                if this.turn >= TURN {
                    this.turn = 0;
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
                this.turn = 0;
            }
            let data = match ready!(polled) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => data,
                    // Trailers are of the body as it was sent.
                    Err(_) => continue,
                },
                ended if matches!(this.state, State::Over(_)) => {
                    drop(ended);
                    this.state = State::End;
                    return Poll::Ready(Some(Err(BodyError::TooLarge)));
                }
                Some(Err(error)) => {
                    this.state = State::End;
                    return Poll::Ready(Some(Err(error.into())));
                }
                None if this.decoder.is_at_end() => {
                    this.state = State::End;
                    return Poll::Ready(None);
                }
                None => {
                    let error = this.undecodable("it ends before the end of the data");
                    return Poll::Ready(Some(Err(error)));
                }
            };
            match &mut this.state {
                State::Over(discarded) => {
                    *discarded = discarded.saturating_add(data.len());
                    if *discarded > MAX_DISCARD {
                        this.state = State::End;
                        return Poll::Ready(Some(Err(BodyError::TooLarge)));
                    }
                }
                _ => match this.coded_left.checked_sub(data.len()) {
                    Some(left) => (this.coded_left, this.input) = (left, data),
                    None => this.state = State::Over(0),
                },
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.state == State::End
            || self.state == State::Decoding
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
        let body = Decoded::new(pieces(data, 1000), coding, limit);
        body.collect().await.map(http_body_util::Collected::to_bytes)
    }

    #[tokio::test]
    async fn a_body_may_be_as_long_as_its_limit_and_no_longer() {
        for length in [0, 1, 1000, 3 * PIECE, 3 * TURN + 7] {
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
    async fn what_decodes_to_nothing_does_not_go_on_for_ever() {
        // A stored block of no bytes, again and again.
        let blocks = [0, 0, 0, 0xff, 0xff].repeat(10_000);
        let error = decoded(Coding::Deflate, &blocks, 1000).await.unwrap_err();
        assert!(matches!(error, BodyError::TooLarge), "{error:?}");
    }

    #[tokio::test]
    async fn what_is_broken_is_said() {
        let coded = gzip(b"a body");
        for (data, part) in [
            (&coded[..coded.len() - 1], "ends before"),
            (&[&coded[..], b"x"].concat(), "ends before"),
            (&[&coded[..], b"xyz"].concat(), "something follows"),
            (&b"a body"[..], "corrupt"),
            (b"", "ends before"),
        ] {
            let error = decoded(Coding::Gzip, data, 100).await.unwrap_err().into_failure(100);
            assert!(error.to_string().contains(part), "{error}");
            assert_eq!(error.status(), 400);
        }
    }

    #[tokio::test]
    async fn a_long_body_lets_others_run() {
        let coded = gzip(&vec![0; 64 * TURN]);
        let mut body = Decoded::new(pieces(&coded, coded.len()), Coding::Gzip, 64 * TURN);
        let mut turns = 0;
        loop {
            match futures::poll!(body.frame()) {
                Poll::Ready(Some(frame)) => {
                    assert!(frame.unwrap().into_data().unwrap().len() <= PIECE);
                }
                Poll::Ready(None) => break,
                Poll::Pending => turns += 1,
            }
        }
        assert!((60..70).contains(&turns), "{turns}");
    }
}
