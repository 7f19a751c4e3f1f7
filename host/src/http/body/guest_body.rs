//! Answers of guests on their way to clients. Such an answer keeps its turn, and its guest; a client
//! that does not go on reading must not keep them for ever. Nothing is written to it meanwhile, over
//! HTTP/2 not even asked for, so that whoever sends the answer cannot see it.

use std::collections::HashMap;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::sync::OwnedSemaphorePermit;
use wasmtime_wasi_http::{Error, WasiBody};

/// A client that takes nothing of an answer for so long is gone.
pub const MAX_UNREAD: Duration = Duration::from_secs(30);

/// Those of one component.
#[derive(Debug, Default)]
pub struct Streams(Mutex<Open>);

#[derive(Default)]
struct Open {
    last: u64,
    streams: HashMap<u64, Weak<Mutex<Stream>>>,
}

impl fmt::Debug for Open {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Open").field("streams", &self.streams.len()).finish_non_exhaustive()
    }
}

/// An answer on its way.
pub struct Streaming {
    number: u64,
    stream: Arc<Mutex<Stream>>,
    streams: Arc<Streams>,
}

impl fmt::Debug for Streaming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Streaming").field("number", &self.number).finish_non_exhaustive()
    }
}

struct Stream {
    /// And its turn; `None` once it was cut off.
    body: Option<(WasiBody, Arc<OwnedSemaphorePermit>)>,
    /// Since when nobody has asked for more; `None` while somebody waits for it.
    unread_since: Option<Instant>,
}

impl Streams {
    /// `body` as it goes out. Its turn is given back at its end, or when it is cut off.
    pub fn send(self: &Arc<Self>, body: WasiBody, turn: Arc<OwnedSemaphorePermit>) -> Streaming {
        let stream = Stream { body: Some((body, turn)), unread_since: Some(Instant::now()) };
        let stream = Arc::new(Mutex::new(stream));
        let mut open = lock(&self.0);
        open.last += 1;
        let number = open.last;
        open.streams.insert(number, Arc::downgrade(&stream));
        Streaming { number, stream, streams: Arc::clone(self) }
    }

    /// Cuts off what was not read for too long at `now`; how many there were.
    pub fn cut_off(&self, now: Instant) -> usize {
        let streams: Vec<_> = lock(&self.0).streams.values().filter_map(Weak::upgrade).collect();
        let cut_off = streams.iter().filter_map(|stream| {
            let mut stream = lock(stream);
            let unread = now.saturating_duration_since(stream.unread_since?);
            if unread < MAX_UNREAD { None } else { stream.body.take() }
        });
        cut_off.map(drop).count()
    }
}

impl Drop for Streaming {
    fn drop(&mut self) {
        lock(&self.streams.0).streams.remove(&self.number);
    }
}

impl Body for Streaming {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let mut stream = lock(&self.stream);
        let Some((body, _)) = &mut stream.body else {
            return Poll::Ready(Some(Err(Error::ConnectionWriteTimeout)));
        };
        let frame = Pin::new(body).poll_frame(cx);
        stream.unread_since = frame.is_ready().then(Instant::now);
        frame
    }

    fn is_end_stream(&self) -> bool {
        lock(&self.stream).body.as_ref().is_some_and(|(body, _)| body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        lock(&self.stream).body.as_ref().map_or_else(SizeHint::new, |(body, _)| body.size_hint())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use futures::FutureExt;
    use futures::stream::{self, StreamExt};
    use http_body_util::{BodyExt, StreamBody};
    use tokio::sync::Semaphore;

    use super::*;

    /// A piece, and then nothing more for ever.
    fn body() -> WasiBody {
        let piece = stream::iter([Ok(Frame::data(Bytes::from_static(b"piece")))]);
        let nothing = stream::once(pending::<Result<Frame<Bytes>, Error>>());
        StreamBody::new(piece.chain(nothing)).boxed_unsync()
    }

    #[tokio::test]
    async fn what_nobody_reads_is_cut_off_and_gives_its_turn_back() {
        let turns = Arc::new(Semaphore::new(2));
        let streams = Arc::new(Streams::default());
        let send = || {
            let turn = Arc::clone(&turns).try_acquire_owned().expect("a turn");
            streams.send(body(), Arc::new(turn))
        };
        let (mut unread, mut waiting) = (send(), send());
        assert!(waiting.frame().await.is_some_and(|frame| frame.is_ok()));
        assert!(waiting.frame().now_or_never().is_none(), "it waits for the guest");
        let soon = Instant::now() + MAX_UNREAD / 2;
        assert_eq!((streams.cut_off(soon), turns.available_permits()), (0, 0));
        let later = Instant::now() + MAX_UNREAD;
        assert_eq!((streams.cut_off(later), turns.available_permits()), (1, 1));
        assert!(matches!(unread.frame().await, Some(Err(Error::ConnectionWriteTimeout))));
        assert_eq!(streams.cut_off(later), 0);
        drop((unread, waiting));
        assert_eq!(turns.available_permits(), 2);
        assert!(lock(&streams.0).streams.is_empty());
    }
}
