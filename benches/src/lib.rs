//! What the tools of this folder share: servers to measure, loads to put on them, and what
//! proc(5) says they cost. The tools print Markdown; `RESULTS.md` says which figure is whose.

pub mod application;
pub mod client;
pub mod network;
pub mod open_loop;
pub mod process;
pub mod redis_server;
pub mod server;
pub mod wrk;

use anyhow::{Context, Result};

/// The median; of an even number of values the mean of the two in the middle.
///
/// # Panics
/// Of no values there is none.
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let (lower, higher) = (values[(values.len() - 1) / 2], values[values.len() / 2]);
    f64::midpoint(lower, higher)
}

/// The kind of machine, for the record.
pub fn machine() -> Result<String> {
    let info = std::fs::read_to_string("/proc/cpuinfo").context("/proc/cpuinfo")?;
    let model = info.lines().find_map(|line| line.strip_prefix("model name"));
    let model = model.map_or("unknown CPU", |line| line.trim_start_matches([' ', '\t', ':']));
    Ok(format!("{} cores of {model}", std::thread::available_parallelism()?))
}
