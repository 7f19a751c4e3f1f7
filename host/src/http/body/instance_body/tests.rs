use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::FutureExt;
use futures::channel::mpsc;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use wasmtime_wasi_http::{Error as WasiHttpError, WasiBody};

use super::{InstanceBodies, InstanceBody, StreamLimits, UnsentBody};
use crate::http::body::cut_off::CutOff;

type Sender = mpsc::UnboundedSender<Result<Frame<Bytes>, WasiHttpError>>;

const LIMITS: StreamLimits =
    StreamLimits { idle: Duration::from_millis(50), total: None, linger: Duration::from_secs(5) };

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
    let mut body = instance.response(UnsentBody::new(body, None, false));
    let (passed_on, other) = source();
    let mut other = instance.response(UnsentBody::new(other, None, true));
    let (finished, complete) = source();
    let mut complete = instance.response(UnsentBody::new(complete, None, false));
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
    let instance = InstanceBodies::new(StreamLimits { idle: Duration::from_secs(60), ..LIMITS });
    let (written, body) = source();
    let mut body = instance.response(UnsentBody::new(body, None, false));
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
    let mut one = instance.response(UnsentBody::new(one, None, false));
    let mut two = instance.response(UnsentBody::new(two, None, false));
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
    let mut body = instance.response(UnsentBody::new(body, None, false));
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
        let mut body = instance.response(UnsentBody::new(body, Some(announced), false));
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
