//! A response body of a guest, which can be read ahead of its reader.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use parking_lot::Mutex;
use tokio::sync::OwnedSemaphorePermit;
use wasmtime_wasi_http::Error;

use super::cut_off::CutOff;
use super::delivery::Delivery;
use super::instance_body::InstanceBody;
use super::outcome::ResponseOutcome;
use super::response_memory::ResponseMemory;

/// Maximum size of one body that is read ahead, in bytes: one that never ends must not take all memory.
const MAX_AHEAD: usize = super::MAX_BODIES / 8;

/// A part of the body, or the error that cuts it off.
type NextFrame = Result<Frame<Bytes>, Error>;

/// A body, what of it was read ahead, and its reader.
pub(super) struct ReadAhead {
    source: Source,
    ahead: VecDeque<Frame<Bytes>>,
    /// Size of `ahead`, in bytes.
    length: usize,
    reading: Reading,
    /// Number of times that [`read_ahead`] was started or stopped.
    turn: u64,
    /// [`read_ahead`], while it waits for the guest.
    ahead_task: Option<Waker>,
    /// The reader, while it waits for the guest.
    reader: Option<Waker>,
    /// Why it failed, once its reader has received the error.
    cut: Option<CutOff>,
    /// When it was last polled; `None` while its reader waits for the guest.
    unread_since: Option<Instant>,
    outcome: Arc<ResponseOutcome>,
    client: Option<IpAddr>,
    delivery: Option<Arc<Delivery>>,
}

enum Source {
    Open {
        body: InstanceBody,
        _permit: Arc<OwnedSemaphorePermit>,
    },
    /// All of it was read ahead, up to where it was cut off, if it was.
    Ended(Option<CutOff>),
    Closed(CutOff),
}

/// The reader of the source.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reading {
    /// The reader of the body.
    Directly,
    /// [`read_ahead`].
    Ahead,
    /// The reader, once it has read what is ahead: there is no memory for more, or too much is left.
    Full,
}

impl ReadAhead {
    pub(super) fn new(
        body: InstanceBody,
        permit: Arc<OwnedSemaphorePermit>,
        outcome: Arc<ResponseOutcome>,
        client: Option<IpAddr>,
    ) -> Self {
        Self {
            source: Source::Open { body, _permit: permit },
            ahead: VecDeque::new(),
            length: 0,
            reading: Reading::Directly,
            turn: 0,
            ahead_task: None,
            reader: None,
            cut: None,
            unread_since: Some(Instant::now()),
            outcome,
            client,
            delivery: None,
        }
    }

    pub(super) fn set_delivery(&mut self, delivery: &Arc<Delivery>) {
        self.delivery = Some(Arc::clone(delivery));
    }

    /// For how long it was not read, if it holds a permit.
    pub(super) fn unread_for(&self, now: Instant) -> Option<Duration> {
        let Source::Open { .. } = self.source else { return None };
        self.unread_since.map(|since| now.saturating_duration_since(since))
    }

    /// Whether there is no memory to read more of it ahead.
    pub(super) fn is_full(&self) -> bool {
        self.reading == Reading::Full
    }

    /// Starts to read ahead, if nothing does. Returns the turn for [`read_ahead`].
    pub(super) fn start_ahead(&mut self) -> Option<u64> {
        let Source::Open { body, .. } = &self.source else { return None };
        if self.reading != Reading::Directly {
            return None;
        }
        if body.size_hint().lower() > MAX_AHEAD as u64 {
            self.reading = Reading::Full;
            return None;
        }
        self.reading = Reading::Ahead;
        self.turn += 1;
        Some(self.turn)
    }

    /// Has [`read_ahead`] stopped.
    fn end_ahead(&mut self) {
        self.turn += 1;
        if let Some(task) = self.ahead_task.take() {
            task.wake();
        }
    }

    /// Why it failed, once its reader has received the error.
    pub(super) fn cut_off(&self) -> Option<&CutOff> {
        self.cut.as_ref()
    }

    /// Returns frames to the front, to be read again.
    pub(super) fn unread(&mut self, frames: VecDeque<Frame<Bytes>>) {
        for frame in frames.into_iter().rev() {
            self.length += frame.data_ref().map_or(0, Bytes::len);
            self.ahead.push_front(frame);
        }
        self.unread_since = Some(Instant::now());
    }

    /// Releases the permit, the guest and what was read ahead, for this cause. Returns what sends the
    /// body, unless it was complete or closed.
    pub(super) fn close(&mut self, cause: CutOff) -> Option<Option<Arc<Delivery>>> {
        let open = matches!(self.source, Source::Open { .. });
        if !matches!(self.source, Source::Closed(_)) {
            self.source = Source::Closed(cause);
        }
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
        self.ahead.clear();
        self.length = 0;
        self.end_ahead();
        open.then(|| self.delivery.clone())
    }

    /// The next frame for the reader, and whether it is charged.
    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>) -> (Poll<Option<NextFrame>>, bool) {
        if let Some(frame) = self.ahead.pop_front() {
            self.length -= frame.data_ref().map_or(0, Bytes::len);
            self.unread_since = Some(Instant::now());
            if self.ahead.is_empty() && self.reading == Reading::Full {
                self.reading = Reading::Directly;
            }
            return (Poll::Ready(Some(Ok(frame))), true);
        }
        if self.reading == Reading::Ahead {
            // The reader has caught up.
            self.reading = Reading::Directly;
            self.end_ahead();
        }
        let frame = match &mut self.source {
            Source::Open { body, .. } => Pin::new(body).poll_frame(cx),
            Source::Ended(None) => Poll::Ready(None),
            Source::Ended(Some(cut)) | Source::Closed(cut) => {
                Poll::Ready(Some(Err((&*cut).into())))
            }
        };
        if let Source::Open { body, .. } = &self.source
            && self.reading == Reading::Full
            && body.size_hint().lower() <= MAX_AHEAD as u64
        {
            // What is left of it can be read ahead.
            self.reading = Reading::Directly;
        }
        if let Poll::Ready(Some(Err(_))) = frame {
            self.cut = match &self.source {
                Source::Open { body, .. } => body.cut_off().cloned(),
                Source::Ended(cut) => cut.clone(),
                Source::Closed(cut) => Some(cut.clone()),
            };
        }
        self.unread_since = frame.is_ready().then(Instant::now);
        self.reader = frame.is_pending().then(|| cx.waker().clone());
        (frame, false)
    }

    /// Reads frames ahead until there are no more, or no memory for them.
    fn poll_ahead(&mut self, turn: u64, memory: &ResponseMemory, cx: &mut Context<'_>) -> Poll<()> {
        if turn != self.turn {
            return Poll::Ready(());
        }
        loop {
            let Source::Open { body, .. } = &mut self.source else { return Poll::Ready(()) };
            match Pin::new(&mut *body).poll_frame(cx) {
                Poll::Pending => {
                    self.ahead_task = Some(cx.waker().clone());
                    return Poll::Pending;
                }
                Poll::Ready(Some(Ok(frame))) => {
                    if self.push(frame, memory) {
                        self.reading = Reading::Full;
                        return Poll::Ready(());
                    }
                }
                Poll::Ready(end) => {
                    let failed = end.is_some();
                    let cut = failed.then(|| body.cut_off().cloned().unwrap_or(CutOff::Unfinished));
                    match failed {
                        true => self.outcome.fail(),
                        false => self.outcome.end(),
                    }
                    // Releases the permit.
                    self.source = Source::Ended(cut);
                    return Poll::Ready(());
                }
            }
        }
    }

    /// Keeps `frame` for the reader. Returns whether there is no memory for another.
    fn push(&mut self, frame: Frame<Bytes>, memory: &ResponseMemory) -> bool {
        let data = match frame.into_data() {
            Ok(data) => data,
            Err(trailers) => {
                self.ahead.push_back(trailers);
                return false;
            }
        };
        self.length += data.len();
        let charged = memory.try_hold(data.clone(), self.client);
        let full = charged.is_err() || self.length >= MAX_AHEAD;
        // The frame that does not fit is in memory already, and there is one at most.
        self.ahead.push_back(Frame::data(charged.unwrap_or(data)));
        full
    }

    pub(super) fn is_end_stream(&self) -> bool {
        self.ahead.is_empty()
            && match &self.source {
                Source::Open { body, .. } => body.is_end_stream(),
                Source::Ended(cut) => cut.is_none(),
                Source::Closed(_) => false,
            }
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        let source = match &self.source {
            Source::Open { body, .. } => body.size_hint(),
            Source::Ended(None) => SizeHint::with_exact(0),
            Source::Ended(Some(_)) | Source::Closed(_) => SizeHint::new(),
        };
        let ahead = self.length as u64;
        let mut hint = SizeHint::new();
        hint.set_lower(source.lower() + ahead);
        if let Some(upper) = source.upper() {
            hint.set_upper(upper + ahead);
        }
        hint
    }
}

/// Reads `body` ahead in its `turn`, until it is complete in memory, its reader has caught up, or there is
/// no memory.
pub(super) async fn read_ahead(body: Arc<Mutex<ReadAhead>>, turn: u64, memory: ResponseMemory) {
    poll_fn(|cx| body.lock().poll_ahead(turn, &memory, cx)).await;
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use futures::stream::{self, StreamExt};
    use futures::{FutureExt, channel::mpsc};
    use http_body_util::{BodyExt, StreamBody};
    use tokio::sync::Semaphore;

    use wasmtime_wasi_http::WasiBody;

    use super::*;
    use crate::http::body::instance_body::{InstanceBodies, StreamLimits, UnsentBody};

    type Frames = mpsc::UnboundedSender<Result<Frame<Bytes>, Error>>;

    fn of_instance(body: WasiBody) -> InstanceBody {
        let minute = Duration::from_secs(60);
        let limits = StreamLimits { idle: minute, total: None, linger: minute };
        InstanceBodies::new(limits).response(UnsentBody::new(body, None, false))
    }

    /// A body that a guest writes, and its permit.
    fn body() -> (Arc<Mutex<ReadAhead>>, Frames, Arc<Semaphore>) {
        let (frames, written) = mpsc::unbounded();
        let permits = Arc::new(Semaphore::new(1));
        let permit = Arc::new(Arc::clone(&permits).try_acquire_owned().expect("a permit"));
        let body = of_instance(StreamBody::new(written).boxed_unsync());
        let body = ReadAhead::new(body, permit, Arc::default(), None);
        (Arc::new(Mutex::new(body)), frames, permits)
    }

    fn write(frames: &Frames, length: usize) {
        let data = Bytes::from(vec![7; length]);
        frames.unbounded_send(Ok(Frame::data(data))).expect("it is open");
    }

    /// The length of the next frame; `None` at the end.
    fn read(body: &Mutex<ReadAhead>) -> Option<Option<Result<usize, Error>>> {
        let polled = poll_fn(|cx| body.lock().poll_read(cx).0).now_or_never()?;
        Some(polled.map(|frame| frame.map(|frame| frame.data_ref().map_or(0, Bytes::len))))
    }

    fn ahead(body: &Arc<Mutex<ReadAhead>>, memory: &ResponseMemory) -> Option<()> {
        let turn = body.lock().start_ahead().expect("nothing reads it ahead");
        read_ahead(Arc::clone(body), turn, memory.clone()).now_or_never()
    }

    #[tokio::test]
    async fn complete_body_releases_its_permit_before_it_is_read() {
        let memory = ResponseMemory::new(1 << 20, 1 << 20);
        for error in [None, Some(Error::ConnectionTerminated)] {
            let (body, frames, permits) = body();
            write(&frames, 3000);
            write(&frames, 2000);
            let fails = error.is_some();
            error.into_iter().for_each(|error| frames.unbounded_send(Err(error)).expect("open"));
            drop(frames);
            assert!(ahead(&body, &memory).is_some(), "it is complete");
            assert_eq!(permits.available_permits(), 1);
            assert_eq!(body.lock().size_hint().exact(), (!fails).then_some(5000));
            assert!(matches!(read(&body), Some(Some(Ok(3000)))));
            assert!(matches!(read(&body), Some(Some(Ok(2000)))));
            assert_eq!(body.lock().is_end_stream(), !fails);
            match read(&body) {
                Some(Some(Err(_))) => assert!(fails),
                Some(None) => assert!(!fails),
                other => panic!("{other:?}"),
            }
        }
    }

    #[tokio::test]
    async fn body_without_memory_is_full_until_it_is_read() {
        let memory = ResponseMemory::new(4000, 4000);
        let (body, frames, permits) = body();
        write(&frames, 3000);
        write(&frames, 3000);
        write(&frames, 10);
        assert!(ahead(&body, &memory).is_some());
        assert!(body.lock().is_full() && permits.available_permits() == 0);
        assert!(matches!(read(&body), Some(Some(Ok(3000)))));
        assert!(body.lock().is_full());
        assert!(matches!(read(&body), Some(Some(Ok(3000)))));
        assert!(!body.lock().is_full(), "it can be read ahead again");
        assert!(ahead(&body, &memory).is_none(), "it waits for the guest");
        assert!(matches!(read(&body), Some(Some(Ok(10)))));
    }

    #[tokio::test]
    async fn reader_that_catches_up_reads_directly() {
        let memory = ResponseMemory::new(1 << 20, 1 << 20);
        let (body, frames, _permits) = body();
        write(&frames, 1);
        let turn = body.lock().start_ahead().expect("nothing reads it ahead");
        let mut reading = Box::pin(read_ahead(Arc::clone(&body), turn, memory));
        assert!(reading.as_mut().now_or_never().is_none(), "it waits for the guest");
        assert!(matches!(read(&body), Some(Some(Ok(1)))));
        assert!(read(&body).is_none(), "the reader waits for the guest");
        assert!(reading.now_or_never().is_some(), "it has stopped");
        assert_eq!(body.lock().unread_for(Instant::now()), None);
        write(&frames, 2);
        assert!(matches!(read(&body), Some(Some(Ok(2)))));
    }

    #[tokio::test]
    async fn closed_body_releases_everything() {
        let memory = ResponseMemory::new(1 << 20, 1 << 20);
        let (body, frames, permits) = body();
        write(&frames, 3000);
        assert!(ahead(&body, &memory).is_none());
        assert!(body.lock().close(CutOff::Unread).is_some());
        assert_eq!(permits.available_permits(), 1);
        assert!(memory.try_hold(Bytes::from(vec![0; 1 << 20]), None).is_ok(), "no memory is held");
        assert!(matches!(read(&body), Some(Some(Err(Error::ConnectionWriteTimeout)))));
        assert!(body.lock().close(CutOff::Shutdown).is_none(), "once");
    }

    #[tokio::test]
    async fn long_body_is_full_until_little_of_it_is_left() {
        const PIECE: usize = 1 << 20;
        let (frames, written) = mpsc::unbounded();
        let permit = Arc::new(Semaphore::new(1)).try_acquire_owned().expect("a permit");
        let minute = Duration::from_secs(60);
        let limits = StreamLimits { idle: minute, total: None, linger: minute };
        let written = StreamBody::new(written).boxed_unsync();
        let announced = (MAX_AHEAD + 2 * PIECE) as u64;
        let long =
            InstanceBodies::new(limits).response(UnsentBody::new(written, Some(announced), false));
        let mut long = ReadAhead::new(long, Arc::new(permit), Arc::default(), None);
        assert_eq!(long.start_ahead(), None, "it is too long");
        assert!(long.is_full());
        let body = Arc::new(Mutex::new(long));
        write(&frames, PIECE);
        assert!(matches!(read(&body), Some(Some(Ok(PIECE)))));
        assert!(body.lock().is_full());
        write(&frames, PIECE);
        assert!(matches!(read(&body), Some(Some(Ok(PIECE)))));
        assert!(!body.lock().is_full());
        assert!(body.lock().start_ahead().is_some());
    }

    #[tokio::test]
    async fn endless_body_is_not_read_ahead_for_ever() {
        let memory = ResponseMemory::new(usize::MAX, usize::MAX);
        let piece = || Ok(Frame::data(Bytes::from(vec![7; 1 << 20])));
        let endless = stream::iter(std::iter::repeat_with(piece).take(MAX_AHEAD >> 19));
        let endless = endless.chain(stream::once(pending::<Result<Frame<Bytes>, Error>>()));
        let permit = Arc::new(Semaphore::new(1)).try_acquire_owned().expect("a permit");
        let endless = of_instance(StreamBody::new(endless).boxed_unsync());
        let body = ReadAhead::new(endless, Arc::new(permit), Arc::default(), None);
        let body = Arc::new(Mutex::new(body));
        assert!(ahead(&body, &memory).is_some());
        assert!(body.lock().is_full());
        assert_eq!(body.lock().length, MAX_AHEAD);
    }
}
