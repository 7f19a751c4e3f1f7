//! Compares caches: hit rates on Zipf traces, with and without scans, compared with the maximum, what
//! they store, and operations per second. `cargo run --release` in this folder. Prints Markdown.
//!
//! - cache crates, each admitting every response
//! - the crate in use with the host's doorkeeper before it, by the number of keys that it remembers

#[path = "../../../host/src/cache/doorkeeper.rs"]
mod doorkeeper;

use std::collections::{BTreeSet, HashMap};
use std::time::Instant;

use doorkeeper::Doorkeeper;

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
/// Numbers of keys that the doorkeeper remembers at least.
const WINDOWS: [usize; 5] = [CAPACITY / 4, CAPACITY / 2, CAPACITY, 2 * CAPACITY, 4 * CAPACITY];
/// Until 1 / this of the capacity is used, every response is admitted, as by the host.
const AMPLE: u64 = 10;

/// A trace: its name, the exponent of its Zipf distribution, and what comes between its requests.
type Kind = (&'static str, f64, Others);

/// Requests between those of a Zipf distribution.
#[derive(Clone, Copy, PartialEq)]
enum Others {
    None,
    /// Responses that are requested once, in a row.
    Scans,
    /// A response that is requested once, after each request.
    Alternating,
}

const TRACES: [Kind; 5] = [
    ("Zipf(1.0)", 1.0, Others::None),
    ("Zipf(1.0) and scans", 1.0, Others::Scans),
    ("Zipf(1.0), every second response requested once", 1.0, Others::Alternating),
    ("Zipf(0.8)", 0.8, Others::None),
    ("Zipf(0.8), every second response requested once", 0.8, Others::Alternating),
];

fn main() {
    println!("| trace | cache | hit rate | of the maximum | stored | million operations/s |");
    println!("| --- | --- | --- | --- | --- | --- |");
    for (name, exponent, others) in TRACES {
        let trace = trace(exponent, others);
        let best = best(&trace);
        println!("| {name} | maximum (Belady) | {best:.3} | | | |");
        let row = |cache: &str, request: &mut dyn FnMut(u64) -> Requested| {
            row(name, cache, best, &trace, request);
        };
        let quick = quick();
        row("quick_cache", &mut |key| {
            if quick.get(&key).is_some() {
                return Requested::Hit;
            }
            quick.insert(key, ());
            Requested::Stored
        });
        for window in WINDOWS {
            let (quick, doorkeeper) = (self::quick(), Doorkeeper::new(window));
            row(&format!("quick_cache, doorkeeper of {window} keys"), &mut |key| {
                if quick.get(&key).is_some() {
                    return Requested::Hit;
                }
                let ample = quick.weight() < u64::from(SIZE) * CAPACITY as u64 / AMPLE;
                if !ample && !doorkeeper.insert(hash(key)) {
                    return Requested::NotAdmitted;
                }
                quick.insert(key, ());
                Requested::Stored
            });
        }
        let weigher = |_: &u64, (): &()| SIZE;
        let moka = moka::sync::Cache::builder().weigher(weigher);
        let moka = moka.max_capacity(u64::from(SIZE) * CAPACITY as u64).build();
        row("moka", &mut |key| {
            if moka.get(&key).is_some() {
                return Requested::Hit;
            }
            moka.insert(key, ());
            Requested::Stored
        });
    }
}

fn quick() -> quick_cache::sync::Cache<u64, (), Size> {
    quick_cache::sync::Cache::with_weighter(CAPACITY, u64::from(SIZE) * CAPACITY as u64, Size)
}

/// What a request for a key found and did.
#[derive(PartialEq)]
enum Requested {
    Hit,
    Stored,
    NotAdmitted,
}

/// Requests all of `trace`.
fn row(
    name: &str,
    cache: &str,
    best: f64,
    trace: &[u64],
    request: &mut dyn FnMut(u64) -> Requested,
) {
    let start = Instant::now();
    let (mut hits, mut stored) = (0, 0);
    for &key in trace {
        match request(key) {
            Requested::Hit => hits += 1,
            Requested::Stored => stored += 1,
            Requested::NotAdmitted => {}
        }
    }
    let speed = trace.len() as f64 / start.elapsed().as_secs_f64() / 1e6;
    let rate = f64::from(hits) / trace.len() as f64;
    println!("| {name} | {cache} | {rate:.3} | {:.3} | {stored} | {speed:.1} |", rate / best);
}

/// Keys of requests: the k-th has a probability proportional to k^-exponent.
fn trace(exponent: f64, others: Others) -> Vec<u64> {
    let mut random = fastrand::Rng::with_seed(1);
    let mut sum = 0.0;
    let sums: Vec<f64> = (1..=RESPONSES)
        .map(|rank| {
            sum += (rank as f64).powf(-exponent);
            sum
        })
        .collect();
    let mut once = RESPONSES as u64..;
    let mut trace = Vec::with_capacity(2 * REQUESTS);
    for request in 0..REQUESTS {
        let drawn = random.f64() * sum;
        trace.push(sums.partition_point(|&sum| sum < drawn) as u64);
        match others {
            Others::Scans if request % BETWEEN_SCANS == 0 => {
                trace.extend(once.by_ref().take(SCANNED));
            }
            Others::Alternating => trace.extend(once.next()),
            Others::None | Others::Scans => {}
        }
    }
    trace
}

/// The hash of a key (the finalizer of SplitMix64, a bijection). The host's keys are hashes themselves.
fn hash(key: u64) -> u64 {
    let key = key.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let key = (key ^ (key >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let key = (key ^ (key >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    key ^ (key >> 31)
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
