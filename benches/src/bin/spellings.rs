//! Effect of canonical cache keys: the hit rate of requests from several clients that encode the
//! same inputs differently. Prints Markdown.

use std::collections::HashSet;
use std::fmt::Display;
use std::io::Write as _;

use anyhow::{Result, ensure};
use clap::Parser;
use spinfer_benches::application::{Application, IRIS, iris_component, iris_model};
use spinfer_benches::client::Connection;
use spinfer_benches::server::{Server, spinfer_with_cache};

#[derive(Parser)]
struct Options {
    /// Number of requests
    #[arg(long, default_value_t = 50_000)]
    requests: usize,
    /// Number of different inputs; the k-th has a probability proportional to 1/k
    #[arg(long, default_value_t = 10_000)]
    inputs: usize,
}

/// Four lengths and widths, in tenths of a centimetre.
type Row = [usize; 4];
/// How a client encodes a row.
type Spelling = fn(&Row) -> String;

/// Encodings of a prediction.
const PREDICT: [Spelling; 5] = [
    // Python: `json.dumps`.
    |row| format!("{{\"features\": [{}]}}", list(row, ", ", python)),
    // Python: `requests.post(json=)`, pandas' `to_json`.
    |row| format!("{{\"features\":[{}]}}", list(row, ",", python)),
    // JavaScript: `JSON.stringify`.
    |row| format!("{{\"features\":[{}]}}", list(row, ",", shortest)),
    // Go: `json.NewEncoder(w).Encode`, which ends the line.
    |row| format!("{{\"features\":[{}]}}\n", list(row, ",", shortest)),
    // By hand for `curl`, with the digits of the measurement.
    |row| format!("{{\"features\": [{}]}}", list(row, ", ", measured)),
];

/// Encodings of an inference (Open Inference Protocol).
const INFER: [Spelling; 5] = [
    // Python, from numpy's `tolist`.
    |row| {
        let data = list(row, ", ", python);
        format!(
            "{{\"inputs\": [{{\"name\": \"features\", \"shape\": [1, 4], \"datatype\": \"FP32\", \"data\": [[{data}]]}}]}}"
        )
    },
    // Triton's client.
    |row| {
        let data = list(row, ",", python);
        format!(
            r#"{{"inputs":[{{"name":"features","shape":[1,4],"datatype":"FP32","data":[{data}]}}]}}"#
        )
    },
    // JavaScript.
    |row| {
        let data = list(row, ",", shortest);
        format!(
            r#"{{"inputs":[{{"name":"features","shape":[1,4],"datatype":"FP32","data":[[{data}]]}}]}}"#
        )
    },
    // Go, in the order of a struct's fields.
    |row| {
        let data = list(row, ",", shortest);
        format!(
            "{{\"inputs\":[{{\"name\":\"features\",\"datatype\":\"FP32\",\"shape\":[1,4],\"data\":[{data}]}}]}}\n"
        )
    },
    // By hand.
    |row| {
        let data = list(row, ", ", measured);
        format!(
            "{{\n  \"inputs\": [\n    {{\"name\": \"features\", \"datatype\": \"FP32\", \"shape\": [1, 4],\n     \"data\": [[{data}]]}}\n  ]\n}}\n"
        )
    },
];

fn list<T: Display>(row: &Row, between: &str, write: fn(f64) -> T) -> String {
    let numbers = row.map(|tenths| write(tenths as f64 / 10.0).to_string());
    numbers.join(between)
}

/// `5.0`.
fn python(number: f64) -> String {
    format!("{number:?}")
}

/// `5`.
fn shortest(number: f64) -> f64 {
    number
}

/// `5.10`, with two decimal places.
fn measured(number: f64) -> String {
    format!("{number:.2}")
}

fn main() -> Result<()> {
    let Options { requests, inputs } = Options::parse();
    let dir = tempfile::tempdir()?;
    let manifest = Application::new("")
        .with(IRIS, "iris", &iris_component(), &iris_model("1"), "")
        .write(dir.path(), "spellings")?;
    let trace = trace(requests, inputs);
    let distinct = trace.iter().map(|(input, _)| input).collect::<HashSet<_>>().len();
    let best = 1.0 - distinct as f64 / requests as f64;
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "| requests | hit rate by bytes | hit rate by meaning | hit rate of one client |"
    )?;
    writeln!(out, "| --- | --- | --- | --- |")?;
    for (operation, spellings) in [("predict", PREDICT), ("infer", INFER)] {
        let rate = |content_type: &str| -> Result<f64> {
            let server = Server::start(&mut spinfer_with_cache(&manifest)?)?;
            let mut connection = Connection::open(server.address)?;
            let mut hits = 0;
            for &(input, client) in &trace {
                let body = spellings[client](&row(input));
                let response = connection.send(&post(operation, content_type, &body))?;
                ensure!(response.status == 200, "{body}: {}", response.body);
                hits += usize::from(response.hit);
            }
            Ok(hits as f64 / trace.len() as f64)
        };
        // The keys of bodies that are not JSON are their bytes.
        let (bytes, meaning) = (rate("text/plain")?, rate("application/json")?);
        writeln!(out, "| {operation} | {bytes:.3} | {meaning:.3} | {best:.3} |")?;
    }
    Ok(())
}

/// Inputs and clients of the requests.
fn trace(requests: usize, inputs: usize) -> Vec<(usize, usize)> {
    let mut random = fastrand::Rng::with_seed(1);
    let mut sum = 0.0;
    let sums: Vec<f64> = (1..=inputs)
        .map(|rank| {
            sum += 1.0 / rank as f64;
            sum
        })
        .collect();
    let input = |random: &mut fastrand::Rng| {
        let drawn = random.f64() * sum;
        sums.partition_point(|&sum| sum < drawn)
    };
    (0..requests).map(|_| (input(&mut random), random.usize(..PREDICT.len()))).collect()
}

/// The features of an input. They are unique.
fn row(input: usize) -> Row {
    let digit = |position| input / 10_usize.pow(position) % 10;
    [40 + digit(0), 20 + digit(1), 10 + digit(2), 1 + digit(3) + 10 * digit(4)]
}

fn post(operation: &str, content_type: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "POST {IRIS}/{operation} HTTP/1.1\r\nhost: localhost\r\ncontent-type: {content_type}\r\n\
         content-length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}
