//! Standard output and error of guests: logged line by line under the component's id, and written
//! unchanged to the files of `--log-dir`. Output of a component beyond a limit per second is dropped,
//! and the dropped lines are counted.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::io::AsyncWrite;
use tracing::{info, warn};
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};

use crate::config::app::App;

/// Maximum length of a line, in bytes; a longer one is logged in parts.
const MAX_LINE: usize = 4096;
/// Minimum size a line is counted with, in bytes: the log adds the time and the component.
const MIN_LINE: usize = 128;
/// Maximum output of one component in a [`WINDOW`], in bytes: more than a person can read, and little
/// enough to leave the log usable for other components.
const MAX_BYTES: usize = 1 << 20;
const WINDOW: Duration = Duration::from_secs(1);

/// The output of a component's instances.
#[derive(Clone, Debug)]
pub struct ComponentOutput {
    component: Arc<str>,
    meter: Arc<Meter>,
    /// Whether it goes to the log.
    logged: bool,
    stdout: Option<Arc<LogFile>>,
    stderr: Option<Arc<LogFile>>,
}

impl ComponentOutput {
    /// Output into the log, and into `<component>_stdout.txt` and `<component>_stderr.txt` in the
    /// `log_dir` of `app`, the file names of Spin.
    ///
    /// # Errors
    /// The folder cannot be created, or a file cannot be opened.
    pub fn open(component: &str, app: &App) -> Result<Self> {
        let follow = &app.follow;
        let logged = follow.is_empty() || follow.iter().any(|id| id == component);
        let log = Self {
            component: component.into(),
            meter: Arc::default(),
            logged,
            stdout: None,
            stderr: None,
        };
        let Some(folder) = &app.log_dir else { return Ok(log) };
        let open = |stream| -> Result<Option<Arc<LogFile>>> {
            let path = folder.join(format!("{component}_{stream}.txt"));
            let mut file = OpenOptions::new();
            if app.truncate_logs {
                file.write(true).truncate(true);
            } else {
                file.append(true);
            }
            let file = file.create(true).open(&path);
            let file = file.with_context(|| format!("--log-dir: {}", path.display()))?;
            Ok(Some(Arc::new(LogFile { file, failed: AtomicBool::new(false) })))
        };
        std::fs::create_dir_all(folder)
            .with_context(|| format!("--log-dir: {}", folder.display()))?;
        Ok(Self { stdout: open("stdout")?, stderr: open("stderr")?, ..log })
    }

    /// Standard output and standard error of one instance.
    #[must_use]
    pub fn streams(&self) -> (LogStream, LogStream) {
        let stream = |name, file: &Option<Arc<LogFile>>| LogStream {
            component: Arc::clone(&self.component),
            meter: Arc::clone(&self.meter),
            stream: name,
            logged: self.logged,
            line: Arc::default(),
            file: file.clone(),
        };
        (stream("stdout", &self.stdout), stream("stderr", &self.stderr))
    }

    /// Logs how many lines were dropped since the last call, if any were.
    pub fn log_dropped_lines(&self) {
        let lines = self.meter.take_dropped();
        if lines > 0 {
            warn!(
                component = &*self.component,
                "{lines} lines dropped: the component printed more than {MAX_BYTES} bytes in a second"
            );
        }
    }
}

/// Limits what a component prints, over all instances and both streams.
#[derive(Debug, Default)]
struct Meter(Mutex<OutputWindow>);

#[derive(Debug, Default)]
struct OutputWindow {
    /// Start of the window.
    since: Option<Instant>,
    /// Bytes printed in it.
    bytes: usize,
    /// Number of dropped lines that are not logged yet.
    dropped: u64,
}

impl Meter {
    /// Whether a line of `bytes` bytes may be printed `now`. Counts the line as dropped if not.
    fn admits(&self, bytes: usize, now: Instant) -> bool {
        let mut window = self.0.lock();
        if window.since.is_none_or(|since| now.saturating_duration_since(since) >= WINDOW) {
            window.since = Some(now);
            window.bytes = 0;
        }
        window.bytes = window.bytes.saturating_add(bytes.max(MIN_LINE));
        let admitted = window.bytes <= MAX_BYTES;
        window.dropped += u64::from(!admitted);
        admitted
    }

    /// Number of lines dropped since the last call.
    fn take_dropped(&self) -> u64 {
        let mut window = self.0.lock();
        std::mem::take(&mut window.dropped)
    }
}

#[derive(Debug)]
struct LogFile {
    file: File,
    /// Whether a failed write was reported.
    failed: AtomicBool,
}

impl LogFile {
    fn write(&self, bytes: &[u8]) {
        if let Err(error) = (&self.file).write_all(bytes)
            && !self.failed.swap(true, Ordering::Relaxed)
        {
            warn!(%error, "cannot write to a file of --log-dir");
        }
    }
}

/// One output stream of one instance. Clones write to the same line.
#[derive(Clone, Debug)]
pub struct LogStream {
    component: Arc<str>,
    meter: Arc<Meter>,
    stream: &'static str,
    logged: bool,
    line: Arc<Mutex<Vec<u8>>>,
    file: Option<Arc<LogFile>>,
}

impl LogStream {
    fn push(&self, bytes: &[u8]) {
        let mut line = self.line.lock();
        for part in bytes.split_inclusive(|&byte| byte == b'\n') {
            for part in part.chunks(MAX_LINE) {
                line.extend_from_slice(part);
                if line.len() >= MAX_LINE || line.ends_with(b"\n") {
                    self.print(&line);
                    line.clear();
                }
            }
        }
    }

    fn print(&self, line: &[u8]) {
        if !self.meter.admits(line.len(), Instant::now()) {
            return;
        }
        if let Some(file) = &self.file {
            file.write(line);
        }
        if !self.logged {
            return;
        }
        let line = String::from_utf8_lossy(line);
        info!(target: "guest", component = &*self.component, stream = self.stream, "{}", line.trim_end());
    }
}

impl Drop for LogStream {
    fn drop(&mut self) {
        if let Some(line) = Arc::get_mut(&mut self.line) {
            let line = std::mem::take(line.get_mut());
            if !line.is_empty() {
                self.print(&line);
            }
        }
    }
}

impl IsTerminal for LogStream {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for LogStream {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

impl OutputStream for LogStream {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.push(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(1 << 20)
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for LogStream {
    async fn ready(&mut self) {}
}

impl AsyncWrite for LogStream {
    fn poll_write(
        self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        self.push(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use tracing_subscriber::fmt::MakeWriter;

    use super::*;

    #[derive(Clone, Default)]
    struct Captured(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl<'a> MakeWriter<'a> for Captured {
        type Writer = Self;

        fn make_writer(&'a self) -> Self {
            self.clone()
        }
    }

    fn output() -> ComponentOutput {
        ComponentOutput {
            component: "iris".into(),
            meter: Arc::default(),
            logged: true,
            stdout: None,
            stderr: None,
        }
    }

    #[test]
    fn output_is_logged_line_by_line() {
        let captured = Captured::default();
        let subscriber =
            tracing_subscriber::fmt().with_writer(captured.clone()).with_ansi(false).finish();
        tracing::subscriber::with_default(subscriber, || {
            let (_, stream) = output().streams();
            let clone = stream.clone();
            stream.push(b"one\ntw");
            clone.push(b"o\n");
            stream.push(&[b'x'; 2 * MAX_LINE + 1]);
        });
        let log = String::from_utf8(captured.0.lock().clone()).unwrap();
        let lines: Vec<_> = log.lines().collect();
        assert_eq!(lines.len(), 5, "one, two, two full parts and the rest: {log}");
        assert!(lines[0].ends_with("guest: one component=\"iris\" stream=\"stderr\""), "{log}");
        assert!(lines[1].contains("guest: two "), "{log}");
    }

    #[test]
    fn output_per_second_is_limited_and_dropped_lines_are_counted() {
        let meter = Meter::default();
        let now = Instant::now();
        let print = |bytes, now| (0..20_000).filter(|_| meter.admits(bytes, now)).count();
        assert_eq!(print(1024, now), MAX_BYTES / 1024);
        assert_eq!(meter.take_dropped(), 20_000 - 1024);
        assert_eq!(meter.take_dropped(), 0, "counted once");
        assert!(!meter.admits(1, now + WINDOW / 2));
        // An empty line counts as one of `MIN_LINE` bytes.
        assert_eq!(print(0, now + WINDOW), MAX_BYTES / MIN_LINE);
        assert_eq!(meter.take_dropped(), 1 + 20_000 - 8192);
    }
}
