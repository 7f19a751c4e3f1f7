//! What the response cache costs and brings: hits from memory against a bare server that answers the
//! same bytes, misses against no cache, hits from a Redis against a round trip to it, hit rates, what
//! happens while the Redis is broken, and how soon one node hears what another forgets. Prints
//! Markdown; every figure is a ratio within one run.

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
    /// Rounds of each comparison; the median counts
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of each load in each round
    #[arg(long, default_value_t = 3)]
    seconds: u32,
}

/// One part alone.
#[derive(Subcommand)]
enum Part {
    /// Throughput of hits from memory, and of misses
    Throughput,
    /// Latency of hits from a Redis; hit rates; how soon others hear what is forgotten
    Redis,
    /// Requests while the Redis is killed, paused, full, and answering garbage
    Broken,
    /// What the server pays to tell nodes what has changed, by how it is asked to
    Tracking,
    /// The bare server, for this tool itself
    #[command(hide = true)]
    Bare { answer: String },
}

fn main() -> Result<()> {
    let Options { only, rounds, seconds } = Options::parse();
    if let Some(Part::Bare { answer }) = only {
        return bare::serve(answer);
    }
    let dir = tempfile::tempdir()?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", machine()?)?;
    let all = only.is_none();
    if all || matches!(only, Some(Part::Throughput)) {
        hits::throughput(&mut out, rounds, seconds, dir.path())?;
    }
    if all || matches!(only, Some(Part::Redis)) {
        hits::latency(&mut out, dir.path())?;
        hits::rates(&mut out, dir.path())?;
        nodes::forgetting(&mut out, dir.path())?;
    }
    if all || matches!(only, Some(Part::Broken)) {
        broken::run(&mut out, seconds, dir.path())?;
    }
    if all || matches!(only, Some(Part::Tracking)) {
        nodes::tracking(&mut out)?;
    }
    Ok(())
}
