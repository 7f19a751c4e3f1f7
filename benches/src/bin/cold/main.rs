//! Cold starts of routes, process starts, and memory of many idle routes and of the example
//! application under load. Prints Markdown.

mod memory;
mod routes;
mod start;

use std::io::Write;

use anyhow::Result;
use clap::{Parser, ValueEnum};
use spinfer_benches::machine;

#[derive(Parser)]
struct Options {
    /// What to measure [default: all]
    #[arg(value_enum)]
    sections: Vec<Section>,
    /// Number of processes that are started one after the other
    #[arg(long, default_value_t = 20)]
    starts: usize,
    /// Number of cold routes that receive one request each
    #[arg(long, default_value_t = 200)]
    cold_routes: usize,
    /// Number of routes of the process whose memory is measured
    #[arg(long, default_value_t = 1000)]
    idle_routes: usize,
    /// Duration of each load on the example application, in seconds
    #[arg(long, default_value_t = 5)]
    seconds: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Section {
    /// Time from a request on a cold route to the first byte of its response
    Routes,
    /// Time from the start of a process to its first response
    Start,
    /// Memory of many idle routes
    Idle,
    /// Memory of the example application under load
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
