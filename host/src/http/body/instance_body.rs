//! Bodies that an instance writes: of its responses, and of the requests that it sends.
//!
//! When an instance is dropped, wasmtime ends the bodies that it has not finished as if they were
//! complete. So they are read here before that ([`InstanceBodies::end`]): what was written stays
//! readable, and a body that was not finished fails.
//!
//! The body of a response has a deadline of its own, also while the others of its instance go on:
//!
//! ```text
//! its reader waits for a part ──── limits.stream_idle since it waits ─────> cut off
//! a part waits for its reader ──── MAX_UNREAD since it was written ───────> closed (guest_body.rs)
//! either ───────────────────────── limits.stream_total, if there is one ──> cut off
//! ```
//!
//! The instance is interrupted once the deadlines of all its open bodies have passed, and those of its
//! calls. So a guest that computes instead of writing is stopped as soon as an idle one.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::task::AtomicWaker;
use http_body::{Body as HttpBody, Frame, SizeHint};
use parking_lot::Mutex;
use tokio::time::{Sleep, sleep_until};
use wasmtime_wasi_http::{Error as WasiHttpError, WasiBody};

use super::cut_off::CutOff;

/// Time after which a body that its client does not read is closed.
pub const MAX_UNREAD: Duration = Duration::from_secs(30);

/// Time after which the instance is interrupted if nothing has closed such a body: a guest that computes
/// meanwhile is bounded by it.
const MAX_UNREAD_COMPUTING: Duration = Duration::from_secs(60);

/// How long the body of a response may take.
#[derive(Clone, Copy, Debug)]
pub struct StreamLimits {
    /// Maximum time for which a reader waits for the next part.
    pub idle: Duration,
    /// Maximum time from the head to the end; `None`: no limit.
    pub total: Option<Duration>,
    /// Time that the instance has after the end of a body, for what it still does.
    pub linger: Duration,
}

/// The open bodies of one instance.
pub struct InstanceBodies {
    limits: StreamLimits,
    created: Instant,
    open: Mutex<OpenBodies>,
    /// Woken when a body of a response ends, as the deadline of the instance changes.
    worker: AtomicWaker,
    /// Why the instance is dropped, if that is known.
    cause: OnceLock<CutOff>,
}

#[derive(Default)]
struct OpenBodies {
    last_number: u64,
    bodies: HashMap<u64, Weak<Shared>>,
    /// By when the instance has to end what it does after its last response.
    linger: Option<Instant>,
}

/// A body, shared by its reader and its instance.
struct Shared {
    /// When the body of a response is cut off, in nanoseconds after the creation of the instance;
    /// 0 for the body of a request.
    deadline: AtomicU64,
    /// By when it has to be complete; `None` without limit.
    total: Option<Instant>,
    state: Mutex<State>,
}

struct State {
    /// Frames that were read ahead.
    ahead: VecDeque<Frame<Bytes>>,
    source: Source,
    /// The reader, while it waits.
    reader: Option<Waker>,
    announced: Option<u64>,
    sent: u64,
}

enum Source {
    Open(WasiBody),
    /// It is complete, or ends early.
    Ended(Option<CutOff>),
}

/// The body of a response or a request, as its reader sees it.
pub struct InstanceBody {
    shared: Arc<Shared>,
    /// `None` if the body does not depend on the instance, which passes on one it has received.
    registered: Option<u64>,
    instance: Arc<InstanceBodies>,
    timer: Option<Pin<Box<Sleep>>>,
    /// Why it failed, once its reader knows.
    cut: Option<CutOff>,
}

impl fmt::Debug for InstanceBodies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InstanceBodies").field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl fmt::Debug for InstanceBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InstanceBody").field("cut", &self.cut).finish_non_exhaustive()
    }
}

impl InstanceBodies {
    #[must_use]
    pub fn new(limits: StreamLimits) -> Arc<Self> {
        Arc::new(Self {
            limits,
            created: Instant::now(),
            open: Mutex::default(),
            worker: AtomicWaker::new(),
            cause: OnceLock::new(),
        })
    }

    /// The body of a response, `announced` to have that many bytes. `passed_on`: the instance does not
    /// write it itself.
    pub fn response(
        self: &Arc<Self>,
        body: WasiBody,
        announced: Option<u64>,
        passed_on: bool,
    ) -> InstanceBody {
        let now = Instant::now();
        let total = self.limits.total.map(|total| now + total);
        let body = self.body(body, announced, passed_on, total);
        body.limit(now + MAX_UNREAD_COMPUTING);
        body
    }

    /// The body of a request that the instance sends.
    pub fn request(self: &Arc<Self>, body: WasiBody) -> InstanceBody {
        self.body(body, None, false, None)
    }

    fn body(
        self: &Arc<Self>,
        body: WasiBody,
        announced: Option<u64>,
        passed_on: bool,
        total: Option<Instant>,
    ) -> InstanceBody {
        let state = State {
            ahead: VecDeque::new(),
            source: Source::Open(body),
            reader: None,
            announced,
            sent: 0,
        };
        let (deadline, state) = (AtomicU64::new(0), Mutex::new(state));
        let shared = Arc::new(Shared { deadline, total, state });
        let registered = (!passed_on).then(|| {
            let mut open = self.open.lock();
            open.last_number += 1;
            let number = open.last_number;
            open.bodies.insert(number, Arc::downgrade(&shared));
            number
        });
        let instance = Arc::clone(self);
        InstanceBody { shared, registered, instance, timer: None, cut: None }
    }

    /// Whether the body of a response is open.
    #[must_use]
    pub fn has_responses(&self) -> bool {
        self.open.lock().responses().next().is_some()
    }

    /// By when the instance has to write a part, and after its last response to end what it still does;
    /// `None` if it has sent no response.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let open = self.open.lock();
        let last = open.responses().max().map(|nanos| self.created + Duration::from_nanos(nanos));
        last.max(open.linger)
    }

    /// The instance has nothing left to do.
    pub fn set_idle(&self) {
        self.open.lock().linger = None;
    }

    /// Has the task of `cx` woken when the body of a response ends.
    pub fn wake_at_end(&self, cx: &Context<'_>) {
        self.worker.register(cx.waker());
    }

    /// Sets why the instance is dropped before its bodies are complete; the first cause stands.
    pub fn set_cause(&self, cause: CutOff) {
        let _ = self.cause.set(cause);
    }

    /// Ends the bodies, before the instance is dropped.
    pub fn end(&self) {
        let bodies = std::mem::take(&mut self.open.lock().bodies);
        let cause = self.cause.get().unwrap_or(&CutOff::Unfinished);
        for body in bodies.values().filter_map(Weak::upgrade) {
            // At the deadline of its last body, the instance may be interrupted before the reader of
            // that notices.
            let deadline = Duration::from_nanos(body.deadline.load(Ordering::Relaxed));
            let is_late = Instant::now() >= self.created + deadline;
            let late = (*cause == CutOff::Interrupted && is_late).then(|| body.late());
            body.end(late.as_ref().unwrap_or(cause));
        }
    }
}

impl OpenBodies {
    /// The deadlines of the open bodies of responses.
    fn responses(&self) -> impl Iterator<Item = u64> {
        let deadline = |body: &Weak<Shared>| Some(body.upgrade()?.deadline.load(Ordering::Relaxed));
        self.bodies.values().filter_map(deadline).filter(|deadline| *deadline > 0)
    }
}

/// Ends the bodies of an instance when it is dropped: before its store, so it has to be declared after
/// that, or precede it in a struct.
#[derive(Debug)]
pub struct EndBodiesOnDrop(pub Arc<InstanceBodies>);

impl Drop for EndBodiesOnDrop {
    fn drop(&mut self) {
        self.0.end();
    }
}

impl Shared {
    /// Whether it has taken as long as it may.
    fn is_over(&self) -> bool {
        self.total.is_some_and(|total| Instant::now() >= total)
    }

    /// Why it is cut off at its deadline.
    fn late(&self) -> CutOff {
        if self.is_over() { CutOff::Total } else { CutOff::Idle }
    }

    /// Reads what the instance has written, and fails if that is not everything. The instance does not
    /// run, so nothing is written meanwhile.
    fn end(&self, cause: &CutOff) {
        let mut state = self.state.lock();
        let State { ahead, source: Source::Open(body), .. } = &mut *state else { return };
        let mut context = Context::from_waker(Waker::noop());
        // Few parts fit between guest and host.
        let error = loop {
            match Pin::new(&mut *body).poll_frame(&mut context) {
                Poll::Ready(Some(Ok(frame))) => ahead.push_back(frame),
                Poll::Ready(Some(Err(error))) => break Some(error),
                Poll::Ready(None) => {
                    state.source = Source::Ended(None);
                    break None;
                }
                Poll::Pending => {
                    state.source = Source::Ended(Some(cause.clone()));
                    break None;
                }
            }
        };
        if let Some(error) = error {
            let sent = state.sent + state.ahead.iter().map(size).sum::<u64>();
            let cut = CutOff::of(&error, state.announced, sent);
            state.source = Source::Ended(Some(cut));
        }
        if let Some(reader) = state.reader.take() {
            reader.wake();
        }
    }
}

impl InstanceBody {
    /// Why it failed, if its reader has received the error.
    #[must_use]
    pub fn cut_off(&self) -> Option<&CutOff> {
        self.cut.as_ref()
    }

    /// Sets the deadline of the next part, at most that of the body.
    fn limit(&self, deadline: Instant) -> Instant {
        let deadline = self.shared.total.map_or(deadline, |total| total.min(deadline));
        let nanos = deadline.saturating_duration_since(self.instance.created).as_nanos();
        let nanos = u64::try_from(nanos).unwrap_or(u64::MAX).max(1);
        self.shared.deadline.store(nanos, Ordering::Relaxed);
        deadline
    }

    fn is_response(&self) -> bool {
        self.shared.deadline.load(Ordering::Relaxed) > 0
    }

    /// Starts the idle timeout, or checks it.
    fn poll_timeout(&mut self, cx: &mut Context<'_>) -> Poll<CutOff> {
        if !self.is_response() {
            return Poll::Pending;
        }
        if self.timer.is_none() {
            let deadline = self.limit(Instant::now() + self.instance.limits.idle);
            self.timer = Some(Box::pin(sleep_until(deadline.into())));
        }
        let timer = self.timer.as_mut().map_or(Poll::Pending, |timer| timer.as_mut().poll(cx));
        timer.map(|()| self.shared.late())
    }

    fn fail(&mut self, cut: CutOff) -> WasiHttpError {
        self.shared.state.lock().source = Source::Ended(Some(cut.clone()));
        let error = match self.is_response() {
            true => WasiHttpError::from(&cut),
            false => WasiHttpError::ConnectionTerminated,
        };
        self.cut = Some(cut);
        error
    }
}

/// The size of a frame of data, in bytes; 0 of trailers.
fn size(frame: &Frame<Bytes>) -> u64 {
    frame.data_ref().map_or(0, |data| data.len() as u64)
}

impl State {
    /// The next frame, and the cause if there is none because the body is cut off.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Frame<Bytes>>, CutOff>> {
        let frame = match self.ahead.pop_front() {
            Some(frame) => Some(frame),
            None => match &mut self.source {
                Source::Ended(None) => None,
                Source::Ended(Some(cut)) => return Poll::Ready(Err(cut.clone())),
                Source::Open(body) => match Pin::new(body).poll_frame(cx) {
                    Poll::Ready(Some(Ok(frame))) => Some(frame),
                    Poll::Ready(Some(Err(error))) => {
                        let cut = CutOff::of(&error, self.announced, self.sent);
                        return Poll::Ready(Err(cut));
                    }
                    Poll::Ready(None) => None,
                    Poll::Pending => {
                        self.reader = Some(cx.waker().clone());
                        return Poll::Pending;
                    }
                },
            },
        };
        let is_data = frame.as_ref().is_some_and(Frame::is_data);
        self.sent += frame.as_ref().map_or(0, size);
        let Some(announced) = self.announced else { return Poll::Ready(Ok(frame)) };
        if is_data && self.sent == announced {
            // The last frame: what follows without delay is known before the reader has everything.
            self.read_ahead(cx)?;
        }
        let sent = self.sent + self.ahead.iter().map(size).sum::<u64>();
        let is_valid = sent <= announced && (is_data || sent == announced);
        Poll::Ready(is_valid.then_some(frame).ok_or(CutOff::Length { announced, sent }))
    }

    /// Reads a frame ahead, if there is one.
    fn read_ahead(&mut self, cx: &mut Context<'_>) -> Result<(), CutOff> {
        let Source::Open(body) = &mut self.source else { return Ok(()) };
        match Pin::new(body).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => self.ahead.push_back(frame),
            Poll::Ready(Some(Err(error))) => {
                return Err(CutOff::of(&error, self.announced, self.sent));
            }
            Poll::Ready(None) => self.source = Source::Ended(None),
            Poll::Pending => {}
        }
        Ok(())
    }
}

impl HttpBody for InstanceBody {
    type Data = Bytes;
    type Error = WasiHttpError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, WasiHttpError>>> {
        let polled = self.shared.state.lock().poll_next(cx);
        let cut = match polled {
            Poll::Ready(Ok(None)) => return Poll::Ready(None),
            Poll::Ready(Ok(Some(_))) if self.shared.is_over() => CutOff::Total,
            Poll::Ready(Ok(Some(frame))) => {
                self.timer = None;
                if self.is_response() {
                    self.limit(Instant::now() + MAX_UNREAD_COMPUTING);
                }
                return Poll::Ready(Some(Ok(frame)));
            }
            Poll::Ready(Err(cut)) => cut,
            Poll::Pending => std::task::ready!(self.poll_timeout(cx)),
        };
        Poll::Ready(Some(Err(self.fail(cut))))
    }

    fn is_end_stream(&self) -> bool {
        let state = self.shared.state.lock();
        let all = state.announced.is_none_or(|announced| state.sent >= announced);
        let ended = match &state.source {
            Source::Open(body) => body.is_end_stream(),
            Source::Ended(cut) => cut.is_none(),
        };
        state.ahead.is_empty() && all && ended
    }

    fn size_hint(&self) -> SizeHint {
        let state = self.shared.state.lock();
        let left = state.announced.map(|announced| announced.saturating_sub(state.sent));
        left.map_or_else(SizeHint::new, SizeHint::with_exact)
    }
}

impl Drop for InstanceBody {
    fn drop(&mut self) {
        let Some(number) = self.registered else { return };
        let mut open = self.instance.open.lock();
        open.bodies.remove(&number);
        if self.is_response() {
            // A body that was cut off gives the instance no more time.
            if self.cut.is_none() {
                open.linger = Some(Instant::now() + self.instance.limits.linger);
            }
            drop(open);
            self.instance.worker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use futures::channel::mpsc;
    use http_body_util::{BodyExt, StreamBody};

    use super::*;

    type Sender = mpsc::UnboundedSender<Result<Frame<Bytes>, WasiHttpError>>;

    const LIMITS: StreamLimits = StreamLimits {
        idle: Duration::from_millis(50),
        total: None,
        linger: Duration::from_secs(5),
    };

    fn source() -> (Sender, WasiBody) {
        let (sender, frames) = mpsc::unbounded();
        (sender, StreamBody::new(frames).boxed_unsync())
    }

    fn send(sender: &Sender, text: &'static str) {
        sender.unbounded_send(Ok(Frame::data(text.into()))).unwrap();
    }

    async fn read(body: &mut InstanceBody) -> Result<Option<Bytes>, CutOff> {
        match body.frame().await {
            None => Ok(None),
            Some(Ok(frame)) => Ok(Some(frame.into_data().unwrap())),
            Some(Err(_)) => Err(body.cut_off().unwrap().clone()),
        }
    }

    #[tokio::test]
    async fn body_that_its_instance_has_not_finished_is_cut_off_after_what_was_written() {
        let instance = InstanceBodies::new(LIMITS);
        let (written, body) = source();
        let mut body = instance.response(body, None, false);
        let (passed_on, other) = source();
        let mut other = instance.response(other, None, true);
        let (finished, complete) = source();
        let mut complete = instance.response(complete, None, false);
        send(&finished, "all");
        drop(finished);
        send(&written, "part");
        instance.set_cause(CutOff::Trap);
        instance.end();
        // Without this, the end of the channel would look like that of the body.
        drop(written);
        assert_eq!(read(&mut body).await, Ok(Some("part".into())));
        assert_eq!(read(&mut body).await, Err(CutOff::Trap));
        assert_eq!(read(&mut complete).await, Ok(Some("all".into())));
        assert_eq!(read(&mut complete).await, Ok(None));
        send(&passed_on, "from elsewhere");
        assert_eq!(read(&mut other).await, Ok(Some("from elsewhere".into())));
    }

    #[tokio::test]
    async fn waiting_reader_is_woken_when_the_instance_is_dropped() {
        let instance =
            InstanceBodies::new(StreamLimits { idle: Duration::from_secs(60), ..LIMITS });
        let (written, body) = source();
        let mut body = instance.response(body, None, false);
        let reading = tokio::spawn(async move { read(&mut body).await });
        tokio::task::yield_now().await;
        instance.end();
        drop(written);
        assert_eq!(reading.await.unwrap(), Err(CutOff::Unfinished));
    }

    #[tokio::test]
    async fn each_body_has_an_idle_timeout_of_its_own() {
        let instance = InstanceBodies::new(LIMITS);
        let ((writes, one), (_stalls, two)) = (source(), source());
        let mut one = instance.response(one, None, false);
        let mut two = instance.response(two, None, false);
        assert!(two.frame().now_or_never().is_none());
        for _ in 0..4 {
            tokio::time::sleep(LIMITS.idle / 2).await;
            send(&writes, "part");
            assert_eq!(read(&mut one).await, Ok(Some("part".into())));
        }
        assert_eq!(read(&mut two).await, Err(CutOff::Idle));
        assert!(instance.has_responses(), "the other goes on");
        drop((one, two));
        assert!(!instance.has_responses());
        let linger = instance.deadline().unwrap().duration_since(Instant::now());
        assert!(linger > LIMITS.linger / 2 && linger <= LIMITS.linger, "{linger:?}");
        instance.set_idle();
        assert_eq!(instance.deadline(), None);
    }

    #[tokio::test]
    async fn total_time_is_limited_only_on_request() {
        let total = Some(4 * LIMITS.idle);
        let instance = InstanceBodies::new(StreamLimits { total, ..LIMITS });
        let (writes, body) = source();
        let mut body = instance.response(body, None, false);
        let cut = loop {
            tokio::time::sleep(LIMITS.idle / 2).await;
            send(&writes, "part");
            if let Err(cut) = read(&mut body).await {
                break cut;
            }
        };
        assert_eq!(cut, CutOff::Total);
    }

    #[tokio::test]
    async fn body_of_another_length_than_announced_is_cut_off_before_it_is_complete() {
        let announced = 8;
        for (parts, expected) in [
            (&["four", "five"][..], None),
            (&["four"], Some(4)),
            (&[], Some(0)),
            (&["four", "more."], Some(9)),
            // The reader would have everything after the second.
            (&["four", "five", "!"], Some(9)),
        ] {
            let instance = InstanceBodies::new(LIMITS);
            let (sender, body) = source();
            parts.iter().for_each(|part| send(&sender, part));
            drop(sender);
            let mut body = instance.response(body, Some(announced), false);
            let mut received = 0;
            let cut = loop {
                match read(&mut body).await {
                    Ok(Some(part)) => received += part.len() as u64,
                    Ok(None) => break None,
                    Err(cut) => break Some(cut),
                }
            };
            let expected = expected.map(|sent| CutOff::Length { announced, sent });
            assert_eq!(cut, expected, "{parts:?}");
            assert_eq!(received == announced, cut.is_none(), "{parts:?}");
        }
    }

    #[tokio::test]
    async fn request_of_a_dropped_instance_breaks_off_too() {
        let instance = InstanceBodies::new(LIMITS);
        let (sender, body) = source();
        let mut body = instance.request(body);
        assert!(!instance.has_responses() && instance.deadline().is_none());
        instance.end();
        drop(sender);
        let error = body.frame().await.unwrap().unwrap_err();
        assert!(matches!(error, WasiHttpError::ConnectionTerminated), "{error}");
    }
}
