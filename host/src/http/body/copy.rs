//! Copies of bodies that are cached once they are complete.

use bytes::{Bytes, BytesMut};
use http_body::Frame;
use wasmtime_wasi_http::Error as WasiHttpError;

/// Called once, with the complete body or `None`.
type Complete = dyn FnOnce(Option<&[u8]>) + Send;

/// The frames of a body so far.
pub(super) struct Copy {
    bytes: BytesMut,
    /// Maximum size, in bytes.
    max: usize,
    /// `None` once it was called.
    complete: Option<Box<Complete>>,
}

impl Copy {
    pub(super) fn new(max: usize, complete: Box<Complete>) -> Self {
        Self { bytes: BytesMut::new(), max, complete: Some(complete) }
    }

    /// Copies a frame, or the end.
    pub(super) fn frame(&mut self, frame: Option<&Result<Frame<Bytes>, WasiHttpError>>) {
        match frame {
            Some(Ok(frame)) => match frame.data_ref() {
                Some(data) if self.bytes.len() + data.len() <= self.max => {
                    if self.complete.is_some() {
                        self.bytes.extend_from_slice(data);
                    }
                    return;
                }
                _ => self.end(false),
            },
            Some(Err(_)) => self.end(false),
            None => self.end(true),
        }
        self.bytes = BytesMut::new();
    }

    /// The body is complete, or cannot become so.
    fn end(&mut self, complete: bool) {
        if let Some(call) = self.complete.take() {
            call(Some(&*self.bytes).filter(|_| complete));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The result of copying `frames`; `None` marks the end of the body.
    fn copied(frames: &[Option<Result<Frame<Bytes>, WasiHttpError>>]) -> Option<Option<Vec<u8>>> {
        let (sender, results) = std::sync::mpsc::channel();
        let complete = move |body: Option<&[u8]>| sender.send(body.map(<[u8]>::to_vec)).unwrap();
        let mut copy = Copy::new(4, Box::new(complete));
        frames.iter().for_each(|frame| copy.frame(frame.as_ref()));
        drop(copy);
        let results: Vec<_> = results.iter().collect();
        assert!(results.len() <= 1, "called twice");
        results.into_iter().next()
    }

    #[test]
    fn copy_is_complete_or_none() {
        let data = |text: &'static str| Some(Ok(Frame::data(Bytes::from(text))));
        let broken = || Some(Err(WasiHttpError::ConnectionTerminated));
        let trailers = || Some(Ok(Frame::trailers(http::HeaderMap::new())));
        assert_eq!(copied(&[data("ab"), data(""), data("cd"), None]), Some(Some(b"abcd".into())));
        assert_eq!(copied(&[None]), Some(Some(vec![])));
        for frames in [
            vec![data("ab"), broken(), None],
            vec![data("ab"), trailers(), None],
            vec![data("ab"), data("cde"), data(""), None],
        ] {
            assert_eq!(copied(&frames), Some(None));
        }
        assert_eq!(copied(&[data("ab")]), None, "it is not read to its end");
    }
}
