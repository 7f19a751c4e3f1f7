//! Many routes in one process, each with its own graph; and the time to the first byte of a
//! response on a route whose instances, code and graph were unloaded after the idle timeout.

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

/// The last message in the log of a component that becomes idle, of a graph that is loaded, and of
/// a cold start.
const UNLOADED: &str = "idle code unloaded";
const LOADED: &str = "graph loaded";
const COLD_START: &str = "cold start";

/// A short idle timeout, as the tools wait for it.
const SETTINGS: &str = "[application.tool.spinfer.limits]\nidle = '1s'";

/// The component files of the routes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Components {
    /// All routes have the same file.
    Shared,
    /// Each route has another file.
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
    /// Starts the process and waits until it is ready.
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
            // The loop must not take processor time from loading a thousand graphs.
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(Self { server, log, count, _files: files })
    }

    /// Sends each route one request over one connection and checks the response. Returns the times
    /// to the first byte, in nanoseconds.
    pub(crate) fn request_all(&self) -> Result<Histogram<u64>> {
        let mut times = Histogram::new(3)?;
        let mut connection = Connection::open(self.server.address)?;
        // The first request opens the connection.
        ensure!(connection.send(&get("/v2/health/live"))?.status == 200, "not live");
        for number in 0..self.count {
            let response = connection.send(&post(&format!("/{}", id(number)), PREDICT))?;
            let right = response.status == 200 && response.body.contains(PREDICTED);
            ensure!(right, "route {number}: {}, {}", response.status, response.body);
            times.record(u64::try_from(response.first_byte.as_nanos())?)?;
        }
        Ok(times)
    }

    /// Waits until every route is unloaded.
    pub(crate) fn wait_until_idle(&self) -> Result<LogCounts> {
        let mut left: HashSet<String> = (0..self.count).map(id).collect();
        let mut counts = LogCounts { cold_starts: 0, graphs: 0 };
        self.log.wait_until(|event| {
            match (event.message.as_str(), &event.component) {
                (UNLOADED, Some(component)) => _ = left.remove(component),
                (LOADED, _) => counts.graphs += 1,
                (COLD_START, _) => counts.cold_starts += 1,
                _ => {}
            }
            left.is_empty()
        })?;
        Ok(counts)
    }
}

/// Number of messages in the log since the routes were unloaded before.
pub(crate) struct LogCounts {
    cold_starts: usize,
    graphs: usize,
}

fn id(number: usize) -> String {
    format!("iris-{number}")
}

/// The table of cold starts of `count` routes, and of requests on the same routes once they are
/// warm.
pub(crate) fn cold_starts(count: usize) -> Result<String> {
    let mut text = format!(
        "Time to first byte, {count} routes, one request each over one connection:\n\n\
         | route | p50 ms | p99 ms |\n| --- | --- | --- |\n"
    );
    for (components, name) in Components::ALL {
        let routes = Routes::start(count, components)?;
        routes.wait_until_idle()?;
        let cold = routes.request_all()?;
        let LogCounts { cold_starts, graphs } = routes.wait_until_idle()?;
        ensure!(
            (cold_starts, graphs) == (count, count),
            "{cold_starts} of {count} routes were cold, and {graphs} loaded their graph"
        );
        routes.request_all()?;
        let warm = routes.request_all()?;
        for (state, times) in [("cold", cold), ("warm", warm)] {
            let ms = |quantile| times.value_at_quantile(quantile) as f64 / 1e6;
            let _ = writeln!(text, "| {state}: {name} | {:.2} | {:.2} |", ms(0.5), ms(0.99));
        }
    }
    Ok(text)
}
