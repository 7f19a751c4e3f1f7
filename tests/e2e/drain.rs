//! Shutdown: the host drains, finishes requests in flight, and exits with status 0. No request is lost.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use hyper::client::conn::http2::SendRequest;
use spinfer_tests::{Launch, Manifest, PATIENCE, Spinfer, wait_until};

use super::http2::{RequestBody, in_the_clear, post, text, whole};

const CLIENTS: usize = 20;

fn launch() -> Launch {
    Launch::new(&Manifest::default().with("/...", "probe", "probe", ""))
}

fn probe() -> Spinfer {
    launch().up()
}

/// One request on a keep-alive connection; whether the response closes it.
fn send(stream: &mut TcpStream) -> bool {
    stream.write_all(b"POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\none").unwrap();
    let mut response = Vec::new();
    while !response.ends_with(b"\r\n\r\none") {
        let mut part = [0; 1024];
        let length = stream.read(&mut part).expect("a response");
        assert_ne!(length, 0, "lost: {:?}", String::from_utf8_lossy(&response));
        response.extend_from_slice(&part[..length]);
    }
    let response = String::from_utf8(response).unwrap();
    assert!(response.starts_with("HTTP/1.1 200"), "{response}");
    response.contains("connection: close\r\n")
}

/// Twenty keep-alive clients send one request after the other while the host is stopped. Each is served
/// until its connection is closed after a response, and so is its next request, on a new connection.
#[test]
fn keep_alive_clients_of_http1_lose_no_request() {
    for _ in 0..2 {
        let mut spinfer = launch().drain("5s").up();
        let served = AtomicUsize::new(0);
        // A connection without a request at SIGTERM, and one that stays so.
        let mut later = spinfer.connect();
        let mut idle = spinfer.connect();
        assert!(!send(&mut later) && !send(&mut idle));
        std::thread::scope(|scope| {
            let one = || {
                let mut stream = spinfer.connect();
                while !send(&mut stream) {
                    served.fetch_add(1, Ordering::Relaxed);
                }
                assert_eq!(stream.read(&mut [0]).unwrap(), 0, "closed after the response");
                assert!(send(&mut spinfer.connect()), "a new connection is for one request");
            };
            let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(one)).collect();
            wait_until("all of them send", || served.load(Ordering::Relaxed) > 20 * CLIENTS);
            spinfer.terminate();
            clients.into_iter().for_each(|client| client.join().unwrap());
        });
        assert_eq!(spinfer.get("/v2/health/ready").status, 503);
        assert_eq!(spinfer.get("/v2/health/live").status, 200);
        assert_eq!(spinfer.get("/.well-known/spin/health").status, 200);
        assert!(send(&mut later), "it was open before");
        assert_eq!(idle.read(&mut [0]).unwrap(), 0, "closed at the end");
        assert_eq!(spinfer.wait().code(), Some(0));
        spinfer.wait_for_log("drained");
    }
}

/// Whether the client had received `GOAWAY` when it was about to send the request. It sends no more then, and
/// the host has processed none of a later stream (RFC 9113, 6.8).
fn follows_goaway(error: &hyper::Error) -> bool {
    const GOAWAY: &str = "connection error received: not a result of an error";
    std::error::Error::source(error).is_some_and(|source| source.to_string() == GOAWAY)
}

/// Sends one request after the other until the host closes the connection, and counts them.
async fn until_closed(mut sender: SendRequest<RequestBody>, served: &AtomicUsize) {
    while sender.ready().await.is_ok() {
        match sender.try_send_request(post("http://x/echo", whole("one"))).await {
            Ok(response) => assert_eq!(text(response).await, "one"),
            Err(mut error) => {
                let is_unsent = error.take_message().is_some();
                let error = error.into_error();
                assert!(is_unsent || follows_goaway(&error), "lost: {error:?}");
                return;
            }
        }
        served.fetch_add(1, Ordering::Relaxed);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keep_alive_clients_of_http2_lose_no_request() {
    for _ in 0..2 {
        let mut spinfer = launch().drain("5s").up();
        let served = AtomicUsize::new(0);
        let clients = (0..CLIENTS).map(|_| async {
            until_closed(in_the_clear(&spinfer).await, &served).await;
            // The next connection is closed in order as well, after its first request.
            let before = AtomicUsize::new(0);
            until_closed(in_the_clear(&spinfer).await, &before).await;
            assert_ne!(before.into_inner(), 0);
        });
        let stop = async {
            while served.load(Ordering::Relaxed) < 20 * CLIENTS {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            spinfer.terminate();
        };
        tokio::join!(futures::future::join_all(clients), stop);
        assert_eq!(spinfer.wait().code(), Some(0));
    }
}

#[test]
fn sigterm_finishes_requests_in_flight() {
    let mut spinfer = probe();
    let mut stream = spinfer.connect();
    // The head and half of the body have arrived: the request is in flight.
    stream
        .write_all(
            b"POST /echo HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 8\r\n\r\n",
        )
        .unwrap();
    let mut interim = [0; 25];
    stream.read_exact(&mut interim).unwrap();
    assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"half").unwrap();
    spinfer.terminate();
    spinfer.wait_for_log("draining");
    let address = spinfer.address();
    wait_until("new connections are refused", || TcpStream::connect(address).is_err());
    stream.write_all(b"rest").unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    assert!(response.starts_with("HTTP/1.1 200") && response.ends_with("halfrest"), "{response}");
    assert_eq!(spinfer.wait().code(), Some(0));
    spinfer.wait_for_log("drained");
}

#[test]
fn idle_connection_does_not_delay_shutdown() {
    let mut spinfer = probe();
    let mut stream = spinfer.connect();
    stream.write_all(b"GET /echo HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    let mut response = [0; 12];
    stream.read_exact(&mut response).unwrap();
    assert_eq!(&response, b"HTTP/1.1 200");
    spinfer.terminate();
    assert_eq!(spinfer.wait().code(), Some(0));
}

/// A second signal does not wait for requests in flight, but one within a second is the same request to
/// stop: process managers and terminals send two.
#[test]
fn second_sigterm_exits_immediately_unless_it_follows_at_once() {
    let mut spinfer = launch().drain("1h").up();
    let mut stream = spinfer.connect();
    stream.write_all(b"GET /loop HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    // Connections are accepted in order: with this response the loop has started.
    assert_eq!(spinfer.get("/v2/health/live").status, 200);
    let first = Instant::now();
    spinfer.terminate();
    spinfer.wait_for_log("draining");
    wait_until("another signal stops it", || {
        spinfer.terminate();
        spinfer.has_exited()
    });
    assert!(first.elapsed() >= Duration::from_secs(1), "{:?}", first.elapsed());
    assert_eq!(spinfer.wait().code(), Some(1));
    assert!(spinfer.log().contains("second signal"), "{}", spinfer.log());
}

fn interrupt(spinfer: &Spinfer) {
    let kill = Command::new("kill").args(["-INT", &spinfer.id().to_string()]).status();
    assert!(kill.unwrap().success());
}

/// Without a connection Ctrl-C stops the host at once, whatever the time of the drain; an open one delays it
/// for a second.
#[test]
fn ctrl_c_drains_only_for_open_connections() {
    let mut spinfer = launch().drain("1h").up();
    interrupt(&spinfer);
    assert_eq!(spinfer.wait().code(), Some(0));

    let mut spinfer = launch().drain("1h").up();
    let mut stream = spinfer.connect();
    assert!(!send(&mut stream));
    interrupt(&spinfer);
    spinfer.wait_for_log("draining");
    assert!(send(&mut stream), "it is served during the drain");
    let start = Instant::now();
    assert_eq!(spinfer.wait().code(), Some(0));
    assert!(start.elapsed() < PATIENCE);
}
