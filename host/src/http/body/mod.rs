//! Bodies: whole where they are small, streamed where they are not.
//!
//! A response body passes through these layers on its way from a guest to the client:
//!
//! ```text
//! guest, fast door ───── Bytes ─────────────┐
//! guest, standard door ─ UnsentBody ────────┤  instance_body/unsent.rs  whole if it is short and complete
//!                        │                  │                           when its head is sent; else
//!                        InstanceBody       │  instance_body/    fails unless the guest finishes it;
//!                        │                  │                    idle timeout; announced length
//!                        GuestBody ─────────┤  guest_body.rs   permit until it is complete in memory
//! another server ── OutboundResponseBody ───┤  fetched.rs      timeout between frames
//! response cache ─────── Bytes ─────────────┤
//!                                           v
//!                                    http::body::Body
//!   cache miss:  copied to the cache        │  copy.rs         a complete body is cached
//!   whole:       charged until it is sent   │  response_memory.rs  memory of unread responses
//!   accepted:    compressed                 │  content_encoding/response.rs
//!                                           v
//!                                    OutgoingBody              server/outgoing_body.rs
//!                                              request in flight until its end; stalled clients;
//!                                              given up when others need what it holds (delivery.rs)
//! ```

mod budget;
mod coalesced;
mod copy;
pub mod cut_off;
pub mod delivery;
pub mod error;
mod fetched;
pub mod gather;
pub mod guest_body;
pub mod instance_body;
pub mod outcome;
mod parts;
mod read_ahead;
mod request;
pub mod response_memory;

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::Full;
use tokio::sync::OwnedSemaphorePermit;
use wasmtime_wasi_http::{Error as WasiHttpError, WasiBody};

pub use budget::{MAX_BODIES, charge_request};
use copy::Copy;
use cut_off::CutOff;
use delivery::Delivery;
use fetched::OutboundResponseBody;
use guest_body::GuestBody;
pub use parts::LimitedParts;
pub(crate) use request::MAX_DISCARD;
pub use request::{Arrival, RequestBody};
use response_memory::ResponseMemory;

use crate::metrics::RouteMetrics;
use crate::process::memory_budget::OverBudget;

/// A response body.
pub struct Body(BodyKind);

enum BodyKind {
    Whole(Full<Bytes>),
    /// The body of a guest.
    Streamed(GuestBody),
    /// The body of a guest, copied to the cache while it is sent.
    Copied(GuestBody, Copy),
    /// The body of another server.
    Fetched(OutboundResponseBody),
}

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self.0 {
            BodyKind::Whole(_) => "Body::Whole",
            BodyKind::Streamed(_) => "Body::Streamed",
            BodyKind::Copied(..) => "Body::Copied",
            BodyKind::Fetched(_) => "Body::Fetched",
        })
    }
}

impl Body {
    /// A complete body.
    pub fn whole(bytes: impl Into<Bytes>) -> Self {
        Self(BodyKind::Whole(Full::new(bytes.into())))
    }

    /// The body of a guest, which holds its permit until the end.
    #[must_use]
    pub fn streamed(body: GuestBody) -> Self {
        Self(BodyKind::Streamed(body))
    }

    /// The body of another server's response, which holds `permit` until its end. It fails if no frame
    /// arrives within `between_frames`.
    #[must_use]
    pub fn fetched(body: WasiBody, between_frames: Duration, permit: OwnedSemaphorePermit) -> Self {
        Self(BodyKind::Fetched(OutboundResponseBody::new(body, between_frames, permit)))
    }

    /// Reports on `route` if the body of a guest is cut off.
    pub fn report_to(&mut self, route: &Arc<RouteMetrics>) {
        if let BodyKind::Streamed(body) | BodyKind::Copied(body, _) = &mut self.0 {
            body.report_to(route);
        }
    }

    /// Reports that the body of a guest is cut off, unless that was reported.
    pub fn report_cut_off(&mut self, cause: &CutOff) {
        if let BodyKind::Streamed(body) | BodyKind::Copied(body, _) = &mut self.0 {
            body.report_cut_off(cause);
        }
    }

    /// Whether it is complete in memory.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        matches!(self.0, BodyKind::Whole(_))
    }

    /// Its size in bytes, if it is complete in memory.
    #[must_use]
    pub fn whole_size(&self) -> Option<usize> {
        match &self.0 {
            BodyKind::Whole(body) => usize::try_from(body.size_hint().exact()?).ok(),
            _ => None,
        }
    }

    /// Takes all bytes out, if it is complete in memory.
    pub fn take_whole(&mut self) -> Option<Bytes> {
        match &mut self.0 {
            BodyKind::Whole(body) => std::mem::take(body).into_inner(),
            _ => None,
        }
    }

    /// The same body; a whole one is held in `memory` for `client` until its last part is sent. Slower
    /// responses can be given up for it.
    ///
    /// # Errors
    /// It does not fit.
    pub async fn held(
        self,
        memory: &ResponseMemory,
        client: Option<IpAddr>,
    ) -> Result<Self, OverBudget> {
        match self.0 {
            BodyKind::Whole(body) => {
                let bytes = body.into_inner().unwrap_or_default();
                match memory.try_hold(bytes.clone(), client) {
                    Ok(held) => Ok(Self::whole(held)),
                    // Boxed, since it is rare and would enlarge the task of every connection.
                    Err(_) => Ok(Self::whole(Box::pin(memory.hold(bytes, client)).await?)),
                }
            }
            kind => Ok(Self(kind)),
        }
    }

    /// Whether the last frame is charged to the memory of responses.
    #[must_use]
    pub fn is_charged(&self) -> bool {
        match &self.0 {
            BodyKind::Whole(_) => true,
            BodyKind::Streamed(body) | BodyKind::Copied(body, _) => body.is_charged(),
            BodyKind::Fetched(_) => false,
        }
    }

    /// Names what sends it to a client.
    pub fn set_delivery(&self, delivery: &Arc<Delivery>) {
        if let BodyKind::Streamed(body) | BodyKind::Copied(body, _) = &self.0 {
            body.set_delivery(delivery);
        }
    }

    /// The same body; `complete` is called with all of its bytes, at once or at its end. It is called
    /// with `None` if the body exceeds `max` bytes, fails or has trailers, and not called if the body is
    /// not read to its end.
    #[must_use]
    pub fn copied(self, max: usize, complete: impl FnOnce(Option<&[u8]>) + Send + 'static) -> Self {
        match self.0 {
            BodyKind::Whole(body) => {
                let bytes = body.into_inner().unwrap_or_default();
                complete(Some(&*bytes).filter(|bytes| bytes.len() <= max));
                Self::whole(bytes)
            }
            BodyKind::Streamed(body) => {
                Self(BodyKind::Copied(body, Copy::new(max, Box::new(complete))))
            }
            BodyKind::Copied(..) | BodyKind::Fetched(_) => self,
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
            BodyKind::Whole(body) => Pin::new(body).poll_frame(cx).map_err(|never| match never {}),
            BodyKind::Streamed(body) => Pin::new(body).poll_frame(cx),
            BodyKind::Fetched(body) => body.poll_frame(cx),
            BodyKind::Copied(body, copy) => {
                let frame = ready!(Pin::new(&mut *body).poll_frame(cx));
                copy.frame(frame.as_ref());
                // The connection does not poll for an end that it knows.
                if body.is_end_stream() || body.size_hint().exact() == Some(0) {
                    copy.frame(None);
                }
                Poll::Ready(frame)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            BodyKind::Whole(body) => body.is_end_stream(),
            BodyKind::Streamed(body) | BodyKind::Copied(body, _) => body.is_end_stream(),
            BodyKind::Fetched(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            BodyKind::Whole(body) => body.size_hint(),
            BodyKind::Streamed(body) | BodyKind::Copied(body, _) => body.size_hint(),
            BodyKind::Fetched(body) => body.size_hint(),
        }
    }
}
