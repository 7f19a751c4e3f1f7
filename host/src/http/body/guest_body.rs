//! Response bodies that guests stream. Such a body holds its permit and its guest, so a client that reads
//! slowly must not hold them for as long as it likes.
//!
//! - A body that is not read for a second is read ahead into memory, at once if requests wait for
//!   a permit. Once it is complete there, its permit is released.
//! - While requests wait for permits, bodies that cannot be read ahead, as there is no memory for them,
//!   are given up, the longest unread first.
//! - A body that is not read for [`MAX_UNREAD`] is closed.
//!
//! The connection cannot do that: nothing is written to it meanwhile, and over HTTP/2 nothing is polled.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use parking_lot::Mutex;
use tokio::sync::OwnedSemaphorePermit;
use wasmtime_wasi_http::Error;

use super::cut_off::CutOff;
use super::delivery::{Delivery, GRACE, Needed};
use super::instance_body::{InstanceBody, MAX_UNREAD};
use super::outcome::ResponseReader;
use super::read_ahead::{ReadAhead, read_ahead};
use super::response_memory::ResponseMemory;
use crate::metrics::RouteMetrics;

/// Time after which a body that its client does not read is read ahead.
const AHEAD_AFTER: Duration = Duration::from_secs(1);
/// Minimum time between two attempts to get a permit released.
const RELEASE_INTERVAL: Duration = Duration::from_millis(10);

/// The open bodies of one component.
#[derive(Debug)]
pub struct OpenGuestBodies {
    memory: ResponseMemory,
    open: Mutex<OpenBodies>,
}

#[derive(Default)]
struct OpenBodies {
    last_number: u64,
    bodies: HashMap<u64, Weak<Mutex<ReadAhead>>>,
    /// When permits were last released.
    released: Option<Instant>,
}

impl fmt::Debug for OpenBodies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenBodies").field("bodies", &self.bodies.len()).finish_non_exhaustive()
    }
}

/// The response body of a guest.
pub struct GuestBody {
    number: u64,
    progress: Arc<Mutex<ReadAhead>>,
    open: Arc<OpenGuestBodies>,
    reader: ResponseReader,
    /// Whether the last frame was read ahead, and is charged.
    charged: bool,
    /// The route on which it is sent, until it is reported there that it was cut off.
    route: Option<Arc<RouteMetrics>>,
}

impl fmt::Debug for GuestBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GuestBody").field("number", &self.number).finish_non_exhaustive()
    }
}

impl OpenGuestBodies {
    /// None yet. What is read ahead is charged to `memory`.
    #[must_use]
    pub fn new(memory: ResponseMemory) -> Arc<Self> {
        Arc::new(Self { memory, open: Mutex::default() })
    }

    /// Registers `body`, for the client at an address; `None` within the host. Its permit is released
    /// once it is complete in memory, or when it is closed.
    pub fn send(
        self: &Arc<Self>,
        body: InstanceBody,
        permit: Arc<OwnedSemaphorePermit>,
        reader: ResponseReader,
        client: Option<IpAddr>,
    ) -> GuestBody {
        let progress = ReadAhead::new(body, permit, Arc::clone(&reader.0), client);
        let progress = Arc::new(Mutex::new(progress));
        let mut open = self.open.lock();
        open.last_number += 1;
        let number = open.last_number;
        open.bodies.insert(number, Arc::downgrade(&progress));
        let open = Arc::clone(self);
        GuestBody { number, progress, open, reader, charged: false, route: None }
    }

    fn bodies(&self) -> Vec<Arc<Mutex<ReadAhead>>> {
        self.open.lock().bodies.values().filter_map(Weak::upgrade).collect()
    }

    /// Closes the bodies that at `now` were not read for too long, and returns their number. Those that
    /// were not read for a while are read ahead.
    pub fn close_unread(&self, now: Instant) -> usize {
        let mut closed = 0;
        for body in self.bodies() {
            let mut progress = body.lock();
            let unread = progress.unread_for(now);
            if unread.is_some_and(|unread| unread >= MAX_UNREAD) {
                closed += usize::from(progress.close(CutOff::Unread).is_some());
            } else if unread.is_some_and(|unread| unread >= AHEAD_AFTER) {
                drop(progress);
                self.start_reading_ahead(&body);
            }
        }
        closed
    }

    /// Gets permits released for `waiting` requests: bodies that are not read are read ahead, and of
    /// those for which there is no memory the longest unread are given up.
    pub fn release_permits(&self, waiting: usize) {
        let now = Instant::now();
        {
            let mut open = self.open.lock();
            let soon = open.released.is_some_and(|released| now < released + RELEASE_INTERVAL);
            if soon {
                return;
            }
            open.released = Some(now);
        }
        let mut stuck = Vec::new();
        for body in self.bodies() {
            let progress = body.lock();
            match progress.unread_for(now) {
                Some(unread) if progress.is_full() && unread >= GRACE => {
                    drop(progress);
                    stuck.push((unread, body));
                }
                Some(_) => {
                    drop(progress);
                    self.start_reading_ahead(&body);
                }
                None => {}
            }
        }
        stuck.sort_by_key(|(unread, _)| std::cmp::Reverse(*unread));
        for (_, body) in stuck.into_iter().take(waiting) {
            let closed = body.lock().close(CutOff::Unread);
            if let Some(Some(delivery)) = closed {
                delivery.give_up(Needed::Permit);
            }
        }
    }

    /// Closes all bodies.
    pub fn close_all(&self, cause: &CutOff) {
        for body in self.bodies() {
            let _ = body.lock().close(cause.clone());
        }
    }

    fn start_reading_ahead(&self, body: &Arc<Mutex<ReadAhead>>) {
        let turn = body.lock().start_ahead();
        if let Some(turn) = turn {
            tokio::spawn(read_ahead(Arc::clone(body), turn, self.memory.clone()));
        }
    }
}

impl GuestBody {
    /// Names what sends the body to a client.
    pub fn set_delivery(&self, delivery: &Arc<Delivery>) {
        self.progress.lock().set_delivery(delivery);
    }

    /// Whether the last frame is charged to the memory of responses.
    #[must_use]
    pub fn is_charged(&self) -> bool {
        self.charged
    }

    /// Reports on `route` if it is cut off.
    pub fn report_to(&mut self, route: &Arc<RouteMetrics>) {
        self.route = Some(Arc::clone(route));
    }

    /// Reports that it is cut off, unless that was reported.
    pub fn report_cut_off(&mut self, cause: &CutOff) {
        if let Some(route) = self.route.take() {
            route.cut_off(cause);
        }
    }

    /// Why it failed, if its reader has received the error.
    #[must_use]
    pub fn cut_off(&self) -> Option<CutOff> {
        self.progress.lock().cut_off().cloned()
    }

    /// Returns frames to the front, to be read again.
    pub(super) fn unread(&mut self, frames: VecDeque<Frame<Bytes>>) {
        self.progress.lock().unread(frames);
    }
}

impl Drop for GuestBody {
    fn drop(&mut self) {
        self.open.open.lock().bodies.remove(&self.number);
        // A task that reads it ahead has nothing to do any more.
        self.progress.lock().close(CutOff::Unread);
    }
}

impl Body for GuestBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let (frame, charged) = self.progress.lock().poll_read(cx);
        self.charged = charged;
        if matches!(frame, Poll::Ready(Some(Err(_)))) {
            self.reader.0.fail();
            if let Some(cause) = self.cut_off() {
                self.report_cut_off(&cause);
            }
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.progress.lock().is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.progress.lock().size_hint()
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
    use crate::http::body::instance_body::{InstanceBodies, StreamLimits, UnsentBody};

    const MEMORY: usize = 1 << 20;

    /// A body of one frame, which then ends or not.
    fn body(length: usize, ends: bool) -> InstanceBody {
        let piece = stream::iter([Ok(Frame::data(Bytes::from(vec![7; length])))]);
        let nothing = stream::once(pending::<Result<Frame<Bytes>, Error>>());
        let written = match ends {
            true => StreamBody::new(piece).boxed_unsync(),
            false => StreamBody::new(piece.chain(nothing)).boxed_unsync(),
        };
        let minute = Duration::from_secs(60);
        let limits = StreamLimits { idle: minute, total: None, linger: minute };
        InstanceBodies::new(limits).response(UnsentBody::new(written, None, false))
    }

    struct Component {
        permits: Arc<Semaphore>,
        open: Arc<OpenGuestBodies>,
    }

    impl Component {
        fn new(permits: usize) -> Self {
            let open = OpenGuestBodies::new(ResponseMemory::new(MEMORY, MEMORY));
            Self { permits: Arc::new(Semaphore::new(permits)), open }
        }

        fn send(&self, body: InstanceBody) -> GuestBody {
            let permit = Arc::clone(&self.permits).try_acquire_owned().expect("a permit");
            self.open.send(body, Arc::new(permit), ResponseReader(Arc::default()), None)
        }

        async fn permits_become(&self, count: usize) {
            while self.permits.available_permits() != count {
                tokio::task::yield_now().await;
            }
        }
    }

    #[tokio::test]
    async fn reader_of_a_closed_body_is_woken_and_learns_the_cause() {
        let component = Component::new(1);
        let mut body = component.send(body(7, false));
        assert!(body.frame().await.is_some_and(|frame| frame.is_ok()));
        let waiting = tokio::spawn(async move {
            let failed = body.frame().await.is_some_and(|frame| frame.is_err());
            (failed, body.cut_off())
        });
        tokio::task::yield_now().await;
        component.open.close_all(&CutOff::Shutdown);
        assert_eq!(waiting.await.unwrap(), (true, Some(CutOff::Shutdown)));
    }

    #[tokio::test]
    async fn unread_body_is_closed_and_releases_its_permit() {
        let component = Component::new(2);
        let (mut unread, mut waiting) =
            (component.send(body(7, false)), component.send(body(7, false)));
        assert!(waiting.frame().await.is_some_and(|frame| frame.is_ok()));
        assert!(waiting.frame().now_or_never().is_none(), "it waits for the guest");
        let closed = |later: Duration| component.open.close_unread(Instant::now() + later);
        assert_eq!((closed(AHEAD_AFTER / 2), component.permits.available_permits()), (0, 0));
        assert_eq!((closed(MAX_UNREAD), component.permits.available_permits()), (1, 1));
        assert!(matches!(unread.frame().await, Some(Err(Error::ConnectionWriteTimeout))));
        assert_eq!(closed(MAX_UNREAD), 0);
        drop((unread, waiting));
        assert_eq!(component.permits.available_permits(), 2);
        assert!(component.open.open.lock().bodies.is_empty());
    }

    #[tokio::test]
    async fn unread_body_is_read_ahead_and_releases_its_permit() {
        let component = Component::new(1);
        let unread = component.send(body(MEMORY / 2, true));
        assert_eq!(component.open.close_unread(Instant::now() + AHEAD_AFTER), 0);
        component.permits_become(1).await;
        let read = unread.collect().await.expect("it is complete").to_bytes();
        assert_eq!(read.len(), MEMORY / 2);
    }

    #[tokio::test]
    async fn waiting_requests_get_the_permits_of_unread_bodies() {
        let component = Component::new(3);
        let waits = component.send(body(7, false));
        let [whole, large] = [MEMORY / 2, MEMORY].map(|length| component.send(body(length, true)));
        let mut waits = waits;
        assert!(waits.frame().await.is_some_and(|frame| frame.is_ok()));
        assert!(waits.frame().now_or_never().is_none(), "it waits for the guest");
        let since = Instant::now();
        while component.permits.available_permits() < 2 {
            component.open.release_permits(1);
            tokio::task::yield_now().await;
        }
        assert!(since.elapsed() < MAX_UNREAD / 2);
        // There is memory for one of them.
        let outcomes = [whole, large].map(|body| body.collect());
        let complete = futures::future::join_all(outcomes).await;
        assert_eq!(complete.iter().filter(|body| body.is_ok()).count(), 1);
        assert_eq!(
            component.permits.available_permits(),
            2,
            "one waits for its guest, not its client"
        );
    }
}
