//! Trials: a graph is loaded in a process of its own before it is loaded in this one.
//!
//! A backend folds the constants of a graph while it loads it, for which a few bytes can require
//! terabytes of memory or days of computation. A thread cannot be stopped, and a failed allocation
//! aborts the process. A process with limited memory and processor time fails alone.

use std::collections::HashMap;
use std::fmt;
use std::io::{self, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use parking_lot::{Mutex, MutexGuard};
use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};
use sha2::{Digest, Sha256};
use spinfer_backend::{Backend, Encoding, Error, ExecutionTarget, Graph, LoadOptions};

use super::graph::LoadedGraph;

/// The command of this program that runs a trial.
pub const COMMAND: &str = "try-graph";

/// Path of this program, to run trials with: the running one, even if its file was replaced.
///
/// # Errors
/// The system does not tell the path.
pub fn this_program() -> anyhow::Result<PathBuf> {
    if cfg!(target_os = "linux") {
        return Ok("/proc/self/exe".into());
    }
    std::env::current_exe().context("cannot find the path of this program")
}

/// Maximum number of verdicts that are cached, of 32 bytes and an error each.
const MAX_VERDICTS: usize = 10_000;
/// Time after which a refused graph is tried again: the machine may have been short of memory.
const REFUSAL_TTL: Duration = Duration::from_secs(600);
/// Ratio of the wall-clock limit of a trial to that of its processor time, as it may have to wait for
/// a processor.
const TIME_FACTOR: u64 = 10;
/// Maximum output of a trial in an error, in bytes.
const MAX_OUTPUT: u64 = 1000;

/// The limits of a trial.
#[derive(Clone, Copy, Debug)]
pub struct TrialLimits {
    /// Maximum address space, in bytes.
    memory: u64,
    /// Maximum processor time, in seconds.
    seconds: u64,
    /// Maximum wall-clock time.
    time: Duration,
}

impl TrialLimits {
    /// For a graph of `bytes` bytes, which is in memory several times while it is loaded.
    fn of(bytes: usize) -> Self {
        let bytes = bytes as u64;
        let limits = Self::new((2 << 30) + 8 * bytes, 30 + (bytes >> 20));
        let maximum = |resource| getrlimit(resource).maximum;
        limits.within(maximum(Resource::As), maximum(Resource::Cpu))
    }

    fn new(memory: u64, seconds: u64) -> Self {
        Self { memory, seconds, time: Duration::from_secs(seconds.saturating_mul(TIME_FACTOR)) }
    }

    /// Lowers the limits to those of this process, if it has any.
    fn within(self, memory: Option<u64>, seconds: Option<u64>) -> Self {
        // The hard limit of the trial is a second more.
        let seconds = seconds.map(|seconds| seconds.saturating_sub(1).max(1));
        let lower = |own: u64, limit: Option<u64>| limit.map_or(own, |limit| own.min(limit));
        Self::new(lower(self.memory, memory), lower(self.seconds, seconds))
    }
}

/// A backend whose graphs have a trial before they are loaded.
pub struct TrialBackend {
    backend: Arc<dyn Backend>,
    program: PathBuf,
    /// The library of the backend, which the trial loads too.
    library: Option<PathBuf>,
    limits: fn(usize) -> TrialLimits,
    verdicts: Mutex<Verdicts>,
}

/// The results of trials and when they ended, by the SHA-256 of the graph.
type Verdicts = HashMap<[u8; 32], (Result<(), Error>, Instant)>;

impl fmt::Debug for TrialBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TrialBackend").field("backend", &self.backend).finish_non_exhaustive()
    }
}

impl TrialBackend {
    /// Runs `program` with the command [`COMMAND`] for trials of `backend`, which has this `library`.
    #[must_use]
    pub fn new(backend: Arc<dyn Backend>, program: PathBuf, library: Option<PathBuf>) -> Self {
        Self { backend, program, library, limits: TrialLimits::of, verdicts: Mutex::default() }
    }

    fn try_first(&self, bytes: &[u8]) -> Result<(), Error> {
        let digest = Sha256::digest(bytes).into();
        if let Some(verdict) = self.verdict(&digest) {
            return verdict;
        }
        let limits = (self.limits)(bytes.len());
        let end = self.trial(bytes, limits).map_err(|e| {
            let program = self.program.display();
            Error::Runtime(format!("cannot run a trial of the graph by {program}: {e}"))
        })?;
        let verdict = end.check(limits);
        // A failure that is not the graph's fault is not cached.
        if !matches!(verdict, Err(Error::Runtime(_))) {
            let mut verdicts = self.verdicts();
            if verdicts.len() >= MAX_VERDICTS {
                verdicts.clear();
            }
            verdicts.insert(digest, (verdict.clone(), Instant::now()));
        }
        verdict
    }

    /// The cached verdict, if it is still valid.
    fn verdict(&self, digest: &[u8; 32]) -> Option<Result<(), Error>> {
        let verdicts = self.verdicts();
        let (verdict, at) = verdicts.get(digest)?;
        (verdict.is_ok() || at.elapsed() < REFUSAL_TTL).then(|| verdict.clone())
    }

    fn trial(&self, bytes: &[u8], limits: TrialLimits) -> io::Result<TrialOutcome> {
        let TrialLimits { memory, seconds, time } = limits;
        let child = Command::new(&self.program)
            .args([COMMAND, &memory.to_string(), &seconds.to_string()])
            .args(&self.library)
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        let mut child = TrialProcess(child);
        let (Some(mut stdin), Some(stderr)) = (child.0.stdin.take(), child.0.stderr.take()) else {
            return Err(io::ErrorKind::BrokenPipe.into());
        };
        // Its output ends with the process.
        let (sender, output) = mpsc::channel();
        thread::Builder::new().spawn(move || sender.send(read_output(stderr)))?;
        thread::scope(|scope| {
            // Fails if the process exited, which its status shows.
            let write = move || drop(stdin.write_all(bytes));
            thread::Builder::new().spawn_scoped(scope, write)?;
            let output = output.recv_timeout(time).ok();
            if output.is_none() {
                child.0.kill()?;
            }
            Ok(TrialOutcome { status: child.0.wait()?, output })
        })
    }

    fn verdicts(&self) -> MutexGuard<'_, Verdicts> {
        self.verdicts.lock()
    }
}

/// The process of a trial, which is killed on drop.
struct TrialProcess(Child);

impl Drop for TrialProcess {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Reads the output of a trial to its end. Returns the beginning in one line.
fn read_output(mut from: impl Read) -> String {
    let mut output = Vec::new();
    let _ = from.by_ref().take(MAX_OUTPUT).read_to_end(&mut output);
    let _ = io::copy(&mut from, &mut io::sink());
    String::from_utf8_lossy(&output).trim().replace('\n', " ")
}

impl Backend for TrialBackend {
    fn name(&self) -> &'static str {
        self.backend.name()
    }

    fn supports(&self, encoding: Encoding, target: ExecutionTarget) -> bool {
        self.backend.supports(encoding, target)
    }

    fn load(&self, bytes: &[u8], encoding: Encoding) -> Result<Arc<dyn Graph>, Error> {
        self.load_with(bytes, encoding, LoadOptions::default())
    }

    fn load_with(
        &self,
        bytes: &[u8],
        encoding: Encoding,
        options: LoadOptions,
    ) -> Result<Arc<dyn Graph>, Error> {
        self.try_first(bytes)?;
        self.backend.load_with(bytes, encoding, options)
    }

    fn release_memory(&self) {
        self.backend.release_memory();
    }
}

/// How a trial ended.
struct TrialOutcome {
    status: ExitStatus,
    /// Its output; `None` if it exceeded the wall-clock limit.
    output: Option<String>,
}

impl TrialOutcome {
    /// Checks that the trial was not stopped by its limits or by a panic.
    fn check(&self, TrialLimits { memory, seconds, time }: TrialLimits) -> Result<(), Error> {
        let refuse = |what| Err(Error::Unsupported(format!("{what} to load and run it once")));
        let Self { status, output } = self;
        let Some(output) = output else {
            return refuse(format!("it takes more than {time:?}"));
        };
        let reason =
            if output.is_empty() { status.to_string() } else { format!("{status}: {output}") };
        match status.signal() {
            None if status.success() => Ok(()),
            None => Err(Error::Runtime(format!("the trial of the graph failed: {reason}"))),
            Some(signal) if signal == Signal::XCPU.as_raw() => {
                refuse(format!("it takes more than {seconds} s of processor time"))
            }
            Some(_) => {
                let mebibytes = memory >> 20;
                refuse(format!(
                    "it takes more than {mebibytes} MiB of memory, or panics ({reason}),"
                ))
            }
        }
    }
}

/// Runs the trial itself: loads the graph on standard input and runs it once. A graph that cannot be
/// loaded is not an error, as the host loads it again; what matters is that the process exits normally.
///
/// # Errors
/// The limits of this process cannot be set, or the graph cannot be read.
pub fn run(backend: Arc<dyn Backend>, memory: u64, seconds: u64) -> Result<()> {
    // Ends this process with the host, even if the host is killed. If the host exited already, the
    // limits end this process.
    #[cfg(target_os = "linux")]
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .context("cannot tie the trial to the host's process")?;
    let limit = |resource, soft: u64, hard: u64| {
        setrlimit(resource, Rlimit { current: Some(soft), maximum: Some(hard) })
            .context("cannot limit this process")
    };
    limit(Resource::Core, 0, 0)?;
    limit(Resource::As, memory, memory)?;
    limit(Resource::Cpu, seconds, seconds + 1)?;
    // If memory is short, the system kills this process before the host. Linux only.
    let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
    let mut bytes = Vec::new();
    io::stdin().read_to_end(&mut bytes)?;
    // On a thread with the same stack size as those that load for the host.
    let load = move || {
        if let Ok(graph) = backend.load(&bytes, Encoding::Onnx) {
            LoadedGraph::new(graph).warm_up();
        }
    };
    // A failed allocation may be a panic, which more memory would avoid: abort, as for other failures.
    std::panic::set_hook(Box::new(|panic| {
        let _ = writeln!(io::stderr(), "{}", panic.payload_as_str().unwrap_or_default());
        std::process::abort();
    }));
    thread::spawn(load).join().map_err(|_| anyhow!("the trial panicked"))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

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

    /// A backend whose trial is a shell script in `dir`.
    fn tried(dir: &Path, script: &str) -> TrialBackend {
        use std::os::unix::fs::PermissionsExt;
        let program = dir.join("program");
        std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        TrialBackend::new(Arc::new(Refuses), program, None)
    }

    /// The error for a graph.
    fn refusal(tried: &TrialBackend) -> String {
        tried.load(b"graph", Encoding::Onnx).unwrap_err().to_string()
    }

    #[test]
    fn graph_is_loaded_only_after_a_successful_trial() {
        let dir = tempfile::tempdir().unwrap();
        for (script, part) in [
            ("cat > /dev/null", "loaded here"),
            // It need not read its input.
            ("exit 0", "loaded here"),
            ("exit 1", "the trial of the graph failed: exit status: 1"),
            ("echo no >&2; echo room >&2; exit 1", "failed: exit status: 1: no room"),
            ("kill -XCPU $$", "it takes more than 30 s of processor time"),
            ("kill -ABRT $$", "it takes more than 2048 MiB of memory"),
            ("echo 'index out' >&2; kill -ABRT $$", "or panics (signal: 6 (SIGABRT): index out)"),
            ("test \"$*\" = 'try-graph 2147483688 30' || kill -ABRT $$", "loaded here"),
        ] {
            let error = refusal(&tried(dir.path(), script));
            assert!(error.contains(part), "{script}: {error}");
        }
    }

    /// Each request for a model may load its graph again.
    #[test]
    fn verdict_of_a_trial_is_cached() {
        let dir = tempfile::tempdir().unwrap();
        let count = dir.path().join("count");
        let script = |end| format!("echo >> {}; {end}", count.display());
        for (end, trials) in [("exit 0", 1), ("kill -XCPU $$", 1), ("exit 1", 3)] {
            let tried = tried(dir.path(), &script(end));
            let first = refusal(&tried);
            assert_eq!([refusal(&tried), refusal(&tried)], [first.clone(), first], "{end}");
            assert_eq!(std::fs::read(&count).unwrap().len(), trials, "{end}");
            std::fs::remove_file(&count).unwrap();
            // A refusal expires.
            let digest: [u8; 32] = Sha256::digest(b"graph").into();
            if let Some((_, at)) = tried.verdicts().get_mut(&digest) {
                *at -= REFUSAL_TTL;
            }
            refusal(&tried);
            assert_eq!(count.exists(), end != "exit 0", "{end}");
            let _ = std::fs::remove_file(&count);
        }
    }

    #[test]
    fn trial_that_never_ends_is_killed() {
        let dir = tempfile::tempdir().unwrap();
        let mut tried = tried(dir.path(), "exec sleep 1000");
        tried.limits =
            |_| TrialLimits { time: Duration::from_millis(50), ..TrialLimits::new(1, 1) };
        // More than a pipe holds, none of which it reads.
        let error = tried.load(&[0; 1 << 20], Encoding::Onnx).unwrap_err().to_string();
        assert!(error.contains("it takes more than 50ms to load"), "{error}");
    }

    #[test]
    fn limits_of_a_trial_are_within_those_of_this_process() {
        let within = |memory, seconds| {
            let TrialLimits { memory, seconds, time } =
                TrialLimits::new(2000, 30).within(memory, seconds);
            (memory, seconds, time.as_secs())
        };
        assert_eq!(within(None, None), (2000, 30, 300));
        assert_eq!(within(Some(3000), Some(31)), (2000, 30, 300));
        assert_eq!(within(Some(1000), Some(30)), (1000, 29, 290));
    }

    #[test]
    fn trial_that_cannot_start_is_an_error() {
        let error = refusal(&TrialBackend::new(Arc::new(Refuses), "/nowhere".into(), None));
        assert!(error.contains("a trial of the graph by /nowhere"), "{error}");
    }
}
