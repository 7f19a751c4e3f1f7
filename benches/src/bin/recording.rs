//! Overhead of the prediction log, of its modes and of drift detection: servers that differ in one of
//! them, under the same load in alternating slices, as machines are noisy. The mode synchronous is
//! compared with one fsync for each record, of a program that does nothing else. Also the memory of the example
//! application with all features, and speed and memory of exports of the log. Prints Markdown.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use spinfer_benches::application::{
    Application, INFER, IRIS, Operation, PREDICT, iris_component, iris_model, root,
};
use spinfer_benches::client::{self, Connection};
use spinfer_benches::process::Process;
use spinfer_benches::server::{Server, spinfer_command, spinfer_in};
use spinfer_benches::{machine, median, wrk};

#[derive(Parser)]
struct Options {
    /// Rounds; ratios are medians over them
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Duration of each slice, in seconds
    #[arg(long, default_value_t = 2)]
    seconds: u32,
    /// Number of keep-alive connections
    #[arg(long, default_value_t = 64)]
    connections: u32,
    /// Number of records of each exported log
    #[arg(long, value_delimiter = ',', default_value = "1000000,5000000")]
    records: Vec<usize>,
    /// Folder on the disk to measure [default: the system's folder for temporary files]
    #[arg(long)]
    dir: Option<PathBuf>,
}

/// The route of the example experiment.
const ROUTED: &str = "/v2/models/iris";

const OFF: &str = "tool.spinfer.prediction_log.enabled = false";
const LOG: &str = "tool.spinfer.drift.enabled = false";
const DRIFT: &str = "";
const DURABLE: &str =
    "tool.spinfer.drift.enabled = false\ntool.spinfer.prediction_log.mode = \"durable\"";
const SYNCHRONOUS: &str =
    "tool.spinfer.drift.enabled = false\ntool.spinfer.prediction_log.mode = \"synchronous\"";

fn main() -> Result<()> {
    let options = Options::parse();
    let dir = match &options.dir {
        Some(dir) => tempfile::tempdir_in(dir)?,
        None => tempfile::tempdir()?,
    };
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}\n", machine()?)?;
    let off = serve("off", OFF, dir.path())?;
    let log = serve("log", LOG, dir.path())?;
    let drift = serve("drift", DRIFT, dir.path())?;
    let durable = serve("durable", DURABLE, dir.path())?;
    let synchronous = serve("synchronous", SYNCHRONOUS, dir.path())?;
    let text = format!(
        "| comparison | throughput ratio | requests/s of each | CPU us/request of each |\n| --- | --- | --- | --- |\n{}{}{}",
        compare("log on / off", &log, &off, &options, dir.path())?,
        compare("with drift / without", &drift, &log, &options, dir.path())?,
        compare("durable / best-effort", &durable, &log, &options, dir.path())?,
    );
    writeln!(out, "`predict`, version 1, fast door, no response cache:\n\n{text}")?;
    writeln!(out, "{}", group_commit(&synchronous, &options, dir.path())?)?;
    drop((off, log, drift, durable, synchronous));
    writeln!(out, "{}", memory(&options, dir.path())?)?;
    write!(out, "{}", exports(&options.records, dir.path())?)?;
    Ok(())
}

/// Starts the iris classifier with `settings` and its own state directory.
fn serve(name: &str, settings: &str, dir: &Path) -> Result<Server> {
    let application =
        Application::new("").with(IRIS, "iris", &iris_component(), &iris_model("1"), settings);
    Server::start(&mut command(&application.write(dir, name)?, &state(name, dir)?, dir)?)
}

/// The state directory of the server `name`.
fn state(name: &str, dir: &Path) -> Result<PathBuf> {
    let state = dir.join(format!("state-{name}"));
    std::fs::create_dir_all(&state)?;
    Ok(state)
}

/// `spinfer up` without a response cache, with its own prediction log.
fn command(manifest: &Path, state: &Path, dir: &Path) -> Result<Command> {
    let mut command = spinfer_in(manifest, state);
    let config = dir.join("recording.toml");
    std::fs::write(&config, "[cache]\nmemory = 0\n[prediction_log]\nmax_size = \"16GiB\"\n")
        .with_context(|| config.display().to_string())?;
    command.arg("--runtime-config-file").arg(config);
    Ok(command)
}

/// A row of the table: `subject` compared with `base`.
fn compare(
    name: &str,
    subject: &Server,
    base: &Server,
    options: &Options,
    dir: &Path,
) -> Result<String> {
    let mut figures: [Vec<(f64, f64)>; 2] = Default::default();
    // The first slice of each is a warm-up.
    for round in 0..=options.rounds {
        for (server, figures) in [subject, base].into_iter().zip(&mut figures) {
            let before = server.process().cpu_seconds()?;
            let load = wrk::Load { connections: options.connections, seconds: options.seconds };
            let slice = wrk::run(server, IRIS, PREDICT, load, dir)?;
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

/// Requests per second of the mode synchronous, compared with one fsync for each record.
fn group_commit(server: &Server, options: &Options, dir: &Path) -> Result<String> {
    let mut figures = Vec::new();
    // The first slice of each is a warm-up.
    for round in 0..=options.rounds {
        let load = wrk::Load { connections: options.connections, seconds: options.seconds };
        let slice = wrk::run(server, IRIS, PREDICT, load, dir)?;
        let single = synced_per_second(Duration::from_secs(options.seconds.into()), dir)?;
        if round > 0 {
            figures.push((slice.requests_per_second, single, slice.p50_ms, slice.p99_ms));
        }
    }
    let ratio = median(figures.iter().map(|slice| slice.0 / slice.1));
    let [rate, single, p50, p99] = [
        median(figures.iter().map(|slice| slice.0)),
        median(figures.iter().map(|slice| slice.1)),
        median(figures.iter().map(|slice| slice.2)),
        median(figures.iter().map(|slice| slice.3)),
    ];
    Ok(format!(
        "Mode synchronous with {} connections: {rate:.0} requests/s (p50 {p50:.2} ms, p99 {p99:.2} ms), \
         {ratio:.1} times {single:.0}/s, the rate of one fsync for each record on the same disk.\n",
        options.connections
    ))
}

/// Records per second that are appended to a file with an fsync after each.
fn synced_per_second(time: Duration, dir: &Path) -> Result<f64> {
    /// Size of a record of iris in the log, in bytes.
    const RECORD: [u8; 300] = [0; 300];
    let path = dir.join("one-by-one");
    let mut file = File::create(&path).with_context(|| path.display().to_string())?;
    let start = Instant::now();
    let mut records = 0_u32;
    while start.elapsed() < time {
        file.write_all(&RECORD)?;
        file.sync_data()?;
        records += 1;
    }
    Ok(f64::from(records) / start.elapsed().as_secs_f64())
}

/// Resident memory of the example application under load, with all features on.
fn memory(options: &Options, dir: &Path) -> Result<String> {
    let state = state("example", dir)?;
    let server = Server::start(&mut command(&root().join("spin.toml"), &state, dir)?)?;
    let load = wrk::Load { connections: options.connections, seconds: options.seconds };
    let mut max: f64 = 0.0;
    for route in [ROUTED, &format!("{IRIS}/versions/1"), &format!("{IRIS}/versions/2")] {
        for operation in [PREDICT, INFER] {
            wrk::run(&server, route, operation, load, dir)?;
            max = max.max(server.process().resident()?.total());
        }
    }
    let log = state.join("predictions.db");
    let size = std::fs::metadata(&log).with_context(|| log.display().to_string())?.len();
    ensure!(size > 0, "the prediction log is empty");
    Ok(format!(
        "\nResident memory of the example application with prediction log, drift and experiment, under load: \
         {max:.0} MiB, {:.0} MB.\n",
        max * 1.048_576
    ))
}

/// Rows of a request that fills the log.
const BATCH: usize = 1000;
/// Number of requests between two waits for the log's writer, whose queue has 65,536 records.
const BATCHES: usize = 30;
/// Feedback for a prediction that does not exist. Its response arrives once all records before it
/// are written.
const BARRIER: &str = r#"{"prediction_id": "00000000-0000-7000-8000-000000000000", "reward": 0}"#;

/// Exports of logs of iris with these numbers of records.
fn exports(records: &[usize], dir: &Path) -> Result<String> {
    let mut text =
        "| records | format | records/s | peak MB |\n| --- | --- | --- | --- |\n".to_owned();
    for &records in records {
        let name = format!("export-{records}");
        let state = filled(&name, records, dir)?;
        for format in ["parquet", "csv", "jsonl"] {
            let file = dir.join(format!("log.{format}"));
            let mut command = spinfer_command();
            command.args(["log", "export", "--model", "iris-classifier", "--version", "1", "-o"]);
            command
                .arg(&file)
                .arg("--state-dir")
                .arg(&state)
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            let (took, peak) = run(&mut command)?;
            std::fs::remove_file(&file).with_context(|| file.display().to_string())?;
            let rate = records as f64 / took.as_secs_f64();
            let _ =
                writeln!(text, "| {records} | {format} | {rate:.0} | {:.1} |", peak * 1.048_576);
        }
    }
    Ok(text)
}

/// A state directory with a log of `records` records.
fn filled(name: &str, records: usize, dir: &Path) -> Result<PathBuf> {
    let server = serve(name, "", dir)?;
    let row = "[5.1, 3.5, 1.4, 0.2]";
    let body = format!("{{\"instances\": [{}]}}", vec![row; BATCH].join(", "));
    let batch = client::post(IRIS, Operation { name: "predict", body: &body });
    let barrier = client::post("/v2", Operation { name: "feedback", body: BARRIER });
    let mut connection = Connection::open(server.address)?;
    let mut send = |request: &[u8]| -> Result<()> {
        let response = connection.send(request)?;
        ensure!(response.status == 200, "{}: {}", response.status, response.body);
        Ok(())
    };
    for number in 0..records / BATCH {
        send(&batch)?;
        if number % BATCHES == BATCHES - 1 {
            send(&barrier)?;
        }
    }
    send(&barrier)?;
    state(name, dir)
}

/// Runs a command. Returns its duration and its peak of resident memory, in MiB.
fn run(command: &mut Command) -> Result<(Duration, f64)> {
    let start = Instant::now();
    let mut child = command.spawn()?;
    let mut peak: f64 = 0.0;
    loop {
        // proc(5) does not have it once it has exited.
        if let Ok(current) = Process(child.id()).peak() {
            peak = peak.max(current);
        }
        if let Some(status) = child.try_wait()? {
            ensure!(status.success(), "{command:?}: {status}");
            return Ok((start.elapsed(), peak));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
