//! What the prediction log, drift and the A/B router cost: servers that differ in one of them under
//! the same load, in alternating slices, as machines are noisy. Prints Markdown.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use spinfer_benches::application::{
    Application, INFER, IRIS, PREDICT, iris_component, iris_model, root,
};
use spinfer_benches::server::{Server, spinfer_in, without_cache};
use spinfer_benches::{machine, median, wrk};

#[derive(Parser)]
struct Options {
    /// Rounds; the median of their ratios counts
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Seconds of each slice
    #[arg(long, default_value_t = 2)]
    seconds: u32,
    /// Keep-alive connections
    #[arg(long, default_value_t = 64)]
    connections: u32,
}

/// The public name of the example experiment.
const ROUTED: &str = "/v2/models/iris";

const OFF: &str = "tool.spinfer.prediction_log.enabled = false";
const LOG: &str = "tool.spinfer.drift.enabled = false";
const DRIFT: &str = "";

fn main() -> Result<()> {
    let options = Options::parse();
    let dir = tempfile::tempdir()?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}\n", machine()?)?;
    let off = serve("off", OFF, dir.path())?;
    let log = serve("log", LOG, dir.path())?;
    let drift = serve("drift", DRIFT, dir.path())?;
    let text = format!(
        "| figure | ratio | requests/s of each | CPU us of each |\n| --- | --- | --- | --- |\n{}{}{}",
        compare("log on / off", (&log, IRIS), (&off, IRIS), &options, dir.path())?,
        compare("with drift / without", (&drift, IRIS), (&log, IRIS), &options, dir.path())?,
        compare("routed / direct", (&off, ROUTED), (&off, IRIS), &options, dir.path())?,
    );
    writeln!(out, "`predict`, version 1, the fast door, nothing cached:\n\n{text}")?;
    drop((off, log, drift));
    write!(out, "{}", memory(&options, dir.path())?)?;
    Ok(())
}

/// The iris classifier with `settings`, and a router to it, with a state directory of its own.
fn serve(name: &str, settings: &str, dir: &Path) -> Result<Server> {
    let experiments = dir.join("experiments");
    std::fs::create_dir_all(&experiments)?;
    std::fs::write(
        experiments.join("experiments.toml"),
        "[experiments.iris]\nmodel = 'iris'\nunit = { header = 'x-user-id' }\n\
         [[experiments.iris.variants]]\nname = 'control'\ncomponent = 'iris'\n\
         model = 'iris-classifier'\nallocation = 0.5\n\
         [[experiments.iris.variants]]\nname = 'treatment'\ncomponent = 'iris'\n\
         model = 'iris-classifier'\nallocation = 0.5\n",
    )?;
    let router = root().join("target/components/wasm32-wasip2/component/ab_router.wasm");
    let manifest = Application::new("")
        .with(IRIS, "iris", &iris_component(), &iris_model("1"), settings)
        .and(&format!(
            "[[trigger.http]]\nroute = '{ROUTED}/...'\ncomponent = 'router'\n[component.router]\n\
             source = '{}'\nkey_value_stores = ['default']\n\
             allowed_outbound_hosts = ['http://*.spin.internal']\n\
             files = [{{ source = '{}', destination = '/' }}]\n",
            router.display(),
            experiments.display(),
        ))
        .write(dir, name)?;
    Server::start(&mut command(&manifest, name, dir)?)
}

/// `spinfer up` without a cache, with a log of its own.
fn command(manifest: &Path, name: &str, dir: &Path) -> Result<Command> {
    let state: PathBuf = dir.join(format!("state-{name}"));
    std::fs::create_dir_all(&state)?;
    let mut command = spinfer_in(manifest, &state);
    command.arg("--runtime-config-file").arg(without_cache(dir)?);
    Ok(command)
}

/// A server and a route of it.
type Subject<'a> = (&'a Server, &'a str);

/// A row: `subject` against `base`.
fn compare(
    name: &str,
    subject: Subject<'_>,
    base: Subject<'_>,
    options: &Options,
    dir: &Path,
) -> Result<String> {
    let mut figures: [Vec<(f64, f64)>; 2] = Default::default();
    // The first slice of each warms it up.
    for round in 0..=options.rounds {
        for ((server, route), figures) in [subject, base].into_iter().zip(&mut figures) {
            let before = server.process().cpu_seconds()?;
            let load = wrk::Load { connections: options.connections, seconds: options.seconds };
            let slice = wrk::run(server, route, PREDICT, load, dir)?;
            let cpu = (server.process().cpu_seconds()? - before) * 1e6 / slice.requests;
            if round > 0 {
                figures.push((slice.requests_per_second, cpu));
            }
        }
    }
    let [subject, base] = &figures;
    let ratio = median(subject.iter().zip(base).map(|(a, b)| a.0 / b.0));
    let rate = |of: &[(f64, f64)]| median(of.iter().map(|slice| slice.0));
    let cpu = |of: &[(f64, f64)]| median(of.iter().map(|slice| slice.1));
    let mut row = String::new();
    let _ = writeln!(
        row,
        "| {name} | {ratio:.2} | {:.0}, {:.0} | {:.1}, {:.1} |",
        rate(subject),
        rate(base),
        cpu(subject),
        cpu(base),
    );
    Ok(row)
}

/// Resident memory of the example application with everything on, under load.
fn memory(options: &Options, dir: &Path) -> Result<String> {
    let server = Server::start(&mut command(&root().join("spin.toml"), "example", dir)?)?;
    let load = wrk::Load { connections: options.connections, seconds: options.seconds };
    let mut most: f64 = 0.0;
    for route in [ROUTED, &format!("{IRIS}/versions/1"), &format!("{IRIS}/versions/2")] {
        for operation in [PREDICT, INFER] {
            wrk::run(&server, route, operation, load, dir)?;
            most = most.max(server.process().resident()?.total());
        }
    }
    let log = dir.join("state-example/predictions.db");
    let size = std::fs::metadata(&log).with_context(|| log.display().to_string())?.len();
    ensure!(size > 0, "nothing was recorded");
    Ok(format!(
        "\nResident memory of the example application with log, drift and experiment, under load: \
         {most:.0} MiB, {:.0} MB.\n",
        most * 1.048_576
    ))
}
