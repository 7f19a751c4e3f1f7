//! `/once?<how>`: an instance that serves one request, as one of JavaScript does, and fails every later one: with
//! `status` 500, a `trap`, an `error` instead of a response, no response (`silent`), or a `broken` body. `never` counts
//! the requests.

use std::sync::atomic::{AtomicU32, Ordering};

use wasip2::http::types::{ErrorCode, ResponseOutparam};

static REQUESTS: AtomicU32 = AtomicU32::new(0);

pub(crate) fn respond(how: &str, out: ResponseOutparam) {
    let count = REQUESTS.fetch_add(1, Ordering::Relaxed) + 1;
    let text = count.to_string();
    match how {
        _ if count == 1 || how == "never" => crate::respond(out, 200, text.as_bytes()),
        "status" => crate::respond(out, 500, text.as_bytes()),
        "trap" => panic!("asked to"),
        "error" => ResponseOutparam::set(out, Err(ErrorCode::InternalError(None))),
        "broken" => drop(crate::begin(out, 200, text.as_bytes())),
        _ => drop(out),
    }
}
