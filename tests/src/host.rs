//! A running host.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;

use tempfile::TempDir;

use crate::log::Log;
use crate::{Client, PATIENCE, Response};

/// A process of the binary that serves.
#[derive(Debug)]
pub struct Spinfer {
    child: Child,
    address: SocketAddr,
    log: Log,
    out: Log,
    reader: Option<JoinHandle<()>>,
    _folders: Vec<TempDir>,
}

impl Spinfer {
    /// Runs `command`, which keeps `folders` until it exits, and waits until it serves.
    pub(crate) fn start(mut command: Command, folders: Vec<TempDir>) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts: cargo build --package spinfer");
        let (log, out) = (Log::default(), Log::default());
        let reader = Some(log.follow(child.stderr.take().expect("piped")));
        let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
        let mut first = String::new();
        stdout.read_line(&mut first).expect("standard output can be read");
        let url = first.trim().strip_prefix("Serving ").and_then(|url| url.split_once("://"));
        let address = url.and_then(|(_, address)| address.parse().ok());
        let Some(address) = address else {
            let status = child.wait().expect("it is our child");
            let _ = reader.map(JoinHandle::join);
            panic!("spinfer up did not serve ({status}); it printed {first:?} and\n{}", log.text());
        };
        out.follow(stdout);
        Self { child, address, log, out, reader, _folders: folders }
    }

    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The address of the admin plane, if the host has one.
    #[must_use]
    pub fn admin_address(&self) -> SocketAddr {
        const LINE: &str = "Metrics at http://";
        self.out.wait_for("/metrics", 1);
        let text = self.out.text();
        let url = text.lines().find_map(|line| line.strip_prefix(LINE)?.strip_suffix("/metrics"));
        url.and_then(|address| address.parse().ok()).expect("the address of the metrics is printed")
    }

    /// A client for the admin plane.
    #[must_use]
    pub fn admin(&self) -> Client {
        Client { address: self.admin_address(), ..self.client() }
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The standard output so far, without the first line.
    #[must_use]
    pub fn output(&self) -> String {
        self.out.text()
    }

    /// Waits until the standard output after the first line contains `part`.
    pub fn wait_for_output(&self, part: &str) {
        self.out.wait_for(part, 1);
    }

    /// Waits until the log contains `part`.
    pub fn wait_for_log(&self, part: &str) {
        self.log.wait_for(part, 1);
    }

    /// Waits until the log contains `part` at least `times` times.
    pub fn wait_for_log_times(&self, part: &str, times: usize) {
        self.log.wait_for(part, times);
    }

    #[must_use]
    pub fn log(&self) -> String {
        self.log.text()
    }

    #[must_use]
    pub fn get(&self, path: &str) -> Response {
        self.send("GET", path, &[], b"")
    }

    #[must_use]
    pub fn post(&self, path: &str, body: impl AsRef<[u8]>) -> Response {
        self.send("POST", path, &[], body.as_ref())
    }

    /// Sends a request on a new connection.
    #[must_use]
    pub fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Response {
        self.client().send(method, path, headers, body)
    }

    /// A client for several requests on one connection.
    #[must_use]
    pub fn client(&self) -> Client {
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .allow_non_standard_methods(true)
            .timeout_global(Some(PATIENCE))
            .build();
        Client { agent: agent.into(), address: self.address }
    }

    /// A TCP connection, for bytes that a well-behaved client does not send.
    #[must_use]
    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).expect("it accepts connections");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        stream
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) {
        let status = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
        assert!(status.is_ok_and(|status| status.success()), "kill works");
    }

    /// Ends the process at once, as a crash does (SIGKILL).
    pub fn kill(&mut self) {
        self.child.kill().expect("it is our child");
        let _killed = self.wait();
    }

    /// Whether the process has exited.
    #[must_use]
    pub fn has_exited(&mut self) -> bool {
        self.child.try_wait().expect("it is our child").is_some()
    }

    /// Waits until the process exits.
    #[must_use]
    pub fn wait(&mut self) -> ExitStatus {
        let status = self.child.wait().expect("it is our child");
        if let Some(reader) = self.reader.take() {
            reader.join().expect("the log is read to its end");
        }
        status
    }
}

impl Drop for Spinfer {
    fn drop(&mut self) {
        /// Maximum length shown of a line, in characters: guests print long ones on purpose.
        const MAX_LINE: usize = 300;
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let mut stderr = std::io::stderr().lock();
            let _ = writeln!(stderr, "--- log of spinfer");
            for line in self.log().lines() {
                let _ = writeln!(stderr, "{line:.MAX_LINE$}");
            }
            let _ = writeln!(stderr, "---");
        }
    }
}
