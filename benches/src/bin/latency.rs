//! Latency at a fixed rate: servers that differ in one thing get an open loop of requests in
//! alternating slices, and percentiles are compared within a round. Every body is new. Prints Markdown.
//!
//! The load generator shares the cores with the servers; its lag is printed next to the latencies.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;

use anyhow::Result;
use clap::Parser;
use spinfer_benches::application::{
    Application, IRIS, Operation, PREDICT, iris_component, iris_model,
};
use spinfer_benches::open_loop::{self, Outcome, Schedule};
use spinfer_benches::probabilities::Probabilities;
use spinfer_benches::server::{Server, reference, spinfer_in, spinfer_without_cache_in};
use spinfer_benches::{client, machine, median};

#[derive(Parser)]
struct Options {
    /// Rounds; figures are medians over them
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Duration of each slice, in seconds
    #[arg(long, default_value_t = 4)]
    seconds: u32,
    /// Number of keep-alive connections
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Requests per second
    #[arg(long, default_value_t = 5000)]
    rate: u32,
    /// Instead of a rate: the share of the maximum throughput of the open loop on each server
    #[arg(long, conflicts_with = "rate")]
    share: Option<f64>,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let dir = tempfile::tempdir()?;
    let servers = servers(dir.path())?;
    let expected = Probabilities::of(&servers[0].1, PREDICT)?;
    for (_, server) in &servers[1..] {
        expected.check(&Probabilities::of(server, PREDICT)?)?;
    }
    let mut figures: Vec<Vec<Outcome>> = servers.iter().map(|_| Vec::new()).collect();
    // The first slice of each is a warm-up.
    for round in 0..=options.rounds {
        for ((_, server), figures) in servers.iter().zip(&mut figures) {
            let outcome = slice(server, round, &options)?;
            if round > 0 {
                figures.push(outcome);
            }
        }
    }
    let mut text = format!(
        "{}\n\n| server | requests/s | p50 ms | p99 ms | p99.9 ms | ratio of p99 | generator lag p99 ms |\n\
         | --- | --- | --- | --- | --- | --- | --- |\n",
        machine()?
    );
    for ((name, _), outcomes) in servers.iter().zip(&figures) {
        let of = |field: fn(&Outcome) -> f64| median(outcomes.iter().map(field));
        let rounds = outcomes.iter().zip(&figures[0]);
        let ratio = median(rounds.map(|(own, base)| own.latency_ms(0.99) / base.latency_ms(0.99)));
        let _ = writeln!(
            text,
            "| {name} | {:.0} | {:.2} | {:.2} | {:.2} | {ratio:.2} | {:.2} |",
            of(Outcome::rate),
            of(|outcome| outcome.latency_ms(0.5)),
            of(|outcome| outcome.latency_ms(0.99)),
            of(|outcome| outcome.latency_ms(0.999)),
            of(|outcome| outcome.lag_ms(0.99)),
        );
    }
    write!(std::io::stdout().lock(), "{text}")?;
    Ok(())
}

/// The native reference, and spinfer in several settings, all running at the same time.
fn servers(dir: &Path) -> Result<Vec<(&'static str, Server)>> {
    const NO_LOG: &str = "tool.spinfer.prediction_log.enabled = false";
    let (component, model) = (iris_component(), iris_model("1"));
    let mut servers = vec![("native reference", Server::start(&mut reference(&model))?)];
    for (name, file, settings, cached) in [
        ("spinfer, fast door", "fast", format!("tool.spinfer.door = 'fast'\n{NO_LOG}"), false),
        (
            "spinfer, standard door",
            "standard",
            format!("tool.spinfer.door = 'standard'\n{NO_LOG}"),
            false,
        ),
        ("spinfer, as installed", "installed", String::new(), true),
    ] {
        let application = Application::new("").with(IRIS, "iris", &component, &model, &settings);
        let manifest = application.write(dir, file)?;
        let state = dir.join(format!("state-{file}"));
        std::fs::create_dir_all(&state)?;
        let mut command = match cached {
            true => spinfer_in(&manifest, &state),
            false => spinfer_without_cache_in(&manifest, &state)?,
        };
        servers.push((name, Server::start(&mut command)?));
    }
    Ok(servers)
}

/// The load of one slice of `round`.
fn slice(server: &Server, round: usize, options: &Options) -> Result<Outcome> {
    let Options { seconds, connections, .. } = *options;
    let run = |rate: f64, encoded: &[Vec<u8>]| {
        let requests = u32::try_from(encoded.len())?;
        open_loop::run(server.address, Schedule { encoded, rate, requests, connections })
    };
    let count = options.rate * seconds;
    let Some(share) = options.share else {
        return run(f64::from(options.rate), &bodies(round, 0..count));
    };
    // Without a schedule.
    let rate = run(f64::INFINITY, &bodies(round, 0..count))?.rate() * share;
    run(rate, &bodies(round, count..count + requests(rate, seconds)))
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a positive count")]
fn requests(rate: f64, seconds: u32) -> u32 {
    (rate * f64::from(seconds)) as u32
}

/// Encoded requests with bodies of their own.
fn bodies(round: usize, numbers: std::ops::Range<u32>) -> Vec<Vec<u8>> {
    let body = |number| {
        let body = PREDICT.body.replace("0.2]", &format!("{round}.{number:07}]"));
        client::post(IRIS, Operation { body: &body, ..PREDICT })
    };
    numbers.map(body).collect()
}
