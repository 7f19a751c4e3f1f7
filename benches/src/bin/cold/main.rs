//! What it costs to be idle, and to come back: cold starts, process starts, the memory of many
//! idle routes and of the example application under load. Prints Markdown.

mod memory;
mod routes;
mod start;

use std::io::Write;

use anyhow::Result;
use clap::{Parser, ValueEnum};
use spinfer_benches::machine;

#[derive(Parser)]
struct Options {
    /// What to measure [default: all of it]
    #[arg(value_enum)]
    sections: Vec<Section>,
    /// Processes started one after the other
    #[arg(long, default_value_t = 20)]
    starts: usize,
    /// Routes that are asked once each, when they are cold
    #[arg(long, default_value_t = 200)]
    cold_routes: usize,
    /// Routes of the process whose memory is measured
    #[arg(long, default_value_t = 1000)]
    idle_routes: usize,
    /// Seconds of load on the example application
    #[arg(long, default_value_t = 5)]
    seconds: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Section {
    /// From a request on a cold route to its first byte
    Routes,
    /// From the start of a process to its first answer
    Start,
    /// The memory of many idle routes
    Idle,
    /// The memory of the example application under load
    Load,
}

fn main() -> Result<()> {
    let Options { sections, starts, cold_routes, idle_routes, seconds } = Options::parse();
    let wanted = |section| sections.is_empty() || sections.contains(&section);
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", machine()?)?;
    if wanted(Section::Routes) {
        writeln!(out, "\n{}", routes::cold_starts(cold_routes)?)?;
    }
    if wanted(Section::Start) {
        writeln!(out, "\n{}", start::process_starts(starts)?)?;
    }
    if wanted(Section::Idle) {
        writeln!(out, "\n{}", memory::idle_routes(idle_routes)?)?;
    }
    if wanted(Section::Load) {
        writeln!(out, "\n{}", memory::under_load(seconds)?)?;
    }
    Ok(())
}
