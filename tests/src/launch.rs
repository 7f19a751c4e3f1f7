//! How a test starts the host: the application, and the flags, runtime config and environment.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use tempfile::TempDir;

use crate::command::{command, output};
use crate::paths::create_state_dir;
use crate::{Manifest, Spinfer};

/// One start of the host, as `spinfer up` or `spinfer check`.
///
/// The files that it needs are in a temporary folder of its own, which is deleted when the host has
/// exited. Tests share compiled components, and nothing else of a state directory.
#[derive(Debug)]
#[must_use = "`up` starts the host"]
pub struct Launch {
    manifest: PathBuf,
    listen: String,
    admin: Option<String>,
    drain: String,
    flags: Vec<String>,
    environment: Vec<(String, String)>,
    runtime_config: String,
    state_dir: Option<PathBuf>,
    folder: TempDir,
    kept: Vec<TempDir>,
}

impl Launch {
    /// Of an application with this manifest.
    pub fn new(manifest: &Manifest) -> Self {
        Self::from_text(manifest.text())
    }

    /// Of an application with the text of a manifest, which may be invalid.
    pub fn from_text(manifest: &str) -> Self {
        let launch = Self::from_file("spin.toml");
        let path = launch.folder.path().join("spin.toml");
        std::fs::write(&path, manifest).expect("a temporary file");
        Self { manifest: path, ..launch }
    }

    /// Of the application whose manifest is at `path`.
    pub fn from_file(path: impl Into<PathBuf>) -> Self {
        Self {
            manifest: path.into(),
            listen: "127.0.0.1:0".into(),
            admin: None,
            drain: "0s".into(),
            flags: Vec::new(),
            environment: Vec::new(),
            runtime_config: String::new(),
            state_dir: None,
            folder: tempfile::tempdir().expect("a temporary folder"),
            kept: Vec::new(),
        }
    }

    /// Adds flags to the command line.
    pub fn flags(mut self, flags: &[&str]) -> Self {
        self.flags.extend(flags.iter().map(|flag| (*flag).to_owned()));
        self
    }

    /// Sets an environment variable.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Listens on `address` instead of a free port.
    pub fn listen(self, address: &str) -> Self {
        Self { listen: address.to_owned(), ..self }
    }

    /// Serves the admin plane on a free port. Without it there is none.
    pub fn admin(self) -> Self {
        self.admin_at("127.0.0.1:0")
    }

    /// Serves the admin plane on `address`.
    pub fn admin_at(self, address: &str) -> Self {
        Self { admin: Some(address.to_owned()), ..self }
    }

    /// Drains for `time` at SIGTERM. Without it connections are refused at once, as few tests have a load
    /// balancer.
    pub fn drain(self, time: &str) -> Self {
        Self { drain: time.to_owned(), ..self }
    }

    /// Adds tables to the runtime config.
    pub fn runtime_config(mut self, toml: &str) -> Self {
        self.runtime_config += toml;
        self.runtime_config.push('\n');
        self
    }

    /// Disables the response cache: every request reaches its component.
    pub fn uncached(self) -> Self {
        self.runtime_config("[cache]\nmemory = 0")
    }

    /// Uses a state directory of the caller's instead of its own.
    pub fn state_dir(self, path: impl Into<PathBuf>) -> Self {
        Self { state_dir: Some(path.into()), ..self }
    }

    /// Keeps a folder of the caller's until the host has exited.
    pub fn keep(mut self, folder: TempDir) -> Self {
        self.kept.push(folder);
        self
    }

    /// The folder with the files of this start.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// `spinfer up`, once it serves.
    #[must_use]
    pub fn up(mut self) -> Spinfer {
        let command = self.serving_command("up");
        self.kept.push(self.folder);
        Spinfer::start(command, self.kept)
    }

    /// `spinfer watch`, once it serves.
    #[must_use]
    pub fn watch(mut self) -> Spinfer {
        let command = self.serving_command("watch");
        self.kept.push(self.folder);
        Spinfer::start(command, self.kept)
    }

    /// The output of `spinfer up`, which must exit with an error before it serves.
    #[must_use]
    pub fn refused(self) -> String {
        let (status, text) = output(self.serving_command("up"));
        assert!(!status.success(), "it was served:\n{text}");
        text
    }

    /// The exit status and the output of `spinfer check`.
    #[must_use]
    pub fn check(self) -> (ExitStatus, String) {
        output(self.command("check"))
    }

    fn serving_command(&self, subcommand: &str) -> Command {
        let mut command = self.command(subcommand);
        command.args(["--listen", &self.listen, "--drain", &self.drain]);
        match &self.admin {
            Some(address) => command.args(["--admin", address]),
            // Tests run concurrently, and only one of them could bind the default address.
            None => command.arg("--no-admin"),
        };
        command
    }

    fn command(&self, subcommand: &str) -> Command {
        let state_dir = self.state_dir.clone().unwrap_or_else(|| {
            let own = self.folder.path().join("state");
            create_state_dir(&own);
            own
        });
        let mut command = command();
        command
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .args([subcommand, "--from"])
            .arg(&self.manifest)
            .arg("--state-dir")
            .arg(state_dir)
            .args(&self.flags);
        if !self.runtime_config.is_empty() {
            let path = self.folder.path().join("runtime-config.toml");
            std::fs::write(&path, &self.runtime_config).expect("a temporary file");
            command.arg("--runtime-config-file").arg(path);
        }
        command
    }
}
