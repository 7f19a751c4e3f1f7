//! What the reader of a body and its instance share: the frames that were written, and what its end is.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::atomic::AtomicU64;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame};
use parking_lot::Mutex;
use wasmtime_wasi_http::WasiBody;

use crate::http::body::cut_off::CutOff;

/// A body, shared by its reader and its instance.
pub(super) struct SharedBody {
    /// When the body of a response is cut off, in nanoseconds after the creation of the instance;
    /// 0 for the body of a request.
    pub(super) deadline: AtomicU64,
    /// By when it has to be complete; `None` without limit.
    pub(super) total: Option<Instant>,
    pub(super) state: Mutex<BodyState>,
}

pub(super) struct BodyState {
    /// Frames that were read ahead.
    pub(super) ahead: VecDeque<Frame<Bytes>>,
    pub(super) source: BodySource,
    /// The reader, while it waits.
    reader: Option<Waker>,
    pub(super) announced: Option<u64>,
    pub(super) sent: u64,
}

pub(super) enum BodySource {
    Open(WasiBody),
    /// It is complete, or ends early.
    Ended(Option<CutOff>),
}

impl SharedBody {
    pub(super) fn new(state: BodyState, total: Option<Instant>) -> Self {
        Self { deadline: AtomicU64::new(0), total, state: Mutex::new(state) }
    }

    /// Whether it has taken as long as it may.
    pub(super) fn is_over(&self) -> bool {
        self.total.is_some_and(|total| Instant::now() >= total)
    }

    /// Why it is cut off at its deadline.
    pub(super) fn late(&self) -> CutOff {
        if self.is_over() { CutOff::Total } else { CutOff::Idle }
    }

    /// Reads what the instance has written, and fails if that is not everything. The instance does not
    /// run, so nothing is written meanwhile.
    pub(super) fn end(&self, cause: &CutOff) {
        let mut state = self.state.lock();
        // Few parts fit between guest and host.
        state.read_written(u64::MAX);
        if let BodySource::Open(_) = state.source {
            state.source = BodySource::Ended(Some(cause.clone()));
        }
        if let Some(reader) = state.reader.take() {
            reader.wake();
        }
    }
}

/// The size of a frame of data, in bytes; 0 of trailers.
fn size(frame: &Frame<Bytes>) -> u64 {
    frame.data_ref().map_or(0, |data| data.len() as u64)
}

impl BodyState {
    /// `announced` to have that many bytes.
    pub(super) fn new(source: WasiBody, announced: Option<u64>) -> Self {
        let source = BodySource::Open(source);
        Self { ahead: VecDeque::new(), source, reader: None, announced, sent: 0 }
    }

    /// The size of what was read ahead, in bytes.
    pub(super) fn size_ahead(&self) -> u64 {
        self.ahead.iter().map(size).sum()
    }

    /// Reads ahead what has been written, until that is more than `max` bytes.
    pub(super) fn read_written(&mut self, max: u64) {
        let mut context = Context::from_waker(Waker::noop());
        let mut read = self.size_ahead();
        while let BodySource::Open(body) = &mut self.source
            && read <= max
        {
            match Pin::new(body).poll_frame(&mut context) {
                Poll::Ready(Some(Ok(frame))) => {
                    read += size(&frame);
                    self.ahead.push_back(frame);
                }
                Poll::Ready(Some(Err(error))) => {
                    let cut = CutOff::of(&error, self.announced, self.sent + read);
                    self.source = BodySource::Ended(Some(cut));
                }
                Poll::Ready(None) => self.source = BodySource::Ended(None),
                Poll::Pending => return,
            }
        }
    }

    /// The next frame, and the cause if there is none because the body is cut off.
    pub(super) fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Frame<Bytes>>, CutOff>> {
        let frame = match self.ahead.pop_front() {
            Some(frame) => Some(frame),
            None => match &mut self.source {
                BodySource::Ended(None) => None,
                BodySource::Ended(Some(cut)) => return Poll::Ready(Err(cut.clone())),
                BodySource::Open(body) => match Pin::new(body).poll_frame(cx) {
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
        let sent = self.sent + self.size_ahead();
        let is_valid = sent <= announced && (is_data || sent == announced);
        Poll::Ready(is_valid.then_some(frame).ok_or(CutOff::Length { announced, sent }))
    }

    /// Reads a frame ahead, if there is one. Fails if the body is cut off after the last one.
    fn read_ahead(&mut self, cx: &mut Context<'_>) -> Result<(), CutOff> {
        let body = match &mut self.source {
            BodySource::Open(body) => body,
            BodySource::Ended(None) => return Ok(()),
            BodySource::Ended(Some(cut)) => return Err(cut.clone()),
        };
        match Pin::new(body).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => self.ahead.push_back(frame),
            Poll::Ready(Some(Err(error))) => {
                return Err(CutOff::of(&error, self.announced, self.sent));
            }
            Poll::Ready(None) => self.source = BodySource::Ended(None),
            Poll::Pending => {}
        }
        Ok(())
    }
}
