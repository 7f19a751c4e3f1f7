//! Bodies: whole where they are small, streamed where they are not.

use std::fmt::Display;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::{BodyExt, Full};
use tokio::sync::OwnedSemaphorePermit;
use wasmtime_wasi_http::{Error as WasiHttpError, WasiBody};

use crate::error::Failure;

/// A response body.
pub struct Body(Kind);

enum Kind {
    Whole(Full<Bytes>),
    /// From a guest, with the request's permit, which is given back when the body ends.
    Streamed {
        body: WasiBody,
        _permit: OwnedSemaphorePermit,
    },
}

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self.0 {
            Kind::Whole(_) => "Body::Whole",
            Kind::Streamed { .. } => "Body::Streamed",
        })
    }
}

impl Body {
    pub fn whole(bytes: impl Into<Bytes>) -> Self {
        Self(Kind::Whole(Full::new(bytes.into())))
    }

    /// A guest's body, and the permit of its request.
    pub fn streamed(body: WasiBody, permit: OwnedSemaphorePermit) -> Self {
        Self(Kind::Streamed { body, _permit: permit })
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
            Kind::Streamed { body, .. } => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Whole(body) => body.is_end_stream(),
            Kind::Streamed { body, .. } => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Whole(body) => body.size_hint(),
            Kind::Streamed { body, .. } => body.size_hint(),
        }
    }
}

/// A request body as it was admitted.
#[derive(Debug)]
pub enum RequestBody {
    /// Complete, and within what the fast door takes.
    Whole(Bytes),
    /// Still arriving. The flag is raised if it goes over the limit.
    Streamed(WasiBody, Arc<AtomicBool>),
}

impl RequestBody {
    /// Takes `body` in: whole if it ends within `whole` bytes, else as a stream that breaks off
    /// after `limit` bytes.
    pub async fn admit<B>(mut body: B, whole: usize, limit: usize) -> Result<Self, Failure>
    where
        B: HttpBody<Data = Bytes, Error: Into<WasiHttpError> + Display> + Unpin + Send + 'static,
    {
        let announced = body.size_hint().lower();
        if announced > limit as u64 {
            return Err(Failure::BodyTooLarge { limit });
        }
        let mut first = BytesMut::new();
        if announced <= whole as u64 {
            while let Some(frame) = body.frame().await {
                let frame = frame.map_err(|e| Failure::BodyBroken(e.to_string()))?;
                let Ok(data) = frame.into_data() else { continue };
                if first.is_empty() && body.is_end_stream() && data.len() <= whole {
                    return Ok(Self::Whole(data));
                }
                first.extend_from_slice(&data);
                if first.len() > whole {
                    return Ok(Self::stream(first.freeze(), body, limit));
                }
            }
            return Ok(Self::Whole(first.freeze()));
        }
        Ok(Self::stream(Bytes::new(), body, limit))
    }

    fn stream<B>(first: Bytes, rest: B, limit: usize) -> Self
    where
        B: HttpBody<Data = Bytes, Error: Into<WasiHttpError>> + Unpin + Send + 'static,
    {
        let over = Arc::new(AtomicBool::new(false));
        let body = Limited { first, rest, left: limit, over: Arc::clone(&over) };
        Self::Streamed(body.boxed_unsync(), over)
    }

    /// For the standard door, which takes every body as a stream.
    #[must_use]
    pub fn into_wasi(self) -> (WasiBody, Option<Arc<AtomicBool>>) {
        match self {
            Self::Whole(bytes) => {
                (Full::new(bytes).map_err(|never| match never {}).boxed_unsync(), None)
            }
            Self::Streamed(body, over) => (body, Some(over)),
        }
    }
}

/// What was read ahead, then the rest, `left` bytes in all.
struct Limited<B> {
    first: Bytes,
    rest: B,
    left: usize,
    over: Arc<AtomicBool>,
}

impl<B> HttpBody for Limited<B>
where
    B: HttpBody<Data = Bytes, Error: Into<WasiHttpError>> + Unpin,
{
    type Data = Bytes;
    type Error = WasiHttpError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, WasiHttpError>>> {
        let frame = if self.first.is_empty() {
            match std::task::ready!(Pin::new(&mut self.rest).poll_frame(cx)) {
                Some(Ok(frame)) => frame,
                other => return Poll::Ready(other.map(|frame| frame.map_err(Into::into))),
            }
        } else {
            Frame::data(std::mem::take(&mut self.first))
        };
        let size = frame.data_ref().map_or(0, Bytes::len);
        match self.left.checked_sub(size) {
            Some(left) => {
                self.left = left;
                Poll::Ready(Some(Ok(frame)))
            }
            None => {
                self.over.store(true, Ordering::Relaxed);
                Poll::Ready(Some(Err(WasiHttpError::HttpRequestBodySize(None))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_empty() && self.rest.is_end_stream()
    }
}
