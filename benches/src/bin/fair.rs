//! Fairness between routes: latency of a small prediction alone, and while another route is
//! saturated with large batches, which keep guests and inferences busy, or with small predictions.
//! Prints Markdown.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clap::Parser;
use spinfer_benches::application::{
    Application, IRIS, Operation, PREDICT, PREDICTED, iris_component, iris_model,
};
use spinfer_benches::client::{self, Connection};
use spinfer_benches::server::{Server, spinfer};
use spinfer_benches::{machine, median};

#[derive(Parser)]
struct Options {
    /// Rounds; figures are medians over them
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Duration of each measurement, in seconds
    #[arg(long, default_value_t = 4)]
    seconds: u64,
    /// Number of connections that saturate the other route
    #[arg(long, default_value_t = 32)]
    connections: usize,
    /// Rows of each batch; 1 is a small prediction
    #[arg(long, default_value_t = 5000)]
    rows: usize,
    /// Maximum ratio of the small prediction's p99 under the load to that alone; above it the tool
    /// fails
    #[arg(long, default_value_t = 3.0)]
    max_ratio: f64,
}

/// The route that is saturated.
const BUSY: &str = "/v2/models/iris-classifier/versions/2";

fn main() -> Result<()> {
    let options = Options::parse();
    let dir = tempfile::tempdir()?;
    let component = iris_component();
    let manifest = Application::new("")
        .with(IRIS, "small", &component, &iris_model("1"), "")
        .with(BUSY, "busy", &component, &iris_model("2"), "")
        .write(dir.path(), "fair")?;
    let server = Server::start(&mut spinfer(&manifest)?)?;
    let window = Duration::from_secs(options.seconds);
    let batch = client::post(BUSY, Operation { name: "infer", body: &batch(options.rows) });
    predictions(server.address, Duration::from_secs(1))?;
    let (mut alone, mut loaded, mut batches) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..options.rounds {
        alone.push(predictions(server.address, window)?);
        let (latencies, done) = saturated(server.address, &batch, &options, window)?;
        loaded.push(latencies);
        batches.push(done);
    }
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}\n", machine()?)?;
    writeln!(out, "| small prediction | p50 ms | p99 ms | p99.9 ms |\n| --- | --- | --- | --- |")?;
    writeln!(out, "| alone | {} |", figures(&alone))?;
    writeln!(out, "| while another route is saturated | {} |", figures(&loaded))?;
    let ratio = |quantile| {
        median(loaded.iter().map(|l| l.at(quantile))) / median(alone.iter().map(|l| l.at(quantile)))
    };
    writeln!(out, "\np99, saturated / alone: {:.2}; p50: {:.2}.", ratio(0.99), ratio(0.5))?;
    let rate = median(batches) / window.as_secs_f64();
    writeln!(out, "The other route: {rate:.0} batches/s of {} rows.", options.rows)?;
    ensure!(
        ratio(0.99) <= options.max_ratio,
        "the p99 under load is more than {} times that alone",
        options.max_ratio
    );
    Ok(())
}

/// Latencies in milliseconds, sorted.
struct Latencies(Vec<f64>);

impl Latencies {
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "an index"
    )]
    fn at(&self, quantile: f64) -> f64 {
        self.0[((self.0.len() - 1) as f64 * quantile) as usize]
    }
}

fn figures(rounds: &[Latencies]) -> String {
    let figure = |quantile| format!("{:.3}", median(rounds.iter().map(|l| l.at(quantile))));
    [0.5, 0.99, 0.999].map(figure).join(" | ")
}

/// Latencies of one prediction after the other, on one connection.
fn predictions(address: SocketAddr, window: Duration) -> Result<Latencies> {
    let request = client::post(IRIS, PREDICT);
    let mut connection = Connection::open(address)?;
    let mut latencies = Vec::new();
    let end = Instant::now() + window;
    while Instant::now() < end {
        let response = connection.send(&request)?;
        ensure!(response.status == 200 && response.body.contains(PREDICTED), "{response:?}");
        latencies.push(response.first_byte.as_secs_f64() * 1e3);
    }
    latencies.sort_by(f64::total_cmp);
    Ok(Latencies(latencies))
}

/// Latencies of predictions while other connections send batches, and the number of batches.
fn saturated(
    address: SocketAddr,
    batch: &[u8],
    options: &Options,
    window: Duration,
) -> Result<(Latencies, f64)> {
    let (stop, done) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let busy = || -> Result<()> {
            // The load generator must not take processor time from the server.
            rustix::process::nice(19)?;
            let mut connection = Connection::open(address)?;
            while !stop.load(Ordering::Relaxed) {
                let response = connection.send(batch)?;
                ensure!(response.status == 200, "{}: {}", response.status, response.body);
                done.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        };
        let load: Vec<_> = (0..options.connections).map(|_| scope.spawn(busy)).collect();
        let failed = || load.iter().any(|thread| thread.is_finished());
        while done.load(Ordering::Relaxed) < options.connections && !failed() {
            std::thread::yield_now();
        }
        done.store(0, Ordering::Relaxed);
        let window = if failed() { Duration::ZERO } else { window };
        let latencies = predictions(address, window);
        let count = done.load(Ordering::Relaxed);
        stop.store(true, Ordering::Relaxed);
        for thread in load {
            thread.join().map_err(|_| anyhow::anyhow!("a thread of the load panicked"))??;
        }
        #[expect(clippy::cast_precision_loss, reason = "a count")]
        Ok((latencies?, count as f64))
    })
}

/// An Open Inference Protocol request with a number of rows.
fn batch(rows: usize) -> String {
    let mut data = String::new();
    for row in 0..rows {
        let comma = if row == 0 { "" } else { ", " };
        let _ = write!(data, "{comma}5.{}, 3.5, 1.{}, 0.2", row % 10, row % 7);
    }
    format!(
        r#"{{"inputs": [{{"name": "features", "shape": [{rows}, 4], "datatype": "FP32", "data": [{data}]}}]}}"#
    )
}
