//! Short bodies of guests that announce their length: they are read before the head of the response is
//! sent, if they arrive soon. A body of another length than announced then becomes an error, instead of
//! a response that breaks off.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::Frame;
use http_body_util::BodyExt;
use tokio::time::timeout;

use super::Body;
use super::cut_off::CutOff;
use super::guest_body::GuestBody;

/// Maximum length of a short body, in bytes.
pub(super) const MAX_LENGTH: u64 = 64 << 10;
/// Maximum time for which the head of the response waits.
const MAX_WAIT: Duration = Duration::from_millis(100);

/// The body, complete if it is `announced` to be short and arrives soon.
///
/// # Errors
/// It is cut off.
pub async fn gather(mut body: GuestBody, announced: u64) -> Result<Body, CutOff> {
    if announced > MAX_LENGTH {
        return Ok(Body::streamed(body));
    }
    let mut frames = VecDeque::new();
    match timeout(MAX_WAIT, read(&mut body, &mut frames)).await {
        Ok(Ok(())) if frames.iter().all(Frame::is_data) => Ok(Body::whole(concatenated(frames))),
        Ok(Err(cut)) => Err(cut),
        // It has trailers, or takes longer.
        Ok(Ok(())) | Err(_) => {
            body.unread(frames);
            Ok(Body::streamed(body))
        }
    }
}

async fn read(body: &mut GuestBody, frames: &mut VecDeque<Frame<Bytes>>) -> Result<(), CutOff> {
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => frames.push_back(frame),
            Err(_) => return Err(body.cut_off().unwrap_or(CutOff::Unfinished)),
        }
    }
    Ok(())
}

/// The bytes of frames of data.
pub(super) fn concatenated(mut frames: VecDeque<Frame<Bytes>>) -> Bytes {
    if frames.len() <= 1 {
        let only = frames.pop_front().and_then(|frame| frame.into_data().ok());
        return only.unwrap_or_default();
    }
    let mut bytes = BytesMut::new();
    frames.iter().filter_map(Frame::data_ref).for_each(|data| bytes.extend_from_slice(data));
    bytes.freeze()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures::channel::mpsc;
    use futures::stream::StreamExt;
    use http::HeaderMap;
    use http_body_util::StreamBody;
    use tokio::sync::Semaphore;
    use wasmtime_wasi_http::Error;

    use super::*;
    use crate::http::body::guest_body::OpenGuestBodies;
    use crate::http::body::instance_body::{InstanceBodies, StreamLimits, UnsentBody};
    use crate::http::body::outcome::ResponseReader;
    use crate::http::body::response_memory::ResponseMemory;

    type Sender = mpsc::UnboundedSender<Frame<Bytes>>;

    fn announcing(length: u64) -> (Sender, GuestBody) {
        let (sender, frames) = mpsc::unbounded();
        let body = StreamBody::new(frames.map(Ok::<_, Error>)).boxed_unsync();
        let minute = Duration::from_secs(60);
        let limits = StreamLimits { idle: minute, total: None, linger: minute };
        let body = InstanceBodies::new(limits).response(UnsentBody::new(body, Some(length), false));
        let permit = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        let reader = ResponseReader(Arc::default());
        let open = OpenGuestBodies::new(ResponseMemory::new(1 << 20, 1 << 20));
        (sender, open.send(body, Arc::new(permit), reader, None))
    }

    fn send(sender: &Sender, text: &'static str) {
        sender.unbounded_send(Frame::data(text.into())).unwrap();
    }

    #[tokio::test]
    async fn short_body_that_arrives_soon_is_complete_or_an_error() {
        for (parts, complete) in [
            (&["12345678"][..], true),
            (&["1234", "", "5678"], true),
            (&["1234"], false),
            (&["1234", "56789"], false),
        ] {
            let (sender, body) = announcing(8);
            parts.iter().for_each(|part| send(&sender, part));
            drop(sender);
            match gather(body, 8).await {
                Ok(mut body) => {
                    assert_eq!((body.take_whole(), complete), (Some("12345678".into()), true));
                }
                Err(cut) => {
                    assert!(matches!(cut, CutOff::Length { announced: 8, .. }), "{cut}");
                    assert!(!complete, "{parts:?}");
                }
            }
        }
    }

    #[tokio::test]
    async fn slow_long_and_trailing_bodies_are_streamed() {
        let (sender, slow) = announcing(8);
        send(&sender, "1234");
        let slow = gather(slow, 8).await.unwrap();
        assert!(!slow.is_whole());
        send(&sender, "5678");
        drop(sender);
        assert_eq!(slow.collect().await.unwrap().to_bytes(), "12345678");

        let (_sender, long) = announcing(MAX_LENGTH + 1);
        assert!(!gather(long, MAX_LENGTH + 1).await.unwrap().is_whole());

        let (sender, trailing) = announcing(4);
        send(&sender, "1234");
        let trailers = HeaderMap::from_iter([(http::header::ETAG, "\"1\"".parse().unwrap())]);
        sender.unbounded_send(Frame::trailers(trailers.clone())).unwrap();
        drop(sender);
        let collected = gather(trailing, 4).await.unwrap().collect().await.unwrap();
        assert_eq!(collected.trailers(), Some(&trailers));
        assert_eq!(collected.to_bytes(), "1234");
    }
}
