//! Memory, descriptors and threads return to where they were, and responses stay correct, under everything
//! that clients and guests do.
//!
//! A soak is rounds of the same requests, with a pause after each in which every instance is evicted. The
//! test has a few rounds; `make soak` runs for minutes.

use std::ffi::OsStr;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use futures::future::{join, join_all};
use spinfer_benches::process::Process;
use spinfer_tests::{Client, Launch, Manifest, STANDARD_DOOR, Spinfer, root, wait_until};

use super::http2::{in_the_clear, post, text, whole};

/// Concurrent clients: more than a component has instances, so that some requests queue.
const CLIENTS: usize = 8;
/// How often a client sends every request in a round.
const TURNS: usize = 3;
/// Rounds after which lasting memory is allocated: code is paged in, allocators have their arenas.
const WARM_UP: usize = 3;
/// Rounds of the test after the warm-up, and the minimum of a longer soak.
const ROUNDS: usize = 3;
/// Resident memory of the last third of the rounds, over that of the first. Allocators move it by a few
/// percent; a leak of 1 kB per request exceeds it within 20 rounds.
const MAX_GROWTH: f64 = 1.10;
/// The same for [`ROUNDS`] rounds, where one step of an allocator shows. A leak of 16 kB per request
/// exceeds it.
const MAX_GROWTH_OF_FEW_ROUNDS: f64 = 1.25;

const FEW: &str = "tool.spinfer.limits.instances = 4\ntool.spinfer.limits.idle = \"100ms\"\n";
/// Length of a body that is too long for the fast door, and of one that is too long for both, in bytes.
const STREAMED: usize = 64 << 10;
const REFUSED: usize = 300 << 10;

const PREDICT: &str = r#"{"features": [5.1, 3.5, 1.4, 0.2]}"#;
const INFER: &str = r#"{"inputs":[{"name":"features","shape":[2,4],"datatype":"FP32","data":[[5.1,3.5,1.4,0.2],[6,3,5,2]]}]}"#;

/// Writes a batched model into `dir`.
fn application(dir: &Path) -> Manifest {
    let model = root().join("models/iris-classifier/2");
    std::fs::copy(model.join("model.onnx"), dir.join("model.onnx")).unwrap();
    let text = std::fs::read_to_string(model.join("model.toml")).unwrap();
    let batching = "[batching]\nmax_batch_size = 8\nmax_queue_delay = \"2ms\"\n";
    std::fs::write(dir.join("model.toml"), format!("{text}\n{batching}")).unwrap();
    let batched = format!(
        "files = [{{ source = \"{}\", destination = \"/models/iris-classifier\" }}]\n{FEW}",
        dir.display()
    );
    let sizes = "tool.spinfer.limits.buffered_body = \"16KiB\"\n\
                 tool.spinfer.limits.request_body = \"256KiB\"\n\
                 tool.spinfer.limits.instance_memory = \"16MiB\"\n";
    let deadline = "tool.spinfer.limits.deadline = \"100ms\"\n";
    Manifest::default()
        .with_iris("one", 1, "/v2/models/iris-classifier/...", FEW)
        .with_iris("two", 2, "/v2/models/iris-classifier/versions/2/...", FEW)
        .with_iris(
            "standard",
            1,
            "/v2/models/iris-classifier/versions/1/...",
            &format!("{FEW}{STANDARD_DOOR}"),
        )
        .with("/batched/...", "batched", "iris_classifier", &batched)
        // A trap fails every request of its instance, of which the standard door may have several:
        // misbehaving guests have their own instances.
        .with("/...", "probe", "probe", &format!("{FEW}{sizes}"))
        .with("/trap", "traps", "probe", &format!("{FEW}{sizes}"))
        .with("/memory", "grows", "probe", &format!("{FEW}{sizes}"))
        .with("/loop", "late", "probe", &format!("{FEW}{sizes}{deadline}"))
        .with("/hello/...", "hello", "hello_p2", FEW)
}

/// A request, the status of its response, and a part of the response's body.
struct Exchange {
    path: &'static str,
    body: Vec<u8>,
    status: u16,
    part: &'static str,
}

fn exchange(
    path: &'static str,
    body: impl Into<Vec<u8>>,
    status: u16,
    part: &'static str,
) -> Exchange {
    Exchange { path, body: body.into(), status, part }
}

fn exchanges() -> Vec<Exchange> {
    let (streamed, refused) = (vec![b'x'; STREAMED], vec![b'x'; REFUSED]);
    let mut all = Vec::new();
    for path in [
        "/v2/models/iris-classifier/predict",
        "/v2/models/iris-classifier/versions/1/predict",
        "/v2/models/iris-classifier/versions/2/predict",
        "/batched/predict",
    ] {
        all.push(exchange(path, PREDICT, 200, "\"prediction\":\"setosa\""));
        all.push(exchange(path, "not JSON", 400, "error"));
        all.push(exchange(path, r#"{"features": [1]}"#, 400, "expected 4 numbers"));
    }
    for path in [
        "/v2/models/iris-classifier/infer",
        "/v2/models/iris-classifier/versions/1/infer",
        "/v2/models/iris-classifier/versions/2/infer",
    ] {
        all.push(exchange(path, INFER, 200, "\"data\":[0,2]"));
        all.push(exchange(path, r#"{"inputs": []}"#, 400, "error"));
    }
    // Through the fast door, and with a body that is too long for it through the standard one.
    for body in [b"short".to_vec(), streamed] {
        all.push(exchange("/echo", body.clone(), 200, ""));
        all.push(exchange("/trap", body.clone(), 500, "component `traps` failed"));
        all.push(exchange("/memory", body.clone(), 500, "component `grows` failed"));
        all.push(exchange("/bad-header", body.clone(), 500, "component `probe`"));
        all.push(exchange("/nn/compute?graph=none", body, 422, "no model `none`"));
    }
    all.push(exchange("/echo", refused, 413, "limit of 262144 bytes"));
    all.push(exchange("/hello/", "", 200, "hello from 0.2"));
    all
}

/// Sends every request; with `cached`, responses may be served from cache.
fn talk(client: &Client, exchanges: &[Exchange], cached: bool) {
    let headers: &[_] = if cached { &[] } else { &[("cache-control", "no-store")] };
    for Exchange { path, body, status, part } in exchanges {
        let response = client.send("POST", path, headers, body);
        assert_eq!(response.status, *status, "{path}: {}", response.text());
        assert!(response.text().contains(part), "{path}: {part:?} is not in {}", response.text());
        assert!(
            *path != "/echo" || *status != 200 || response.body == *body,
            "the echo of another request"
        );
    }
}

/// Concurrent requests on one HTTP/2 connection, and as many that are cancelled.
async fn talk_http2(spinfer: &Spinfer) {
    let sender = in_the_clear(spinfer).await;
    let requests = (0..CLIENTS).map(|number| {
        let (mut sender, mut given_up) = (sender.clone(), sender.clone());
        async move {
            let path = ["/v2/models/iris-classifier/predict", "/batched/predict"][number % 2];
            let mut request = post(&format!("http://x{path}"), whole(PREDICT));
            request.headers_mut().insert("cache-control", "no-store".parse().unwrap());
            let response = sender.send_request(request).await.unwrap();
            assert!(text(response).await.contains("\"prediction\":\"setosa\""));
            let long = post("http://x/echo", whole(vec![b'x'; STREAMED]));
            let cancelled = given_up.send_request(post("http://x/loop", whole("")));
            let (long, cancelled) = join(sender.send_request(long), async {
                tokio::select! {
                    biased;
                    cancelled = cancelled => Some(cancelled),
                    () = tokio::task::yield_now() => None,
                }
            })
            .await;
            assert_eq!(text(long.unwrap()).await.len(), STREAMED);
            drop(cancelled);
        }
    });
    join_all(requests).await;
}

/// Clients that disconnect in the head, in the body, before the response, and during it.
fn hang_up(spinfer: &Spinfer) {
    let send = |path: &str, length: usize, body: &str| {
        let head = format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n");
        // The host may close the connection first.
        let _ = spinfer.connect().write_all([&head, body].concat().as_bytes());
    };
    let (model, long) = ("/v2/models/iris-classifier", "x".repeat(STREAMED));
    let _ = spinfer.connect().write_all(b"POST /echo HTTP/1.1\r\nho");
    send("/echo", 2 * STREAMED, &long);
    send("/echo", STREAMED, &long);
    send("/loop", 0, "");
    for path in [format!("{model}/predict"), format!("{model}/versions/1/predict")] {
        send(&path, PREDICT.len(), &PREDICT[..10]);
        send(&path, PREDICT.len(), PREDICT);
    }
}

fn round(spinfer: &Spinfer, exchanges: &[Exchange]) {
    std::thread::scope(|scope| {
        for number in 0..CLIENTS {
            scope.spawn(move || {
                let client = spinfer.client();
                for repetition in 0..TURNS {
                    // Each client starts at another request, so that different ones are concurrent.
                    let (end, start) = exchanges.split_at(number * exchanges.len() / CLIENTS);
                    talk(&client, start, repetition == 1);
                    if repetition == 0 {
                        hang_up(spinfer);
                    }
                    talk(&client, end, repetition == 1);
                }
            });
        }
        scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(talk_http2(spinfer));
        });
        scope.spawn(|| {
            for length in [0, STREAMED] {
                let response = spinfer.client().send("POST", "/loop", &[], &vec![b'x'; length]);
                // Past its deadline while it computes, while it queues, or, on a busy machine, before
                // its body has arrived.
                assert!(matches!(response.status, 408 | 503 | 504), "{response:?}");
            }
        });
    });
}

/// Number of open descriptors, without those of memory images, and of memory images, which wasmtime
/// keeps for each component from its first instance on.
pub(crate) fn descriptors(process: Process) -> (usize, usize) {
    let mut all = process.descriptors().unwrap();
    // Opened with the first record, and once.
    let is_log = |name: &OsStr| name.as_encoded_bytes().starts_with(b"predictions.");
    all.retain(|to| !to.file_name().is_some_and(is_log));
    let (images, others): (Vec<_>, Vec<_>) =
        all.iter().partition(|to| to.starts_with("/memfd:wasm-memory-image (deleted)"));
    (others.len(), images.len())
}

/// Runs rounds while `more` returns true for the number of rounds after the warm-up.
fn soak(mut more: impl FnMut(usize) -> bool) {
    let dir = tempfile::tempdir().unwrap();
    let spinfer = Launch::new(&application(dir.path())).up();
    wait_until("it is ready", || spinfer.get("/v2/health/ready").status == 200);
    let process = Process(spinfer.id());
    let (before, threads) = (descriptors(process), process.threads().unwrap());
    let exchanges = exchanges();
    let (mut memory, mut images) = (Vec::new(), 0);
    for rounds in 0.. {
        if rounds >= WARM_UP && !more(rounds - WARM_UP) {
            break;
        }
        round(&spinfer, &exchanges);
        wait_until("connections are closed and instances evicted", || {
            descriptors(process).0 <= before.0
        });
        if rounds + 1 == WARM_UP {
            images = descriptors(process).1;
        }
        if rounds >= WARM_UP {
            memory.push(process.resident().unwrap().total());
        }
    }
    assert!(descriptors(process).1 <= images, "{:?}", process.descriptors());
    wait_until("threads have exited", || process.threads().unwrap() <= threads);
    let third = memory.len().div_ceil(3);
    let first = spinfer_benches::median(memory[..third].iter().copied());
    let last = spinfer_benches::median(memory[memory.len() - third..].iter().copied());
    let _ = writeln!(
        std::io::stderr(),
        "{} rounds: {first:.1} MiB resident at first, {last:.1} MiB at last; \
         {:?} descriptors, {threads} threads",
        memory.len() + WARM_UP,
        descriptors(process),
    );
    let most = if memory.len() > ROUNDS { MAX_GROWTH } else { MAX_GROWTH_OF_FEW_ROUNDS };
    assert!(last <= first * most, "resident memory grows: {memory:.1?} MiB");
}

#[test]
fn memory_descriptors_and_threads_do_not_grow() {
    soak(|rounds| rounds < ROUNDS);
}

/// `make soak`: for `SECONDS_OF_SOAK`, 600 unless set.
#[test]
#[ignore = "takes minutes"]
fn memory_descriptors_and_threads_do_not_grow_for_minutes() {
    let seconds = std::env::var("SECONDS_OF_SOAK").map_or(600, |seconds| seconds.parse().unwrap());
    let end = Instant::now() + Duration::from_secs(seconds);
    soak(|rounds| rounds < ROUNDS || Instant::now() < end);
}
