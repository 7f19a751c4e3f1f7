//! Other interfaces of WASI 0.2, by the end of the path:
//!
//! - `/tcp?<address>`, `/udp?<address>`: sends "ping" and returns the reply
//! - `/listen?<address>`, `/resolve?<name>:<port>`
//! - `/clocks`, `/random`
//! - `/fetch?<first>,<between>,<url>`: an HTTP request, with the timeouts of the first byte and between bytes in
//!   milliseconds. A URL that is only a path has neither a scheme nor an authority

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream, ToSocketAddrs, UdpSocket};
use std::time::{Duration, Instant, SystemTime};

use wasip2::http::outgoing_handler;
use wasip2::http::types::{
    ErrorCode, Fields, IncomingBody, Method, OutgoingRequest, RequestOptions, Scheme,
    http_error_code,
};
use wasip2::io::streams::StreamError;

/// The text of the response. `None` for another path.
pub(crate) fn respond(path: &str, query: &str) -> Option<String> {
    Some(match path.rsplit('/').next().unwrap_or_default() {
        "tcp" => shown(tcp(query)),
        "listen" => shown(TcpListener::bind(query).map(|_| String::new())),
        "udp" => shown(udp(query)),
        "resolve" => shown(query.to_socket_addrs().map(|_| String::new())),
        "clocks" => {
            let (instant, time) = (Instant::now(), SystemTime::now());
            std::thread::sleep(Duration::from_millis(20));
            let (elapsed, later) = (instant.elapsed(), SystemTime::now());
            let since = |time: SystemTime| {
                time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis()
            };
            format!("{} {} {}", elapsed.as_millis(), since(time), since(later))
        }
        "random" => format!("{:?}", wasip2::random::random::get_random_bytes(32)),
        "fetch" => fetch(query).unwrap_or_else(|error| format!("{error:?}")),
        _ => return None,
    })
}

fn tcp(address: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.write_all(b"ping")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

fn udp(address: &str) -> io::Result<String> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.send_to(b"ping", address)?;
    let mut text = [0; 16];
    let (length, _) = socket.recv_from(&mut text)?;
    Ok(String::from_utf8_lossy(&text[..length]).into_owned())
}

fn shown(result: io::Result<String>) -> String {
    match result {
        Ok(text) => format!("done: {text}"),
        Err(error) => format!("refused: {error}"),
    }
}

/// The status and body of the response.
fn fetch(query: &str) -> Result<String, ErrorCode> {
    let mut parts = query.splitn(3, ',');
    let mut next = || parts.next().unwrap_or_default();
    let nanoseconds = |text: &str| text.parse::<u64>().ok().map(|millis| millis * 1_000_000);
    let (first, between, url) = (nanoseconds(next()), nanoseconds(next()), next());
    let (scheme, rest) = match url.split_once("://") {
        Some(("https", rest)) => (Some(Scheme::Https), rest),
        Some((_, rest)) => (Some(Scheme::Http), rest),
        None => (None, url),
    };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let authority = scheme.as_ref().map(|_| authority);
    let options = RequestOptions::new();
    let request = OutgoingRequest::new(Fields::new());
    options
        .set_first_byte_timeout(first)
        .and_then(|()| options.set_between_bytes_timeout(between))
        .and_then(|()| request.set_method(&Method::Get))
        .and_then(|()| request.set_scheme(scheme.as_ref()))
        .and_then(|()| request.set_authority(authority))
        .and_then(|()| request.set_path_with_query(Some(path)))
        .map_err(|()| ErrorCode::HttpRequestUriInvalid)?;
    let response = outgoing_handler::handle(request, Some(options))?;
    response.subscribe().block();
    let response = response.get().expect("ready").expect("taken once")?;
    let body = response.consume().expect("taken once");
    let stream = body.stream().expect("taken once");
    let mut text = format!("{} ", response.status());
    loop {
        match stream.blocking_read(1 << 16) {
            Ok(part) => text += &String::from_utf8_lossy(&part),
            Err(StreamError::Closed) => break,
            Err(StreamError::LastOperationFailed(error)) => {
                let unknown = || ErrorCode::InternalError(Some(error.to_debug_string()));
                return Err(http_error_code(&error).unwrap_or_else(unknown));
            }
        }
    }
    drop(stream);
    drop(IncomingBody::finish(body));
    Ok(text)
}
