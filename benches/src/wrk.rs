//! The closed loop: `wrk`, whose connections each wait for an answer before they ask again. What
//! it finds is the most a server serves.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::application::Operation;
use crate::server::Server;

/// How much is asked.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    pub connections: u32,
    pub seconds: u32,
}

/// What came of it.
#[derive(Clone, Copy, Debug)]
pub struct Figures {
    pub requests: f64,
    pub requests_per_second: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
}

/// Loads the model at `route`. Its script is put into `dir`.
pub fn run(
    server: &Server,
    route: &str,
    operation: Operation<'_>,
    load: Load,
    dir: &Path,
) -> Result<Figures> {
    let script = format!("wrk.body = '{}'\n", operation.body);
    let url = format!("http://{}{route}/{}", server.address, operation.name);
    run_script(&url, &script, load, dir)
}

/// The same of requests that a script in Lua makes. It is put into `dir`.
pub fn run_script(url: &str, script: &str, load: Load, dir: &Path) -> Result<Figures> {
    let path = dir.join("post.lua");
    let post = "wrk.method = 'POST'\nwrk.headers['content-type'] = 'application/json'\n";
    std::fs::write(&path, format!("{post}{script}"))?;
    let output = Command::new("wrk")
        .args(["--threads", "1", "--latency", "--connections"])
        .arg(load.connections.to_string())
        .arg(format!("--duration={}s", load.seconds))
        .arg("--script")
        .arg(&path)
        .arg(url)
        .output()
        .context("wrk is missing: apt-get install wrk")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = text.contains("Non-2xx") || text.contains("Socket errors");
    ensure!(!errors, "errors under load:\n{text}");
    let field = |label: &str| {
        let line = text.lines().find_map(|line| line.trim().strip_prefix(label));
        line.map(str::trim).with_context(|| format!("wrk printed no {label:?}:\n{text}"))
    };
    let count = text.lines().find_map(|line| line.trim().split_once(" requests in "));
    Ok(Figures {
        requests: count.context("wrk printed no count")?.0.parse()?,
        requests_per_second: field("Requests/sec:")?.parse()?,
        p50_ms: milliseconds(field("50%")?)?,
        p99_ms: milliseconds(field("99%")?)?,
    })
}

fn milliseconds(text: &str) -> Result<f64> {
    for (unit, factor) in [("us", 1e-3), ("ms", 1.0), ("s", 1e3)] {
        if let Some(number) = text.strip_suffix(unit) {
            return Ok(number.parse::<f64>()? * factor);
        }
    }
    bail!("not a duration: {text}")
}
