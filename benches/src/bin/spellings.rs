//! What it brings that answers are kept by what bodies mean: how many of the requests of several clients,
//! who write the same questions each in their own way, are answered from the cache. Prints Markdown.

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
    /// Requests of a trace
    #[arg(long, default_value_t = 50_000)]
    requests: usize,
    /// Questions; the k-th is asked with a probability that falls as 1/k
    #[arg(long, default_value_t = 10_000)]
    questions: usize,
}

/// Four lengths and widths, in tenths of a centimetre.
type Row = [usize; 4];
/// How a client writes a body for a row.
type Spelling = fn(&Row) -> String;

/// By what each kind of request is written with.
const PREDICT: [Spelling; 5] = [
    // Python: `json.dumps`.
    |row| format!("{{\"features\": [{}]}}", list(row, ", ", python)),
    // Python: `requests.post(json=)`, pandas' `to_json`.
    |row| format!("{{\"features\":[{}]}}", list(row, ",", python)),
    // JavaScript: `JSON.stringify`.
    |row| format!("{{\"features\":[{}]}}", list(row, ",", shortest)),
    // Go: `json.NewEncoder(w).Encode`, which ends the line.
    |row| format!("{{\"features\":[{}]}}\n", list(row, ",", shortest)),
    // By hand, for `curl`: as it was measured.
    |row| format!("{{\"features\": [{}]}}", list(row, ", ", measured)),
];

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
    // Go, in the order of a structure's fields.
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

/// `5.10`, as a form with two places has it.
fn measured(number: f64) -> String {
    format!("{number:.2}")
}

fn main() -> Result<()> {
    let Options { requests, questions } = Options::parse();
    let dir = tempfile::tempdir()?;
    let manifest = Application::new("")
        .with(IRIS, "iris", &iris_component(), &iris_model("1"), "")
        .write(dir.path(), "spellings")?;
    let trace = trace(requests, questions);
    let distinct = trace.iter().map(|(question, _)| question).collect::<HashSet<_>>().len();
    let best = 1.0 - distinct as f64 / requests as f64;
    let mut out = std::io::stdout().lock();
    writeln!(out, "| requests | by bytes | by what they mean | if all were one client's |")?;
    writeln!(out, "| --- | --- | --- | --- |")?;
    for (operation, spellings) in [("predict", PREDICT), ("infer", INFER)] {
        let rate = |content_type: &str| -> Result<f64> {
            let server = Server::start(&mut spinfer_with_cache(&manifest)?)?;
            let mut connection = Connection::open(server.address)?;
            let mut hits = 0;
            for &(question, client) in &trace {
                let body = spellings[client](&row(question));
                let answer = connection.send(&post(operation, content_type, &body))?;
                ensure!(answer.status == 200, "{body}: {}", answer.body);
                hits += usize::from(answer.hit);
            }
            Ok(hits as f64 / trace.len() as f64)
        };
        // Bodies that do not claim to be JSON are compared by their bytes.
        let (bytes, meaning) = (rate("text/plain")?, rate("application/json")?);
        writeln!(out, "| {operation} | {bytes:.3} | {meaning:.3} | {best:.3} |")?;
    }
    Ok(())
}

/// Questions, and who asks them.
fn trace(requests: usize, questions: usize) -> Vec<(usize, usize)> {
    let mut random = fastrand::Rng::with_seed(1);
    let mut sum = 0.0;
    let sums: Vec<f64> = (1..=questions)
        .map(|rank| {
            sum += 1.0 / rank as f64;
            sum
        })
        .collect();
    let question = |random: &mut fastrand::Rng| {
        let drawn = random.f64() * sum;
        sums.partition_point(|&sum| sum < drawn)
    };
    (0..requests).map(|_| (question(&mut random), random.usize(..PREDICT.len()))).collect()
}

/// The features of a question: those of no two are the same.
fn row(question: usize) -> Row {
    let digit = |place| question / 10_usize.pow(place) % 10;
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
