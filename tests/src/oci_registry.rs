//! A `docker-registry` for one test, on a free port.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

/// The user of a registry with a password.
pub const USER: &str = "tester";
/// The password of [`USER`].
pub const PASSWORD: &str = "correct horse";
/// The user with the bcrypt hash of the password.
const HASHED: &str = "tester:$2y$05$SaE0tRTHCZ4Mzr6wHNkIzepZO4.tW5JQ8WokS.5feLgPS050OpRLe\n";

/// A server process and its data, which are removed on drop.
#[derive(Debug)]
pub struct OciRegistry {
    child: Child,
    address: String,
    _dir: tempfile::TempDir,
}

impl OciRegistry {
    /// A server without authentication.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with("")
    }

    /// A server that requires [`USER`] and [`PASSWORD`].
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
        let address = address.expect("its address is in the log");
        // A full pipe would block the server.
        std::thread::spawn(move || log.map_while(Result::ok).for_each(drop));
        Self { child, address, _dir: dir }
    }

    /// Host and port.
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
