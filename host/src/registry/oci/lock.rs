//! `spinfer.lock`, next to the manifest: pins each package to the digest of its first fetch, so that a
//! registry cannot change a version unnoticed.

use std::fmt::Write as _;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use super::digest::Digest;
use crate::process::atomic_file::{self, Existing, READABLE};
use crate::process::read_file::read_file;

/// Name of the file.
pub const NAME: &str = "spinfer.lock";
/// Version of the format.
const VERSION: u32 = 1;
/// Maximum size of the file, in bytes: thousands of packages.
const MAX_LOCK: u64 = 4 << 20;
const HEAD: &str = "\
# Digests of the manifest's packages. Written by spinfer: keep it under version control.
# To update it to the current state of the registries, run `spinfer registry update`.
";

/// The lock file.
#[derive(Debug)]
pub struct Lock {
    path: PathBuf,
    packages: Vec<Pinned>,
    changed: bool,
}

/// A pinned package.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pinned {
    pub registry: String,
    /// Package with version: `acme:iris@1.0.0`.
    pub package: String,
    /// Digest of the artifact's manifest.
    pub manifest: Digest,
    /// Digest of the component in it.
    pub component: Digest,
}

impl Lock {
    /// Reads the lock file in the folder `base`; an empty one if there is none.
    ///
    /// # Errors
    /// If the file is damaged or of another version.
    pub fn read(base: &Path) -> Result<Self> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Text {
            version: u32,
            #[serde(default)]
            package: Vec<Pinned>,
        }
        let path = base.join(NAME);
        let bytes = match read_file(&path, MAX_LOCK) {
            Ok(bytes) => bytes,
            Err(error) if is_absent(&error) => {
                return Ok(Self { path, packages: Vec::new(), changed: false });
            }
            Err(error) => return Err(error).with_context(|| path.display().to_string()),
        };
        let read = || {
            let Text { version, package } = toml::from_str(&String::from_utf8(bytes)?)?;
            if version != VERSION {
                bail!("version {version} is not supported; this spinfer reads version {VERSION}");
            }
            Ok(package)
        };
        let packages = read().with_context(|| {
            format!("{}: restore it, or delete it to pin the packages again", path.display())
        })?;
        Ok(Self { path, packages, changed: false })
    }

    #[must_use]
    pub fn find(&self, registry: &str, package: &str) -> Option<&Pinned> {
        self.packages.iter().find(|known| known.registry == registry && known.package == package)
    }

    /// Pins a package, replacing its previous pin.
    pub fn pin(&mut self, pinned: Pinned) {
        if self.find(&pinned.registry, &pinned.package) == Some(&pinned) {
            return;
        }
        self.packages.retain(|known| {
            (&known.registry, &known.package) != (&pinned.registry, &pinned.package)
        });
        self.packages.push(pinned);
        self.packages.sort();
        self.changed = true;
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes the file, if it has changed.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write(&self) -> Result<()> {
        if !self.changed {
            return Ok(());
        }
        atomic_file::write(&self.path, self.text().as_bytes(), READABLE, Existing::Replace)
            .with_context(|| self.path.display().to_string())
    }

    fn text(&self) -> String {
        let mut text = format!("{HEAD}version = {VERSION}\n");
        for Pinned { registry, package, manifest, component } in &self.packages {
            let [registry, package] = [registry, package].map(toml_edit::value);
            let _ = write!(
                text,
                "\n[[package]]\nregistry = {registry}\npackage = {package}\nmanifest = \
                 \"{manifest}\"\ncomponent = \"{component}\"\n"
            );
        }
        text
    }
}

fn is_absent(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == ErrorKind::NotFound)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pinned(package: &str, content: &[u8]) -> Pinned {
        Pinned {
            registry: "localhost:5000".into(),
            package: package.into(),
            manifest: Digest::of(content),
            component: Digest::of(b"component"),
        }
    }

    #[test]
    fn pins_round_trip() {
        let dir = tempfile::tempdir().unwrap();
        let mut lock = Lock::read(dir.path()).unwrap();
        lock.write().unwrap();
        assert!(!lock.path().exists(), "no pins, no file");
        lock.pin(pinned("b:b@1.0.0", b"1"));
        lock.pin(pinned("a:a@1.0.0", b"2"));
        lock.write().unwrap();
        let text = std::fs::read_to_string(lock.path()).unwrap();
        assert!(text.find("a:a@").unwrap() < text.find("b:b@").unwrap(), "{text}");

        let mut lock = Lock::read(dir.path()).unwrap();
        let find = |lock: &Lock, name| lock.find("localhost:5000", name).cloned();
        assert_eq!(find(&lock, "b:b@1.0.0"), Some(pinned("b:b@1.0.0", b"1")));
        assert_eq!(find(&lock, "b:b@1.0.1"), None);
        lock.pin(pinned("b:b@1.0.0", b"1"));
        assert!(!lock.changed);
        lock.pin(pinned("b:b@1.0.0", b"3"));
        lock.write().unwrap();
        let lock = Lock::read(dir.path()).unwrap();
        assert_eq!(find(&lock, "b:b@1.0.0"), Some(pinned("b:b@1.0.0", b"3")));
        assert_eq!(lock.packages.len(), 2);
    }

    #[test]
    fn damaged_lock_file_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let good = "version = 1\n[[package]]\nregistry = 'r'\npackage = 'p'\n";
        for (text, part) in [
            ("version = 2", "version 2 is not supported"),
            ("", "missing field `version`"),
            (good, "missing field `manifest`"),
            ("version = 1\nother = 1", "unknown field `other`"),
            ("<<<<<<< HEAD", "restore it, or delete it"),
        ] {
            std::fs::write(dir.path().join(NAME), text).unwrap();
            let problem = format!("{:#}", Lock::read(dir.path()).unwrap_err());
            assert!(problem.contains(part) && problem.contains(NAME), "{text}: {problem}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_packages_round_trip(registry in "\\PC{1,20}", package in "\\PC{1,20}") {
            let dir = tempfile::tempdir().unwrap();
            let mut lock = Lock::read(dir.path()).unwrap();
            lock.pin(Pinned { registry: registry.clone(), ..pinned(&package, b"1") });
            lock.write().unwrap();
            prop_assert!(Lock::read(dir.path()).unwrap().find(&registry, &package).is_some());
        }
    }
}
