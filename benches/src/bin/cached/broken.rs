//! Latency of requests while Redis fails.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use hdrhistogram::Histogram;
use spinfer_benches::client::Connection;
use spinfer_benches::redis_server::RedisServer;
use spinfer_benches::server::{Server, spinfer_caching};

use super::hits::{distinct_request, manifest};

/// Number of clients. With many, a busy machine would slow a healthy Redis down, too.
const CLIENTS: usize = 2;
/// One of this many requests is new, the others are repeated.
const NEW: usize = 4;
/// Duration of the start of a state, whose latencies are counted separately.
const FIRST: Duration = Duration::from_millis(100);

/// Latencies in a state, in microseconds: at its start and afterwards.
struct Counted {
    first: Histogram<u64>,
    after: Histogram<u64>,
    failed: usize,
}

pub(super) fn run(out: &mut impl Write, seconds: u32, dir: &Path) -> Result<()> {
    let redis = RedisServer::start()?;
    let (port, url) = (redis.port, redis.url());
    let mut redis = Some(redis);
    // Of new inputs too, so that a full Redis refuses some.
    let settings = format!("redis = '{url}'\nadmission = 'first'");
    let server = Server::start(&mut spinfer_caching(&manifest(dir)?, &settings, dir)?)?;
    let next = AtomicUsize::new(0);
    let mut phase = |name: &str, healthy: &mut Option<u64>| -> Result<()> {
        let counted = load(&server, &next, Duration::from_secs(seconds.into()))?;
        let p99 = counted.after.value_at_quantile(0.99);
        let to = *healthy.get_or_insert(p99);
        writeln!(
            out,
            "| {name} | {} | {} | {:.2} | {:.2} | {:.2} | {:.2} |",
            counted.first.len() + counted.after.len(),
            counted.failed,
            counted.first.max() as f64 / 1e3,
            counted.after.value_at_quantile(0.5) as f64 / 1e3,
            p99 as f64 / 1e3,
            p99 as f64 / to as f64
        )?;
        Ok(())
    };
    let mut healthy = None;
    let heading = "\n| Redis is | requests | failed | maximum of the first 0.1 s, ms | p50 ms | \
                   p99 ms | p99 / healthy |\n| --- | --- | --- | --- | --- | --- | --- |\n";
    std::io::stdout().write_all(heading.as_bytes())?;
    // Warm-up: code is mapped, connections are opened.
    load(&server, &next, Duration::from_secs(1))?;
    phase("healthy", &mut healthy)?;
    if let Some(redis) = &redis {
        redis.signal("STOP")?;
        phase("paused", &mut healthy)?;
        redis.signal("CONT")?;
    }
    phase("resumed", &mut healthy)?;
    redis = None;
    phase("killed", &mut healthy)?;
    let again = redis.insert(RedisServer::start_at(port)?);
    phase("restarted", &mut healthy)?;
    let _: String = again.query(&["CONFIG", "SET", "maxmemory", "1"])?;
    phase("full (`maxmemory`, `noeviction`)", &mut healthy)?;
    drop(redis.take());
    let listener = TcpListener::bind(("127.0.0.1", port))?;
    std::thread::spawn(move || send_garbage(&listener));
    phase("sending garbage", &mut healthy)?;
    Ok(())
}

/// Responds with bytes that are not RESP.
fn send_garbage(listener: &TcpListener) {
    for mut stream in listener.incoming().flatten() {
        std::thread::spawn(move || {
            let mut request = [0; 4096];
            while stream.read(&mut request).is_ok_and(|read| read > 0) {
                if stream.write_all(b"\x00garbage\r\n*7\r\n").is_err() {
                    return;
                }
            }
        });
    }
}

fn load(server: &Server, next: &AtomicUsize, lasts: Duration) -> Result<Counted> {
    let start = Instant::now();
    let stop = AtomicBool::new(false);
    let counted =
        Mutex::new(Counted { first: Histogram::new(3)?, after: Histogram::new(3)?, failed: 0 });
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                let mut random = fastrand::Rng::new();
                let mut connection = Connection::open(server.address);
                while !stop.load(Ordering::Relaxed) && start.elapsed() < lasts {
                    let number = match random.usize(..NEW) {
                        0 => next.fetch_add(1, Ordering::Relaxed),
                        _ => random.usize(..=next.load(Ordering::Relaxed)),
                    };
                    let sent = Instant::now();
                    let response = connection
                        .as_mut()
                        .ok()
                        .and_then(|c| c.send(&distinct_request(number)).ok());
                    let took = u64::try_from(sent.elapsed().as_micros()).unwrap_or(u64::MAX);
                    let mut counted = counted.lock().expect("no panic under this lock");
                    if response.is_some_and(|response| response.status == 200) {
                        let is_first = sent.duration_since(start) < FIRST;
                        let of = &mut *counted;
                        let times = if is_first { &mut of.first } else { &mut of.after };
                        // The histogram grows with its values.
                        times.record(took).expect("microseconds of a minute fit");
                    } else {
                        counted.failed += 1;
                        drop(counted);
                        connection = Connection::open(server.address);
                    }
                }
            });
        }
    });
    Ok(counted.into_inner().expect("no panic under this lock"))
}
