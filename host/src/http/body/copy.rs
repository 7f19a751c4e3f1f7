//! Copies of bodies that are cached once they are complete.

use bytes::{Bytes, BytesMut};
use http_body::Frame;
use wasmtime_wasi_http::Error as WasiHttpError;

/// Whoever is given a whole body, or is told that there is none.
type Take = dyn FnOnce(Option<&[u8]>) + Send;

/// What came of a body so far.
pub(super) struct Copy {
    bytes: BytesMut,
    most: usize,
    /// `None` once it has been told.
    take: Option<Box<Take>>,
}

impl Copy {
    pub(super) fn new(most: usize, take: Box<Take>) -> Self {
        Self { bytes: BytesMut::new(), most, take: Some(take) }
    }

    pub(super) fn see(&mut self, frame: Option<&Result<Frame<Bytes>, WasiHttpError>>) {
        match frame {
            Some(Ok(frame)) => match frame.data_ref() {
                Some(data) if self.bytes.len() + data.len() <= self.most => {
                    if self.take.is_some() {
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

    /// All of it has come, or never will.
    fn end(&mut self, whole: bool) {
        if let Some(take) = self.take.take() {
            take(Some(&*self.bytes).filter(|_| whole));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is told of a body of these frames that nothing comes after, unless it has ended.
    fn told(frames: &[Option<Result<Frame<Bytes>, WasiHttpError>>]) -> Option<Option<Vec<u8>>> {
        let (tells, told) = std::sync::mpsc::channel();
        let take = move |body: Option<&[u8]>| tells.send(body.map(<[u8]>::to_vec)).unwrap();
        let mut copy = Copy::new(4, Box::new(take));
        frames.iter().for_each(|frame| copy.see(frame.as_ref()));
        drop(copy);
        let told: Vec<_> = told.iter().collect();
        assert!(told.len() <= 1, "told twice");
        told.into_iter().next()
    }

    #[test]
    fn what_is_copied_is_whole_or_nothing() {
        let data = |text: &'static str| Some(Ok(Frame::data(Bytes::from(text))));
        let broken = || Some(Err(WasiHttpError::ConnectionTerminated));
        let trailers = || Some(Ok(Frame::trailers(http::HeaderMap::new())));
        assert_eq!(told(&[data("ab"), data(""), data("cd"), None]), Some(Some(b"abcd".into())));
        assert_eq!(told(&[None]), Some(Some(vec![])));
        for frames in [
            vec![data("ab"), broken(), None],
            vec![data("ab"), trailers(), None],
            vec![data("ab"), data("cde"), data(""), None],
        ] {
            assert_eq!(told(&frames), Some(None));
        }
        assert_eq!(told(&[data("ab")]), None, "nobody reads it to its end");
    }
}
