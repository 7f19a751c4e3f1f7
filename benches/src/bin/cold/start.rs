//! From the start of a process to its first answer, with what was compiled before in place.

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

/// Medians of `count` processes, one after the other.
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
         | server | serving after ms | first prediction after ms |\n| --- | --- | --- |\n"
    );
    for (name, mut command) in servers {
        // The first one compiles, if none has before.
        start(&mut command)?;
        let times = (0..count).map(|_| start(&mut command)).collect::<Result<Vec<_>>>()?;
        let of = |time: fn(&(f64, f64)) -> f64| median(times.iter().map(time));
        let _ = writeln!(text, "| {name} | {:.1} | {:.1} |", of(|t| t.0), of(|t| t.1));
    }
    Ok(text)
}

/// Milliseconds until it says it serves, and until it has predicted.
fn start(command: &mut Command) -> Result<(f64, f64)> {
    let start = Instant::now();
    let milliseconds = || start.elapsed().as_secs_f64() * 1e3;
    let server = Server::start(command)?;
    let serving = milliseconds();
    let mut connection = Connection::open(server.address)?;
    let request = post(IRIS, PREDICT);
    loop {
        let answer = connection.send(&request)?;
        if answer.status == 200 {
            ensure!(answer.body.contains(PREDICTED), "another prediction: {}", answer.body);
            return Ok((serving, milliseconds()));
        }
        // Only that it is not there yet may be said.
        ensure!(answer.status == 503, "answered {}: {}", answer.status, answer.body);
    }
}
