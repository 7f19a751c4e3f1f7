//! The load comparison: servers of the iris classifier under the same load of `wrk`, in alternating
//! slices. Ratios are medians over the rounds of the ratio within a round, as machines are noisy.
//! Every server must return the same probabilities. Prints Markdown.
//!
//! Load generator and server share the cores. With new bodies, no request occurs twice; repeated ones
//! are a thousand, over and over.

use std::fmt::Write as _;
use std::io::Write;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use clap::Parser;
use spinfer_benches::application::{
    Application, INFER, IRIS, Operation, PREDICT, iris_component, iris_model,
};
use spinfer_benches::probabilities::Probabilities;
use spinfer_benches::server::{Server, go, reference, spinfer_in, spinfer_without_cache_in};
use spinfer_benches::{machine, median, wrk};

#[derive(Parser)]
struct Options {
    /// Rounds; figures are medians over them
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Duration of the load on each server in each round, in seconds
    #[arg(long, default_value_t = 4)]
    seconds: u32,
    /// Number of keep-alive connections
    #[arg(long, default_value_t = 64)]
    connections: u32,
    /// Version of the iris classifier; the Go service only has version 1
    #[arg(long, default_value = "1")]
    version: String,
}

const REFERENCE: &str = "native reference";
const ONNX_RUNTIME: &str = "native reference, ONNX Runtime";
const GO: &str = "Go net/http";
const GO_LRU: &str = "Go net/http with an LRU";
const FAST: &str = "spinfer, fast door";
const STANDARD: &str = "spinfer, standard door";
const WITHOUT_CACHE: &str = "spinfer, as installed, cache off";
const INSTALLED: &str = "spinfer, as installed";

/// The ratios with a target: with new bodies, and with repeated ones.
const NEW_RATIOS: [(&str, &str); 5] = [
    (FAST, REFERENCE),
    (FAST, GO),
    (STANDARD, REFERENCE),
    (INSTALLED, WITHOUT_CACHE),
    (INSTALLED, GO_LRU),
];
const REPEATED_RATIOS: [(&str, &str); 1] = [(INSTALLED, GO_LRU)];

/// Number of repeated bodies.
const REPEATED: u32 = 1000;
/// Number of responses that the Go service caches, more than repeated bodies.
const LRU: usize = 100_000;

/// Figures of a server under load.
struct Figures {
    peak: wrk::Figures,
    cpu_us: f64,
    memory_mib: f64,
}

/// A server, and its figures in each round.
struct Row {
    name: &'static str,
    command: Command,
    figures: Vec<Figures>,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let dir = tempfile::tempdir()?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", machine()?)?;
    for operation in [PREDICT, INFER] {
        let mut rows = all(dir.path(), &options)?;
        let script = wrk::distinct(operation, 0);
        measure(&mut rows, operation, &script, &options, dir.path())?;
        writeln!(out, "\n`{}`, version {}, every body new:\n", operation.name, options.version)?;
        writeln!(out, "{}\n{}", table(&rows), ratios(&rows, &NEW_RATIOS))?;
        let mut rows = all(dir.path(), &options)?;
        rows.retain(|row| [GO_LRU, INSTALLED].contains(&row.name));
        let script = wrk::repeated(operation, REPEATED);
        measure(&mut rows, operation, &script, &options, dir.path())?;
        writeln!(out, "{REPEATED} bodies, repeated:\n\n{}", table(&rows))?;
        write!(out, "{}", ratios(&rows, &REPEATED_RATIOS))?;
    }
    Ok(())
}

/// Every server. The doors are compared without prediction log, which the reference lacks.
fn all(dir: &Path, options: &Options) -> Result<Vec<Row>> {
    const NO_LOG: &str = "tool.spinfer.prediction_log.enabled = false";
    let (component, model) = (iris_component(), iris_model(&options.version));
    let manifest = |name: &str, settings: &str| {
        Application::new("").with(IRIS, "iris", &component, &model, settings).write(dir, name)
    };
    let fast = manifest("fast", &format!("tool.spinfer.door = 'fast'\n{NO_LOG}"))?;
    let standard = manifest("standard", &format!("tool.spinfer.door = 'standard'\n{NO_LOG}"))?;
    let installed = manifest("installed", "")?;
    let state = dir.join("state");
    std::fs::create_dir_all(&state)?;
    let mut onnx_runtime = reference(&model);
    onnx_runtime.args(["--evaluator", "onnxruntime"]);
    let mut servers = vec![(REFERENCE, reference(&model)), (ONNX_RUNTIME, onnx_runtime)];
    if options.version == "1" {
        servers.extend([(GO, go(0)), (GO_LRU, go(LRU))]);
    }
    servers.extend([
        (FAST, spinfer_without_cache_in(&fast, &state)?),
        (STANDARD, spinfer_without_cache_in(&standard, &state)?),
        (WITHOUT_CACHE, spinfer_without_cache_in(&installed, &state)?),
        (INSTALLED, spinfer_in(&installed, &state)),
    ]);
    let rows = servers.into_iter();
    Ok(rows.map(|(name, command)| Row { name, command, figures: Vec::new() }).collect())
}

fn measure(
    rows: &mut [Row],
    operation: Operation<'_>,
    script: &str,
    options: &Options,
    dir: &Path,
) -> Result<()> {
    let load = wrk::Load { connections: options.connections, seconds: options.seconds };
    let mut expected = None;
    for _ in 0..options.rounds {
        for Row { name, command, figures } in &mut *rows {
            let server = Server::start(command)?;
            let probabilities = Probabilities::of(&server, operation)?;
            let expected = expected.get_or_insert_with(|| probabilities.clone());
            expected.check(&probabilities).context(*name)?;
            let before = server.process().cpu_seconds()?;
            let url = format!("http://{}{IRIS}/{}", server.address, operation.name);
            let peak = wrk::run_script(&url, script, load, dir)?;
            let cpu_us = (server.process().cpu_seconds()? - before) * 1e6 / peak.requests;
            let memory_mib = server.process().resident()?.total();
            figures.push(Figures { peak, cpu_us, memory_mib });
        }
    }
    Ok(())
}

/// Medians over the rounds; the ratio is to the first server.
fn table(rows: &[Row]) -> String {
    let mut text = String::from(
        "| server | requests/s | ratio | p50 ms | p99 ms | CPU us/request | resident MiB |\n\
         | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    for row in rows {
        let of = |field: fn(&Figures) -> f64| median(row.figures.iter().map(field));
        let _ = writeln!(
            text,
            "| {} | {:.0} | {:.2} | {:.2} | {:.2} | {:.1} | {:.0} |",
            row.name,
            of(|f| f.peak.requests_per_second),
            ratio(row, &rows[0]),
            of(|f| f.peak.p50_ms),
            of(|f| f.peak.p99_ms),
            of(|f| f.cpu_us),
            of(|f| f.memory_mib),
        );
    }
    text
}

/// The median over the rounds of the ratio of throughputs.
fn ratio(row: &Row, base: &Row) -> f64 {
    let rounds = row.figures.iter().zip(&base.figures);
    median(rounds.map(|(a, b)| a.peak.requests_per_second / b.peak.requests_per_second))
}

/// The ratios of those `pairs` that were measured.
fn ratios(rows: &[Row], pairs: &[(&str, &str)]) -> String {
    let find = |name: &str| rows.iter().find(|row| row.name == name);
    let mut text = String::from("| ratio of throughputs | |\n| --- | --- |\n");
    for (name, base) in pairs {
        if let (Some(row), Some(base)) = (find(name), find(base)) {
            let _ = writeln!(text, "| {name} / {} | {:.2} |", base.name, ratio(row, base));
        }
    }
    text
}
