//! What clients, guests and files do to hurt the host: each alone, and all at once.

mod files; // graphs and components that lie
mod floods; // what HTTP/2 lets a client ask for without end
mod guests; // one harm at a time
mod harms; // what a guest can do, and what becomes of it
mod redis; // a Redis that lies, and guests that flood stores
mod requests; // a client's mistakes are a client's: 4xx, and nothing in the log
mod shared_cache; // a Redis behind the response cache that lies
mod together; // all of them beside a well-behaved route

use std::io::{Read, Write};

use spinfer_tests::Spinfer;

/// What is read of an answer without end.
const MAX_READ: u64 = 8 << 20;

/// An answer, whole or not.
#[derive(Debug)]
struct RawResponse {
    status: u16,
    body: String,
}

/// Sends bytes as they are on a connection of their own, says that there are no more if it is to
/// `close`, and reads what comes. `None` if that is no answer.
fn raw(spinfer: &Spinfer, request: &[u8], close: bool) -> Option<RawResponse> {
    let mut stream = spinfer.connect();
    // The host may refuse it before it has all of it.
    let _ = stream.write_all(request);
    if close {
        let _ = stream.shutdown(std::net::Shutdown::Write);
    }
    let mut response = Vec::new();
    // It may be cut off.
    let _ = stream.take(MAX_READ).read_to_end(&mut response);
    let response = String::from_utf8_lossy(&response);
    let (head, body) = response.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    Some(RawResponse { status, body: body.to_owned() })
}

/// Nothing above `info`.
fn is_quiet(spinfer: &Spinfer) -> bool {
    let log = spinfer.log();
    !log.contains("WARN") && !log.contains("ERROR")
}
