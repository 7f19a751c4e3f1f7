//! Effect of dynamic batching: a medium network under load without it, and with several batch
//! sizes. Prints Markdown.

use std::io::Write as _;

use anyhow::Result;
use clap::Parser;
use spinfer_benches::application::{Application, IRIS, Operation, iris_component};
use spinfer_benches::server::{Server, spinfer};
use spinfer_benches::{machine, median, network, wrk};

#[derive(Parser)]
struct Options {
    /// Rounds; figures are medians over them
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Duration of the load in each round, in seconds
    #[arg(long, default_value_t = 4)]
    seconds: u32,
    /// Number of keep-alive connections
    #[arg(long, default_value_t = 64)]
    connections: u32,
}

/// Name and `model.toml` of each setting.
const SETTINGS: [(&str, &str); 4] = [
    ("none", ""),
    ("max_batch_size 4", "batching = { max_batch_size = 4 }"),
    ("max_batch_size 16", "batching = { max_batch_size = 16 }"),
    ("16, max_queue_delay 2 ms", "batching = { max_batch_size = 16, max_queue_delay = '2ms' }"),
];

fn main() -> Result<()> {
    let Options { rounds, seconds, connections } = Options::parse();
    let dir = tempfile::tempdir()?;
    let body = network::request();
    let operation = Operation { name: "infer", body: &body };
    let mut figures: [Vec<wrk::Figures>; SETTINGS.len()] = Default::default();
    for _ in 0..rounds {
        for ((_, settings), figures) in SETTINGS.iter().zip(&mut figures) {
            network::write(&dir.path().join("model"), settings)?;
            // As many concurrent calls as connections, so that batches can fill.
            let limits = format!("tool.spinfer.limits.instances = {connections}");
            let manifest = Application::new("")
                .with(IRIS, "network", &iris_component(), &dir.path().join("model"), &limits)
                .write(dir.path(), "batching")?;
            let server = Server::start(&mut spinfer(&manifest)?)?;
            let load = wrk::Load { connections, seconds };
            figures.push(wrk::run(&server, IRIS, operation, load, dir.path())?);
        }
    }
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}\n", machine()?)?;
    writeln!(
        out,
        "| batching | requests/s | ratio | p50 ms | p99 ms |\n| --- | --- | --- | --- | --- |"
    )?;
    for ((name, _), with) in SETTINGS.iter().zip(&figures) {
        let of = |field: fn(&wrk::Figures) -> f64| median(with.iter().map(field));
        let pairs = with.iter().zip(&figures[0]);
        let ratio = median(pairs.map(|(a, b)| a.requests_per_second / b.requests_per_second));
        writeln!(
            out,
            "| {name} | {:.0} | {ratio:.2} | {:.2} | {:.2} |",
            of(|f| f.requests_per_second),
            of(|f| f.p50_ms),
            of(|f| f.p99_ms),
        )?;
    }
    Ok(())
}
