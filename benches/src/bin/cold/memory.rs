//! Resident memory of many idle routes, and of the example application under load.

use std::fmt::Write as _;

use anyhow::Result;
use spinfer_benches::application::{INFER, IRIS, PREDICT, root};
use spinfer_benches::process::{Process, Resident};
use spinfer_benches::server::{Server, spinfer};
use spinfer_benches::wrk;

use crate::routes::{Components, Routes};

const HEAD: &str =
    "| state | resident MiB | anonymous and shared | mapped files |\n| --- | --- | --- | --- |\n";

fn row(text: &mut String, state: &str, resident: Resident) {
    let (total, own) = (resident.total(), resident.anon + resident.shared);
    let _ = writeln!(text, "| {state} | {total:.0} | {own:.0} | {:.0} |", resident.file);
}

/// The memory of a process with `count` routes: ready, idle, used and idle again. Each route has to
/// respond correctly.
pub(crate) fn idle_routes(count: usize) -> Result<String> {
    let mut text = String::new();
    for (components, name) in Components::ALL {
        let routes = Routes::start(count, components)?;
        let settled = || routes.server.process().settled();
        let _ = write!(text, "{count} routes, {name}:\n\n{HEAD}");
        row(&mut text, "ready", settled()?);
        routes.wait_until_idle()?;
        let idle = settled()?;
        row(&mut text, "idle", idle);
        routes.request_all()?;
        row(&mut text, "each route just used", routes.server.process().resident()?);
        routes.wait_until_idle()?;
        let again = settled()?;
        row(&mut text, "idle again", again);
        let ratio = again.total() / idle.total();
        let _ = writeln!(text, "\nidle again / idle: {ratio:.2}\n");
    }
    Ok(text.trim_end().to_owned())
}

/// The memory of the example application after loads of `seconds` each, one after the other.
pub(crate) fn under_load(seconds: u32) -> Result<String> {
    let dir = tempfile::tempdir()?;
    let server = Server::start(&mut spinfer(&root().join("spin.toml"))?)?;
    let resident = || Process::resident(server.process());
    let mut text = format!("The example application:\n\n{HEAD}");
    row(&mut text, "serving", resident()?);
    for version in ["1", "2"] {
        for operation in [PREDICT, INFER] {
            let load = wrk::Load { connections: 64, seconds };
            let route = format!("{IRIS}/versions/{version}");
            wrk::run(&server, &route, operation, load, dir.path())?;
            let state = format!("after `{}` of version {version}", operation.name);
            row(&mut text, &state, resident()?);
        }
    }
    Ok(text)
}
