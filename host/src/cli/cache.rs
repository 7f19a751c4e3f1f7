//! `spinfer cache`: prints statistics of a running host's response cache, and purges cached responses.

use std::io::Write;

use anyhow::{Context, Result};
use bytesize::ByteSize;
use clap::{Args, Subcommand};
use http::Method;
use http::uri::Authority;

use super::admin_client::send;
use super::table::write_table;
use crate::admin::stats::{
    HostCacheStats, Lookups, MemoryCacheStats, OutcomeCounts, RedisCacheStats, RouteStats,
};
use crate::admin::{self, COMPONENT, MODEL, Purged, ROUTE, STATS};
use crate::cache::Propagation;

#[derive(Debug, Args)]
pub struct CacheOptions {
    #[command(subcommand)]
    command: CacheCommand,
}

#[derive(Debug, Subcommand)]
enum CacheCommand {
    /// Print hit rates by route, and the size of the cache
    Stats {
        #[command(flatten)]
        at: At,

        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Purge cached responses; the next request for each is computed
    Purge {
        #[command(flatten)]
        at: At,

        #[command(flatten)]
        what: PurgeOptions,
    },
}

#[derive(Debug, Args)]
pub(super) struct At {
    /// Address of the host's admin plane; its token, if any, is read from SPINFER_ADMIN_TOKEN
    #[arg(long, value_name = "HOST:PORT", default_value_t = Authority::from_static(ADDRESS))]
    pub(super) admin: Authority,
}

/// [`admin::DEFAULT`] as text.
const ADDRESS: &str = "127.0.0.1:3001";

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct PurgeOptions {
    /// Purge the responses of a component, by its id
    #[arg(long, value_name = "ID")]
    component: Option<String>,

    /// Purge the responses of a route, as written in the manifest
    #[arg(long)]
    route: Option<String>,

    /// Purge the responses of every component with this model
    #[arg(long, value_name = "NAME|NAME/VERSION")]
    model: Option<String>,

    /// Purge all responses
    #[arg(long)]
    all: bool,
}

impl PurgeOptions {
    /// Path and query of the request.
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

/// Runs the command against the host, and prints the result to `out`.
///
/// # Errors
/// If the admin plane cannot be reached or returns an error.
pub fn run(cache: &CacheOptions, out: &mut impl Write) -> Result<()> {
    match &cache.command {
        CacheCommand::Stats { at, json } => {
            let response = send(&at.admin, &Method::GET, STATS)?;
            let stats: HostCacheStats = serde_json::from_slice(&response).context(UNEXPECTED)?;
            if *json {
                serde_json::to_writer_pretty(&mut *out, &stats)?;
                writeln!(out)?;
            } else {
                print_stats(&stats, out)?;
            }
        }
        CacheCommand::Purge { at, what } => {
            let response = send(&at.admin, &Method::DELETE, &what.path())?;
            let Purged { purged, propagation } =
                serde_json::from_slice(&response).context(UNEXPECTED)?;
            let others = match propagation {
                Propagation::Local => "",
                Propagation::All => ", on all nodes that share the Redis",
                Propagation::Pending => {
                    "; other nodes follow when the Redis accepts the purge: it is unreachable or full"
                }
            };
            writeln!(out, "Purged: {purged}{others}")?;
        }
    }
    Ok(())
}

/// Context of a response that cannot be parsed.
pub(super) const UNEXPECTED: &str =
    "unexpected response: another version of spinfer, or another server";

fn print_stats(stats: &HostCacheStats, out: &mut impl Write) -> Result<()> {
    let HostCacheStats { application, total, not_admitted, memory, redis, routes } = stats;
    writeln!(out, "application: {}\n", application.escape_debug())?;
    let head =
        ["route", "component", "requests", "hits", "hit rate", "collapsed", "misses", "bypassed"];
    let mut lines = vec![head.map(str::to_owned)];
    for RouteStats { route, component, outcomes, levels: _ } in routes {
        lines.push(line(route, component, outcomes));
    }
    lines.push(line("all", "", total));
    write_table(&lines, out)?;
    writeln!(out)?;
    let MemoryCacheStats { entries, bytes, capacity, evictions, lookups } = memory;
    let (bytes, capacity) = (ByteSize(*bytes).display().iec(), ByteSize(*capacity).display().iec());
    writeln!(out, "admission: {not_admitted} first responses were not stored")?;
    writeln!(
        out,
        "memory: {entries} responses, {bytes} of {capacity}; {evictions} evicted; {}",
        hits(lookups)
    )?;
    if let Some(redis) = redis {
        let RedisCacheStats {
            connected,
            watched,
            failed,
            skipped,
            foreign,
            stored,
            dropped,
            lookups,
        } = redis;
        let state = match (connected, watched) {
            (true, true) => "connected",
            (true, false) => "connected, but not to the invalidations of other nodes",
            (false, _) => "not connected",
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
    format!("{hits} of {} lookups were hits ({})", hits + misses, percent(*hit_rate))
}

fn line(route: &str, component: &str, outcomes: &OutcomeCounts) -> [String; 8] {
    let OutcomeCounts { requests, hits, collapsed, misses, bypassed, hit_rate } = outcomes;
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
    fn default_address_is_that_of_the_admin_plane() {
        assert_eq!(ADDRESS, admin::DEFAULT.to_string());
    }

    #[test]
    fn purge_scope_is_encoded_in_the_query() {
        let all = || PurgeOptions { component: None, route: None, model: None, all: true };
        assert_eq!(all().path(), "/cache?");
        let route = PurgeOptions { route: Some("/a b/&...".into()), ..all() };
        assert_eq!(route.path(), "/cache?route=%2Fa+b%2F%26...");
    }
}
