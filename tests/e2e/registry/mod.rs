//! OCI registries: a real one, and faulty ones.

mod ecosystem; // artifacts of other tools, and for them
mod faulty; // faulty servers
mod login; // users, passwords, tokens
mod packages; // remote sources in a manifest
mod transfers; // push and pull

use std::fs;
use std::path::{Path, PathBuf};

use spinfer_tests::{GUESTS, run_in};
use tempfile::TempDir;

/// The folder of a user, with an application and Docker's configuration.
struct UserFolder(TempDir);

impl UserFolder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    fn text(&self, path: &str) -> String {
        self.path(path).to_str().unwrap().to_owned()
    }

    fn docker(&self) -> String {
        self.text("docker")
    }

    /// `spinfer` with `arguments`: whether it succeeds, and its output.
    fn run(&self, arguments: &[&str]) -> (bool, String) {
        let (status, text) = run_in(&[("DOCKER_CONFIG", &self.docker())], arguments);
        (status.success(), text)
    }

    /// The output of `spinfer` with `arguments`, which must succeed.
    fn done(&self, arguments: &[&str]) -> String {
        let (done, text) = self.run(arguments);
        assert!(done, "{arguments:?}: {text}");
        text
    }

    /// The output of `spinfer` with `arguments`, which must fail.
    fn refused(&self, arguments: &[&str]) -> String {
        let (done, text) = self.run(arguments);
        assert!(!done, "{arguments:?}: {text}");
        text
    }

    /// `spinfer registry pull` into this application.
    fn pull<'a>(&self, reference: &'a str, more: &[&'a str]) -> (bool, String) {
        let manifest = self.text("spin.toml");
        self.run(&[&["registry", "pull", reference, "-f", &manifest], more].concat())
    }

    /// Every file, including hidden ones, except for Docker's configuration.
    fn files(&self) -> Vec<String> {
        fn walk(folder: &Path, base: &Path, found: &mut Vec<String>) {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                found.push(path.strip_prefix(base).unwrap().display().to_string());
                if path.is_dir() {
                    walk(&path, base, found);
                }
            }
        }
        let mut found = Vec::new();
        walk(self.0.path(), self.0.path(), &mut found);
        found.retain(|path| !path.starts_with("docker"));
        found.sort();
        found
    }
}

/// The file of a guest.
fn guest(name: &str) -> String {
    format!("{GUESTS}/{name}.wasm")
}

/// The first digest in `text`.
fn digest(text: &str) -> String {
    let start = text.find("sha256:").unwrap_or_else(|| panic!("no digest in {text}"));
    text[start..start + 71].to_owned()
}
