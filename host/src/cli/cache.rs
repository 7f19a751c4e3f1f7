//! `spinfer cache`: what the response cache of a host that serves has done, and what it is to forget.

use std::io::Write;

use anyhow::{Context, Result};
use bytesize::ByteSize;
use clap::{Args, Subcommand};
use http::Method;
use http::uri::Authority;

use super::admin_client::ask;
use super::table::write_table;
use crate::admin::stats::{Answers, Lookups, Memory, Redis, RouteStats, Stats};
use crate::admin::{self, COMPONENT, MODEL, Purged, ROUTE, STATS};
use crate::cache::Told;

#[derive(Debug, Args)]
pub struct Cache {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// How often it had an answer, by route, and what it holds
    Stats {
        #[command(flatten)]
        at: At,

        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Forget answers that are kept: the next request for each is computed
    Purge {
        #[command(flatten)]
        at: At,

        #[command(flatten)]
        what: What,
    },
}

#[derive(Debug, Args)]
pub(super) struct At {
    /// Where the host's admin plane is; its token, if it has one, is in SPINFER_ADMIN_TOKEN
    #[arg(long, value_name = "HOST:PORT", default_value_t = Authority::from_static(ADDRESS))]
    pub(super) admin: Authority,
}

/// [`admin::DEFAULT`], written out.
const ADDRESS: &str = "127.0.0.1:3001";

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct What {
    /// Those of a component, by its id
    #[arg(long, value_name = "ID")]
    component: Option<String>,

    /// Those under a route, as the manifest writes it
    #[arg(long)]
    route: Option<String>,

    /// Those of every component with this model
    #[arg(long, value_name = "NAME|NAME/VERSION")]
    model: Option<String>,

    /// All
    #[arg(long)]
    all: bool,
}

impl What {
    /// The path and query that asks for it.
    fn path(&self) -> String {
        let Self { component, route, model, all: _ } = self;
        let named = [(COMPONENT, component), (ROUTE, route), (MODEL, model)];
        let mut query = form_urlencoded::Serializer::new(String::new());
        for (name, value) in named {
            if let Some(value) = value {
                query.append_pair(name, value);
            }
        }
        format!("{}?{}", admin::CACHE, query.finish())
    }
}

/// Tells `out` what the host says.
pub fn run(cache: &Cache, out: &mut impl Write) -> Result<()> {
    match &cache.command {
        Command::Stats { at, json } => {
            let answer = ask(&at.admin, &Method::GET, STATS)?;
            let stats: Stats = serde_json::from_slice(&answer).context(OTHER)?;
            if *json {
                serde_json::to_writer_pretty(&mut *out, &stats)?;
                writeln!(out)?;
            } else {
                tell(&stats, out)?;
            }
        }
        Command::Purge { at, what } => {
            let answer = ask(&at.admin, &Method::DELETE, &what.path())?;
            let Purged { purged, told } = serde_json::from_slice(&answer).context(OTHER)?;
            let others = match told {
                Told::Nobody => "",
                Told::All => ", on all nodes that share the Redis",
                Told::Later => {
                    "; other nodes hear of it as soon as the Redis takes it: it does not answer, or is full"
                }
            };
            writeln!(out, "Forgotten: {purged}{others}")?;
        }
    }
    Ok(())
}

pub(super) const OTHER: &str = "it is another version of spinfer, or another server";

fn tell(stats: &Stats, out: &mut impl Write) -> Result<()> {
    let Stats { total, memory, redis, routes } = stats;
    let head =
        ["route", "component", "requests", "hits", "hit rate", "collapsed", "misses", "bypassed"];
    let mut lines = vec![head.map(str::to_owned)];
    for RouteStats { route, component, answers, levels: _ } in routes {
        lines.push(line(route, component, answers));
    }
    lines.push(line("all", "", total));
    write_table(&lines, out)?;
    writeln!(out)?;
    let Memory { entries, bytes, capacity, evictions, lookups } = memory;
    let (bytes, capacity) = (ByteSize(*bytes).display().iec(), ByteSize(*capacity).display().iec());
    writeln!(
        out,
        "memory: {entries} answers, {bytes} of {capacity}; {evictions} evicted; {}",
        hits(lookups)
    )?;
    if let Some(redis) = redis {
        let Redis { connected, watched, failed, skipped, foreign, stored, dropped, lookups } =
            redis;
        let state = match (connected, watched) {
            (true, true) => "is asked",
            (true, false) => "is asked, but does not say what other nodes forget",
            (false, _) => "does not answer",
        };
        writeln!(
            out,
            "redis: {state}; {stored} stored, {dropped} dropped; {}; {failed} failed, {skipped} \
             skipped, {foreign} foreign",
            hits(lookups)
        )?;
    }
    Ok(())
}

fn hits(lookups: &Lookups) -> String {
    let Lookups { hits, stale: _, misses, hit_rate } = lookups;
    format!("{hits} of {} look-ups were hits ({})", hits + misses, percent(*hit_rate))
}

fn line(route: &str, component: &str, answers: &Answers) -> [String; 8] {
    let Answers { requests, hits, collapsed, misses, bypassed, hit_rate } = answers;
    [
        route.to_owned(),
        component.to_owned(),
        requests.to_string(),
        hits.to_string(),
        percent(*hit_rate),
        collapsed.to_string(),
        misses.to_string(),
        bypassed.to_string(),
    ]
}

fn percent(rate: Option<f64>) -> String {
    rate.map_or_else(|| "-".to_owned(), |rate| format!("{:.1} %", rate * 100.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_address_is_the_hosts() {
        assert_eq!(ADDRESS, admin::DEFAULT.to_string());
    }

    #[test]
    fn what_is_to_be_forgotten_is_written_into_the_path() {
        let nothing = || What { component: None, route: None, model: None, all: true };
        assert_eq!(nothing().path(), "/cache?");
        let route = What { route: Some("/a b/&...".into()), ..nothing() };
        assert_eq!(route.path(), "/cache?route=%2Fa+b%2F%26...");
    }
}
