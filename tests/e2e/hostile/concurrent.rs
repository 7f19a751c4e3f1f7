//! Every harm at once, twice, while a well-behaved route is used: its responses are correct and meet their
//! deadline, and afterwards the host uses no more resources than before.

use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use spinfer_benches::process::Process;
use spinfer_tests::{Client, Launch, Manifest, Spinfer, wait_until};

use super::super::soak::descriptors;
use super::{guests, harms, redis};

/// Deadline of the route that behaves, over the 99th percentile of its latency on a host of its own,
/// just before: a busy machine slows both. On two cores it takes 3 to 5 times as long during the harms; a
/// route that had to wait for one of them would take until the deadline of that, 3 seconds.
const DEADLINE_OVER_P99: u32 = 20;
/// Minimum of that deadline, half of that of a harm: the percentile is 4 ms on two cores that do nothing else,
/// and passes 100 ms if they also build something, which may start after the route was measured alone.
const MIN_DEADLINE: Duration = Duration::from_millis(1500);
/// Share of the predictions that may miss it, in percent.
const MAX_LATE_PERCENT: usize = 1;
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
    let deadline = MIN_DEADLINE.max(p99_alone() * DEADLINE_OVER_P99);
    let limits = format!(
        "tool.spinfer.limits.idle = \"100ms\"\ntool.spinfer.limits.deadline = \"{}ms\"\n",
        deadline.as_millis()
    );
    let manifest =
        harms::application(dir.path(), &harms).with_iris("iris", 1, "/iris/...", &limits);
    let mut stores = redis::StoresApp::beside(manifest);
    let spinfer = redis::up(&stores);
    wait_until("it is ready", || spinfer.get("/v2/health/ready").status == 200);
    let process = Process(spinfer.id());
    let (before, threads) = (descriptors(process).0, process.threads().unwrap());
    let mut in_time = Vec::new();
    let mut resident = Vec::new();
    for _ in 0..2 {
        in_time.extend(round(&spinfer, &harms, &mut stores));
        wait_until("connections are closed and instances evicted", || {
            descriptors(process).0 <= before
        });
        resident.push(process.resident().unwrap().total());
    }
    wait_until("threads have exited", || process.threads().unwrap() <= threads);
    let most = resident[0] * MAX_GROWTH;
    wait_until("memory is released", || process.resident().unwrap().total() <= most);
    let (count, late) = (in_time.len(), in_time.iter().filter(|in_time| !**in_time).count());
    let _ = writeln!(
        std::io::stderr(),
        "{count} predictions during {} harms and those of stores, {late} of them after {deadline:?}; \
         {resident:.1?} MiB resident",
        harms.len(),
    );
    assert!(count > harms.len(), "{count} predictions");
    assert!(late * 100 <= count * MAX_LATE_PERCENT, "{late} of {count} after {deadline:?}");
}

/// The 99th percentile of how long a prediction takes where there are no harms.
fn p99_alone() -> Duration {
    let spinfer =
        Launch::new(&Manifest::default().with_iris("iris", 1, "/iris/...", "")).uncached().up();
    let client = || {
        let client = spinfer.client();
        let timed = |number| {
            let start = Instant::now();
            assert!(predict(&client, number));
            start.elapsed()
        };
        (0..ALONE).map(timed).collect::<Vec<_>>()
    };
    let mut latencies: Vec<Duration> = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(client)).collect();
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
    });
    latencies.sort_unstable();
    latencies[latencies.len() * 99 / 100]
}

/// Every harm, each by a client of its own; whether each prediction meanwhile met its deadline.
fn round(spinfer: &Spinfer, harms: &[harms::Harm], stores: &mut redis::StoresApp) -> Vec<bool> {
    let with_stores = stores.harms();
    // And one client that disturbs a Redis.
    let doing_harm = AtomicUsize::new(harms.len() + with_stores.len() + 1);
    let in_time = std::thread::scope(|scope| {
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
                // Counted down also if it fails, as the others wait for it.
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
    in_time
}

struct CountDown<'a>(&'a AtomicUsize);

impl Drop for CountDown<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn predict_while(spinfer: &Spinfer, doing_harm: &AtomicUsize) -> Vec<bool> {
    let client = spinfer.client();
    let mut in_time = Vec::new();
    while doing_harm.load(Ordering::Relaxed) > 0 {
        in_time.push(predict(&client, in_time.len()));
    }
    in_time
}

/// Whether a prediction met its deadline. Its inputs are those of two flowers in turn.
fn predict(client: &Client, number: usize) -> bool {
    let flowers = [("[5.1, 3.5, 1.4, 0.2]", "setosa"), ("[6.7, 3.0, 5.2, 2.3]", "virginica")];
    let (features, species) = flowers[number % flowers.len()];
    let body = format!("{{\"features\": {features}}}");
    let response = client.send("POST", "/iris/predict", &[], body.as_bytes());
    match response.status {
        200 => {
            assert_eq!(response.json()["prediction"], species);
            true
        }
        // The deadline of the request: while its body was read, while it waited for an instance, while
        // the instance computed.
        408 | 503 | 504 => false,
        status => panic!("{status}: {}", response.text()),
    }
}
