//! Clocks and randomness of WASI 0.3.

use spin_sdk::wasip3::clocks::{monotonic_clock, system_clock};
use spin_sdk::wasip3::random::random::get_random_bytes;

/// The duration of a wait of 20 ms, and the Unix times before and after it, in milliseconds.
pub(crate) async fn clocks() -> String {
    let time = || {
        let now = system_clock::now();
        i128::from(now.seconds) * 1000 + i128::from(now.nanoseconds / 1_000_000)
    };
    let (mark, before) = (monotonic_clock::now(), time());
    monotonic_clock::wait_for(20_000_000).await;
    let elapsed = (monotonic_clock::now() - mark) / 1_000_000;
    format!("{elapsed} {before} {}", time())
}

pub(crate) fn random() -> String {
    format!("{:?}", get_random_bytes(32))
}
