//! A `docker-registry` of a test's own, on a free port of this machine.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

/// A user it knows, if it asks for one.
pub const USER: &str = "tester";
/// The user's password.
pub const PASSWORD: &str = "correct horse";
/// The same as bcrypt has it.
const HASHED: &str = "tester:$2y$05$SaE0tRTHCZ4Mzr6wHNkIzepZO4.tW5JQ8WokS.5feLgPS050OpRLe\n";

/// A server, and what it holds; gone when it is dropped.
#[derive(Debug)]
pub struct OciRegistry {
    child: Child,
    address: String,
    _dir: tempfile::TempDir,
}

impl OciRegistry {
    /// One that anybody may use.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with("")
    }

    /// One that only [`USER`] may use.
    #[must_use]
    pub fn start_with_password() -> Self {
        Self::start_with("auth: {htpasswd: {realm: registry, path: HTPASSWD}}")
    }

    fn start_with(auth: &str) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = |name: &str| dir.path().join(name).display().to_string();
        std::fs::write(path("htpasswd"), HASHED).expect("a temporary file");
        let config = format!(
            "version: 0.1\nlog: {{level: info}}\nhttp: {{addr: \"127.0.0.1:0\"}}\n\
             storage: {{filesystem: {{rootdirectory: {}}}}}\n{}\n",
            path("data"),
            auth.replace("HTPASSWD", &path("htpasswd"))
        );
        std::fs::write(path("config.yml"), config).expect("a temporary file");
        let mut child = Command::new("docker-registry")
            .args(["serve", &path("config.yml")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("docker-registry starts; if it is missing: apt-get install docker-registry");
        let mut log = BufReader::new(child.stderr.take().expect("piped")).lines();
        let address = log.by_ref().map_while(Result::ok).find_map(|line| {
            let (_, rest) = line.split_once("listening on ")?;
            Some(rest.split(['"', ',']).next()?.to_owned())
        });
        let address = address.expect("it says where it listens");
        // It would wait for room for what it logs.
        std::thread::spawn(move || log.map_while(Result::ok).for_each(drop));
        Self { child, address, _dir: dir }
    }

    /// Its host, with the port.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }
}

impl Drop for OciRegistry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
