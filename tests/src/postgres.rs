//! A PostgreSQL server for one test, on a free port.

use std::ffi::OsString;
use std::fs::File;
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use crate::PATIENCE;

/// The name of the only user.
pub const USER: &str = "me";
/// The user's password.
pub const PASSWORD: &str = "open-sesame";
/// Where Debian installs the programs, by version.
const INSTALLED: &str = "/usr/lib/postgresql";

/// A server process and its data, which are removed on drop.
#[derive(Debug)]
pub struct Postgres {
    child: Child,
    port: u16,
    dir: tempfile::TempDir,
}

impl Postgres {
    /// A server without TLS.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with("")
    }

    /// A server with TLS, of this certificate and key in PEM.
    #[must_use]
    pub fn with_tls(certificate: &str, key: &str) -> Self {
        let settings =
            "ssl = on\nssl_cert_file = '../certificate.pem'\nssl_key_file = '../key.pem'\n";
        let dir = create(settings);
        for (name, text) in [("certificate.pem", certificate), ("key.pem", key)] {
            let path = dir.path().join(name);
            std::fs::write(&path, text).expect("a temporary file");
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
            std::fs::set_permissions(&path, mode).expect("it is our file");
            hand_over(&path);
        }
        Self::start_in(dir)
    }

    fn start_with(settings: &str) -> Self {
        Self::start_in(create(settings))
    }

    fn start_in(dir: tempfile::TempDir) -> Self {
        // Another process may take the port before the server binds it.
        for _ in 0..10 {
            let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
            let port = free.expect("a free port").port();
            if let Some(child) = spawn(port, dir.path()) {
                return Self { child, port, dir };
            }
        }
        panic!("postgres does not start: {}", log(dir.path()));
    }

    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The address of a database, with `parameters` such as `sslmode=disable`.
    #[must_use]
    pub fn address(&self, host: &str, parameters: &str) -> String {
        format!("postgres://{USER}:{PASSWORD}@{host}:{}/postgres?{parameters}", self.port)
    }

    /// Stops the process and its connections at once (SIGQUIT).
    pub fn kill(&mut self) {
        // Fails if it has exited already.
        let _ = Command::new("kill").args(["-QUIT", &self.child.id().to_string()]).status();
        let _ = self.child.wait();
    }

    /// Kills it and starts it again on the same port.
    pub fn restart(&mut self) {
        self.kill();
        self.child = spawn(self.port, self.dir.path()).expect("its port is still free");
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.kill();
    }
}

fn data(dir: &Path) -> PathBuf {
    dir.join("data")
}

fn log(dir: &Path) -> String {
    std::fs::read_to_string(dir.join("log")).unwrap_or_default()
}

/// A folder with an empty database, and `settings` for its server.
fn create(settings: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let password = dir.path().join("password");
    std::fs::write(&password, PASSWORD).expect("a temporary file");
    hand_over(dir.path());
    hand_over(&password);
    let output = program("initdb")
        .arg(data(dir.path()))
        .args(["--no-sync", "--encoding=UTF8", "--locale=C", "--auth=scram-sha-256"])
        .arg(format!("--username={USER}"))
        .arg(format!("--pwfile={}", password.display()))
        .output()
        .expect("initdb starts; if it is missing: apt-get install postgresql");
    assert!(output.status.success(), "initdb: {}", String::from_utf8_lossy(&output.stderr));
    let all = format!(
        "listen_addresses = '127.0.0.1'\nunix_socket_directories = ''\nfsync = off\n\
         max_connections = 20\nshared_buffers = '16MB'\n{settings}"
    );
    std::fs::write(data(dir.path()).join("postgresql.auto.conf"), all)
        .expect("its folder is there");
    dir
}

/// A program of PostgreSQL, which refuses to run as root: as `nobody` then.
fn program(name: &str) -> Command {
    let program = installed(name);
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=nobody", "--regid=nogroup", "--clear-groups", "--"]).arg(program);
    command
}

/// The path of the newest version that Debian has installed, in a folder that users lack in their path.
fn installed(name: &str) -> OsString {
    let versions = std::fs::read_dir(INSTALLED).into_iter().flatten().flatten();
    let programs = versions.map(|version| version.path().join("bin").join(name));
    programs.filter(|path| path.is_file()).max().map_or_else(|| name.into(), Into::into)
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

/// Makes the user of the server the owner.
fn hand_over(path: &Path) {
    if is_root() {
        let status = Command::new("chown").arg("nobody:nogroup").arg(path).status();
        assert!(status.is_ok_and(|status| status.success()), "chown works");
    }
}

/// A server that accepts connections; `None` if it exits, as another process has its port.
fn spawn(port: u16, dir: &Path) -> Option<Child> {
    let messages = File::create(dir.join("log")).expect("a temporary file");
    let mut child = program("postgres")
        .arg("-D")
        .arg(data(dir))
        .args(["-p", &port.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(messages)
        .spawn()
        .expect("postgres starts; if it is missing: apt-get install postgresql");
    let end = Instant::now() + PATIENCE;
    while !log(dir).contains("ready to accept connections") {
        if child.try_wait().expect("it is our child").is_some() {
            return None;
        }
        assert!(Instant::now() < end, "postgres is not ready: {}", log(dir));
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    Some(child)
}
