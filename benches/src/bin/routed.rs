//! Overhead of the A/B router: predictions through it, with two components that serve half of the
//! users each, compared with predictions of one of these components without it, in alternating
//! rounds. Prints Markdown.

use std::io::Write as _;

use anyhow::{Result, ensure};
use clap::Parser;
use spinfer_benches::application::{Application, IRIS, PREDICT, iris_component, iris_model, root};
use spinfer_benches::server::{Server, spinfer};
use spinfer_benches::wrk::{self, Figures, Load};
use spinfer_benches::{machine, median};

#[derive(Parser)]
struct Options {
    /// Rounds; figures are medians over them
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Duration of each load in each round, in seconds
    #[arg(long, default_value_t = 3)]
    seconds: u32,
    /// Number of keep-alive connections
    #[arg(long, default_value_t = 64)]
    connections: u32,
    /// Minimum ratio of throughputs, routed / direct; below it the tool fails
    #[arg(long, default_value_t = 0.7)]
    min_ratio: f64,
}

/// The route of the A/B router.
const ROUTED: &str = "/v2/models/iris";

const EXPERIMENTS: &str = r#"
[experiments.iris]
model = "iris"
unit = { header = "x-user-id" }
[[experiments.iris.variants]]
name = "control"
component = "one"
model = "iris-classifier"
allocation = 0.5
[[experiments.iris.variants]]
name = "treatment"
component = "two"
model = "iris-classifier"
allocation = 0.5
"#;

fn main() -> Result<()> {
    let Options { rounds, seconds, connections, min_ratio } = Options::parse();
    let dir = tempfile::tempdir()?;
    std::fs::write(dir.path().join("experiments.toml"), EXPERIMENTS)?;
    let component = iris_component();
    let router = root().join("target/components/wasm32-wasip2/component/ab_router.wasm");
    let manifest = Application::new("")
        .with(IRIS, "one", &component, &iris_model("1"), "")
        .with("/two", "two", &component, &iris_model("1"), "")
        .and(&format!(
            "[[trigger.http]]\nroute = '{ROUTED}/...'\ncomponent = 'ab-router'\n\
             [component.ab-router]\nsource = '{}'\n\
             files = [{{ source = 'experiments.toml', destination = '/experiments.toml' }}]\n\
             key_value_stores = ['default']\n\
             allowed_outbound_hosts = ['http://*.spin.internal']\n",
            router.display()
        ))
        .write(dir.path(), "routed")?;
    let server = Server::start(&mut spinfer(&manifest)?)?;
    let load = Load { connections, seconds };
    let run = |route: &str| {
        let url = format!("http://{}{route}/{}", server.address, PREDICT.name);
        // Each request has another user.
        let script = format!(
            "wrk.body = '{}'\nlocal user = 0\nfunction request()\n  user = user + 1\n  \
             wrk.headers['x-user-id'] = 'user-' .. user\n  return wrk.format()\nend\n",
            PREDICT.body
        );
        wrk::run_script(&url, &script, load, dir.path())
    };
    run(ROUTED)?;
    let (mut direct, mut routed) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        direct.push(run(IRIS)?);
        routed.push(run(ROUTED)?);
    }
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}\n", machine()?)?;
    writeln!(out, "| iris, predict | requests/s | p50 ms | p99 ms |")?;
    writeln!(out, "| --- | --- | --- | --- |")?;
    writeln!(out, "| direct | {} |", figures(&direct))?;
    writeln!(out, "| through the A/B router | {} |", figures(&routed))?;
    let ratios = routed.iter().zip(&direct);
    let ratio = median(
        ratios.map(|(routed, direct)| routed.requests_per_second / direct.requests_per_second),
    );
    writeln!(out, "\nrouted / direct: {ratio:.2}")?;
    ensure!(ratio >= min_ratio, "the ratio is below {min_ratio}");
    Ok(())
}

fn figures(rounds: &[Figures]) -> String {
    let of = |figure: fn(&Figures) -> f64| median(rounds.iter().map(figure));
    format!(
        "{:.0} | {:.3} | {:.3}",
        of(|f| f.requests_per_second),
        of(|f| f.p50_ms),
        of(|f| f.p99_ms)
    )
}
