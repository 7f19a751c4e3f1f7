//! Large inputs: throughput and processor time of requests with an image of 600 kB, as binary data and as
//! JSON, and with a thousand rows, compared with the native reference in the same round. The inference is
//! cheap, so what counts is the way of the bytes. Prints Markdown.
//!
//! How often the bytes are copied: `cargo bench --workspace --bench allocations`.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use serde_json::Value;
use spinfer_benches::application::{Application, IRIS, infer_rows, iris_component, iris_model};
use spinfer_benches::client::{self, Connection};
use spinfer_benches::server::{Server, reference, spinfer_without_cache_in};
use spinfer_benches::{image, machine, median, wrk};

#[derive(Parser)]
struct Options {
    /// Rounds; figures are medians over them
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Duration of the load on each server in each round, in seconds
    #[arg(long, default_value_t = 4)]
    seconds: u32,
    /// Number of keep-alive connections
    #[arg(long, default_value_t = 8)]
    connections: u32,
    /// Number of rows of a batch
    #[arg(long, default_value_t = 1000)]
    rows: u32,
}

/// A request, and the model that it is for.
struct Input {
    name: String,
    model: PathBuf,
    is_image: bool,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let dir = tempfile::tempdir()?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", machine()?)?;
    for input in inputs(dir.path(), &options)? {
        let kilobytes = input.body.len() / 1000;
        writeln!(
            out,
            "\n{}, {kilobytes} kB:\n\n{}",
            input.name,
            measure(&input, &options, dir.path())?
        )?;
    }
    Ok(())
}

fn inputs(dir: &Path, options: &Options) -> Result<[Input; 3]> {
    let model = dir.join("image");
    image::write(&model)?;
    let (binary, json) = image::binary();
    let header = (image::BINARY_HEADER, json.to_string());
    let binary_type = ("content-type", "application/octet-stream".to_owned());
    let json_type = ("content-type", "application/json".to_owned());
    Ok([
        Input {
            name: "image, binary".into(),
            model: model.clone(),
            is_image: true,
            headers: vec![header, binary_type],
            body: binary,
        },
        Input {
            name: "image, JSON".into(),
            model,
            is_image: true,
            headers: vec![json_type.clone()],
            body: image::json().into_bytes(),
        },
        Input {
            name: format!("{} rows of iris, JSON", options.rows),
            model: iris_model("1"),
            is_image: false,
            headers: vec![json_type],
            body: infer_rows(options.rows).into_bytes(),
        },
    ])
}

/// The table of an input.
fn measure(input: &Input, options: &Options, dir: &Path) -> Result<String> {
    let mut servers = servers(input, dir)?.map(|(name, command)| (name, command, Vec::new()));
    let script = script(input, dir)?;
    let load = wrk::Load { connections: options.connections, seconds: options.seconds };
    let mut expected = None;
    for _ in 0..options.rounds {
        for (name, command, figures) in &mut servers {
            let server = Server::start(command)?;
            let outputs = outputs(&server, input).context(*name)?;
            let expected = expected.get_or_insert_with(|| outputs.clone());
            check(expected, &outputs).context(*name)?;
            let before = server.process().cpu_seconds()?;
            let url = format!("http://{}{IRIS}/infer", server.address);
            let peak = wrk::run_script(&url, &script, load, dir)?;
            let cpu = (server.process().cpu_seconds()? - before) * 1e6 / peak.requests;
            figures.push((peak.requests_per_second, cpu, server.process().peak()?));
        }
    }
    let mut text = String::from(
        "| server | requests/s | ratio | CPU us/request | maximum resident MiB |\n\
         | --- | --- | --- | --- | --- |\n",
    );
    let [(_, _, base), ..] = &servers;
    for (name, _, figures) in &servers {
        let of = |field: fn(&(f64, f64, f64)) -> f64| median(figures.iter().map(field));
        let ratio = median(figures.iter().zip(base).map(|(own, base)| own.0 / base.0));
        let _ = writeln!(
            text,
            "| {name} | {:.0} | {ratio:.2} | {:.0} | {:.0} |",
            of(|f| f.0),
            of(|f| f.1),
            of(|f| f.2)
        );
    }
    Ok(text)
}

fn servers(input: &Input, dir: &Path) -> Result<[(&'static str, Command); 3]> {
    let state = dir.join("state");
    std::fs::create_dir_all(&state)?;
    let mut native = reference(&input.model);
    if input.is_image {
        native.arg("--image");
    }
    let behind = |door: &str| {
        let settings =
            format!("tool.spinfer.door = '{door}'\ntool.spinfer.prediction_log.enabled = false");
        let application =
            Application::new("").with(IRIS, "large", &iris_component(), &input.model, &settings);
        spinfer_without_cache_in(&application.write(dir, door)?, &state)
    };
    Ok([
        ("native reference", native),
        ("spinfer, fast door", behind("fast")?),
        ("spinfer, standard door", behind("standard")?),
    ])
}

/// A script for wrk that sends the request.
fn script(input: &Input, dir: &Path) -> Result<String> {
    let body = dir.join("body");
    std::fs::write(&body, &input.body)?;
    let mut script = format!(
        "local body = io.open('{}', 'rb')\nwrk.body = body:read('*a')\nbody:close()\n",
        body.display()
    );
    for (name, value) in &input.headers {
        let _ = writeln!(script, "wrk.headers['{name}'] = '{value}'");
    }
    Ok(script)
}

/// The numbers of all outputs.
fn outputs(server: &Server, input: &Input) -> Result<Vec<f64>> {
    let request = client::infer(IRIS, &input.headers, &input.body);
    let response = Connection::open(server.address)?.send(&request)?;
    ensure!(response.status == 200, "status {}: {}", response.status, response.body);
    let response: Value = serde_json::from_str(&response.body)?;
    let outputs = response["outputs"].as_array().context("no outputs")?;
    let numbers = outputs.iter().filter_map(|output| output["data"].as_array()).flatten();
    Ok(numbers.filter_map(Value::as_f64).collect())
}

fn check(expected: &[f64], outputs: &[f64]) -> Result<()> {
    const TOLERANCE: f64 = 1e-5;
    let differs = |(a, b): (&f64, &f64)| (a - b).abs() > TOLERANCE;
    ensure!(
        !outputs.is_empty()
            && outputs.len() == expected.len()
            && !outputs.iter().zip(expected).any(differs),
        "the outputs differ from those of the native reference"
    );
    Ok(())
}
