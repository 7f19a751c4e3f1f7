//! Bodies: whole where they are small, streamed where they are not.
//!
//! A response body passes through these layers on its way from a guest to the client:
//!
//! ```text
//! guest, fast door ───── Bytes ─────────────┐
//! guest, standard door ─ GuestBody ─────────┤  guest_body.rs   permit until its end; closed if unread
//! another server ─────── FetchedBody ───────┤  fetched.rs      timeout between parts
//! response cache ─────── Bytes ─────────────┤
//!                                           v
//!                                    http::body::Body
//!   cache miss:  copied to the cache        │  copy.rs         a complete body is cached
//!   whole:       charged until it is sent   │  budget.rs       memory budget of responses
//!   accepted:    compressed                 │  content_encoding/response.rs
//!                                           v
//!                                    OutgoingBody              server/outgoing_body.rs
//!                                              request in flight until its end; stalled clients
//! ```

mod budget;
mod copy;
pub mod error;
mod fetched;
pub mod guest_body;
mod request;

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::Full;
use tokio::sync::OwnedSemaphorePermit;
use wasmtime_wasi_http::{Error as WasiHttpError, WasiBody};

pub use budget::{MAX_BODIES, charge_request};
use copy::Copy;
use fetched::Fetched;
use guest_body::Streaming;
pub use request::{Arrival, RequestBody};
pub(crate) use request::MAX_DISCARD;

use crate::process::memory_budget::{MemoryBudget, OverBudget};

/// A response body.
pub struct Body(Kind);

enum Kind {
    Whole(Full<Bytes>),
    /// From a guest.
    Streamed(Streaming),
    /// The same, copied on its way.
    Copied(Streaming, Copy),
    Fetched(Fetched),
}

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self.0 {
            Kind::Whole(_) => "Body::Whole",
            Kind::Streamed(_) => "Body::Streamed",
            Kind::Copied(..) => "Body::Copied",
            Kind::Fetched(_) => "Body::Fetched",
        })
    }
}

impl Body {
    pub fn whole(bytes: impl Into<Bytes>) -> Self {
        Self(Kind::Whole(Full::new(bytes.into())))
    }

    /// A guest's body. The guest has its turn until the body's end.
    #[must_use]
    pub fn streamed(body: Streaming) -> Self {
        Self(Kind::Streamed(body))
    }

    /// A body from elsewhere, which keeps its place until its end. It breaks off if nothing of it
    /// comes for as long as `silence`.
    #[must_use]
    pub fn fetched(body: WasiBody, silence: Duration, place: OwnedSemaphorePermit) -> Self {
        Self(Kind::Fetched(Fetched::new(body, silence, place)))
    }

    /// Whether all of it is there.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        matches!(self.0, Kind::Whole(_))
    }

    /// How long it is, if all of it is there.
    #[must_use]
    pub fn whole_size(&self) -> Option<usize> {
        match &self.0 {
            Kind::Whole(body) => usize::try_from(body.size_hint().exact()?).ok(),
            _ => None,
        }
    }

    /// All of it, if it is there; nothing is left then.
    pub fn take_whole(&mut self) -> Option<Bytes> {
        match &mut self.0 {
            Kind::Whole(body) => std::mem::take(body).into_inner(),
            _ => None,
        }
    }

    /// The same body; a whole one is charged to `budget` until its last part is sent.
    ///
    /// # Errors
    /// The budget is exceeded.
    pub fn charged(self, budget: &MemoryBudget) -> Result<Self, OverBudget> {
        match self.0 {
            Kind::Whole(body) => {
                let bytes = body.into_inner().unwrap_or_default();
                Ok(Self::whole(budget::charged(bytes, budget)?))
            }
            kind => Ok(Self(kind)),
        }
    }

    /// The same body, all of which is given to `take` too: at once, or when it has ended. If it is
    /// longer than `most` bytes, breaks off or has trailers, `take` is given `None`, and if nobody reads
    /// it to its end nothing.
    #[must_use]
    pub fn copied(self, most: usize, take: impl FnOnce(Option<&[u8]>) + Send + 'static) -> Self {
        match self.0 {
            Kind::Whole(body) => {
                let bytes = body.into_inner().unwrap_or_default();
                take(Some(&*bytes).filter(|bytes| bytes.len() <= most));
                Self::whole(bytes)
            }
            Kind::Streamed(body) => {
                Self(Kind::Copied(body, Copy::new(most, Box::new(take))))
            }
            Kind::Copied(..) | Kind::Fetched(_) => self,
        }
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = WasiHttpError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, WasiHttpError>>> {
        match &mut self.0 {
            Kind::Whole(body) => Pin::new(body).poll_frame(cx).map_err(|never| match never {}),
            Kind::Streamed(body) => Pin::new(body).poll_frame(cx),
            Kind::Fetched(body) => body.poll_frame(cx),
            Kind::Copied(body, copy) => {
                let frame = ready!(Pin::new(&mut *body).poll_frame(cx));
                copy.see(frame.as_ref());
                // Whoever sends it does not ask for an end it knows of.
                if body.is_end_stream() || body.size_hint().exact() == Some(0) {
                    copy.see(None);
                }
                Poll::Ready(frame)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Whole(body) => body.is_end_stream(),
            Kind::Streamed(body) | Kind::Copied(body, _) => body.is_end_stream(),
            Kind::Fetched(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Whole(body) => body.size_hint(),
            Kind::Streamed(body) | Kind::Copied(body, _) => body.size_hint(),
            Kind::Fetched(body) => body.size_hint(),
        }
    }
}
