//! A host that serves, and what tests do with it.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;

use crate::command::command;
use crate::log::Log;
use crate::paths::own_state_dir;
use crate::{Client, Manifest, PATIENCE, Response};

/// The binary, serving.
#[derive(Debug)]
pub struct Spinfer {
    child: Child,
    address: SocketAddr,
    log: Log,
    out: Log,
    reader: Option<JoinHandle<()>>,
    _dir: tempfile::TempDir,
}

impl Spinfer {
    /// `spinfer up` on the manifest, once it says it serves.
    #[must_use]
    pub fn up(manifest: &Manifest) -> Self {
        Self::up_with(manifest, &[])
    }

    /// The same with more arguments.
    #[must_use]
    pub fn up_with(manifest: &Manifest, arguments: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("spin.toml");
        std::fs::write(&path, manifest.text()).expect("a temporary file");
        Self::up_from(&path, arguments, dir)
    }

    /// The same without the response cache: what is asked again is made again.
    #[must_use]
    pub fn up_uncached(manifest: &Manifest) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let (path, config) = (dir.path().join("spin.toml"), dir.path().join("runtime-config.toml"));
        std::fs::write(&path, manifest.text()).expect("a temporary file");
        std::fs::write(&config, "[cache]\nmemory = 0\n").expect("a temporary file");
        let config = config.to_str().expect("a temporary path is UTF-8").to_owned();
        Self::up_from(&path, &["--runtime-config-file", &config], dir)
    }

    /// `spinfer up` on a manifest that stands at `path`.
    #[must_use]
    pub fn up_from(path: &Path, arguments: &[&str], dir: tempfile::TempDir) -> Self {
        Self::up_at(path, "127.0.0.1:0", arguments, dir)
    }

    /// The same on an address.
    #[must_use]
    pub fn up_at(path: &Path, listen: &str, arguments: &[&str], dir: tempfile::TempDir) -> Self {
        Self::up_in(&[], path, listen, arguments, dir)
    }

    /// The same with more in its environment.
    #[must_use]
    pub fn up_in(
        environment: &[(&str, &str)],
        path: &Path,
        listen: &str,
        arguments: &[&str],
        dir: tempfile::TempDir,
    ) -> Self {
        let mut command = command();
        command.envs(environment.iter().copied());
        command.args(["up", "--listen", listen, "--from"]).arg(path).args(arguments);
        if !arguments.contains(&"--state-dir") {
            command.arg("--state-dir").arg(own_state_dir(dir.path()));
        }
        // Tests run at the same time, and only one of them can have the default address.
        if !arguments.contains(&"--admin") {
            command.arg("--no-admin");
        }
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
            let status = child.wait().expect("it has ended");
            let _ = reader.map(JoinHandle::join);
            panic!("spinfer up did not serve ({status}); it printed {first:?} and\n{}", log.text());
        };
        out.follow(stdout);
        Self { child, address, log, out, reader, _dir: dir }
    }

    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where its admin plane is, if it was started with `--admin`.
    #[must_use]
    pub fn admin_address(&self) -> SocketAddr {
        const LINE: &str = "Metrics at http://";
        self.out.wait_for("/metrics", 1);
        let text = self.out.text();
        let url = text.lines().find_map(|line| line.strip_prefix(LINE)?.strip_suffix("/metrics"));
        url.and_then(|address| address.parse().ok()).expect("it says where its metrics are")
    }

    /// A client of its admin plane.
    #[must_use]
    pub fn admin(&self) -> Client {
        Client { address: self.admin_address(), ..self.client() }
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has printed so far after its first line.
    #[must_use]
    pub fn output(&self) -> String {
        self.out.text()
    }

    /// What it has printed after its first line.
    pub fn wait_for_output(&self, part: &str) {
        self.out.wait_for(part, 1);
    }

    /// Waits until the log holds `part`.
    pub fn wait_for_log(&self, part: &str) {
        self.log.wait_for(part, 1);
    }

    /// Waits until the log holds `part` so many times.
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

    /// Any request, on a connection of its own.
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

    /// A client that keeps its connection.
    #[must_use]
    pub fn client(&self) -> Client {
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .allow_non_standard_methods(true)
            .timeout_global(Some(PATIENCE))
            .build();
        Client { agent: agent.into(), address: self.address }
    }

    /// A bare connection, for what a well-behaved client would not send.
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

    /// Waits for the process to end; the test runner ends a test that waits too long.
    #[must_use]
    pub fn wait(&mut self) -> ExitStatus {
        let status = self.child.wait().expect("it is our child");
        if let Some(reader) = self.reader.take() {
            reader.join().expect("the log was read to its end");
        }
        status
    }
}

impl Drop for Spinfer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let _ = writeln!(std::io::stderr(), "--- log of spinfer\n{}---", self.log());
        }
    }
}
