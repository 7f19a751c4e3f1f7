//! The body of a response whose head is not sent yet.

use std::fmt;

use bytes::Bytes;
use http_body::Frame;
use wasmtime_wasi_http::WasiBody;

use super::shared::{BodySource, BodyState};
use crate::http::body::gather::{MAX_LENGTH, concatenated};

/// The body of a response that is not sent yet. What the instance writes meanwhile is read into memory, if
/// the body is short.
pub struct UnsentBody {
    pub(super) state: BodyState,
    /// Whether the instance does not write it itself.
    pub(super) passed_on: bool,
}

impl fmt::Debug for UnsentBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UnsentBody").field("passed_on", &self.passed_on).finish_non_exhaustive()
    }
}

impl UnsentBody {
    /// `announced` to have that many bytes. `passed_on`: the instance does not write it itself.
    #[must_use]
    pub fn new(body: WasiBody, announced: Option<u64>, passed_on: bool) -> Self {
        Self { state: BodyState::new(body, announced), passed_on }
    }

    /// Reads what has been written. Returns whether the response is better sent than kept: its body has
    /// ended, or is not short.
    pub fn read_written(&mut self) -> bool {
        let announced = self.state.announced;
        if self.passed_on || announced.is_some_and(|announced| announced > MAX_LENGTH) {
            return true;
        }
        self.state.read_written(MAX_LENGTH);
        match self.state.source {
            BodySource::Open(_) => self.state.size_ahead() > MAX_LENGTH,
            BodySource::Ended(_) => true,
        }
    }

    /// Takes all bytes out, if the body is complete: as long as announced, and without trailers.
    pub fn take_whole(&mut self) -> Option<Bytes> {
        let BodyState { ahead, source, announced, .. } = &self.state;
        let is_finished = matches!(source, BodySource::Ended(None));
        let size = self.state.size_ahead();
        let is_complete = announced.is_none_or(|announced| announced == size);
        if !(is_finished && is_complete && ahead.iter().all(Frame::is_data)) {
            return None;
        }
        Some(concatenated(std::mem::take(&mut self.state.ahead)))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::channel::mpsc;
    use http::HeaderMap;
    use http_body_util::{BodyExt, StreamBody};
    use wasmtime_wasi_http::Error;

    use super::*;
    use crate::http::body::cut_off::CutOff;
    use crate::http::body::instance_body::{InstanceBodies, StreamLimits};

    type Sender = mpsc::UnboundedSender<Result<Frame<Bytes>, Error>>;

    fn unsent(announced: Option<u64>) -> (Sender, UnsentBody) {
        let (sender, frames) = mpsc::unbounded();
        (sender, UnsentBody::new(StreamBody::new(frames).boxed_unsync(), announced, false))
    }

    fn send(sender: &Sender, text: &'static str) {
        sender.unbounded_send(Ok(Frame::data(text.into()))).unwrap();
    }

    #[test]
    fn body_is_whole_once_it_is_finished_as_announced() {
        for announced in [None, Some(8)] {
            let (sender, mut body) = unsent(announced);
            assert!(!body.read_written() && body.take_whole().is_none(), "nothing is written");
            send(&sender, "1234");
            send(&sender, "5678");
            assert!(!body.read_written() && body.take_whole().is_none(), "it is not finished");
            drop(sender);
            assert!(body.read_written());
            assert_eq!(body.take_whole(), Some("12345678".into()));
        }
        let (sender, mut empty) = unsent(Some(0));
        drop(sender);
        assert!(empty.read_written());
        assert_eq!(empty.take_whole(), Some(Bytes::new()));
    }

    #[tokio::test]
    async fn body_that_is_not_whole_is_read_from_its_start() {
        let minute = Duration::from_secs(60);
        let limits = StreamLimits { idle: minute, total: None, linger: minute };
        let instance = InstanceBodies::new(limits);
        for (announced, parts, error, trailers, expected) in [
            (None, &["12"][..], true, false, Err("12")),
            (Some(4), &["12"], false, false, Err("12")),
            // Its reader must not have everything before the error.
            (Some(4), &["12", "34"], true, false, Err("12")),
            (Some(4), &["12", "345"], false, false, Err("")),
            (Some(4), &["12", "34"], false, true, Ok("1234")),
            (None, &["12", "34"], false, true, Ok("1234")),
        ] {
            let (sender, mut body) = unsent(announced);
            parts.iter().for_each(|part| send(&sender, part));
            if error {
                sender.unbounded_send(Err(Error::ConnectionTerminated)).unwrap();
            }
            if trailers {
                sender.unbounded_send(Ok(Frame::trailers(HeaderMap::new()))).unwrap();
            }
            drop(sender);
            assert!(body.read_written() && body.take_whole().is_none(), "{parts:?}");
            let mut body = instance.response(body);
            let mut read = Vec::new();
            let complete = loop {
                match body.frame().await {
                    Some(Ok(frame)) => read.extend(frame.into_data().unwrap_or_default()),
                    Some(Err(_)) => break false,
                    None => break true,
                }
            };
            let read = str::from_utf8(&read).unwrap();
            assert_eq!(if complete { Ok(read) } else { Err(read) }, expected, "{parts:?}");
        }
    }

    #[tokio::test]
    async fn body_that_its_instance_goes_on_writing_is_cut_off_with_it() {
        let minute = Duration::from_secs(60);
        let limits = StreamLimits { idle: minute, total: None, linger: minute };
        let instance = InstanceBodies::new(limits);
        let (sender, mut body) = unsent(None);
        send(&sender, "first");
        assert!(!body.read_written());
        let mut body = instance.response(body);
        assert!(instance.has_responses());
        send(&sender, "second");
        instance.set_cause(CutOff::Trap);
        instance.end();
        drop(sender);
        for part in ["first", "second"] {
            assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), part);
        }
        assert!(body.frame().await.unwrap().is_err());
        assert_eq!(body.cut_off(), Some(&CutOff::Trap));
    }

    #[test]
    fn long_body_is_sent_at_once_and_not_all_in_memory() {
        let (sender, mut announced) = unsent(Some(MAX_LENGTH + 1));
        send(&sender, "1234");
        assert!(announced.read_written() && announced.take_whole().is_none());
        assert_eq!(announced.state.size_ahead(), 0);
        let (sender, mut body) = unsent(None);
        let part = Bytes::from(vec![7; 1 << 10]);
        for _ in 0..1 << 10 {
            sender.unbounded_send(Ok(Frame::data(part.clone()))).unwrap();
        }
        assert!(body.read_written() && body.take_whole().is_none());
        assert!(body.state.size_ahead() <= MAX_LENGTH + part.len() as u64);
    }
}
