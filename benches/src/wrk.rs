//! Closed-loop load by `wrk`: each connection waits for a response before it sends the next
//! request. It measures the maximum throughput of a server.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::application::Operation;
use crate::server::Server;

/// A load.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Number of keep-alive connections.
    pub connections: u32,
    /// Duration, in seconds.
    pub seconds: u32,
}

/// The result of a load.
#[derive(Clone, Copy, Debug)]
pub struct Figures {
    /// Number of responses.
    pub requests: f64,
    pub requests_per_second: f64,
    /// Median latency, in milliseconds.
    pub p50_ms: f64,
    /// 99th percentile of the latency, in milliseconds.
    pub p99_ms: f64,
}

/// Loads the model at `route`. The script is written into `dir`.
///
/// # Errors
/// If `wrk` fails, or a response is not 2xx.
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

/// Loads `url` with the requests of a Lua script, which is written into `dir`.
///
/// # Errors
/// If `wrk` fails, or a response is not 2xx.
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
        .context("wrk is not installed: apt-get install wrk")?;
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

/// A script that sends another body with each request: the last feature of `operation` counts up from
/// `first`.
#[must_use]
pub fn distinct(operation: Operation<'_>, first: u32) -> String {
    counting(operation, first, "n")
}

/// A script that sends `count` bodies over and over.
#[must_use]
pub fn repeated(operation: Operation<'_>, count: u32) -> String {
    counting(operation, 0, &format!("n % {count}"))
}

/// A script whose request number `n` has `number`, a Lua expression, as its last feature, in units of
/// 10^-7. Each thread of wrk has its own `n`; there is one thread.
fn counting(operation: Operation<'_>, first: u32, number: &str) -> String {
    let body = operation.body.replace("0.2]", "%.7f]");
    format!(
        "local n = {first}\nrequest = function() n = n + 1\n\
         return wrk.format(nil, nil, nil, string.format('{body}', ({number}) / 1e7)) end\n"
    )
}

fn milliseconds(text: &str) -> Result<f64> {
    for (unit, factor) in [("us", 1e-3), ("ms", 1.0), ("s", 1e3)] {
        if let Some(number) = text.strip_suffix(unit) {
            return Ok(number.parse::<f64>()? * factor);
        }
    }
    bail!("not a duration: {text}")
}
