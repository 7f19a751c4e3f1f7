//! Streamed bodies through both versions of the standard door: in both directions at once, cut off, and of
//! another length than announced.

use std::convert::Infallible;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use bytes::Bytes;
use futures::channel::mpsc;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use spinfer_tests::{Launch, Manifest, STANDARD_DOOR, Spinfer};

use super::http2::{in_the_clear, post, text, whole};
use super::metrics::metric;

/// `/p3/...` and `/p2/...`: the same streams through WASI 0.3 and 0.2. `/other/...` is a second component of 0.3.
fn both(settings: &str) -> Manifest {
    let p3 = format!("{STANDARD_DOOR}{settings}");
    Manifest::default()
        .with("/p3/...", "p3", "hostile", &p3)
        .with("/other/...", "other", "hostile", &p3)
        .with("/p2/...", "p2", "hello_p2", settings)
}

/// The limits of streams that a test waits for.
const SHORT: &str =
    "tool.spinfer.limits = { deadline = \"1s\", stream_idle = \"1s\", stream_total = \"60s\" }\n";

/// The bytes of the response to a request on a new connection, until the host closes that.
fn raw(spinfer: &Spinfer, method: &str, path: &str) -> String {
    let mut stream = spinfer.connect();
    let head = format!("{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    let mut response = Vec::new();
    stream.read_to_end(&mut response).unwrap();
    String::from_utf8(response).unwrap()
}

/// Checks that a chunked response has started, and breaks off without the last chunk.
fn assert_breaks_off(response: &str, what: &str) {
    assert!(response.starts_with("HTTP/1.1 200"), "{what}: {response:?}");
    assert!(response.contains("transfer-encoding: chunked"), "{what}: {response:?}");
    assert!(response.contains("begun"), "what was written arrives: {what}: {response:?}");
    assert!(!response.ends_with("0\r\n\r\n"), "{what}: {response:?}");
}

/// Sends the head of a POST request with a chunked body on a new connection.
fn begin(spinfer: &Spinfer, path: &str) -> TcpStream {
    let mut stream = spinfer.connect();
    let head = format!("POST {path} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    stream
}

/// Reads until the text ends with `end`.
fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut text = Vec::new();
    let mut byte = [0];
    while !text.ends_with(end.as_bytes()) {
        assert_eq!(stream.read(&mut byte).unwrap(), 1, "{}", String::from_utf8_lossy(&text));
        text.extend(byte);
    }
    String::from_utf8(text).unwrap()
}

#[test]
fn http1_client_gets_the_head_before_it_sends_its_body() {
    let spinfer = Launch::new(&both("")).up();
    for path in ["/p3/duplex", "/p2/duplex"] {
        let mut stream = begin(&spinfer, path);
        let head = read_until(&mut stream, "\r\n\r\n");
        assert!(head.starts_with("HTTP/1.1 200"), "{path}: {head}");
        for part in ["one", "two"] {
            write!(stream, "{:x}\r\n{part}\r\n", part.len()).unwrap();
            assert_eq!(read_until(&mut stream, "\r\n"), "3\r\n");
            assert_eq!(read_until(&mut stream, "\r\n"), format!("{part}\r\n"));
        }
        stream.write_all(b"0\r\n\r\n").unwrap();
        assert_eq!(read_until(&mut stream, "\r\n\r\n"), "0\r\n\r\n", "{path}");
    }
}

#[tokio::test]
async fn http2_client_gets_the_head_before_it_sends_its_body() {
    let spinfer = Launch::new(&both("")).up();
    let mut sender = in_the_clear(&spinfer).await;
    for path in ["/p3/duplex", "/p2/duplex"] {
        let (parts, body) = mpsc::unbounded::<Result<Frame<Bytes>, Infallible>>();
        let body = StreamBody::new(body).boxed_unsync();
        let response = sender.send_request(post(&format!("http://x{path}"), body)).await.unwrap();
        assert_eq!(response.status(), 200, "{path}");
        let mut back = response.into_body();
        for part in ["one", "two"] {
            parts.unbounded_send(Ok(Frame::data(part.into()))).unwrap();
            assert_eq!(back.frame().await.unwrap().unwrap().into_data().unwrap(), part);
        }
        drop(parts);
        assert_eq!(back.collect().await.unwrap().to_bytes(), "", "{path}");
    }
}

#[test]
fn component_gets_the_head_of_another_before_it_sends_its_body() {
    let settings = "allowed_outbound_hosts = [\"http://*.spin.internal\"]\n";
    let spinfer = Launch::new(&both(settings)).up();
    for other in ["p3", "other", "p2"] {
        let response = spinfer.get(&format!("/p3/call?{other}.spin.internal/{other}/duplex"));
        assert_eq!(response.text(), "200 first second, complete: true", "{other}");
    }
}

/// Ways to break off a response of either version.
const BREAKS: [(&str, &str); 9] = [
    ("p3", "trap"),
    ("p3", "compute"),
    ("p3", "stall"),
    ("p3", "error"),
    ("p2", "trap"),
    ("p2", "compute"),
    ("p2", "stall"),
    ("p2", "drop"),
    ("p2", "leak"),
];

#[test]
fn http1_response_of_a_guest_that_fails_breaks_off() {
    let spinfer = Launch::new(&both(SHORT)).admin().up();
    // One after the other: a trap ends all responses of its instance.
    for (component, how) in BREAKS {
        let path = format!("/{component}/break?{how}");
        assert_breaks_off(&raw(&spinfer, "GET", &path), &path);
    }
    let log = spinfer.log();
    for (route, cause) in [
        ("/p3/...", "the component failed"),
        ("/p3/...", "the component wrote nothing for limits.stream_idle"),
        ("/p3/...", "the component closed its body with an error: internal error: gave up"),
        ("/p2/...", "the component did not finish its body"),
    ] {
        let warned = |line: &str| {
            line.contains("WARN")
                && line.contains(&format!("route=\"{route}\""))
                && line.contains(cause)
        };
        assert!(log.lines().any(warned), "{route} {cause}: {log}");
    }
    for (component, reason, count) in [
        ("p3", "idle", 2.0),
        ("p3", "error", 1.0),
        ("p2", "idle", 2.0),
        ("p2", "trap", 1.0),
        ("p2", "unfinished", 2.0),
    ] {
        let name = format!(
            "spinfer_responses_cut_off_total{{component=\"{component}\",\
             route=\"/{component}/...\",reason=\"{reason}\"}}"
        );
        assert_eq!(metric(&spinfer, &name), count, "{name}");
    }
}

/// The head does not wait for a guest that computes instead of writing the body. With 0.3 the host receives it
/// only when the guest pauses.
#[test]
fn head_of_a_guest_that_computes_is_sent() {
    let spinfer = Launch::new(&both(SHORT)).up();
    let response = raw(&spinfer, "GET", "/p2/compute");
    assert!(response.starts_with("HTTP/1.1 200"), "{response}");
    assert!(response.contains("transfer-encoding: chunked"), "{response}");
    assert!(!response.ends_with("0\r\n\r\n"), "{response}");
}

#[test]
fn short_body_that_is_written_without_waiting_has_a_length() {
    let spinfer = Launch::new(&both("")).up();
    for (path, body) in [("/p3/echo?short", "short"), ("/p2/path-info", "/path-info")] {
        let response = spinfer.get(path);
        assert_eq!((response.status, &*response.text()), (200, body), "{path}");
        let length = body.len().to_string();
        assert_eq!(response.header("content-length"), Some(&*length), "{path}");
    }
    for path in ["/p3/events?3&10", "/p2/events?3&10"] {
        let response = spinfer.get(path);
        assert_eq!(response.text(), "event 0\nevent 1\nevent 2\n", "{path}");
        assert_eq!(response.header("transfer-encoding"), Some("chunked"), "{path}");
    }
}

#[tokio::test]
async fn http2_response_of_a_guest_that_fails_is_reset() {
    let spinfer = Launch::new(&both(SHORT)).up();
    let mut sender = in_the_clear(&spinfer).await;
    for (component, how) in BREAKS {
        let path = format!("{component}/break?{how}");
        let request = post(&format!("http://x/{path}"), whole(""));
        let mut body = sender.send_request(request).await.unwrap().into_body();
        let first = body.frame().await.unwrap().unwrap();
        assert_eq!(first.into_data().unwrap(), "begun", "{path}");
        let error = format!("{:?}", body.frame().await.unwrap().unwrap_err());
        assert!(error.contains("INTERNAL_ERROR"), "{path}: {error}");
    }
    // The connection goes on.
    let response = sender.send_request(post("http://x/p3/echo?well", whole(""))).await;
    assert_eq!(text(response.unwrap()).await, "well");
}

/// Each lasts twice as long as the deadline, and they start one after the other.
#[test]
fn streams_of_one_instance_have_deadlines_of_their_own() {
    let spinfer =
        Launch::new(&both(&format!("{SHORT}tool.spinfer.reuse.min_idle = 0\n"))).admin().up();
    let all: String = (0..20).map(|n| format!("event {n}\n")).collect();
    std::thread::scope(|scope| {
        for (n, component) in ["p3", "p3", "p2", "p3"].into_iter().enumerate() {
            let (spinfer, all) = (&spinfer, &all);
            scope.spawn(move || {
                std::thread::sleep(Duration::from_millis(500) * n as u32);
                let response = spinfer.get(&format!("/{component}/events?20&100"));
                assert_eq!((response.status, &response.text()), (200, all), "{component}");
            });
        }
        // One that stalls is cut off, and the others of its instance go on.
        scope.spawn(|| assert_breaks_off(&raw(&spinfer, "GET", "/p3/break?stall"), "stalls"));
    });
    // Of the four streams of 0.3, later ones are served by an instance that streams already.
    assert!(metric(&spinfer, "spinfer_instances_started_total{component=\"p3\"}") < 4.0);
}

#[test]
fn total_time_of_a_stream_is_limited_on_request() {
    let settings = "tool.spinfer.limits = { stream_total = \"1s\" }\n";
    let spinfer = Launch::new(&both(settings)).up();
    for component in ["p3", "p2"] {
        let response = raw(&spinfer, "GET", &format!("/{component}/events?1000000&10"));
        assert!(response.contains("event 0\n") && !response.ends_with("0\r\n\r\n"), "{component}");
    }
    spinfer.wait_for_log_times("it was not complete within limits.stream_total", 2);
}

#[test]
fn broken_off_response_is_an_error_for_another_component() {
    let grant = "allowed_outbound_hosts = [\"http://*.spin.internal\"]\n";
    // The caller waits longer than the others may take.
    let caller = format!("{STANDARD_DOOR}{grant}");
    let manifest = Manifest::default()
        .with("/p3/...", "p3", "hostile", &caller)
        .with("/other/...", "other", "hostile", &format!("{caller}{SHORT}"))
        .with("/p2/...", "p2", "hello_p2", SHORT);
    let spinfer = Launch::new(&manifest).up();
    for (component, how) in BREAKS {
        let component = if component == "p3" { "other" } else { component };
        let url = format!("{component}.spin.internal/{component}/break?{how}");
        let response = spinfer.get(&format!("/p3/call?{url}"));
        assert_eq!(response.text(), "200 begun , complete: false", "{component} {how}");
    }
    // The body of its request, too, is not complete if it fails.
    let response = spinfer.get("/p3/call-and-trap?other.spin.internal/other/receive");
    assert_eq!(response.status, 500);
    spinfer.wait_for_log("received 5 bytes, complete: false");
}

#[test]
fn broken_off_response_is_not_cached() {
    let spinfer = Launch::new(&both("")).up();
    for _ in 0..2 {
        std::thread::scope(|scope| {
            for _ in 0..3 {
                let spinfer = &spinfer;
                // A cached response would be complete.
                scope.spawn(|| assert_breaks_off(&raw(spinfer, "GET", "/p3/break?error"), "error"));
            }
        });
    }
}

#[test]
fn content_length_that_disagrees_with_a_short_body_is_500() {
    let spinfer = Launch::new(&both("").with("/...", "fast", "probe", "")).up();
    for path in ["/p3/length", "/p2/length", "/length"] {
        let response = spinfer.get(&format!("{path}?10&10"));
        assert_eq!(
            (response.status, response.header("content-length")),
            (200, Some("10")),
            "{path}"
        );
        assert_eq!(response.text(), "x".repeat(10));
        for sent in [0, 4, 11, 10_000] {
            let response = spinfer.get(&format!("{path}?10&{sent}"));
            assert_eq!(response.status, 500, "{path} {sent}");
            let error = response.error();
            assert!(
                error.contains("invalid response") && error.contains("content-length"),
                "{error}"
            );
        }
    }
}

#[test]
fn content_length_that_disagrees_with_a_long_body_breaks_it_off() {
    const ANNOUNCED: usize = 1_000_000;
    let spinfer = Launch::new(&both("")).up();
    for component in ["p3", "p2"] {
        let path = format!("/{component}/length?{ANNOUNCED}");
        let complete = raw(&spinfer, "GET", &format!("{path}&{ANNOUNCED}"));
        assert_eq!(complete.split_once("\r\n\r\n").unwrap().1.len(), ANNOUNCED, "{component}");
        for sent in [500_000, 1_500_000] {
            let response = raw(&spinfer, "GET", &format!("{path}&{sent}"));
            let (head, body) = response.split_once("\r\n\r\n").unwrap();
            assert!(head.contains("content-length: 1000000"), "{component}: {head}");
            assert!(body.len() < ANNOUNCED, "{component} {sent}: {}", body.len());
        }
    }
    spinfer.wait_for_log_times("announced a content-length of 1000000 bytes and sent", 4);
}

#[test]
fn status_that_is_not_final_is_500() {
    let spinfer = Launch::new(&both("").with("/...", "fast", "probe", "")).up();
    // With 0.3, the component itself gets an error for a status of 600.
    for (path, statuses) in [
        ("/p3/status", &[103][..]),
        ("/p2/status", &[103, 600, 999]),
        ("/status", &[103, 600, 999]),
    ] {
        for status in statuses {
            let response = spinfer.get(&format!("{path}?{status}"));
            assert_eq!(response.status, 500, "{path} {status}");
            let error = response.error();
            assert!(error.contains(&format!("{status} is not a final status")), "{path}: {error}");
        }
    }
}

/// Without a body, a connection goes on with the next response at once.
#[test]
fn responses_without_a_body_are_framed_as_such() {
    let spinfer = Launch::new(&both("").with("/...", "fast", "probe", "")).up();
    for base in ["/p3", "/p2", ""] {
        let mut stream = spinfer.connect();
        for (method, target, status, length) in [
            ("GET", "status?204", 204, None),
            ("HEAD", "status?204", 204, None),
            ("GET", "status?304", 304, None),
            ("HEAD", "length?10&10", 200, Some("content-length: 10")),
            ("HEAD", "length?10&0", 200, Some("content-length: 10")),
            ("HEAD", "length?1000000&0", 200, Some("content-length: 1000000")),
        ] {
            let what = format!("{method} {base}/{target}");
            let request = format!("{method} {base}/{target} HTTP/1.1\r\nhost: x\r\n\r\n");
            stream.write_all(request.as_bytes()).unwrap();
            let head = read_until(&mut stream, "\r\n\r\n");
            assert!(head.starts_with(&format!("HTTP/1.1 {status}")), "{what}: {head}");
            assert!(!head.contains("transfer-encoding"), "{what}: {head}");
            let announced = head.lines().find(|line| line.starts_with("content-length"));
            assert_eq!(announced, length, "{what}");
        }
    }
}

/// Takes as long as the host waits for requests in flight, 30 seconds.
#[test]
fn streams_that_are_open_at_the_end_of_a_shutdown_are_cut_off() {
    let mut spinfer = Launch::new(&both("")).up();
    let mut streams: Vec<_> = ["p3", "p2"]
        .map(|component| {
            let path = format!("/{component}/events?1000000&100");
            let mut stream = begin(&spinfer, &path);
            stream.write_all(b"0\r\n\r\n").unwrap();
            read_until(&mut stream, "event 0\n");
            stream
        })
        .into();
    spinfer.terminate();
    for stream in &mut streams {
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).unwrap();
        assert!(!rest.ends_with(b"0\r\n\r\n"));
    }
    assert_eq!(spinfer.wait().code(), Some(0));
    let log = spinfer.log();
    for route in ["/p3/...", "/p2/..."] {
        let warned = |line: &str| line.contains(route) && line.contains("the host shuts down");
        assert!(log.lines().any(warned), "{log}");
    }
}
