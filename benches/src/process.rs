//! What a process uses, from proc(5).

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};

/// Resident memory in MiB: `anon` is its own, `file` is of files it has mapped and can be taken
/// away again, `shared` is shared memory.
#[derive(Clone, Copy, Debug)]
pub struct Resident {
    pub anon: f64,
    pub file: f64,
    pub shared: f64,
}

impl Resident {
    #[must_use]
    pub fn total(&self) -> f64 {
        self.anon + self.file + self.shared
    }
}

/// A process by its id. Whoever holds it has to know that the process still runs.
#[derive(Clone, Copy, Debug)]
pub struct Process(pub u32);

impl Process {
    /// User and system time so far.
    pub fn cpu_seconds(self) -> Result<f64> {
        // What every Linux shows its clock ticks in, whatever it counts in.
        const TICKS_PER_SECOND: f64 = 100.0;
        let stat = self.read("stat")?;
        let after_name = stat.rsplit_once(')').context("proc(5)")?.1;
        let fields: Vec<&str> = after_name.split_whitespace().collect();
        Ok((fields[11].parse::<f64>()? + fields[12].parse::<f64>()?) / TICKS_PER_SECOND)
    }

    pub fn resident(self) -> Result<Resident> {
        let status = self.read("status")?;
        let mib = |key| -> Result<f64> {
            Ok(field(&status, key)?.trim_end_matches(" kB").parse::<f64>()? / 1024.0)
        };
        Ok(Resident { anon: mib("RssAnon:")?, file: mib("RssFile:")?, shared: mib("RssShmem:")? })
    }

    /// The most resident memory there was, in MiB.
    pub fn peak(self) -> Result<f64> {
        let status = self.read("status")?;
        Ok(field(&status, "VmHWM:")?.trim_end_matches(" kB").parse::<f64>()? / 1024.0)
    }

    /// Resident memory once it has stopped falling: allocators give back some time after they
    /// could.
    pub fn settled(self) -> Result<Resident> {
        const PAUSE: Duration = Duration::from_millis(200);
        const FALLING_MIB: f64 = 0.1;
        let mut before = self.resident()?;
        loop {
            std::thread::sleep(PAUSE);
            let now = self.resident()?;
            if before.total() - now.total() < FALLING_MIB {
                return Ok(now);
            }
            before = now;
        }
    }

    pub fn threads(self) -> Result<usize> {
        Ok(field(&self.read("status")?, "Threads:")?.parse()?)
    }

    /// What each open file descriptor is of.
    pub fn descriptors(self) -> Result<Vec<PathBuf>> {
        let path = format!("/proc/{}/fd", self.0);
        let entries = std::fs::read_dir(&path).with_context(|| path.clone())?;
        // One that was closed meanwhile is not open.
        Ok(entries.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok()).collect())
    }

    fn read(self, file: &str) -> Result<String> {
        let path = format!("/proc/{}/{file}", self.0);
        std::fs::read_to_string(&path).with_context(|| path.clone())
    }
}

fn field<'a>(status: &'a str, key: &str) -> Result<&'a str> {
    let line = status.lines().find_map(|line| line.strip_prefix(key));
    line.map(str::trim).with_context(|| format!("proc(5) has no {key}"))
}
