//! Harm that clients, guests, files and a Redis do to the host: each alone, and all at once.

mod concurrent; // all harms at once, while a well-behaved route is used
mod files; // malformed graphs and components
mod floods; // endless streams of HTTP/2 frames
mod fragments; // bodies in tiny parts
mod guests; // one harm at a time
mod harms; // what guests do, and the status that it leads to
mod redis; // a faulty Redis, and guests that fill stores
mod requests; // malformed requests: 4xx, and nothing in the log
mod shared_cache; // a faulty Redis behind the response cache

use std::io::{Read, Write};

use spinfer_tests::Spinfer;

/// Maximum number of bytes that are read of an endless response.
const MAX_READ: u64 = 8 << 20;

/// A response, complete or cut off.
#[derive(Debug)]
struct RawResponse {
    status: u16,
    body: String,
}

/// Sends bytes on a new connection, closes the sending side if `close`, and reads the response. `None`
/// without one.
fn raw(spinfer: &Spinfer, request: &[u8], close: bool) -> Option<RawResponse> {
    let mut stream = spinfer.connect();
    // The host may respond before it has read everything.
    let _ = stream.write_all(request);
    if close {
        let _ = stream.shutdown(std::net::Shutdown::Write);
    }
    let mut response = Vec::new();
    // The connection may be reset.
    let _ = stream.take(MAX_READ).read_to_end(&mut response);
    let response = String::from_utf8_lossy(&response);
    let (head, body) = response.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    Some(RawResponse { status, body: body.to_owned() })
}

/// Whether the log has no line above `info`.
fn is_quiet(spinfer: &Spinfer) -> bool {
    let log = spinfer.log();
    !log.contains("WARN") && !log.contains("ERROR")
}
