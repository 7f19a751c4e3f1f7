//! Shutdown: new connections are refused, requests in flight are finished, the exit status is 0.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;

use spinfer_tests::{Launch, Manifest, Spinfer};

fn probe() -> Spinfer {
    Launch::new(&Manifest::default().with("/...", "probe", "probe", "")).up()
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
    assert!(TcpStream::connect(spinfer.address()).is_err(), "new connections are refused");
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

/// A second signal does not wait for requests in flight.
#[test]
fn second_sigterm_exits_immediately() {
    let mut spinfer = probe();
    let mut stream = spinfer.connect();
    stream.write_all(b"GET /loop HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    // Connections are accepted in order: with this response the loop has started.
    assert_eq!(spinfer.get("/v2/health/live").status, 200);
    spinfer.terminate();
    spinfer.wait_for_log("draining");
    spinfer.terminate();
    assert_eq!(spinfer.wait().code(), Some(1));
    assert!(spinfer.log().contains("second signal"), "{}", spinfer.log());
}

#[test]
fn ctrl_c_shuts_down_like_sigterm() {
    let mut spinfer = probe();
    let kill = Command::new("kill").args(["-INT", &spinfer.id().to_string()]).status();
    assert!(kill.unwrap().success());
    assert_eq!(spinfer.wait().code(), Some(0));
}
