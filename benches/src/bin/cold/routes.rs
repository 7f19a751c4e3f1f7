//! Many routes in one process, each with a graph of its own; and how long the first byte of a
//! request takes on a route that was idle until all it had was dropped.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};
use hdrhistogram::Histogram;
use spinfer_benches::application::{
    Application, PREDICT, PREDICTED, distinct_component, distinct_model, iris_component,
    iris_model, state_dir,
};
use spinfer_benches::client::{Connection, get, post};
use spinfer_benches::server::{Log, Server, spinfer};

/// What the host logs last of a component that goes idle, of a graph it loads, and of a request
/// that found nothing there.
const GONE: &str = "idle code dropped";
const LOADED: &str = "graph loaded";
const COLD_START: &str = "cold start";

/// Short, as the tools wait for it.
const SETTINGS: &str = "[application.tool.spinfer.limits]\nidle = '1s'";

/// Which component files the routes have.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Components {
    /// All the same.
    Shared,
    /// Each another.
    Distinct,
}

impl Components {
    pub(crate) const ALL: [(Self, &'static str); 2] = [
        (Self::Shared, "one component file, a graph each"),
        (Self::Distinct, "a component file and a graph each"),
    ];
}

/// A process with many routes.
pub(crate) struct Routes {
    pub(crate) server: Server,
    log: Log,
    count: usize,
    _files: tempfile::TempDir,
}

impl Routes {
    /// Starts it and waits until it is ready.
    pub(crate) fn start(count: usize, components: Components) -> Result<Self> {
        let files = tempfile::tempdir_in(state_dir()?)?;
        let mut application = Application::new(SETTINGS);
        for number in 0..count {
            let id = id(number);
            let model = distinct_model(&iris_model("1"), files.path(), &id)?;
            let component: PathBuf = match components {
                Components::Shared => iris_component(),
                Components::Distinct => distinct_component(&iris_component(), files.path(), &id)?,
            };
            application = application.with(&format!("/{id}"), &id, &component, &model, "");
        }
        let manifest = application.write(files.path(), "spin")?;
        let (server, log) = Server::start_logged(&mut spinfer(&manifest)?)?;
        let mut connection = Connection::open(server.address)?;
        while connection.send(&get("/v2/health/ready"))?.status != 200 {
            // Loading a thousand graphs needs the core more than this loop does.
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(Self { server, log, count, _files: files })
    }

    /// Asks every route once, over one connection, and checks the answers: the nanoseconds until
    /// each first byte.
    pub(crate) fn ask_all(&self) -> Result<Histogram<u64>> {
        let mut times = Histogram::new(3)?;
        let mut connection = Connection::open(self.server.address)?;
        // It is open once it was used.
        ensure!(connection.send(&get("/v2/health/live"))?.status == 200, "not live");
        for number in 0..self.count {
            let answer = connection.send(&post(&format!("/{}", id(number)), PREDICT))?;
            let right = answer.status == 200 && answer.body.contains(PREDICTED);
            ensure!(right, "route {number}: {}, {}", answer.status, answer.body);
            times.record(u64::try_from(answer.first_byte.as_nanos())?)?;
        }
        Ok(times)
    }

    /// Waits until every route, ready or asked since the last rest, has nothing left.
    pub(crate) fn rest(&self) -> Result<Seen> {
        let mut left: HashSet<String> = (0..self.count).map(id).collect();
        let mut seen = Seen { cold_starts: 0, graphs: 0 };
        self.log.wait_until(|event| {
            match (event.message.as_str(), &event.component) {
                (GONE, Some(component)) => _ = left.remove(component),
                (LOADED, _) => seen.graphs += 1,
                (COLD_START, _) => seen.cold_starts += 1,
                _ => {}
            }
            left.is_empty()
        })?;
        Ok(seen)
    }
}

/// What the log said since the last rest.
pub(crate) struct Seen {
    cold_starts: usize,
    graphs: usize,
}

fn id(number: usize) -> String {
    format!("iris-{number}")
}

/// The table of cold starts, of `count` routes, beside requests that find everything there.
pub(crate) fn cold_starts(count: usize) -> Result<String> {
    let mut text = format!(
        "First byte, {count} routes asked once each over one connection:\n\n\
         | route | p50 ms | p99 ms |\n| --- | --- | --- |\n"
    );
    for (components, name) in Components::ALL {
        let routes = Routes::start(count, components)?;
        routes.rest()?;
        let cold = routes.ask_all()?;
        let Seen { cold_starts, graphs } = routes.rest()?;
        ensure!(
            (cold_starts, graphs) == (count, count),
            "of {count} routes {cold_starts} were cold and {graphs} loaded their graph"
        );
        routes.ask_all()?;
        let warm = routes.ask_all()?;
        for (state, times) in [("cold", cold), ("warm", warm)] {
            let ms = |quantile| times.value_at_quantile(quantile) as f64 / 1e6;
            let _ = writeln!(text, "| {state}: {name} | {:.2} | {:.2} |", ms(0.5), ms(0.99));
        }
    }
    Ok(text)
}
