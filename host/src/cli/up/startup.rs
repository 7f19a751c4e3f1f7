//! What `spinfer up` prints: the address first, for the programs that start it, and the routes. On a terminal
//! no line is wider than it, and the last one is a command to try.

use std::io::{self, IsTerminal, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use crate::admin::METRICS;
use crate::cli::output::OptionalOutput;
use crate::cli::telemetry::WIDTH;
use crate::config::app::{App, Route, RouteAction};
use crate::host::Host;

/// Prefix of the routes of models.
const MODELS: &str = "/v2/models/";
/// End of a route that matches the rest of a path.
const REST: &str = "/...";

/// What is printed at startup, and when the host is ready.
#[derive(Debug)]
pub(super) struct Startup {
    /// When the command was run.
    pub start: Instant,
    /// Prints the address only.
    pub quiet: bool,
    pub is_terminal: bool,
}

impl Startup {
    pub(super) fn new(start: Instant, quiet: bool) -> Self {
        Self { start, quiet, is_terminal: io::stdout().is_terminal() }
    }

    /// Prints the address and, unless `quiet`, the admin plane and the routes.
    pub(super) fn print_routes(
        &self,
        app: &App,
        host: &Host,
        url: &str,
        admin: Option<SocketAddr>,
    ) -> io::Result<()> {
        let mut out = OptionalOutput::new(io::stdout().lock());
        writeln!(out, "Serving {url}")?;
        if !self.quiet {
            if let Some(admin) = admin {
                writeln!(out, "Metrics at http://{admin}{METRICS}")?;
            }
            writeln!(out, "Routes of {}:", app.name)?;
            let rows: Vec<_> = app.routes.iter().map(|route| row(route, host)).collect();
            for line in table(&rows, self.is_terminal.then_some(WIDTH)) {
                writeln!(out, "{line}")?;
            }
        }
        out.flush()
    }

    /// Prints on a terminal that the host is ready, and a request to try.
    pub(super) fn print_ready(&self, ready: bool, example: Option<&str>) {
        if self.quiet || !self.is_terminal {
            return;
        }
        let took = seconds(self.start.elapsed());
        let line = match (ready, example) {
            (false, _) => format!("not ready after {took}: a model cannot be served"),
            (true, None) => format!("ready in {took}"),
            (true, Some(url)) => format!("ready in {took}; try: {url}"),
        };
        // A reader that has closed the output does not need it.
        let _ = writeln!(io::stdout(), "{line}");
    }
}

/// A route, and what serves it.
fn row(Route { pattern, target }: &Route, host: &Host) -> (String, String) {
    let door = match target {
        RouteAction::Component(id) => host.component(id).map(|component| component.door()),
        RouteAction::Static(_) => None,
    };
    let door = door.map(|door| format!(" ({door} door)")).unwrap_or_default();
    (pattern.to_string(), format!("{target}{door}"))
}

/// `1.9 s`
fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

/// Lines with two columns; on two lines each if they are wider than `width`.
fn table(rows: &[(String, String)], width: Option<usize>) -> Vec<String> {
    let first = rows.iter().map(|(first, _)| first.chars().count()).max().unwrap_or(0);
    let widest = rows.iter().map(|(_, second)| 4 + first + second.chars().count()).max();
    let is_narrow = width.is_none_or(|width| widest.is_none_or(|widest| widest <= width));
    let lines = rows.iter().flat_map(|(left, right)| match is_narrow {
        true => vec![format!("  {left:first$}  {right}")],
        false => vec![format!("  {left}"), format!("      {right}")],
    });
    lines.collect()
}

/// A `curl` command for a route of the application: the description of a model, or any other route.
pub(super) fn example(app: &App, scheme: &str, address: SocketAddr) -> Option<String> {
    let routes = app.routes.iter().map(|route| route.pattern.to_string()).collect::<Vec<_>>();
    let path = example_path(&routes)?;
    let insecure = if scheme == "https" { "-k " } else { "" };
    Some(format!("curl {insecure}{}", word(&format!("{scheme}://{}{path}", reachable(address)))))
}

/// A path that one of the `routes` matches, without a parameter if possible.
fn example_path(routes: &[String]) -> Option<String> {
    let is_model = |route: &&String| route.starts_with(MODELS) && route.ends_with(REST);
    let is_plain = |route: &&String| !route.contains(':');
    let plain = || routes.iter().filter(is_plain);
    let route = plain().find(is_model).or_else(|| plain().next()).or_else(|| routes.first())?;
    let path = route.strip_suffix(REST).unwrap_or(route);
    let segments = path.split('/').map(|one| if one.starts_with(':') { "1" } else { one });
    let path = segments.collect::<Vec<_>>().join("/");
    Some(if path.is_empty() { "/".to_owned() } else { path })
}

/// The address for a client on this machine.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// A word of a shell command.
fn word(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-._~:/%@+=,".contains(c);
    if text.chars().all(is_plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_is_a_model_or_a_plain_route() {
        let of = |routes: &[&str]| {
            let routes: Vec<_> = routes.iter().map(|route| (*route).to_owned()).collect();
            example_path(&routes)
        };
        assert_eq!(of(&[]), None);
        assert_eq!(of(&["/..."]).unwrap(), "/");
        assert_eq!(of(&["/a/:id", "/b/..."]).unwrap(), "/b");
        assert_eq!(of(&["/a/:id/..."]).unwrap(), "/a/1");
        assert_eq!(of(&["/a", "/v2/models/iris/..."]).unwrap(), "/v2/models/iris");
        assert_eq!(of(&["/v2/models/:name/...", "/a"]).unwrap(), "/a");
    }

    #[test]
    fn the_address_is_one_that_a_client_can_connect_to() {
        for (listen, reach) in [
            ("0.0.0.0:80", "127.0.0.1:80"),
            ("[::]:80", "[::1]:80"),
            ("192.0.2.1:80", "192.0.2.1:80"),
        ] {
            assert_eq!(reachable(listen.parse().unwrap()).to_string(), reach);
        }
        assert_eq!(word("http://127.0.0.1:80/a"), "http://127.0.0.1:80/a");
        // A shell expands the brackets.
        assert_eq!(word("http://[::1]:80/a"), "'http://[::1]:80/a'");
        assert_eq!(word("/it's"), "'/it'\\''s'");
    }

    #[test]
    fn routes_that_are_too_wide_take_two_lines() {
        let rows =
            [("/a/...", "one"), ("/bcd/...", "two")].map(|(a, b)| (a.to_owned(), b.to_owned()));
        assert_eq!(table(&rows, None), ["  /a/...    one", "  /bcd/...  two"]);
        assert_eq!(table(&rows, Some(15)), table(&rows, None));
        let lines = ["  /a/...", "      one", "  /bcd/...", "      two"];
        assert_eq!(table(&rows, Some(14)), lines);
    }
}
