//! The harness: starts the real binary on a free port, speaks HTTP to it, shows its log when a
//! test fails. Everything waits for what it needs, up to [`PATIENCE`], and for no time.

mod oci_registry;
mod redis;

use std::fmt::Write as _;
use std::fs::DirBuilder;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

pub use oci_registry::{OciRegistry, PASSWORD as OCI_PASSWORD, USER as OCI_USER};
pub use redis::{Redis, RedisCluster};

/// How long anything may take before the test fails: far more than it should on a slow machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Where the components the tests serve were built.
pub const GUESTS: &str = env!("GUESTS");

/// The repository.
#[must_use]
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ is in the repository")
}

/// A manifest in the making: paths are absolute, so that it can stand anywhere.
#[derive(Clone, Debug)]
pub struct Manifest(String);

impl Default for Manifest {
    fn default() -> Self {
        Self("spin_manifest_version = 2\n[application]\nname = \"test\"\n".into())
    }
}

impl Manifest {
    /// `component` at `route`, from the guest's file; `more` is put under `[component.<id>]`.
    #[must_use]
    pub fn with(mut self, route: &str, component: &str, guest: &str, more: &str) -> Self {
        let _ = write!(
            self.0,
            "[[trigger.http]]\nroute = \"{route}\"\ncomponent = \"{component}\"\n\
             [component.{component}]\nsource = \"{GUESTS}/{guest}.wasm\"\n{more}\n"
        );
        self
    }

    /// `settings` of the whole application.
    #[must_use]
    pub fn with_settings(self, settings: &str) -> Self {
        Self(self.0.replacen("name = \"test\"\n", &format!("name = \"test\"\n{settings}\n"), 1))
    }

    /// The iris classifier in `version`, under `more` settings.
    #[must_use]
    pub fn with_iris(self, component: &str, version: u32, route: &str, more: &str) -> Self {
        self.with_model("iris-classifier", component, version, route, more)
    }

    /// An example model in `version`, under `more` settings.
    #[must_use]
    pub fn with_model(
        self,
        model: &str,
        component: &str,
        version: u32,
        route: &str,
        more: &str,
    ) -> Self {
        let folder = root().join(format!("models/{model}/{version}"));
        let files = format!(
            "files = [{{ source = \"{}\", destination = \"/models/{model}\" }}]\n{more}",
            folder.display()
        );
        self.with(route, component, &model.replace('-', "_"), &files)
    }

    /// What else a manifest may say.
    #[must_use]
    pub fn and(mut self, more: &str) -> Self {
        self.0.push_str(more);
        self
    }

    #[must_use]
    pub fn text(&self) -> &str {
        &self.0
    }
}

/// Keeps a request from the fast door.
pub const STANDARD_DOOR: &str = "tool.spinfer.door = \"standard\"\n";

/// What the process writes, line by line, as it comes.
#[derive(Clone, Debug, Default)]
struct Log(Arc<(Mutex<String>, Condvar)>);

impl Log {
    fn follow(&self, stream: impl Read + Send + 'static) -> JoinHandle<()> {
        let log = self.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(stream).lines().map_while(Result::ok) {
                let (text, changed) = &*log.0;
                let mut text = text.lock().expect("no panic under this lock");
                text.push_str(&line);
                text.push('\n');
                changed.notify_all();
            }
        })
    }

    fn text(&self) -> String {
        self.0.0.lock().expect("no panic under this lock").clone()
    }

    fn wait_for(&self, part: &str, times: usize) {
        let (text, changed) = &*self.0;
        let end = Instant::now() + PATIENCE;
        let mut text = text.lock().expect("no panic under this lock");
        while text.matches(part).count() < times {
            let left = end.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "waited for {part:?} in the log:\n{text}");
            (text, _) = changed.wait_timeout(text, left).expect("no panic under this lock");
        }
    }
}

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

/// Sends one request after the other, on one connection while the server keeps it.
#[derive(Debug)]
pub struct Client {
    agent: ureq::Agent,
    address: SocketAddr,
}

impl Client {
    #[must_use]
    pub fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Response {
        let mut request = ureq::http::Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.address));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(body).expect("a valid request");
        let mut response =
            self.agent.run(request).unwrap_or_else(|e| panic!("{method} {path}: {e}"));
        let headers = response
            .headers()
            .iter()
            .map(|(name, value)| {
                (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned())
            })
            .collect();
        let body = response.body_mut().with_config().limit(u64::MAX).read_to_vec();
        Response {
            status: response.status().as_u16(),
            headers,
            body: body.unwrap_or_else(|e| panic!("{method} {path}: the answer broke off: {e}")),
        }
    }
}

/// An answer, read to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Response {
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON; panics if it is not, or does not say so.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        assert_eq!(self.header("content-type"), Some("application/json"), "{self:?}");
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }

    /// The `error` of a failure in the protocols' shape.
    #[must_use]
    pub fn error(&self) -> String {
        let json = self.json();
        json["error"].as_str().unwrap_or_else(|| panic!("no error in {json}")).to_owned()
    }

    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }
}

/// Waits until `condition` holds, for conditions that send no event.
pub fn wait_until(what: &str, condition: impl FnMut() -> bool) {
    wait_up_to(PATIENCE, what, condition);
}

/// [`wait_until`] with another time limit.
pub fn wait_up_to(limit: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    /// Time between two checks, short enough to notice at once and long enough to leave the core to others.
    const PAUSE: Duration = Duration::from_millis(20);
    let end = Instant::now() + limit;
    while !condition() {
        assert!(Instant::now() < end, "waited until {what}");
        std::thread::sleep(PAUSE);
    }
}

/// Runs the binary with `arguments` to its end.
#[must_use]
pub fn run(arguments: &[&str]) -> (ExitStatus, String) {
    run_in(&[], arguments)
}

/// The same with more in its environment.
#[must_use]
pub fn run_in(environment: &[(&str, &str)], arguments: &[&str]) -> (ExitStatus, String) {
    let mut command = command();
    command.args(arguments).envs(environment.iter().copied());
    let output = command.output().expect("the binary starts");
    let text = [output.stdout, output.stderr].concat();
    (output.status, String::from_utf8_lossy(&text).into_owned())
}

/// `spinfer up` on a manifest that must be refused: what it says.
#[must_use]
pub fn refused(manifest: &str) -> String {
    refuse(manifest, &["--no-admin"])
}

/// The same with arguments that must be.
#[must_use]
pub fn refused_with(manifest: &Manifest, arguments: &[&str]) -> String {
    refuse(manifest.text(), arguments)
}

fn refuse(manifest: &str, arguments: &[&str]) -> String {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = dir.path().join("spin.toml");
    std::fs::write(&path, manifest).expect("a temporary file");
    let path = path.to_str().expect("a temporary path is UTF-8");
    let state_dir = state_dir();
    let state_dir = state_dir.to_str().expect("the repository's path is UTF-8");
    let up = ["up", "--listen", "127.0.0.1:0", "--from", path, "--state-dir", state_dir];
    let (status, text) = run(&[&up, arguments].concat());
    assert!(!status.success(), "it was served:\n{text}");
    text
}

fn command() -> Command {
    let mut command = Command::new(binary());
    command.env_remove("SPINFER_LOG").env_remove("SPINFER_ADMIN_TOKEN");
    command
}

/// The binary of the profile the tests were built in.
#[must_use]
pub fn binary() -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its path");
    let profile = test.ancestors().nth(2).expect("target/<profile>/deps/<test>");
    profile.join("spinfer")
}

/// Compiled components are shared by all tests.
#[must_use]
pub fn state_dir() -> PathBuf {
    root().join("target/test-state")
}

/// A state directory in `dir` with its own prediction log and stores, and the compiled components of all
/// tests.
fn own_state_dir(dir: &Path) -> PathBuf {
    let own = dir.join("state");
    create_state_dir(&own);
    own
}

/// Creates the state directory `own` with the compiled components of all tests.
pub fn create_state_dir(own: &Path) {
    let compiled = state_dir().join("compiled");
    let made = DirBuilder::new().recursive(true).mode(0o700).create(&compiled);
    made.and_then(|()| std::fs::create_dir_all(own)).expect("a folder");
    match symlink(&compiled, own.join("compiled")) {
        // The second start on one folder.
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
        linked => linked.expect("a link"),
    }
}
