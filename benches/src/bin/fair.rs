//! Whether one route's overload starves another: latencies of a small prediction alone, and while
//! another route is saturated: with large batches, which keep guests and inferences busy, or with as
//! many small predictions as it gets. Prints Markdown.

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
    /// Rounds; the median counts
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of each measurement
    #[arg(long, default_value_t = 4)]
    seconds: u64,
    /// Connections that saturate the other route
    #[arg(long, default_value_t = 32)]
    connections: usize,
    /// Rows of each of its batches; 1 is a small prediction like that beside it
    #[arg(long, default_value_t = 5000)]
    rows: usize,
    /// Fails if the small prediction's p99 beside the load is over so many times that alone
    #[arg(long, default_value_t = 3.0)]
    most: f64,
}

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
    let (mut alone, mut beside, mut batches) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..options.rounds {
        alone.push(predictions(server.address, window)?);
        let (latencies, done) = saturated(server.address, &batch, &options, window)?;
        beside.push(latencies);
        batches.push(done);
    }
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}\n", machine()?)?;
    writeln!(
        out,
        "| a small prediction | p50 ms | p99 ms | p99.9 ms |\n| --- | --- | --- | --- |"
    )?;
    writeln!(out, "| alone | {} |", figures(&alone))?;
    writeln!(out, "| while another route is saturated | {} |", figures(&beside))?;
    let ratio = |quantile| {
        median(beside.iter().map(|l| l.at(quantile))) / median(alone.iter().map(|l| l.at(quantile)))
    };
    writeln!(out, "\np99, saturated / alone: {:.2}; p50: {:.2}.", ratio(0.99), ratio(0.5))?;
    let rate = median(batches) / window.as_secs_f64();
    writeln!(out, "The other route: {rate:.0} batches of {} rows a second.", options.rows)?;
    ensure!(ratio(0.99) <= options.most, "p99 is over {} times that alone", options.most);
    Ok(())
}

/// Latencies in milliseconds, ascending.
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

/// One prediction after the other, on one connection.
fn predictions(address: SocketAddr, window: Duration) -> Result<Latencies> {
    let request = client::post(IRIS, PREDICT);
    let mut connection = Connection::open(address)?;
    let mut latencies = Vec::new();
    let end = Instant::now() + window;
    while Instant::now() < end {
        let answer = connection.send(&request)?;
        ensure!(answer.status == 200 && answer.body.contains(PREDICTED), "{answer:?}");
        latencies.push(answer.first_byte.as_secs_f64() * 1e3);
    }
    latencies.sort_by(f64::total_cmp);
    Ok(Latencies(latencies))
}

/// The same beside batches on every other connection, and how many of those were answered.
fn saturated(
    address: SocketAddr,
    batch: &[u8],
    options: &Options,
    window: Duration,
) -> Result<(Latencies, f64)> {
    let (stop, done) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let busy = || -> Result<()> {
            // The machine is the server's: what the load costs must not be what is measured.
            rustix::process::nice(19)?;
            let mut connection = Connection::open(address)?;
            while !stop.load(Ordering::Relaxed) {
                let answer = connection.send(batch)?;
                ensure!(answer.status == 200, "{}: {}", answer.status, answer.body);
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
            thread.join().map_err(|_| anyhow::anyhow!("the load panicked"))??;
        }
        #[expect(clippy::cast_precision_loss, reason = "a count")]
        Ok((latencies?, count as f64))
    })
}

/// An Open Inference Protocol request of so many rows.
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
