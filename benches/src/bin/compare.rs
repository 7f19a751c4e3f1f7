//! The load comparison: each server in turn under the same load, several rounds, and every figure
//! as a ratio to the native reference of the same round, as machines are noisy. Prints Markdown.
//!
//! The load is `wrk` with keep-alive connections, on the same cores as the server.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;

#[derive(Parser)]
struct Options {
    /// Rounds; the median counts
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of load on each server in each round
    #[arg(long, default_value_t = 5)]
    seconds: u32,
    /// Keep-alive connections
    #[arg(long, default_value_t = 64)]
    connections: u32,
    /// Version of the iris classifier
    #[arg(long, default_value = "1")]
    version: String,
}

struct Load {
    name: &'static str,
    path: &'static str,
    body: &'static str,
}

const LOADS: [Load; 2] = [
    Load {
        name: "predict",
        path: "/v2/models/iris-classifier/predict",
        body: r#"{"features": [5.1, 3.5, 1.4, 0.2]}"#,
    },
    Load {
        name: "infer",
        path: "/v2/models/iris-classifier/infer",
        body: r#"{"inputs": [{"name": "features", "shape": [1, 4], "datatype": "FP32", "data": [5.1, 3.5, 1.4, 0.2]}]}"#,
    },
];

/// A server under load, and what it cost.
#[derive(Clone, Copy)]
struct Figures {
    requests_per_second: f64,
    p50_ms: f64,
    p99_ms: f64,
    cpu_us: f64,
    memory_mib: f64,
}

struct Server {
    child: Child,
    address: String,
}

impl Server {
    fn start(command: &mut Command) -> Result<Self> {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("{command:?}; `make bench` builds it"))?;
        let mut line = String::new();
        let out = child.stdout.take().context("piped")?;
        BufReader::new(out).read_line(&mut line)?;
        let address = line.trim().strip_prefix("Serving http://");
        let address = address.with_context(|| format!("{command:?} did not serve"))?.to_owned();
        Ok(Self { child, address })
    }

    fn load(&self, load: &Load, script: &Path, options: &Options) -> Result<Figures> {
        let before = self.cpu_seconds()?;
        let output = Command::new("wrk")
            .args(["--threads", "1", "--latency", "--connections"])
            .arg(options.connections.to_string())
            .arg(format!("--duration={}s", options.seconds))
            .arg("--script")
            .arg(script)
            .arg(format!("http://{}{}", self.address, load.path))
            .output()
            .context("wrk is missing: apt-get install wrk")?;
        let text = String::from_utf8_lossy(&output.stdout);
        let errors = text.contains("Non-2xx") || text.contains("Socket errors");
        ensure!(!errors, "errors under load:\n{text}");
        let field = |label: &str| {
            let line = text.lines().find_map(|line| line.trim().strip_prefix(label));
            line.map(str::trim).with_context(|| format!("wrk printed no {label:?}:\n{text}"))
        };
        let requests: f64 = text
            .lines()
            .find_map(|line| line.trim().split_once(" requests in "))
            .context("wrk printed no count")?
            .0
            .parse()?;
        Ok(Figures {
            requests_per_second: field("Requests/sec:")?.parse()?,
            p50_ms: milliseconds(field("50%")?)?,
            p99_ms: milliseconds(field("99%")?)?,
            cpu_us: (self.cpu_seconds()? - before) * 1e6 / requests,
            memory_mib: self.memory_mib()?,
        })
    }

    /// User and system time so far, from proc(5).
    fn cpu_seconds(&self) -> Result<f64> {
        const TICKS_PER_SECOND: f64 = 100.0;
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        let after_name = stat.rsplit_once(')').context("proc(5)")?.1;
        let fields: Vec<&str> = after_name.split_whitespace().collect();
        Ok((fields[11].parse::<f64>()? + fields[12].parse::<f64>()?) / TICKS_PER_SECOND)
    }

    fn memory_mib(&self) -> Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line =
            status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("proc(5)")?;
        Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? / 1024.0)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn milliseconds(text: &str) -> Result<f64> {
    for (unit, factor) in [("us", 1e-3), ("ms", 1.0), ("s", 1e3)] {
        if let Some(number) = text.strip_suffix(unit) {
            return Ok(number.parse::<f64>()? * factor);
        }
    }
    bail!("not a duration: {text}")
}

fn main() -> Result<()> {
    let options = Options::parse();
    let dir = tempfile::tempdir()?;
    let servers = [
        ("native reference", reference(&options)),
        ("spinfer, fast door", spinfer(dir.path(), &options, "fast")?),
        ("spinfer, standard door", spinfer(dir.path(), &options, "standard")?),
    ];
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", machine()?)?;
    for load in &LOADS {
        let script = dir.path().join("post.lua");
        std::fs::write(
            &script,
            format!(
                "wrk.method = 'POST'\nwrk.body = '{}'\n\
                 wrk.headers['content-type'] = 'application/json'\n",
                load.body
            ),
        )?;
        let mut figures: Vec<Vec<Figures>> = servers.iter().map(|_| Vec::new()).collect();
        for _ in 0..options.rounds {
            for ((_, command), figures) in servers.iter().zip(&mut figures) {
                let server = Server::start(&mut command())?;
                figures.push(server.load(load, &script, &options)?);
            }
        }
        let names = servers.iter().map(|(name, _)| *name);
        writeln!(out, "\n`{}`, version {}:\n", load.name, options.version)?;
        writeln!(out, "{}", table(names.zip(&figures)))?;
    }
    Ok(())
}

type Starter = Box<dyn Fn() -> Command>;

fn reference(options: &Options) -> Starter {
    let model = root().join(format!("models/iris-classifier/{}/model.onnx", options.version));
    Box::new(move || {
        let mut command = Command::new(beside("reference"));
        command.arg(&model);
        command
    })
}

/// The example component behind `door`.
fn spinfer(dir: &Path, options: &Options, door: &str) -> Result<Starter> {
    let (root, version) = (root(), &options.version);
    let manifest = format!(
        "spin_manifest_version = 2\n[application]\nname = 'compare'\n\
         [[trigger.http]]\nroute = '/v2/models/iris-classifier/...'\ncomponent = 'iris'\n\
         [component.iris]\n\
         source = '{root}/target/components/wasm32-wasip2/component/iris_classifier.wasm'\n\
         files = [{{ source = '{root}/models/iris-classifier/{version}', \
         destination = '/models/iris-classifier' }}]\n\
         tool.spinfer.door = '{door}'\n",
        root = root.display()
    );
    let path = dir.join(format!("{door}.toml"));
    std::fs::write(&path, manifest)?;
    let state_dir = dir.join("state");
    Ok(Box::new(move || {
        let mut command = Command::new(beside("spinfer"));
        command.args(["up", "--quiet", "--listen", "127.0.0.1:0", "--from"]).arg(&path);
        command.arg("--state-dir").arg(&state_dir);
        command
    }))
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_owned).unwrap_or_default()
}

/// A binary of the same build.
fn beside(name: &str) -> PathBuf {
    std::env::current_exe().unwrap_or_default().with_file_name(name)
}

/// Medians over the rounds; the ratio is the median of the rounds' ratios.
fn table<'a>(rows: impl Iterator<Item = (&'a str, &'a Vec<Figures>)>) -> String {
    let rows: Vec<_> = rows.collect();
    let reference = rows[0].1;
    let mut text = String::from(
        "| server | requests/s | ratio | p50 ms | p99 ms | CPU us/request | resident MiB |\n\
         | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    for (name, figures) in &rows {
        let of = |field: fn(&Figures) -> f64| median(figures.iter().map(field));
        let ratios = figures.iter().zip(reference);
        let ratio = median(ratios.map(|(a, b)| a.requests_per_second / b.requests_per_second));
        let _ = writeln!(
            text,
            "| {name} | {:.0} | {ratio:.2} | {:.2} | {:.2} | {:.1} | {:.0} |",
            of(|f| f.requests_per_second),
            of(|f| f.p50_ms),
            of(|f| f.p99_ms),
            of(|f| f.cpu_us),
            of(|f| f.memory_mib),
        );
    }
    text
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The kind of machine, for the record.
fn machine() -> Result<String> {
    let info = std::fs::read_to_string("/proc/cpuinfo")?;
    let model = info.lines().find_map(|line| line.strip_prefix("model name"));
    let model = model.map_or("unknown CPU", |line| line.trim_start_matches([' ', '\t', ':']));
    Ok(format!("{} cores of {model}", std::thread::available_parallelism()?))
}
