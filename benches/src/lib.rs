//! Shared code of the benchmarks: servers, load generators, and the costs of a process from
//! proc(5). The tools print Markdown. `RESULTS.md` lists the command of each figure.

pub mod application;
pub mod callgrind;
pub mod client;
pub mod image;
pub mod network;
pub mod open_loop;
pub mod probabilities;
pub mod process;
pub mod redis_server;
pub mod reference;
pub mod server;
pub mod wrk;

use anyhow::{Context, Result};

/// The median. Of an even number of values it is the mean of the middle two.
///
/// # Panics
/// If there are no values.
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let (lower, higher) = (values[(values.len() - 1) / 2], values[values.len() / 2]);
    f64::midpoint(lower, higher)
}

/// The number and model of the processor's cores.
///
/// # Errors
/// If `/proc/cpuinfo` cannot be read.
pub fn machine() -> Result<String> {
    let info = std::fs::read_to_string("/proc/cpuinfo").context("/proc/cpuinfo")?;
    let model = info.lines().find_map(|line| line.strip_prefix("model name"));
    let model = model.map_or("unknown CPU", |line| line.trim_start_matches([' ', '\t', ':']));
    Ok(format!("{} cores of {model}", std::thread::available_parallelism()?))
}
