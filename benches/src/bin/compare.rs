//! The load comparison: each server under the same load, in several rounds. Throughputs are
//! compared with the native reference server in the same round, as machines are noisy. Prints
//! Markdown.
//!
//! `wrk` measures the maximum throughput. Then an open loop with a lower rate measures the latency
//! of a server that is not overloaded. Both use keep-alive connections, and the same cores as the
//! server.

use std::fmt::Write as _;
use std::io::Write;
use std::path::Path;
use std::process::Command;

use anyhow::Result;
use clap::Parser;
use spinfer_benches::application::{
    Application, INFER, IRIS, Operation, PREDICT, iris_component, iris_model,
};
use spinfer_benches::server::{Server, reference, spinfer};
use spinfer_benches::{client, machine, median, open_loop, wrk};

#[derive(Parser)]
struct Options {
    /// Rounds; figures are medians over them
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Duration of each load on each server in each round, in seconds
    #[arg(long, default_value_t = 5)]
    seconds: u32,
    /// Number of keep-alive connections
    #[arg(long, default_value_t = 64)]
    connections: u32,
    /// Rate of the open loop, as a share of its maximum throughput. That differs from wrk's, as
    /// both load generators take processor time from the server
    #[arg(long, default_value_t = 0.8)]
    share: f64,
    /// Version of the iris classifier
    #[arg(long, default_value = "1")]
    version: String,
}

/// Figures of a server under load.
struct Figures {
    peak: wrk::Figures,
    cpu_us: f64,
    memory_mib: f64,
    steady: open_loop::Outcome,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let dir = tempfile::tempdir()?;
    let mut servers = [
        ("native reference", reference(&iris_model(&options.version))),
        ("spinfer, fast door", behind("fast", dir.path(), &options)?),
        ("spinfer, standard door", behind("standard", dir.path(), &options)?),
    ];
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", machine()?)?;
    for operation in [PREDICT, INFER] {
        let mut figures: [Vec<Figures>; 3] = Default::default();
        for _ in 0..options.rounds {
            for ((_, command), figures) in servers.iter_mut().zip(&mut figures) {
                let server = Server::start(command)?;
                figures.push(measure(&server, operation, &options, dir.path())?);
            }
        }
        let rows: Vec<_> = servers.iter().map(|(name, _)| *name).zip(&figures).collect();
        writeln!(out, "\n`{}`, version {}:\n", operation.name, options.version)?;
        writeln!(out, "{}", peak_table(&rows))?;
        let share = options.share * 100.0;
        writeln!(out, "at {share:.0} % of the maximum throughput of the open loop:\n")?;
        write!(out, "{}", steady_table(&rows))?;
    }
    Ok(())
}

/// The iris classifier behind `door`.
fn behind(door: &str, dir: &Path, options: &Options) -> Result<Command> {
    let (component, model) = (iris_component(), iris_model(&options.version));
    let settings = format!("tool.spinfer.door = '{door}'");
    let application = Application::new("").with(IRIS, "iris", &component, &model, &settings);
    spinfer(&application.write(dir, door)?)
}

fn measure(
    server: &Server,
    operation: Operation<'_>,
    options: &Options,
    dir: &Path,
) -> Result<Figures> {
    let Options { connections, seconds, .. } = *options;
    let before = server.process().cpu_seconds()?;
    let load = wrk::Load { connections, seconds };
    let peak = wrk::run(server, IRIS, operation, load, dir)?;
    let cpu_us = (server.process().cpu_seconds()? - before) * 1e6 / peak.requests;
    let memory_mib = server.process().resident()?.total();
    let request = client::post(IRIS, operation);
    let run = |rate: f64, requests: u32| {
        let connections = connections as usize;
        open_loop::run(
            server.address,
            open_loop::Schedule { request: &request, rate, requests, connections },
        )
    };
    // Without a schedule.
    let max = run(f64::INFINITY, requests(peak.requests_per_second, seconds))?.rate();
    let rate = max * options.share;
    let steady = run(rate, requests(rate, seconds))?;
    Ok(Figures { peak, cpu_us, memory_mib, steady })
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a positive count")]
fn requests(rate: f64, seconds: u32) -> u32 {
    (rate * f64::from(seconds)) as u32
}

type Rows<'a> = [(&'a str, &'a Vec<Figures>)];

/// Medians over the rounds; the ratio is the median of the rounds' ratios.
fn peak_table(rows: &Rows<'_>) -> String {
    let reference = rows[0].1;
    let mut text = String::from(
        "| server | requests/s | ratio | p50 ms | p99 ms | CPU us/request | resident MiB |\n\
         | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    for (name, figures) in rows {
        let of = |field: fn(&Figures) -> f64| median(figures.iter().map(field));
        let ratios = figures.iter().zip(reference);
        let ratio =
            median(ratios.map(|(a, b)| a.peak.requests_per_second / b.peak.requests_per_second));
        let _ = writeln!(
            text,
            "| {name} | {:.0} | {ratio:.2} | {:.2} | {:.2} | {:.1} | {:.0} |",
            of(|f| f.peak.requests_per_second),
            of(|f| f.peak.p50_ms),
            of(|f| f.peak.p99_ms),
            of(|f| f.cpu_us),
            of(|f| f.memory_mib),
        );
    }
    text
}

/// Medians over the rounds of each round's percentiles.
fn steady_table(rows: &Rows<'_>) -> String {
    let mut text = String::from(
        "| server | requests/s | p50 ms | p99 ms | p99.9 ms | generator lag p99 ms |\n\
         | --- | --- | --- | --- | --- | --- |\n",
    );
    for (name, figures) in rows {
        let of = |field: fn(&open_loop::Outcome) -> f64| {
            median(figures.iter().map(|figures| field(&figures.steady)))
        };
        let _ = writeln!(
            text,
            "| {name} | {:.0} | {:.2} | {:.2} | {:.2} | {:.2} |",
            of(open_loop::Outcome::rate),
            of(|steady| steady.latency_ms(0.5)),
            of(|steady| steady.latency_ms(0.99)),
            of(|steady| steady.latency_ms(0.999)),
            of(|steady| steady.lag_ms(0.99)),
        );
    }
    text
}
