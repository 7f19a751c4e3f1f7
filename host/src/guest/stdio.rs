//! A guest's standard output and error: lines in the log, under the component's id, and as they are
//! in files, if the operator wants them. A component prints so much in a second; the rest is dropped
//! and counted.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use tokio::io::AsyncWrite;
use tracing::{info, warn};
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};

/// Bytes of a line; a longer one is logged in parts.
const MAX_LINE: usize = 4096;
/// What a line counts at least: the log puts its time and its component before it.
const LINE_LEAST: usize = 128;
/// Bytes of lines of one component in a [`WINDOW`]: more than anybody reads, and less than what
/// would keep the log from others.
const MAX_BYTES: usize = 1 << 20;
const WINDOW: Duration = Duration::from_secs(1);

/// What the instances of a component print into.
#[derive(Clone, Debug)]
pub struct Output {
    component: Arc<str>,
    meter: Arc<Meter>,
    stdout: Option<Arc<LogFile>>,
    stderr: Option<Arc<LogFile>>,
}

impl Output {
    /// Into the log, and into `<component>_stdout.txt` and `<component>_stderr.txt` in `folder`, as
    /// Spin calls them.
    pub fn open(component: &str, folder: Option<&Path>) -> Result<Self> {
        let log =
            Self { component: component.into(), meter: Arc::default(), stdout: None, stderr: None };
        let Some(folder) = folder else { return Ok(log) };
        let open = |stream| -> Result<Option<Arc<LogFile>>> {
            let path = folder.join(format!("{component}_{stream}.txt"));
            let file = OpenOptions::new().create(true).append(true).open(&path);
            let file = file.with_context(|| format!("--log-dir: {}", path.display()))?;
            Ok(Some(Arc::new(LogFile { file, failed: AtomicBool::new(false) })))
        };
        std::fs::create_dir_all(folder)
            .with_context(|| format!("--log-dir: {}", folder.display()))?;
        Ok(Self { stdout: open("stdout")?, stderr: open("stderr")?, ..log })
    }

    /// An instance's standard output and standard error.
    #[must_use]
    pub fn streams(&self) -> (LogStream, LogStream) {
        let stream = |name, file: &Option<Arc<LogFile>>| LogStream {
            component: Arc::clone(&self.component),
            meter: Arc::clone(&self.meter),
            stream: name,
            line: Arc::default(),
            file: file.clone(),
        };
        (stream("stdout", &self.stdout), stream("stderr", &self.stderr))
    }

    /// Says in the log how many lines were dropped since it was asked last, if any were.
    pub fn say_what_was_dropped(&self) {
        let lines = self.meter.dropped();
        if lines > 0 {
            warn!(
                component = &*self.component,
                "{lines} lines dropped: it printed more than {MAX_BYTES} bytes in a second"
            );
        }
    }
}

/// How much a component prints, its instances and both streams together.
#[derive(Debug, Default)]
struct Meter(Mutex<Printed>);

#[derive(Debug, Default)]
struct Printed {
    /// When this window began.
    since: Option<Instant>,
    bytes: usize,
    /// Lines since they were last told.
    dropped: u64,
}

impl Meter {
    /// Whether a line of so many bytes may be printed `now`; one that may not is counted.
    fn admits(&self, bytes: usize, now: Instant) -> bool {
        let mut printed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if printed.since.is_none_or(|since| now.saturating_duration_since(since) >= WINDOW) {
            printed.since = Some(now);
            printed.bytes = 0;
        }
        printed.bytes = printed.bytes.saturating_add(bytes.max(LINE_LEAST));
        let admitted = printed.bytes <= MAX_BYTES;
        printed.dropped += u64::from(!admitted);
        admitted
    }

    /// Lines that were not admitted since this was asked last.
    fn dropped(&self) -> u64 {
        let mut printed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut printed.dropped)
    }
}

#[derive(Debug)]
struct LogFile {
    file: File,
    /// Whether it was said that it cannot be written.
    failed: AtomicBool,
}

impl LogFile {
    fn write(&self, bytes: &[u8]) {
        if let Err(error) = (&self.file).write_all(bytes)
            && !self.failed.swap(true, Ordering::Relaxed)
        {
            warn!(%error, "cannot write into --log-dir");
        }
    }
}

/// One stream of one instance. Clones write to the same line.
#[derive(Clone, Debug)]
pub struct LogStream {
    component: Arc<str>,
    meter: Arc<Meter>,
    stream: &'static str,
    line: Arc<Mutex<Vec<u8>>>,
    file: Option<Arc<LogFile>>,
}

impl LogStream {
    fn push(&self, bytes: &[u8]) {
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
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
        let line = String::from_utf8_lossy(line);
        info!(target: "guest", component = &*self.component, stream = self.stream, "{}", line.trim_end());
    }
}

impl Drop for LogStream {
    fn drop(&mut self) {
        if let Some(line) = Arc::get_mut(&mut self.line) {
            let line = std::mem::take(line.get_mut().unwrap_or_else(PoisonError::into_inner));
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
            self.0.lock().unwrap().extend_from_slice(bytes);
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

    #[test]
    fn output_is_logged_line_by_line() {
        let captured = Captured::default();
        let subscriber =
            tracing_subscriber::fmt().with_writer(captured.clone()).with_ansi(false).finish();
        tracing::subscriber::with_default(subscriber, || {
            let (_, stream) = Output::open("iris", None).unwrap().streams();
            let clone = stream.clone();
            stream.push(b"one\ntw");
            clone.push(b"o\n");
            stream.push(&[b'x'; 2 * MAX_LINE + 1]);
        });
        let log = String::from_utf8(captured.0.lock().unwrap().clone()).unwrap();
        let lines: Vec<_> = log.lines().collect();
        assert_eq!(lines.len(), 5, "one, two, two full parts and the rest: {log}");
        assert!(lines[0].ends_with("guest: one component=\"iris\" stream=\"stderr\""), "{log}");
        assert!(lines[1].contains("guest: two "), "{log}");
    }

    #[test]
    fn what_is_printed_in_a_second_is_bounded_and_the_rest_counted() {
        let meter = Meter::default();
        let now = Instant::now();
        let print = |bytes, now| (0..20_000).filter(|_| meter.admits(bytes, now)).count();
        assert_eq!(print(1024, now), MAX_BYTES / 1024);
        assert_eq!(meter.dropped(), 20_000 - 1024);
        assert_eq!(meter.dropped(), 0, "told already");
        assert!(!meter.admits(1, now + WINDOW / 2));
        // Lines of nothing are lines all the same.
        assert_eq!(print(0, now + WINDOW), MAX_BYTES / LINE_LEAST);
        assert_eq!(meter.dropped(), 1 + 20_000 - 8192);
    }
}
