//! `/cache/...?<Cache-Control>`: a unique response with that header, and a line in the log per call. Segments of
//! the path add to it: `slow`, `vary`, `missing`, `cookie`, `json`, `tensors`, `status`.

use std::hash::{BuildHasher, RandomState};
use std::io::Write;
use std::time::Duration;

use crate::ProbeResponse;

pub(crate) fn respond(path: &str, cache_control: &str) -> ProbeResponse {
    let _ = writeln!(std::io::stderr(), "computed {path}");
    let mut headers = Vec::new();
    let mut header = |name: &str, value: &str| headers.push((name.to_owned(), value.into()));
    if !cache_control.is_empty() {
        header("cache-control", cache_control);
    }
    let mut status = 200;
    for word in path.split('/') {
        match word {
            "slow" => std::thread::sleep(Duration::from_millis(300)),
            "vary" => header("vary", super::HEADER),
            "json" | "tensors" => header("spinfer-body-key", word),
            "missing" => status = 404,
            "status" => header("cache-status", "origin; hit"),
            "cookie" => header("set-cookie", "a=b"),
            _ => {}
        }
    }
    let unique = RandomState::new().hash_one(path).to_string();
    ProbeResponse { status, headers, body: unique.into_bytes() }
}
