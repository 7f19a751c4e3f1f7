//! `/cache/...?<Cache-Control>`: an answer like no other, with that header, and a line in the log
//! for each time it is made. The path says more: `slow`, `vary`, `missing`, `cookie`, `json`,
//! `tensors`.

use std::hash::{BuildHasher, RandomState};
use std::io::Write;
use std::time::Duration;

use crate::Answer;

pub(crate) fn answer(path: &str, allowed: &str) -> Answer {
    let _ = writeln!(std::io::stderr(), "made {path}");
    let mut headers = Vec::new();
    let mut header = |name: &str, value: &str| headers.push((name.to_owned(), value.into()));
    if !allowed.is_empty() {
        header("cache-control", allowed);
    }
    let mut status = 200;
    for word in path.split('/') {
        match word {
            "slow" => std::thread::sleep(Duration::from_millis(300)),
            "vary" => header("vary", super::HEADER),
            "json" | "tensors" => header("spinfer-body-key", word),
            "missing" => status = 404,
            "cookie" => header("set-cookie", "a=b"),
            _ => {}
        }
    }
    let unique = RandomState::new().hash_one(path).to_string();
    Answer { status, headers, body: unique.into_bytes() }
}
