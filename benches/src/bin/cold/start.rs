//! Time from the start of a process to its first response, with compiled components in the state
//! directory.

use std::fmt::Write as _;
use std::process::Command;
use std::time::Instant;

use anyhow::{Result, ensure};
use spinfer_benches::application::{
    Application, IRIS, PREDICT, PREDICTED, iris_component, iris_model,
};
use spinfer_benches::client::{Connection, post};
use spinfer_benches::median;
use spinfer_benches::server::{Server, reference, spinfer};

/// The table of process starts: medians of `count` processes, one after the other.
pub(crate) fn process_starts(count: usize) -> Result<String> {
    let dir = tempfile::tempdir()?;
    let application =
        Application::new("").with(IRIS, "iris", &iris_component(), &iris_model("1"), "");
    let servers = [
        ("native reference", reference(&iris_model("1"))),
        ("spinfer", spinfer(&application.write(dir.path(), "spin")?)?),
    ];
    let mut text = format!(
        "Process start, medians of {count}:\n\n\
         | server | listening after ms | first prediction after ms |\n| --- | --- | --- |\n"
    );
    for (name, mut command) in servers {
        // The first start compiles the component, unless an earlier run has.
        start(&mut command)?;
        let times = (0..count).map(|_| start(&mut command)).collect::<Result<Vec<_>>>()?;
        let of = |time: fn(&(f64, f64)) -> f64| median(times.iter().map(time));
        let _ = writeln!(text, "| {name} | {:.1} | {:.1} |", of(|t| t.0), of(|t| t.1));
    }
    Ok(text)
}

/// Milliseconds until the server listens, and until its first prediction.
fn start(command: &mut Command) -> Result<(f64, f64)> {
    let start = Instant::now();
    let milliseconds = || start.elapsed().as_secs_f64() * 1e3;
    let server = Server::start(command)?;
    let serving = milliseconds();
    let mut connection = Connection::open(server.address)?;
    let request = post(IRIS, PREDICT);
    loop {
        let response = connection.send(&request)?;
        if response.status == 200 {
            ensure!(response.body.contains(PREDICTED), "wrong prediction: {}", response.body);
            return Ok((serving, milliseconds()));
        }
        // 503 means that the model is not loaded yet.
        ensure!(response.status == 503, "status {}: {}", response.status, response.body);
    }
}
