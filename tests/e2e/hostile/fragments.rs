//! Bodies in tiny parts: chunks of HTTP/1.1 and DATA frames of HTTP/2 with a byte each. They are refused
//! before they cost more than a body of ordinary size.

use std::io::Write;

use bytes::Bytes;
use futures::stream;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use spinfer_benches::process::Process;
use spinfer_tests::{Launch, Manifest, STANDARD_DOOR, Spinfer};

use super::super::http2::{RequestBody, in_the_clear, post, text};
use super::{is_quiet, raw};

/// Number of tiny parts of a body that is served.
const FEW: usize = 16 << 10;
/// Number of bytes of a body that is refused in tiny parts: the default limit of a body.
const MANY: usize = 16 << 20;
/// Processor time that a refused body may cost, in seconds; read to its end, it costs tens of seconds.
const MAX_SECONDS: f64 = 2.0;

fn probe(settings: &str) -> Spinfer {
    Launch::new(&Manifest::default().with("/...", "probe", "probe", settings)).up()
}

/// A request with a body of `count` bytes, each in a chunk of its own.
fn chunked(count: usize) -> Vec<u8> {
    let head = "POST /echo HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
                transfer-encoding: chunked\r\n\r\n";
    [head.as_bytes(), &b"1\r\nx\r\n".repeat(count), b"0\r\n\r\n"].concat()
}

/// A body of `count` bytes, each in a frame of its own.
fn frames(count: usize) -> RequestBody {
    let frame = || Ok(Frame::data(Bytes::from_static(b"x")));
    StreamBody::new(stream::iter((0..count).map(move |_| frame()))).boxed_unsync()
}

#[test]
fn chunks_of_one_byte_are_refused() {
    for door in ["", STANDARD_DOOR] {
        let spinfer = probe(door);
        let few = raw(&spinfer, &chunked(FEW), false).unwrap();
        // The component may stream it: in chunks.
        assert_eq!(few.status, 200, "{}", few.body);
        assert!(few.body.contains(&"x".repeat(100)), "{}", few.body.len());
        let process = Process(spinfer.id());
        let before = process.cpu_seconds().unwrap();
        let many = raw(&spinfer, &chunked(MANY), false).unwrap();
        assert_eq!(many.status, 400, "{}", many.body);
        assert!(many.body.contains("too many tiny parts"), "{}", many.body);
        let seconds = process.cpu_seconds().unwrap() - before;
        let _ = writeln!(std::io::stderr(), "{seconds:.2} s of processor time");
        assert!(seconds < MAX_SECONDS, "{seconds}");
        // The same bytes in ordinary chunks.
        let response = super::super::http::chunked(&spinfer, "/echo", &[b'x'; 1 << 20]);
        assert!(super::super::http::ends_with(&response, &[b'x'; 1 << 20]));
        assert!(is_quiet(&spinfer), "{}", spinfer.log());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_of_one_byte_are_refused() {
    let spinfer = probe("");
    let mut sender = in_the_clear(&spinfer).await;
    let response = sender.send_request(post("http://x/echo", frames(1000))).await.unwrap();
    assert_eq!(text(response).await.len(), 1000);
    // Or the connection is closed, if the HTTP library refuses them first.
    if let Ok(response) = sender.send_request(post("http://x/echo", frames(10 * FEW))).await {
        assert_eq!(response.status(), 400);
    }
    let mut other = in_the_clear(&spinfer).await;
    let response = other.send_request(post("http://x/echo", frames(1))).await.unwrap();
    assert_eq!(text(response).await, "x");
}
