//! Costs of hits and misses, and hit rates.

use std::collections::HashSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Result, ensure};
use spinfer_benches::application::{
    Application, IRIS, Operation, PREDICT, iris_component, iris_model,
};
use spinfer_benches::client::{Connection, post};
use spinfer_benches::redis_server::RedisServer;
use spinfer_benches::server::{Server, spinfer, spinfer_caching, spinfer_with_cache};
use spinfer_benches::{median, wrk};

/// The manifest of the iris classifier, whose responses have some hundred bytes.
pub(super) fn manifest(dir: &Path) -> Result<PathBuf> {
    let (component, model) = (iris_component(), iris_model("1"));
    Application::new("").with(IRIS, "iris", &component, &model, "").write(dir, "iris")
}

/// A request whose input and response are different for each `number`.
pub(super) fn distinct_request(number: usize) -> Vec<u8> {
    let body = format!("{{\"features\": [5.1, 3.5, 1.4, {}.{:03}]}}", number / 1000, number % 1000);
    post(IRIS, Operation { name: "predict", body: &body })
}

/// Number of distinct requests after which the memory is measured.
const DISTINCT: f64 = 1e6;

/// Seconds after which the cache's memory is full, with 100,000 responses.
const FILLING: u32 = 6;

pub(super) fn throughput(
    out: &mut impl Write,
    rounds: usize,
    seconds: u32,
    dir: &Path,
) -> Result<()> {
    let manifest = manifest(dir)?;
    let load = wrk::Load { connections: 64, seconds };
    let server = Server::start(&mut spinfer_with_cache(&manifest)?)?;
    let response = Connection::open(server.address)?.send(&post(IRIS, PREDICT))?.body;
    drop(server);
    let mut bare = Command::new(std::env::current_exe()?);
    bare.args(["bare", &response]);
    let same = format!("wrk.body = '{}'\n", PREDICT.body);
    let (filling, full) = (distinct(0), distinct(10_000_000));
    let storing = spinfer_caching(&manifest, "admission = \"first\"", dir)?;
    let mut rows = [
        ("bare hyper, the same bytes", bare, same.as_str(), vec![]),
        ("hit in memory", spinfer_with_cache(&manifest)?, &same, vec![]),
        ("no cache", spinfer(&manifest)?, &filling, vec![]),
        ("miss, as installed, from the start on", spinfer_with_cache(&manifest)?, &filling, vec![]),
        ("no cache", spinfer(&manifest)?, &full, vec![]),
        ("miss, as installed", spinfer_with_cache(&manifest)?, &full, vec![]),
        ("no cache", spinfer(&manifest)?, &full, vec![]),
        ("miss, `admission = \"first\"`, another evicted", storing, &full, vec![]),
    ];
    for _ in 0..rounds {
        for (_, command, script, figures) in &mut rows {
            let server = Server::start(command)?;
            let url = format!("http://{}{IRIS}/predict", server.address);
            // Until the cache is full, each response uses memory for the first time.
            if *script == full {
                wrk::run_script(&url, &filling, wrk::Load { seconds: FILLING, ..load }, dir)?;
            }
            let before = server.process().cpu_seconds()?;
            let peak = wrk::run_script(&url, script, load, dir)?;
            let cpu = (server.process().cpu_seconds()? - before) * 1e6 / peak.requests;
            figures.push((peak.requests_per_second, cpu));
        }
    }
    writeln!(
        out,
        "\n| requests | requests/s | ratio | CPU us/request |\n| --- | --- | --- | --- |"
    )?;
    for (index, (name, _, _, figures)) in rows.iter().enumerate() {
        let to = &rows[index / 2 * 2].3;
        let ratio = median(figures.iter().zip(to).map(|(a, b)| a.0 / b.0));
        let (rate, cpu) =
            (median(figures.iter().map(|f| f.0)), median(figures.iter().map(|f| f.1)));
        writeln!(out, "| {name} | {rate:.0} | {ratio:.2} | {cpu:.1} |")?;
    }
    Ok(())
}

/// Resident memory after a million distinct requests.
pub(super) fn memory(out: &mut impl Write, seconds: u32, dir: &Path) -> Result<()> {
    let manifest = manifest(dir)?;
    writeln!(out, "\n| cache | distinct requests | resident MiB |\n| --- | --- | --- |")?;
    for (name, mut command) in [
        ("none", spinfer(&manifest)?),
        ("as installed", spinfer_with_cache(&manifest)?),
        ("`admission = \"first\"`", spinfer_caching(&manifest, "admission = \"first\"", dir)?),
    ] {
        let server = Server::start(&mut command)?;
        let url = format!("http://{}{IRIS}/predict", server.address);
        let (mut requests, mut first) = (0.0, 0);
        while requests < DISTINCT {
            let load = wrk::Load { connections: 64, seconds };
            requests += wrk::run_script(&url, &distinct(first), load, dir)?.requests;
            // More than one run sends.
            first += 10_000_000;
        }
        let resident = server.process().settled()?.total();
        writeln!(out, "| {name} | {requests:.0} | {resident:.1} |")?;
    }
    Ok(())
}

/// A script that sends different requests, from the number after `first` on. Each thread of wrk has its
/// own counter; there is one thread.
fn distinct(first: u32) -> String {
    format!(
        "local n = {first}\nrequest = function() n = n + 1\n\
         return wrk.format(nil, nil, nil, '{{\"features\": [5.1, 3.5, 1.4, ' .. n .. ']}}') end\n"
    )
}

/// Latency of hits in Redis, one after the other.
pub(super) fn latency(out: &mut impl Write, dir: &Path) -> Result<()> {
    const RESPONSES: usize = 3000;
    let manifest = manifest(dir)?;
    let redis = RedisServer::start()?;
    let settings = format!("redis = '{}'\ntimeout = '1s'", redis.url());
    let mut command = spinfer_caching(&manifest, &settings, dir)?;
    let first = Server::start(&mut command)?;
    let mut connection = Connection::open(first.address)?;
    for number in 0..RESPONSES {
        connection.send(&distinct_request(number))?;
    }
    while redis.query::<usize>(&["DBSIZE"])? < RESPONSES / 2 {
        std::thread::yield_now();
    }
    drop(first);
    let stored: Vec<String> = redis.query(&["KEYS", "spinfer:*"])?;
    let second = Server::start(&mut command)?;
    let mut connection = Connection::open(second.address)?;
    // The first requests are not hits: the node learns how responses vary, and connects.
    let mut round_trips = Vec::new();
    let mut client = redis.connect()?;
    let (mut hits, mut again) = (Vec::new(), Vec::new());
    for (number, key) in (0..RESPONSES).zip(stored.iter().cycle()) {
        let request = distinct_request(number);
        let start = Instant::now();
        let response = connection.send(&request)?;
        if response.hit {
            hits.push(start.elapsed().as_secs_f64() * 1e6);
            let start = Instant::now();
            ensure!(connection.send(&request)?.hit, "the response is not in memory");
            again.push(start.elapsed().as_secs_f64() * 1e6);
            let start = Instant::now();
            let _: Vec<u8> = redis::cmd("GET").arg(key).query(&mut client)?;
            round_trips.push(start.elapsed().as_secs_f64() * 1e6);
        }
    }
    ensure!(hits.len() > RESPONSES / 3, "only {} hits", hits.len());
    let (count, trip) = (hits.len(), median(round_trips));
    writeln!(out, "\n| one at a time, median of {count} | us | ratio |\n| --- | --- | --- |")?;
    for (name, us) in [
        ("a round trip to Redis", trip),
        ("a hit in Redis", median(hits)),
        ("the same request again: a hit in memory", median(again)),
    ] {
        writeln!(out, "| {name} | {us:.0} | {:.2} |", us / trip)?;
    }
    Ok(())
}

/// Hit rates of inputs by Zipf's law with exponent 1.
pub(super) fn rates(out: &mut impl Write, dir: &Path) -> Result<()> {
    const INPUTS: usize = 10_000;
    const REQUESTS: usize = 100_000;
    // 10 % of the responses, of about 560 bytes each.
    const MEMORY: usize = INPUTS / 10 * 560;
    let manifest = manifest(dir)?;
    let redis = RedisServer::start()?;
    let mut weights = Vec::new();
    let mut sum = 0.0;
    for rank in 1..=INPUTS {
        sum += 1.0 / rank as f64;
        weights.push(sum);
    }
    let mut random = fastrand::Rng::with_seed(7);
    let mut draw = || {
        let at = random.f64() * sum;
        weights.partition_point(|&weight| weight < at)
    };
    let trace: Vec<usize> = (0..REQUESTS).map(|_| draw()).collect();
    let distinct = trace.iter().collect::<HashSet<_>>().len();
    let best = 1.0 - distinct as f64 / REQUESTS as f64;
    writeln!(
        out,
        "\n{REQUESTS} requests, Zipf(1.0) over {INPUTS} inputs; the maximum is {best:.3}, \
         as {distinct} inputs occur for the first time.\n\n\
         | cache | hit rate | of the maximum |\n| --- | --- | --- |"
    )?;
    for (name, settings) in [
        ("in memory, 10 % of the responses", format!("memory = {MEMORY}")),
        (
            "in memory, 10 % of the responses, `admission = \"first\"`",
            format!("memory = {MEMORY}\nadmission = 'first'"),
        ),
        (
            "in memory, 10 % of the responses, and in Redis",
            format!("memory = {MEMORY}\nredis = '{}'\ntimeout = '1s'", redis.url()),
        ),
        (
            "in memory, 10 % of the responses, and in Redis, `admission = \"first\"`",
            format!(
                "memory = {MEMORY}\nadmission = 'first'\nredis = '{}'\ntimeout = '1s'\nprefix = 'first:'",
                redis.url()
            ),
        ),
        ("in memory, all responses", String::new()),
    ] {
        let server = Server::start(&mut spinfer_caching(&manifest, &settings, dir)?)?;
        let mut connection = Connection::open(server.address)?;
        let mut hits = 0;
        for &number in &trace {
            hits += usize::from(connection.send(&distinct_request(number))?.hit);
        }
        let rate = hits as f64 / REQUESTS as f64;
        writeln!(out, "| {name} | {rate:.3} | {:.3} |", rate / best)?;
    }
    Ok(())
}
