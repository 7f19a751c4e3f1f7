//! On which routes a version that is added answers.

use std::io::{self, Write};
use std::path::Path;

use anyhow::{Result, bail};

use crate::cli::edit::Edit;
use crate::http::route::Pattern;

/// What the command line says of routes.
#[derive(Debug)]
pub(in crate::cli) struct Routing<'a> {
    /// More than the model's own.
    pub(in crate::cli) routes: &'a [String],
    /// The version takes over those of another.
    pub(in crate::cli) promote: bool,
}

/// Routes of an added version.
#[derive(Debug)]
pub(in crate::cli) struct Routes {
    /// Its own now.
    pub(in crate::cli) taken: Vec<String>,
    /// Who has the plain route, if another has.
    pub(in crate::cli) production: Option<String>,
}

fn plain(name: &str) -> String {
    format!("/v2/models/{name}/...")
}

impl Routing<'_> {
    /// The version answers its own route and those that nobody has. Those of another version it takes
    /// over if it is told to: clients would get other answers otherwise, and nobody has asked for that.
    pub(in crate::cli) fn route(
        &self,
        edit: &mut Edit,
        name: &str,
        version: &str,
        id: &str,
    ) -> Result<Routes> {
        let mut routes = Routes { taken: Vec::new(), production: None };
        let (plain, own) = (plain(name), format!("/v2/models/{name}/versions/{version}/..."));
        let mut seen: Vec<Pattern> = Vec::new();
        for route in [&plain, &own].into_iter().chain(self.routes) {
            let pattern = Pattern::parse(route)
                .map_err(|problem| anyhow::anyhow!("--route \"{route}\": {problem}"))?;
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
                    "{} answers on {route} already; remove it from the manifest, or choose another \
                     route, name or version{}",
                    other.unwrap_or("the host"),
                    if other.is_some() { " (--promote takes it over)" } else { "" }
                ),
            }
            routes.taken.push(route.clone());
        }
        Ok(routes)
    }
}

impl Routes {
    /// Where the version answers.
    pub(in crate::cli) fn path(&self, name: &str, version: &str) -> String {
        let production = self.production.is_none();
        let path = if production { String::new() } else { format!("/versions/{version}") };
        format!("/v2/models/{name}{path}")
    }

    /// Says which they are.
    pub(in crate::cli) fn tell(
        &self,
        out: &mut impl Write,
        name: &str,
        id: &str,
        manifest: &Path,
    ) -> io::Result<()> {
        let taken = self.taken.join(", ");
        writeln!(out, "  routes  {taken} -> {id}, in {}", manifest.display())?;
        let Some(other) = &self.production else { return Ok(()) };
        writeln!(
            out,
            "          {} stays with {other}; --promote would have moved it, or write \
             component = \"{id}\" there",
            plain(name)
        )
    }
}
