//! Streamed bodies through both versions of the standard door: in both directions at once, cut off, and of
//! another length than announced.

use std::convert::Infallible;
use std::io::{Read, Write};
use std::net::TcpStream;

use bytes::Bytes;
use futures::channel::mpsc;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use spinfer_tests::{Launch, Manifest, STANDARD_DOOR, Spinfer};

use super::http2::{in_the_clear, post};

/// `/p3/...` and `/p2/...`: the same streams through WASI 0.3 and 0.2.
fn both(settings: &str) -> Manifest {
    Manifest::default()
        .with("/p3/...", "p3", "hostile", &format!("{STANDARD_DOOR}{settings}"))
        .with("/p2/...", "p2", "hello_p2", settings)
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
        assert!(back.frame().await.is_none(), "{path}");
    }
}

#[test]
fn component_gets_the_head_of_another_before_it_sends_its_body() {
    let settings = "allowed_outbound_hosts = [\"http://*.spin.internal\"]\n";
    let spinfer = Launch::new(&both(settings)).up();
    for other in ["p3", "p2"] {
        let response = spinfer.get(&format!("/p3/call?{other}.spin.internal/{other}/duplex"));
        assert_eq!(response.text(), "200 first second, complete: true", "{other}");
    }
}
