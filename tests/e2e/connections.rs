//! Connections without a request are closed in time, and before they keep others from connecting.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::channel::mpsc;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use spinfer::server::connections::HEAD_TIMEOUT;
use spinfer_tests::{Launch, Manifest, PATIENCE, STANDARD_DOOR, Spinfer, wait_until};
use tokio::task::JoinHandle;

use super::http2::{RequestBody, post, text, whole};

fn probe(settings: &str, more: &str) -> Spinfer {
    let manifest = Manifest::default().with("/...", "probe", "probe", more);
    Launch::new(&manifest.with_settings(settings)).up()
}

/// A client that replies to the host's PINGs, and the task of its connection.
async fn client(spinfer: &Spinfer) -> (SendRequest<RequestBody>, JoinHandle<hyper::Result<()>>) {
    let stream = tokio::net::TcpStream::connect(spinfer.address()).await.unwrap();
    let handshake =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    let (sender, connection) = handshake.await.unwrap();
    (sender, tokio::spawn(connection))
}

async fn echo(sender: &mut SendRequest<RequestBody>) {
    let response = sender.send_request(post("http://x/echo", whole("x"))).await.unwrap();
    assert_eq!((response.status().as_u16(), text(response).await.as_str()), (200, "x"));
}

/// One request over HTTP/1.1 with keep-alive.
fn send(stream: &mut TcpStream) {
    stream.write_all(b"POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\none").unwrap();
    read_one(stream);
}

/// Reads the response with the body "one".
fn read_one(stream: &mut TcpStream) {
    let mut response = Vec::new();
    while !response.ends_with(b"\r\n\r\none") {
        let mut part = [0; 1024];
        let length = stream.read(&mut part).unwrap();
        assert_ne!(length, 0, "{}", String::from_utf8_lossy(&response));
        response.extend_from_slice(&part[..length]);
    }
}

/// Sends `trickle` whenever nothing is received for `pause`, until the connection is closed; what was
/// received.
fn until_closed(stream: &mut TcpStream, trickle: &str, pause: Duration) -> Vec<u8> {
    let start = Instant::now();
    stream.set_read_timeout(Some(pause)).unwrap();
    let mut response = Vec::new();
    loop {
        let mut part = [0; 1024];
        match stream.read(&mut part) {
            Ok(0) => return response,
            Ok(length) => response.extend_from_slice(&part[..length]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                assert!(start.elapsed() < PATIENCE, "it is still open");
                if stream.write_all(trickle.as_bytes()).is_err() {
                    return response;
                }
            }
            // The host closed it while a byte was in flight.
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return response,
            Err(error) => panic!("{error}"),
        }
    }
}

/// Takes as long as the host waits for a head, 30 seconds, which no setting shortens.
#[test]
fn incomplete_first_head_is_closed_after_the_head_timeout() {
    let spinfer = probe("", "");
    std::thread::scope(|scope| {
        for (start, trickle) in [
            ("", ""),
            ("GE", ""),
            ("GET /echo HT", ""),
            ("GET /echo HTTP/1.1\r\nhost: x\r\nx-slow: ", "a"),
            ("PRI * HTTP/2.0\r\n\r\n", ""),
            ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", ""),
        ] {
            let spinfer = &spinfer;
            scope.spawn(move || {
                let opened = Instant::now();
                let mut stream = spinfer.connect();
                stream.write_all(start.as_bytes()).unwrap();
                let response = until_closed(&mut stream, trickle, Duration::from_secs(1));
                let took = opened.elapsed();
                assert!(took >= HEAD_TIMEOUT, "{start:?}: closed after {took:?}");
                // HTTP/2 sends its settings; half a request gets no response.
                assert!(!response.starts_with(b"HTTP/1.1 2"), "{start:?}: {response:?}");
            });
        }
    });
    // A complete request is served.
    send(&mut spinfer.connect());
}

/// A connection with half of its first head, which the host closes after [`HEAD_TIMEOUT`]. A connection
/// that is closed before this one was closed for another reason.
struct HalfHead(TcpStream);

impl HalfHead {
    fn send(spinfer: &Spinfer) -> Self {
        let mut stream = spinfer.connect();
        stream.write_all(b"POST /echo HTTP/1.1\r\nhost: x\r\n").unwrap();
        Self(stream)
    }

    /// Sends the other half, and reads the response.
    fn complete(mut self) {
        self.0.write_all(b"content-length: 3\r\n\r\none").unwrap();
        read_one(&mut self.0);
    }
}

/// For every head after the first the timeout is keep_alive.
#[test]
fn incomplete_next_head_is_closed_after_keep_alive() {
    let spinfer = probe("tool.spinfer.keep_alive = \"300ms\"", "");
    for (next, trickle) in [("POST /echo HT", ""), ("POST /echo HTTP/1.1\r\nx-slow: ", "a")] {
        let half = HalfHead::send(&spinfer);
        let mut stream = spinfer.connect();
        send(&mut stream);
        stream.write_all(next.as_bytes()).unwrap();
        until_closed(&mut stream, trickle, Duration::from_millis(20));
        half.complete();
    }
}

#[test]
fn idle_connection_is_closed_after_keep_alive() {
    let spinfer = probe("tool.spinfer.keep_alive = \"300ms\"", "");
    let half = HalfHead::send(&spinfer);
    let mut stream = spinfer.connect();
    send(&mut stream);
    send(&mut stream);
    assert_eq!(stream.read(&mut [0]).unwrap(), 0, "closed without another byte");
    half.complete();
}

#[tokio::test]
async fn idle_http2_connection_gets_goaway_after_keep_alive() {
    let spinfer = probe("tool.spinfer.keep_alive = \"300ms\"", "");
    let half = HalfHead::send(&spinfer);
    let (mut sender, ended) = client(&spinfer).await;
    echo(&mut sender).await;
    // A connection that is closed without GOAWAY is an error.
    ended.await.unwrap().unwrap();
    half.complete();
}

#[tokio::test]
async fn request_longer_than_keep_alive_keeps_its_connection() {
    let limits = "tool.spinfer.limits.deadline = \"2s\"\n";
    let spinfer = probe("tool.spinfer.keep_alive = \"100ms\"", limits);
    let (mut sender, ended) = client(&spinfer).await;
    echo(&mut sender).await;
    let timed_out = sender.send_request(post("http://x/loop", whole(""))).await.unwrap();
    assert_eq!(timed_out.status(), 504);
    drop(timed_out);
    ended.await.unwrap().unwrap();

    let mut stream = spinfer.connect();
    send(&mut stream);
    stream.write_all(b"GET /loop HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    assert!(response.starts_with("HTTP/1.1 504"), "{response}");
}

/// Idle connections of well-behaved clients, connections without a byte, and those of clients that ignore
/// GOAWAY.
#[tokio::test]
async fn connections_without_requests_are_evicted_at_the_limit() {
    let spinfer = probe("tool.spinfer.connections = 8", STANDARD_DOOR);
    // The first of all has a request in flight: it stays.
    let (mut busy, busy_ended) = client(&spinfer).await;
    let (pieces, body) = mpsc::unbounded::<Result<Frame<Bytes>, std::convert::Infallible>>();
    pieces.unbounded_send(Ok(Frame::data("begun".into()))).unwrap();
    let body = StreamBody::new(body).boxed_unsync();
    let response = busy.send_request(post("http://x/stream", body)).await.unwrap();
    let mut back = response.into_body();
    assert_eq!(back.frame().await.unwrap().unwrap().into_data().unwrap(), "begun");

    let mut idle = Vec::new();
    for _ in 0..12 {
        let (mut sender, ended) = client(&spinfer).await;
        echo(&mut sender).await;
        idle.push((sender, ended));
    }
    let mut silent = Vec::new();
    for _ in 0..12 {
        silent.push(spinfer.connect());
    }
    let mut unresponsive = Vec::new();
    for _ in 0..12 {
        let mut stream = spinfer.connect();
        // The preface and empty settings. This client replies to no PING, and reads nothing.
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").unwrap();
        unresponsive.push(stream);
    }
    let older: Vec<_> = std::iter::repeat_with(|| spinfer.client()).take(12).collect();
    for client in &older {
        assert_eq!(client.send("POST", "/echo", &[], b"one").text(), "one");
    }
    let (mut sender, _ended) = client(&spinfer).await;
    echo(&mut sender).await;

    pieces.unbounded_send(Ok(Frame::data("ended".into()))).unwrap();
    drop(pieces);
    assert_eq!(back.frame().await.unwrap().unwrap().into_data().unwrap(), "ended");
    assert!(!busy_ended.is_finished());
    // Each of them got GOAWAY.
    for (sender, ended) in idle {
        ended.await.unwrap().unwrap();
        drop(sender);
    }
}

/// Processor time of the host, in ticks of 10 ms.
fn ticks(spinfer: &Spinfer) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", spinfer.id())).unwrap();
    // Fields 14 and 15, after the name in parentheses and the state.
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    fields.split(' ').skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap()).sum()
}

/// The host reports it once, does not spin, serves what is open, and accepts connections again when others
/// are closed. It stops when it is asked to.
#[test]
fn without_free_file_descriptors_open_connections_are_served() {
    const FREE: usize = 6;
    let mut spinfer = probe("", "");
    let files = format!("/proc/{}/fd", spinfer.id());
    let open = || std::fs::read_dir(&files).unwrap().count();
    let mut first = spinfer.connect();
    send(&mut first);
    let with_one = open();
    drop(first);
    wait_until("its connection is closed", || open() < with_one);
    let before = open();
    let limit = format!("--nofile={0}:{0}", before + FREE);
    let limited =
        Command::new("prlimit").args(["--pid", &spinfer.id().to_string(), &limit]).status();
    assert!(limited.unwrap().success());

    // Each has a request in flight, which keeps it open.
    let mut busy: Vec<_> = std::iter::repeat_with(|| spinfer.connect()).take(FREE).collect();
    for stream in &mut busy {
        let head =
            b"POST /echo HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\n";
        stream.write_all(head).unwrap();
        let mut interim = [0; 25];
        stream.read_exact(&mut interim).unwrap();
        assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    }
    let mut waiting = spinfer.connect();
    waiting.write_all(b"POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\none").unwrap();
    spinfer.wait_for_log("cannot accept connections: Too many open files");
    let start = (Instant::now(), ticks(&spinfer));
    for mut stream in busy {
        stream.write_all(b"one").unwrap();
        read_one(&mut stream);
    }
    read_one(&mut waiting);
    let took = start.0.elapsed();
    let most = u64::try_from(took.as_millis() / 10 / 2).unwrap() + 20;
    let used = ticks(&spinfer) - start.1;
    assert!(used <= most, "{used} ticks in {took:?}");
    assert_eq!(spinfer.log().matches("cannot accept").count(), 1, "{}", spinfer.log());
    spinfer.terminate();
    assert_eq!(spinfer.wait().code(), Some(0));
}
