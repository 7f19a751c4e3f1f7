//! Trials: a graph is loaded in a process of its own before it is loaded in this one.
//!
//! A backend computes what is constant in a graph while it loads it. A few bytes can ask for terabytes
//! of that, or for days; a thread cannot be ended, and memory that is not there ends the process. In
//! one that may have so much memory and processor time, it ends the trial.

use std::collections::HashSet;
use std::fmt;
use std::io::{self, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, anyhow};
use rustix::process::{Resource, Rlimit, Signal, setrlimit};
use sha2::{Digest, Sha256};
use spinfer_backend::{Backend, Encoding, Error, ExecutionTarget, Graph};

use super::graph::LoadedGraph;

/// The command of this program that is a trial.
pub const COMMAND: &str = "try-graph";

/// This program, to try graphs with: itself, even if there is another in its file by now.
pub fn this_program() -> anyhow::Result<PathBuf> {
    if cfg!(target_os = "linux") {
        return Ok("/proc/self/exe".into());
    }
    std::env::current_exe().context("cannot find this program")
}

/// Graphs that are known to load: 32 bytes each.
const REMEMBERED: usize = 10_000;

/// What a trial may take.
#[derive(Clone, Copy, Debug)]
pub struct Allowance {
    /// Bytes of addresses.
    memory: u64,
    /// Of processor time.
    seconds: u64,
}

impl Allowance {
    /// Of a graph of so many bytes: it is in memory several times while it is loaded.
    fn of(bytes: usize) -> Self {
        let bytes = bytes as u64;
        Self { memory: (2 << 30) + 8 * bytes, seconds: 30 + (bytes >> 20) }
    }
}

/// A backend whose graphs are tried first.
pub struct Tried {
    backend: Arc<dyn Backend>,
    program: PathBuf,
    allowance: fn(usize) -> Allowance,
    /// By SHA-256.
    well: Mutex<HashSet<[u8; 32]>>,
}

impl fmt::Debug for Tried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tried").field("backend", &self.backend).finish_non_exhaustive()
    }
}

impl Tried {
    /// `program` is this program, whose command [`COMMAND`] is a trial of `backend`.
    #[must_use]
    pub fn new(backend: Arc<dyn Backend>, program: PathBuf) -> Self {
        Self { backend, program, allowance: Allowance::of, well: Mutex::default() }
    }

    fn try_first(&self, bytes: &[u8]) -> Result<(), Error> {
        let digest = Sha256::digest(bytes).into();
        if self.well().contains(&digest) {
            return Ok(());
        }
        let allowance = (self.allowance)(bytes.len());
        let status = self.trial(bytes, allowance).map_err(|e| {
            let program = self.program.display();
            Error::Runtime(format!("cannot try the graph in a process of its own, {program}: {e}"))
        })?;
        check(status, allowance)?;
        let mut well = self.well();
        if well.len() >= REMEMBERED {
            well.clear();
        }
        well.insert(digest);
        Ok(())
    }

    fn trial(
        &self,
        bytes: &[u8],
        Allowance { memory, seconds }: Allowance,
    ) -> io::Result<ExitStatus> {
        let mut child = Command::new(&self.program)
            .args([COMMAND, &memory.to_string(), &seconds.to_string()])
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            // It may have ended, which its status says.
            let _ = stdin.write_all(bytes);
        }
        child.wait()
    }

    fn well(&self) -> MutexGuard<'_, HashSet<[u8; 32]>> {
        self.well.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Backend for Tried {
    fn name(&self) -> &'static str {
        self.backend.name()
    }

    fn supports(&self, encoding: Encoding, target: ExecutionTarget) -> bool {
        self.backend.supports(encoding, target)
    }

    fn load(&self, bytes: &[u8], encoding: Encoding) -> Result<Arc<dyn Graph>, Error> {
        self.try_first(bytes)?;
        self.backend.load(bytes, encoding)
    }
}

/// Whether a trial came to its end.
fn check(status: ExitStatus, Allowance { memory, seconds }: Allowance) -> Result<(), Error> {
    let ended = |what: String| Err(Error::Unsupported(format!("{what} to load and run it once")));
    match status.signal() {
        None if status.success() => Ok(()),
        None => Err(Error::Runtime(format!("the trial of the graph failed: {status}"))),
        Some(signal) if signal == Signal::XCPU.as_raw() => {
            ended(format!("it takes more than {seconds} s of processor time"))
        }
        Some(_) => {
            let mebibytes = memory >> 20;
            ended(format!("it takes more than {mebibytes} MiB of memory, or panics ({status}),"))
        }
    }
}

/// The trial itself: loads the graph on standard input and runs it once. Whether that can be done does
/// not matter, as whoever asked does it again; that it comes to an end does. Fails if this process
/// cannot be limited.
pub fn run(backend: Arc<dyn Backend>, memory: u64, seconds: u64) -> Result<()> {
    let limit = |resource, most: u64, hard: u64| {
        setrlimit(resource, Rlimit { current: Some(most), maximum: Some(hard) })
            .context("cannot limit this process")
    };
    limit(Resource::Core, 0, 0)?;
    limit(Resource::As, memory, memory)?;
    limit(Resource::Cpu, seconds, seconds + 1)?;
    // Where memory is short, this goes before the host. Other systems have no such file.
    let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
    let mut bytes = Vec::new();
    io::stdin().read_to_end(&mut bytes)?;
    // On a thread like those that load for the host, with a stack like theirs.
    let load = move || {
        if let Ok(graph) = backend.load(&bytes, Encoding::Onnx) {
            LoadedGraph::new(graph).warm_up();
        }
    };
    // Memory that is not there is a panic in places, and where there is more memory it would not be.
    std::panic::set_hook(Box::new(|_| std::process::abort()));
    std::thread::spawn(load).join().map_err(|_| anyhow!("the trial panicked"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Refuses;

    impl Backend for Refuses {
        fn name(&self) -> &'static str {
            "refuses"
        }

        fn supports(&self, _: Encoding, _: ExecutionTarget) -> bool {
            true
        }

        fn load(&self, _: &[u8], _: Encoding) -> Result<Arc<dyn Graph>, Error> {
            Err(Error::InvalidEncoding("loaded here".into()))
        }
    }

    /// What is said of a graph whose trial is this shell script.
    fn said(script: &str) -> String {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("program");
        std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let tried = Tried::new(Arc::new(Refuses), program);
        let again = tried.load(b"graph", Encoding::Onnx).unwrap_err().to_string();
        assert_eq!(tried.load(b"graph", Encoding::Onnx).unwrap_err().to_string(), again);
        again
    }

    #[test]
    fn a_graph_is_loaded_here_only_if_its_trial_came_to_an_end() {
        for (script, part) in [
            ("cat > /dev/null", "loaded here"),
            // It need not read all of it.
            ("exit 0", "loaded here"),
            ("exit 1", "the trial of the graph failed: exit status: 1"),
            ("kill -XCPU $$", "it takes more than 30 s of processor time"),
            ("kill -ABRT $$", "it takes more than 2048 MiB of memory"),
            ("test \"$*\" = 'try-graph 2147483688 30' || kill -ABRT $$", "loaded here"),
        ] {
            let said = said(script);
            assert!(said.contains(part), "{script}: {said}");
        }
    }

    #[test]
    fn a_trial_that_cannot_begin_is_an_error() {
        let tried = Tried::new(Arc::new(Refuses), "/nowhere".into());
        let error = tried.load(b"graph", Encoding::Onnx).unwrap_err().to_string();
        assert!(error.contains("in a process of its own, /nowhere"), "{error}");
    }
}
