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

mod reader;
mod shared;
mod unsent;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock, Weak};
use std::task::Context;
use std::time::{Duration, Instant};

use futures::task::AtomicWaker;
use parking_lot::Mutex;
use wasmtime_wasi_http::WasiBody;

use super::cut_off::CutOff;
pub use reader::InstanceBody;
use shared::{BodyState, SharedBody};
pub use unsent::UnsentBody;

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
    bodies: HashMap<u64, Weak<SharedBody>>,
    /// By when the instance has to end what it does after its last response.
    linger: Option<Instant>,
}

impl fmt::Debug for InstanceBodies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InstanceBodies").field("limits", &self.limits).finish_non_exhaustive()
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

    /// The body of a response, as its head is sent.
    pub fn response(self: &Arc<Self>, body: UnsentBody) -> InstanceBody {
        let now = Instant::now();
        let total = self.limits.total.map(|total| now + total);
        let body = self.body(body.state, body.passed_on, total);
        body.limit(now + MAX_UNREAD_COMPUTING);
        body
    }

    /// The body of a request that the instance sends.
    pub fn request(self: &Arc<Self>, body: WasiBody) -> InstanceBody {
        self.body(BodyState::new(body, None), false, None)
    }

    fn body(
        self: &Arc<Self>,
        state: BodyState,
        passed_on: bool,
        total: Option<Instant>,
    ) -> InstanceBody {
        let shared = Arc::new(SharedBody::new(state, total));
        let registered = (!passed_on).then(|| {
            let mut open = self.open.lock();
            open.last_number += 1;
            let number = open.last_number;
            open.bodies.insert(number, Arc::downgrade(&shared));
            number
        });
        InstanceBody::new(shared, registered, Arc::clone(self))
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
        let deadline =
            |body: &Weak<SharedBody>| Some(body.upgrade()?.deadline.load(Ordering::Relaxed));
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
