//! Costs and benefits of the response cache. Prints Markdown. Ratios are within one run:
//!
//! - hits in memory, compared with a bare server that sends the same bytes
//! - misses, compared with no cache; and memory
//! - hits in Redis, compared with a round trip to it
//! - hit rates
//! - latency while Redis fails
//! - time until another node applies an invalidation

mod bare;
mod broken;
mod hits;
mod nodes;

use std::io::Write as _;

use anyhow::Result;
use clap::{Parser, Subcommand};
use spinfer_benches::machine;

#[derive(Parser)]
struct Options {
    #[command(subcommand)]
    only: Option<Part>,
    /// Rounds of each comparison; figures are medians over them
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Duration of each load in each round, in seconds
    #[arg(long, default_value_t = 3)]
    seconds: u32,
}

/// A part of the measurements.
#[derive(Subcommand)]
enum Part {
    /// Throughput of hits in memory, and of misses
    Throughput,
    /// Resident memory after a million distinct requests
    Memory,
    /// Latency of hits in Redis; hit rates; time until other nodes apply an invalidation
    Redis,
    /// Requests while Redis is paused, killed, full, or sends garbage
    Broken,
    /// Processor time of Redis for invalidation messages, by mode of client tracking
    Tracking,
    /// The bare server, which this tool starts
    #[command(hide = true)]
    Bare { response: String },
}

fn main() -> Result<()> {
    let Options { only, rounds, seconds } = Options::parse();
    if let Some(Part::Bare { response }) = only {
        return bare::serve(response);
    }
    let dir = tempfile::tempdir()?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", machine()?)?;
    let all = only.is_none();
    if all || matches!(only, Some(Part::Throughput)) {
        hits::throughput(&mut out, rounds, seconds, dir.path())?;
    }
    if all || matches!(only, Some(Part::Memory)) {
        hits::memory(&mut out, seconds, dir.path())?;
    }
    if all || matches!(only, Some(Part::Redis)) {
        hits::latency(&mut out, dir.path())?;
        hits::rates(&mut out, dir.path())?;
        nodes::invalidation(&mut out, dir.path())?;
    }
    if all || matches!(only, Some(Part::Broken)) {
        broken::run(&mut out, seconds, dir.path())?;
    }
    if all || matches!(only, Some(Part::Tracking)) {
        nodes::tracking(&mut out)?;
    }
    Ok(())
}
