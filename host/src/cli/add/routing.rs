//! The routes of an added model version.

use std::io::{self, Write};
use std::path::Path;

use anyhow::{Result, bail, ensure};

use crate::cli::edit::Edit;
use crate::http::reserved::is_reserved;
use crate::http::route::Pattern;

/// The routing options of the command line.
#[derive(Debug)]
pub(in crate::cli) struct Routing<'a> {
    /// Routes in addition to the model's own.
    pub(in crate::cli) routes: &'a [String],
    /// Whether the version takes over routes of another one.
    pub(in crate::cli) promote: bool,
}

/// Routes of an added version.
#[derive(Debug)]
pub(in crate::cli) struct Routes {
    /// Routes that lead to the version now.
    pub(in crate::cli) assigned: Vec<String>,
    /// The component on the model's plain route, if that is another one.
    pub(in crate::cli) production: Option<String>,
}

/// The route of the model's production version.
fn plain(name: &str) -> String {
    format!("/v2/models/{name}/...")
}

/// A route in the form of the manifest: with a leading slash.
fn with_slash(route: &str) -> String {
    format!("/{}", route.strip_prefix('/').unwrap_or(route))
}

impl Routing<'_> {
    /// Assigns the version its own route and those that are free. Routes of another version move only
    /// with `promote`, as clients then get other predictions.
    pub(in crate::cli) fn route(
        &self,
        edit: &mut Edit,
        name: &str,
        version: &str,
        id: &str,
    ) -> Result<Routes> {
        let mut routes = Routes { assigned: Vec::new(), production: None };
        let (plain, own) = (plain(name), format!("/v2/models/{name}/versions/{version}/..."));
        let further: Vec<String> = self.routes.iter().map(|route| with_slash(route)).collect();
        let mut seen: Vec<Pattern> = Vec::new();
        for route in [&plain, &own].into_iter().chain(&further) {
            let pattern = Pattern::parse(route)
                .map_err(|problem| anyhow::anyhow!("--route \"{route}\": {problem}"))?;
            ensure!(
                !is_reserved(&pattern),
                "--route \"{route}\": this path is reserved by the host; choose another"
            );
            if seen.iter().any(|other| other.is_same(&pattern)) {
                continue;
            }
            seen.push(pattern);
            match edit.on_route(route) {
                None => edit.add_route(route, id)?,
                Some(Some(_)) if self.promote && *route != own => edit.move_route(route, id)?,
                Some(Some(other)) if *route == plain => {
                    routes.production = Some(other.to_owned());
                    continue;
                }
                Some(other) => bail!(
                    "the route {route} is taken by {}; remove it from the manifest, or choose another \
                     route, name or version{}",
                    other.unwrap_or("the host"),
                    if other.is_some() { " (--promote takes it over)" } else { "" }
                ),
            }
            routes.assigned.push(route.clone());
        }
        Ok(routes)
    }
}

impl Routes {
    /// Path of the version, without an operation.
    pub(in crate::cli) fn path(&self, name: &str, version: &str) -> String {
        let production = self.production.is_none();
        let path = if production { String::new() } else { format!("/versions/{version}") };
        format!("/v2/models/{name}{path}")
    }

    /// Prints the assigned routes, and how to promote a version without the plain one.
    pub(in crate::cli) fn print(
        &self,
        out: &mut impl Write,
        name: &str,
        id: &str,
        manifest: &Path,
    ) -> io::Result<()> {
        let assigned = self.assigned.join(", ");
        writeln!(out, "  routes  {assigned} -> {id}, in {}", manifest.display())?;
        let Some(other) = &self.production else { return Ok(()) };
        writeln!(
            out,
            "          {} still routes to {other}; to move it, use --promote, or write component = \
             \"{id}\" there",
            plain(name)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_route_starts_with_one_slash() {
        for (given, written) in [("wine", "/wine"), ("/wine/...", "/wine/..."), ("", "/")] {
            assert_eq!(with_slash(given), written);
        }
    }
}
