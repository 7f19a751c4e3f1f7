//! Clients that do not read their responses hold no permits, and a bounded amount of memory: other clients
//! are served meanwhile.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use spinfer_tests::{Launch, Manifest, STANDARD_DOOR, Spinfer, wait_until};

use super::metrics::metric;

/// More than the buffers of a connection hold.
const LARGE: usize = 13 << 20;
/// No request of these tests is served because a deadline passed.
const LIMITS: &str = "tool.spinfer.limits = { instances = 4, deadline = \"1h\" }\n";
/// What the log reports when a response was not read for 30 s.
const TIMEOUT: &str = "clients stopped reading";

/// Sends a request for a large response, and reads nothing of it.
fn slow_reader(spinfer: &Spinfer, length: usize) -> TcpStream {
    let mut stream = spinfer.connect();
    let request = format!("GET /large?{length} HTTP/1.1\r\nhost: x\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    stream
}

/// Small requests of several clients, all of which are served.
fn small_requests(spinfer: &Spinfer) {
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let client = spinfer.client();
                for _ in 0..25 {
                    assert_eq!(client.send("GET", "/large?1", &[], b"").body, b"x");
                }
            });
        }
    });
    assert!(!spinfer.log().contains(TIMEOUT), "they waited for slow readers");
}

fn launch(guest: &str, settings: &str) -> Spinfer {
    let manifest = Manifest::default().with("/...", "guest", guest, &format!("{LIMITS}{settings}"));
    Launch::new(&manifest).uncached().admin().up()
}

/// Behind each door, with more slow readers than permits, and more than their client address may hold.
#[test]
fn slow_readers_hold_no_permits() {
    for (guest, settings) in [
        ("hello_p2", ""),
        ("hello_p2", "tool.spinfer.reuse.requests = 1000\n"),
        ("probe", STANDARD_DOOR),
        ("probe", ""),
    ] {
        let spinfer = launch(guest, settings);
        let slow: Vec<_> = (0..24).map(|_| slow_reader(&spinfer, LARGE)).collect();
        small_requests(&spinfer);
        assert!(metric(&spinfer, "spinfer_requests_in_flight{component=\"guest\"}") <= 4.0);
        wait_until("responses are given up", || {
            metric(&spinfer, "spinfer_responses_given_up_total{component=\"guest\",route=\"/...\"}")
                > 0.0
        });
        let log = spinfer.log();
        let line = log.lines().find(|line| line.contains("unread response given up")).unwrap();
        for part in ["component=\"guest\"", "route=\"/...\"", "client=127.0.0.1:"] {
            assert!(line.contains(part), "{line}");
        }
        drop(slow);
        small_requests(&spinfer);
    }
}

/// A response is complete in memory long before a client has read it.
#[test]
fn slow_reader_gets_all_of_its_response_while_others_are_served() {
    for (guest, settings) in [("hello_p2", ""), ("probe", STANDARD_DOOR), ("probe", "")] {
        let one = format!("{settings}tool.spinfer.limits.instances = 1\n");
        let manifest = Manifest::default().with("/...", "guest", guest, &one);
        let spinfer = Launch::new(&manifest).uncached().up();
        let mut slow = slow_reader(&spinfer, LARGE);
        small_requests(&spinfer);
        let (mut length, mut buffer) = (0, vec![0; 1 << 20]);
        // The head and the framing take the rest.
        while length < LARGE {
            let read = slow.read(&mut buffer).unwrap();
            assert!(read > 0, "{guest}: {length} bytes");
            length += read;
        }
        assert!(!spinfer.log().contains("given up"));
    }
}

#[test]
fn client_address_holds_a_bounded_amount_of_memory() {
    let limits = "tool.spinfer.limits.unread_per_client = \"30MiB\"";
    let manifest = Manifest::default().with_settings(limits).with("/...", "guest", "probe", LIMITS);
    let spinfer = Launch::new(&manifest).uncached().up();
    let mut first = slow_reader(&spinfer, LARGE);
    let mut head = [0; 15];
    first.read_exact(&mut head).unwrap();
    assert_eq!(&head, b"HTTP/1.1 200 OK");
    let others: Vec<_> = (0..2).map(|_| slow_reader(&spinfer, LARGE)).collect();
    spinfer.wait_for_log("unread response given up");
    let mut rest = Vec::new();
    // Closed or reset before its end.
    let _ = first.read_to_end(&mut rest);
    assert!(rest.len() < LARGE, "{}", rest.len());
    assert_eq!(spinfer.log().matches("unread response given up").count(), 1);
    for mut other in others {
        let (mut length, mut buffer) = (0, vec![0; 1 << 20]);
        while length < LARGE {
            let read = other.read(&mut buffer).unwrap();
            assert!(read > 0, "{length} bytes");
            length += read;
        }
    }
}

/// Over HTTP/2 the stream of such a response is reset, and its connection goes on.
#[tokio::test(flavor = "multi_thread")]
async fn unread_http2_stream_is_reset_when_its_permit_is_needed() {
    for (guest, settings) in [("hello_p2", ""), ("probe", STANDARD_DOOR)] {
        // None of them can be read ahead as a whole.
        let manifest = Manifest::default()
            .with_settings("tool.spinfer.limits.unread_per_client = \"1MiB\"")
            .with("/...", "guest", guest, &format!("{LIMITS}{settings}"));
        let spinfer = Launch::new(&manifest).uncached().up();
        let stream = tokio::net::TcpStream::connect(spinfer.address()).await.unwrap();
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder.initial_stream_window_size(0);
        let (mut sender, connection) = builder.handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let get = |path: &str| {
            let uri = format!("http://x{path}");
            hyper::Request::get(uri).body(Empty::<Bytes>::new()).unwrap()
        };
        let mut unread = Vec::new();
        for _ in 0..12 {
            let response = sender.send_request(get(&format!("/large?{LARGE}"))).await.unwrap();
            assert_eq!(response.status(), 200, "{guest}");
            unread.push(response);
        }
        spinfer.wait_for_log_times("unread response given up", 8);
        let reset = unread.remove(0).into_body().collect();
        let reset = tokio::time::timeout(Duration::from_secs(20), reset).await.expect("at once");
        assert!(format!("{:?}", reset.unwrap_err()).contains("CANCEL"));
        assert_eq!(sender.send_request(get("/large?1")).await.unwrap().status(), 200);
        assert!(!spinfer.log().contains(TIMEOUT));
    }
}
