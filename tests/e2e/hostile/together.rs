//! Every harm at once, again and again, beside a route that behaves: all its answers are right and
//! none is late, and in the end the host has what it had.

use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use spinfer_benches::process::Process;
use spinfer_tests::{Client, Spinfer, wait_until};

use super::super::soak::descriptors;
use super::{guests, harms, redis};

/// The 99th percentile of the route that behaves, over that of the same route alone, just before: a
/// busy machine slows both. On two cores it is 3 to 5 times as long, also if they build something; a
/// route that had to wait for its turn among the harms would be thousands of times as late.
const MAX_SLOWDOWN: u32 = 20;
/// Less than that is no starvation: who is held up by a harm that does not end waits for its deadline,
/// thirty times as long. It is 4 ms on two cores that have nothing else to do.
const MIN_BOUND: Duration = Duration::from_millis(100);
/// Predictions of each client of the route alone.
const ALONE: usize = 500;
/// Clients of the route that behaves.
const CLIENTS: usize = 2;
/// Resident memory after the second round over that after the first.
const MAX_GROWTH: f64 = 1.25;

#[test]
fn concurrent_harms_do_not_delay_another_route() {
    let dir = tempfile::tempdir().unwrap();
    let harms = harms::all();
    let idle = "tool.spinfer.limits.idle = \"100ms\"\n";
    let manifest = harms::application(dir.path(), &harms).with_iris("iris", 1, "/iris/...", idle);
    let mut stores = redis::StoresApp::beside(manifest);
    let spinfer = redis::up(&stores);
    wait_until("it is ready", || spinfer.get("/v2/health/ready").status == 200);
    let process = Process(spinfer.id());
    let alone = p99(&mut alone(&spinfer));
    let (before, threads) = (descriptors(process).0, process.threads().unwrap());
    let mut latencies = Vec::new();
    let mut resident = Vec::new();
    for _ in 0..2 {
        latencies.extend(round(&spinfer, &harms, &mut stores));
        wait_until("connections and instances are gone", || descriptors(process).0 <= before);
        resident.push(process.resident().unwrap().total());
    }
    wait_until("threads have ended", || process.threads().unwrap() <= threads);
    let count = latencies.len();
    let p99 = p99(&mut latencies);
    let most = resident[0] * MAX_GROWTH;
    wait_until("memory is given back", || process.resident().unwrap().total() <= most);
    let _ = writeln!(
        std::io::stderr(),
        "{count} predictions beside {} harms and those of stores: p50 {:?}, p99 {p99:?}, alone \
         {alone:?}; {resident:.1?} MiB resident",
        harms.len(),
        latencies[count / 2],
    );
    assert!(count > harms.len(), "{count} predictions");
    let latency_most = MIN_BOUND.max(alone * MAX_SLOWDOWN);
    assert!(p99 <= latency_most, "p99 {p99:?}, and alone {alone:?}");
}

/// How long each prediction takes where there are no harms.
fn alone(spinfer: &Spinfer) -> Vec<Duration> {
    std::thread::scope(|scope| {
        let client = || {
            let client = spinfer.client();
            (0..ALONE).map(|n| predict(&client, n)).collect::<Vec<_>>()
        };
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(client)).collect();
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
    })
}

fn p99(latencies: &mut [Duration]) -> Duration {
    latencies.sort_unstable();
    latencies[latencies.len() * 99 / 100]
}

/// Every harm, each by a client of its own; how long each prediction took meanwhile.
fn round(spinfer: &Spinfer, harms: &[harms::Harm], stores: &mut redis::StoresApp) -> Vec<Duration> {
    let with_stores = stores.harms();
    // And one that disturbs a Redis.
    let doing_harm = AtomicUsize::new(harms.len() + with_stores.len() + 1);
    let latencies = std::thread::scope(|scope| {
        let (doing_harm, stores) = (&doing_harm, &mut *stores);
        scope.spawn(move || {
            let _done = CountDown(doing_harm);
            stores.disturb();
        });
        for harm in with_stores {
            scope.spawn(move || {
                let _done = CountDown(doing_harm);
                harm(spinfer);
            });
        }
        for harm in harms {
            scope.spawn(move || {
                // Counted down though it fails, as the others wait for it.
                let _done = CountDown(doing_harm);
                guests::harm(spinfer, harm, &harm.target());
                guests::serves(spinfer, harm);
            });
        }
        let clients: Vec<_> =
            (0..CLIENTS).map(|_| scope.spawn(|| predict_while(spinfer, doing_harm))).collect();
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
    });
    stores.restart();
    latencies
}

struct CountDown<'a>(&'a AtomicUsize);

impl Drop for CountDown<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn predict_while(spinfer: &Spinfer, doing_harm: &AtomicUsize) -> Vec<Duration> {
    let client = spinfer.client();
    let mut latencies = Vec::new();
    while doing_harm.load(Ordering::Relaxed) > 0 {
        latencies.push(predict(&client, latencies.len()));
    }
    latencies
}

/// How long one prediction takes: of one flower and the other by turns.
fn predict(client: &Client, number: usize) -> Duration {
    let flowers = [("[5.1, 3.5, 1.4, 0.2]", "setosa"), ("[6.7, 3.0, 5.2, 2.3]", "virginica")];
    let (features, species) = flowers[number % flowers.len()];
    let body = format!("{{\"features\": {features}}}");
    let start = Instant::now();
    let response = client.send("POST", "/iris/predict", &[], body.as_bytes());
    let took = start.elapsed();
    assert_eq!(response.status, 200, "{}", response.text());
    assert_eq!(response.json()["prediction"], species);
    took
}
