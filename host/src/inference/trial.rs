//! Trials: a graph is loaded in a process of its own before it is loaded in this one.
//!
//! A backend computes what is constant in a graph while it loads it. A few bytes can ask for terabytes
//! of that, or for days; a thread cannot be ended, and memory that is not there ends the process. In
//! one that may have so much memory and processor time, it ends the trial.

use std::collections::HashMap;
use std::fmt;
use std::io::{self, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};
use sha2::{Digest, Sha256};
use spinfer_backend::{Backend, Encoding, Error, ExecutionTarget, Graph, LoadOptions};

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

/// Graphs of which it is known whether they load: 32 bytes each, and an error.
const REMEMBERED: usize = 10_000;
/// A refusal stands for so long: it may have been the machine that was short of something.
const REFUSED: Duration = Duration::from_secs(600);
/// How many times its processor time a trial may take in all, as it may have to wait for a
/// processor.
const BUSY: u64 = 10;
/// Bytes of what a trial says that are repeated.
const MAX_SAID: u64 = 1000;

/// What a trial may take.
#[derive(Clone, Copy, Debug)]
pub struct Allowance {
    /// Bytes of addresses.
    memory: u64,
    /// Of processor time.
    seconds: u64,
    /// In all, whatever it waits for.
    time: Duration,
}

impl Allowance {
    /// Of a graph of so many bytes: it is in memory several times while it is loaded.
    fn of(bytes: usize) -> Self {
        let bytes = bytes as u64;
        let allowance = Self::new((2 << 30) + 8 * bytes, 30 + (bytes >> 20));
        let most = |resource| getrlimit(resource).maximum;
        allowance.within(most(Resource::As), most(Resource::Cpu))
    }

    fn new(memory: u64, seconds: u64) -> Self {
        Self { memory, seconds, time: Duration::from_secs(seconds.saturating_mul(BUSY)) }
    }

    /// No more than this process may give away, if that is limited.
    fn within(self, memory: Option<u64>, seconds: Option<u64>) -> Self {
        // Its own hard limit is a second more.
        let seconds = seconds.map(|seconds| seconds.saturating_sub(1).max(1));
        let least = |own: u64, most: Option<u64>| most.map_or(own, |most| own.min(most));
        Self::new(least(self.memory, memory), least(self.seconds, seconds))
    }
}

/// A backend whose graphs are tried first.
pub struct Tried {
    backend: Arc<dyn Backend>,
    program: PathBuf,
    /// The backend's library, for the trial to load.
    library: Option<PathBuf>,
    allowance: fn(usize) -> Allowance,
    known: Mutex<Known>,
}

/// What came of trials, and when, by SHA-256.
type Known = HashMap<[u8; 32], (Result<(), Error>, Instant)>;

impl fmt::Debug for Tried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tried").field("backend", &self.backend).finish_non_exhaustive()
    }
}

impl Tried {
    /// `program` is this program, whose command [`COMMAND`] is a trial of `backend`, of which that is
    /// the `library`.
    #[must_use]
    pub fn new(backend: Arc<dyn Backend>, program: PathBuf, library: Option<PathBuf>) -> Self {
        Self { backend, program, library, allowance: Allowance::of, known: Mutex::default() }
    }

    fn try_first(&self, bytes: &[u8]) -> Result<(), Error> {
        let digest = Sha256::digest(bytes).into();
        if let Some(verdict) = self.verdict(&digest) {
            return verdict;
        }
        let allowance = (self.allowance)(bytes.len());
        let end = self.trial(bytes, allowance).map_err(|e| {
            let program = self.program.display();
            Error::Runtime(format!("cannot try the graph in a process of its own, {program}: {e}"))
        })?;
        let verdict = end.check(allowance);
        // What is not the graph's fault may be otherwise at once.
        if !matches!(verdict, Err(Error::Runtime(_))) {
            let mut known = self.known();
            if known.len() >= REMEMBERED {
                known.clear();
            }
            known.insert(digest, (verdict.clone(), Instant::now()));
        }
        verdict
    }

    /// What came of the trial before, if that still counts.
    fn verdict(&self, digest: &[u8; 32]) -> Option<Result<(), Error>> {
        let known = self.known();
        let (verdict, at) = known.get(digest)?;
        (verdict.is_ok() || at.elapsed() < REFUSED).then(|| verdict.clone())
    }

    fn trial(&self, bytes: &[u8], allowance: Allowance) -> io::Result<End> {
        let Allowance { memory, seconds, time } = allowance;
        let child = Command::new(&self.program)
            .args([COMMAND, &memory.to_string(), &seconds.to_string()])
            .args(&self.library)
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        let mut child = Trial(child);
        let (Some(mut stdin), Some(stderr)) = (child.0.stdin.take(), child.0.stderr.take()) else {
            return Err(io::ErrorKind::BrokenPipe.into());
        };
        // What it says ends when it does.
        let (saying, said) = mpsc::channel();
        thread::Builder::new().spawn(move || saying.send(all_said(stderr)))?;
        thread::scope(|scope| {
            // It may have ended, which its status says.
            let write = move || drop(stdin.write_all(bytes));
            thread::Builder::new().spawn_scoped(scope, write)?;
            let said = said.recv_timeout(time).ok();
            if said.is_none() {
                child.0.kill()?;
            }
            Ok(End { status: child.0.wait()?, said })
        })
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The process of a trial, which does not outlive it.
struct Trial(Child);

impl Drop for Trial {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The beginning of what a trial says, in one line, once it has said all.
fn all_said(mut from: impl Read) -> String {
    let mut said = Vec::new();
    let _ = from.by_ref().take(MAX_SAID).read_to_end(&mut said);
    let _ = io::copy(&mut from, &mut io::sink());
    String::from_utf8_lossy(&said).trim().replace('\n', " ")
}

impl Backend for Tried {
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
struct End {
    status: ExitStatus,
    /// What it said; `None` if it did not end in time.
    said: Option<String>,
}

impl End {
    /// Whether that was its own end.
    fn check(&self, Allowance { memory, seconds, time }: Allowance) -> Result<(), Error> {
        let ended = |what| Err(Error::Unsupported(format!("{what} to load and run it once")));
        let Self { status, said } = self;
        let Some(said) = said else {
            return ended(format!("it takes more than {time:?}"));
        };
        let why = if said.is_empty() { status.to_string() } else { format!("{status}: {said}") };
        match status.signal() {
            None if status.success() => Ok(()),
            None => Err(Error::Runtime(format!("the trial of the graph failed: {why}"))),
            Some(signal) if signal == Signal::XCPU.as_raw() => {
                ended(format!("it takes more than {seconds} s of processor time"))
            }
            Some(_) => {
                let mebibytes = memory >> 20;
                ended(format!("it takes more than {mebibytes} MiB of memory, or panics ({why}),"))
            }
        }
    }
}

/// The trial itself: loads the graph on standard input and runs it once. Whether that can be done does
/// not matter, as whoever asked does it again; that it comes to an end does. Fails if this process
/// cannot be limited.
pub fn run(backend: Arc<dyn Backend>, memory: u64, seconds: u64) -> Result<()> {
    // It is of no use without the host, which has no time to say so if it is killed. One that is gone
    // already does not end this: the limits do.
    #[cfg(target_os = "linux")]
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .context("cannot end with the host")?;
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

    /// A backend whose trial is this shell script in `dir`.
    fn tried(dir: &Path, script: &str) -> Tried {
        use std::os::unix::fs::PermissionsExt;
        let program = dir.join("program");
        std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        Tried::new(Arc::new(Refuses), program, None)
    }

    /// What is said of a graph.
    fn said(tried: &Tried) -> String {
        tried.load(b"graph", Encoding::Onnx).unwrap_err().to_string()
    }

    #[test]
    fn a_graph_is_loaded_here_only_if_its_trial_came_to_an_end() {
        let dir = tempfile::tempdir().unwrap();
        for (script, part) in [
            ("cat > /dev/null", "loaded here"),
            // It need not read all of it.
            ("exit 0", "loaded here"),
            ("exit 1", "the trial of the graph failed: exit status: 1"),
            ("echo no >&2; echo room >&2; exit 1", "failed: exit status: 1: no room"),
            ("kill -XCPU $$", "it takes more than 30 s of processor time"),
            ("kill -ABRT $$", "it takes more than 2048 MiB of memory"),
            ("echo 'index out' >&2; kill -ABRT $$", "or panics (signal: 6 (SIGABRT): index out)"),
            ("test \"$*\" = 'try-graph 2147483688 30' || kill -ABRT $$", "loaded here"),
        ] {
            let said = said(&tried(dir.path(), script));
            assert!(said.contains(part), "{script}: {said}");
        }
    }

    /// As a request would do it, again and again.
    #[test]
    fn a_graph_is_tried_once() {
        let dir = tempfile::tempdir().unwrap();
        let count = dir.path().join("count");
        let script = |end| format!("echo >> {}; {end}", count.display());
        for (end, trials) in [("exit 0", 1), ("kill -XCPU $$", 1), ("exit 1", 3)] {
            let tried = tried(dir.path(), &script(end));
            let first = said(&tried);
            assert_eq!([said(&tried), said(&tried)], [first.clone(), first], "{end}");
            assert_eq!(std::fs::read(&count).unwrap().len(), trials, "{end}");
            std::fs::remove_file(&count).unwrap();
            // A refusal is not for ever.
            let digest: [u8; 32] = Sha256::digest(b"graph").into();
            if let Some((_, at)) = tried.known().get_mut(&digest) {
                *at -= REFUSED;
            }
            said(&tried);
            assert_eq!(count.exists(), end != "exit 0", "{end}");
            let _ = std::fs::remove_file(&count);
        }
    }

    #[test]
    fn a_trial_that_waits_for_ever_is_ended() {
        let dir = tempfile::tempdir().unwrap();
        let mut tried = tried(dir.path(), "exec sleep 1000");
        tried.allowance = |_| Allowance { time: Duration::from_millis(50), ..Allowance::new(1, 1) };
        // More than a pipe holds, of which it reads nothing.
        let error = tried.load(&[0; 1 << 20], Encoding::Onnx).unwrap_err().to_string();
        assert!(error.contains("it takes more than 50ms to load"), "{error}");
    }

    #[test]
    fn a_trial_is_allowed_what_this_process_may_give_away() {
        let within = |memory, seconds| {
            let Allowance { memory, seconds, time } =
                Allowance::new(2000, 30).within(memory, seconds);
            (memory, seconds, time.as_secs())
        };
        assert_eq!(within(None, None), (2000, 30, 300));
        assert_eq!(within(Some(3000), Some(31)), (2000, 30, 300));
        assert_eq!(within(Some(1000), Some(30)), (1000, 29, 290));
    }

    #[test]
    fn a_trial_that_cannot_begin_is_an_error() {
        let error = said(&Tried::new(Arc::new(Refuses), "/nowhere".into(), None));
        assert!(error.contains("in a process of its own, /nowhere"), "{error}");
    }
}
