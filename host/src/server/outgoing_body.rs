//! Answers on their way to clients: handed over in pieces, counted for as long as they are in memory,
//! given up if nobody takes them.
//!
//! Over HTTP/1.1 what nobody takes fills the socket, and writing to it has its time. Over HTTP/2 a
//! client says of each answer how much of it may be sent, and may leave that at nothing: the answer is
//! not asked for any more, and the rest of its connection goes on. So each stream has its own time.

use std::cell::Cell;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::rt::Executor;
use tokio::time::{Sleep, sleep};
use tracing::debug;
use wasmtime_wasi_http::Error as WasiHttpError;

use crate::http::body::Body;
use crate::server::connections::UnderWay;
use crate::http::body::guest_body::MAX_UNREAD;

/// Bytes of an answer that are handed over at a time: what is not sent yet is under way.
const PIECE: usize = 64 << 10;

tokio::task_local! {
    /// Of a stream of HTTP/2, the parts of its answer that were handed over and the next one to be
    /// taken; 0 while there is nothing to take.
    static PARTS: Cell<u64>;
}

/// An answer's body, whose request is under way until it is sent.
#[derive(Debug)]
pub struct Answer {
    body: Body,
    /// What was not handed over of its last frame.
    rest: Bytes,
    parts: u64,
    under_way: UnderWay,
}

impl Answer {
    #[must_use]
    pub fn new(body: Body, under_way: UnderWay) -> Self {
        let mut answer = Self { body, rest: Bytes::new(), parts: 0, under_way };
        answer.is_there(true);
        answer
    }

    /// Says whether there is something to be taken.
    fn is_there(&mut self, is_there: bool) {
        self.parts += 1;
        let parts = if is_there { self.parts } else { 0 };
        // Over HTTP/1.1 nobody asks.
        let _ = PARTS.try_with(|cell| cell.set(parts));
    }

    fn poll_piece(
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
            // What was whole from the start has been counted since then.
            let counted = if self.body.is_whole() {
                Some(data)
            } else {
                self.under_way.answers().count(data)
            };
            let Some(data) = counted else {
                let problem = "too much of other answers is in memory".to_owned();
                return Poll::Ready(Some(Err(WasiHttpError::InternalError(Some(problem)))));
            };
            self.rest = data;
        }
        let piece = self.rest.len().min(PIECE);
        Poll::Ready(Some(Ok(Frame::data(self.rest.split_to(piece)))))
    }
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = WasiHttpError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, WasiHttpError>>> {
        let piece = self.poll_piece(cx);
        self.is_there(piece.is_ready());
        piece
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

/// Has the streams of an HTTP/2 connection served. One whose client takes nothing of its answer for
/// [`MAX_UNREAD`] is ended (`RST_STREAM`), and none of the others.
#[derive(Clone, Copy, Debug)]
pub struct Streams;

impl<F> Executor<F> for Streams
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        tokio::spawn(PARTS.scope(Cell::new(0), unless_left(stream)));
    }
}

/// `stream`, dropped if what is there of its answer is left for too long.
async fn unless_left(stream: impl Future<Output = ()>) {
    let mut stream = pin!(stream);
    let mut left: Option<(u64, Pin<Box<Sleep>>)> = None;
    std::future::poll_fn(|cx| {
        if stream.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        let parts = PARTS.with(Cell::get);
        left = left.take().filter(|(before, _)| *before == parts);
        if parts == 0 {
            return Poll::Pending;
        }
        let (_, clock) = left.get_or_insert_with(|| (parts, Box::pin(sleep(MAX_UNREAD))));
        ready!(clock.as_mut().poll(cx));
        debug!("an answer was left by its client");
        Poll::Ready(())
    })
    .await;
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use http_body_util::BodyExt;

    use crate::server::connections::{ConnectionLimits, Connections};

    use super::*;

    #[tokio::test]
    async fn an_answer_is_handed_over_in_pieces_and_is_under_way_until_the_last() {
        let limits = ConnectionLimits { most: 1, keep_alive: Duration::from_secs(60) };
        let all = Arc::new(Connections::new(limits, Arc::default()));
        let one = all.enter(all.place().await);
        for length in [0, 1, PIECE, PIECE + 1, 3 * PIECE] {
            let bytes: Vec<u8> = (0..length).map(|n| u8::try_from(n % 251).unwrap()).collect();
            let mut answer = Answer::new(Body::whole(bytes.clone()), one.begin());
            let mut came = Vec::new();
            while !answer.is_end_stream() {
                assert_eq!(answer.size_hint().exact(), Some((length - came.len()) as u64));
                let frame = answer.frame().await.unwrap().unwrap().into_data().unwrap();
                assert!(frame.len() <= PIECE && !one.is_idle());
                came.extend_from_slice(&frame);
            }
            assert!(came == bytes, "{length}");
            drop(answer);
            assert!(one.is_idle());
        }
    }
}
