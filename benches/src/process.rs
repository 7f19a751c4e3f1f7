//! Resources of a process, from proc(5).

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};

/// Resident memory, in MiB.
#[derive(Clone, Copy, Debug)]
pub struct Resident {
    /// Anonymous memory.
    pub anon: f64,
    /// Pages of mapped files, which the kernel can reclaim.
    pub file: f64,
    /// Shared memory.
    pub shared: f64,
}

impl Resident {
    /// All of it, in MiB.
    #[must_use]
    pub fn total(&self) -> f64 {
        self.anon + self.file + self.shared
    }
}

/// A process by its id. The caller makes sure that it still runs.
///
/// # Errors
/// Every method fails if proc(5) has no such process.
#[derive(Clone, Copy, Debug)]
pub struct Process(pub u32);

impl Process {
    /// User and system time so far, in seconds.
    pub fn cpu_seconds(self) -> Result<f64> {
        // USER_HZ, which is 100 on every Linux.
        const TICKS_PER_SECOND: f64 = 100.0;
        let stat = self.read("stat")?;
        let after_name = stat.rsplit_once(')').context("proc(5)")?.1;
        let fields: Vec<&str> = after_name.split_whitespace().collect();
        Ok((fields[11].parse::<f64>()? + fields[12].parse::<f64>()?) / TICKS_PER_SECOND)
    }

    /// Resident memory.
    pub fn resident(self) -> Result<Resident> {
        let status = self.read("status")?;
        let mib = |key| -> Result<f64> {
            Ok(field(&status, key)?.trim_end_matches(" kB").parse::<f64>()? / 1024.0)
        };
        Ok(Resident { anon: mib("RssAnon:")?, file: mib("RssFile:")?, shared: mib("RssShmem:")? })
    }

    /// Maximum resident memory so far, in MiB.
    pub fn peak(self) -> Result<f64> {
        let status = self.read("status")?;
        Ok(field(&status, "VmHWM:")?.trim_end_matches(" kB").parse::<f64>()? / 1024.0)
    }

    /// Resident memory once it no longer falls: allocators return memory to the system with a
    /// delay.
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

    /// Number of threads.
    pub fn threads(self) -> Result<usize> {
        Ok(field(&self.read("status")?, "Threads:")?.parse()?)
    }

    /// The target of each open file descriptor.
    pub fn descriptors(self) -> Result<Vec<PathBuf>> {
        let path = format!("/proc/{}/fd", self.0);
        let entries = std::fs::read_dir(&path).with_context(|| path.clone())?;
        // A descriptor may be closed in between.
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
