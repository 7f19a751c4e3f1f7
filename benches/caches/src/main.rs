//! Compares cache crates: hit rates on Zipf traces, with and without scans, compared with the
//! maximum, and operations per second. `cargo run --release` in this folder. Prints Markdown.

use std::collections::{BTreeSet, HashMap};
use std::time::Instant;

/// Number of different responses.
const RESPONSES: usize = 10_000;
/// Capacity of a cache, in responses.
const CAPACITY: usize = RESPONSES / 10;
/// Size of each response, in bytes.
const SIZE: u32 = 1024;
/// Number of requests of a trace.
const REQUESTS: usize = 1_000_000;
/// Number of responses of a scan, which are requested once.
const SCANNED: usize = 5_000;
/// Number of requests between scans.
const BETWEEN_SCANS: usize = 50_000;

fn main() {
    println!("| trace | cache | hit rate | of the maximum | million operations/s |");
    println!("| --- | --- | --- | --- | --- |");
    for (name, exponent, scans) in
        [("Zipf(1.0)", 1.0, false), ("Zipf(1.0) and scans", 1.0, true), ("Zipf(0.8)", 0.8, false)]
    {
        let trace = trace(exponent, scans);
        let best = best(&trace);
        println!("| {name} | maximum (Belady) | {best:.3} | | |");
        let quick = quick_cache::sync::Cache::with_weighter(
            CAPACITY,
            u64::from(SIZE) * CAPACITY as u64,
            Size,
        );
        row(name, "quick_cache", best, &trace, |key| {
            quick.get(&key).is_some() || {
                quick.insert(key, ());
                false
            }
        });
        let weigher = |_: &u64, (): &()| SIZE;
        let moka = moka::sync::Cache::builder().weigher(weigher);
        let moka = moka.max_capacity(u64::from(SIZE) * CAPACITY as u64).build();
        row(name, "moka", best, &trace, |key| {
            moka.get(&key).is_some() || {
                moka.insert(key, ());
                false
            }
        });
    }
}

/// Requests all of `trace`. `request` returns whether the key was in the cache.
fn row(name: &str, cache: &str, best: f64, trace: &[u64], mut request: impl FnMut(u64) -> bool) {
    let start = Instant::now();
    let hits = trace.iter().filter(|&&key| request(key)).count();
    let speed = trace.len() as f64 / start.elapsed().as_secs_f64() / 1e6;
    let rate = hits as f64 / trace.len() as f64;
    println!("| {name} | {cache} | {rate:.3} | {:.3} | {speed:.1} |", rate / best);
}

/// Keys of requests: the k-th has a probability proportional to k^-exponent.
fn trace(exponent: f64, scans: bool) -> Vec<u64> {
    let mut random = fastrand::Rng::with_seed(1);
    let mut sum = 0.0;
    let sums: Vec<f64> = (1..=RESPONSES)
        .map(|rank| {
            sum += (rank as f64).powf(-exponent);
            sum
        })
        .collect();
    let mut scanned = RESPONSES as u64..;
    let mut trace = Vec::with_capacity(REQUESTS);
    for request in 0..REQUESTS {
        let drawn = random.f64() * sum;
        trace.push(sums.partition_point(|&sum| sum < drawn) as u64);
        if scans && request % BETWEEN_SCANS == 0 {
            trace.extend(scanned.by_ref().take(SCANNED));
        }
    }
    trace
}

/// The maximum hit rate: evicts the key whose next request is the furthest in the future (Belady
/// 1966, "A study of replacement algorithms for a virtual-storage computer").
fn best(trace: &[u64]) -> f64 {
    let mut next = vec![usize::MAX; trace.len()];
    let mut seen = HashMap::new();
    for (at, key) in trace.iter().enumerate().rev() {
        next[at] = seen.insert(key, at).unwrap_or(usize::MAX);
    }
    let (mut cached, mut when) = (BTreeSet::new(), HashMap::new());
    let mut hits = 0;
    for (at, key) in trace.iter().enumerate() {
        if let Some(now) = when.insert(key, next[at]) {
            hits += 1;
            cached.remove(&(now, key));
        }
        cached.insert((next[at], key));
        if cached.len() > CAPACITY
            && let Some((_, last)) = cached.pop_last()
        {
            when.remove(last);
        }
    }
    f64::from(hits) / trace.len() as f64
}

#[derive(Clone)]
struct Size;

impl quick_cache::Weighter<u64, ()> for Size {
    fn weight(&self, _: &u64, (): &()) -> u64 {
        SIZE.into()
    }
}
