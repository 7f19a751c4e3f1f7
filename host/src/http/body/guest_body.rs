//! Response bodies that guests stream. Such a body holds its permit and its guest, so a client that stops
//! reading must not hold them forever. The connection cannot detect that: nothing is written to it
//! meanwhile, and over HTTP/2 nothing is polled. So each body records when it was last polled, and the
//! host closes those that were not read for too long.

use std::collections::HashMap;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use parking_lot::Mutex;
use tokio::sync::OwnedSemaphorePermit;
use wasmtime_wasi_http::{Error, WasiBody};

use super::outcome::ResponseReader;

/// Time after which a body that its client does not read is closed.
pub const MAX_UNREAD: Duration = Duration::from_secs(30);

/// The open bodies of one component.
#[derive(Debug, Default)]
pub struct OpenGuestBodies(Mutex<OpenBodies>);

#[derive(Default)]
struct OpenBodies {
    last_number: u64,
    bodies: HashMap<u64, Weak<Mutex<BodyProgress>>>,
}

impl fmt::Debug for OpenBodies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenBodies").field("bodies", &self.bodies.len()).finish_non_exhaustive()
    }
}

/// The response body of a guest.
pub struct GuestBody {
    number: u64,
    progress: Arc<Mutex<BodyProgress>>,
    open: Arc<OpenGuestBodies>,
    reader: ResponseReader,
}

impl fmt::Debug for GuestBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GuestBody").field("number", &self.number).finish_non_exhaustive()
    }
}

struct BodyProgress {
    /// The body and its permit; `None` once it was closed.
    body: Option<(WasiBody, Arc<OwnedSemaphorePermit>)>,
    /// When it was last polled; `None` while its reader waits for the guest.
    unread_since: Option<Instant>,
}

impl OpenGuestBodies {
    /// Registers `body`. Its permit is released at its end, or when it is closed.
    pub fn send(
        self: &Arc<Self>,
        body: WasiBody,
        permit: Arc<OwnedSemaphorePermit>,
        reader: ResponseReader,
    ) -> GuestBody {
        let progress =
            BodyProgress { body: Some((body, permit)), unread_since: Some(Instant::now()) };
        let progress = Arc::new(Mutex::new(progress));
        let mut open = self.0.lock();
        open.last_number += 1;
        let number = open.last_number;
        open.bodies.insert(number, Arc::downgrade(&progress));
        GuestBody { number, progress, open: Arc::clone(self), reader }
    }

    /// Closes the bodies that at `now` were not read for too long, and returns their number.
    pub fn close_unread(&self, now: Instant) -> usize {
        let bodies: Vec<_> = self.0.lock().bodies.values().filter_map(Weak::upgrade).collect();
        let closed = bodies.iter().filter_map(|progress| {
            let mut progress = progress.lock();
            let unread = now.saturating_duration_since(progress.unread_since?);
            if unread < MAX_UNREAD { None } else { progress.body.take() }
        });
        closed.map(drop).count()
    }
}

impl Drop for GuestBody {
    fn drop(&mut self) {
        self.open.0.lock().bodies.remove(&self.number);
    }
}

impl Body for GuestBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let mut progress = self.progress.lock();
        let Some((body, _)) = &mut progress.body else {
            return Poll::Ready(Some(Err(Error::ConnectionWriteTimeout)));
        };
        let frame = Pin::new(body).poll_frame(cx);
        progress.unread_since = frame.is_ready().then(Instant::now);
        if matches!(frame, Poll::Ready(Some(Err(_)))) {
            self.reader.0.fail();
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.progress.lock().body.as_ref().is_some_and(|(body, _)| body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        let progress = self.progress.lock();
        progress.body.as_ref().map_or_else(SizeHint::new, |(body, _)| body.size_hint())
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use futures::FutureExt;
    use futures::stream::{self, StreamExt};
    use http_body_util::{BodyExt, StreamBody};
    use tokio::sync::Semaphore;

    use super::*;

    /// A body of one frame that never ends.
    fn body() -> WasiBody {
        let piece = stream::iter([Ok(Frame::data(Bytes::from_static(b"piece")))]);
        let nothing = stream::once(pending::<Result<Frame<Bytes>, Error>>());
        StreamBody::new(piece.chain(nothing)).boxed_unsync()
    }

    #[tokio::test]
    async fn unread_body_is_closed_and_releases_its_permit() {
        let permits = Arc::new(Semaphore::new(2));
        let open = Arc::new(OpenGuestBodies::default());
        let send = || {
            let permit = Arc::clone(&permits).try_acquire_owned().expect("a permit");
            open.send(body(), Arc::new(permit), ResponseReader(Arc::default()))
        };
        let (mut unread, mut waiting) = (send(), send());
        assert!(waiting.frame().await.is_some_and(|frame| frame.is_ok()));
        assert!(waiting.frame().now_or_never().is_none(), "it waits for the guest");
        let soon = Instant::now() + MAX_UNREAD / 2;
        assert_eq!((open.close_unread(soon), permits.available_permits()), (0, 0));
        let later = Instant::now() + MAX_UNREAD;
        assert_eq!((open.close_unread(later), permits.available_permits()), (1, 1));
        assert!(matches!(unread.frame().await, Some(Err(Error::ConnectionWriteTimeout))));
        assert_eq!(open.close_unread(later), 0);
        drop((unread, waiting));
        assert_eq!(permits.available_permits(), 2);
        assert!(open.0.lock().bodies.is_empty());
    }
}
