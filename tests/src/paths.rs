//! Paths of the repository, the binary, the components and the state directories.

use std::fs::DirBuilder;
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::{Path, PathBuf};

/// The folder of the components that tests serve.
pub const GUESTS: &str = env!("GUESTS");

/// The folder of those that are also built as core modules of WASI preview 1.
pub const CORE_MODULES: &str = env!("CORE_MODULES");

/// The root of the repository.
#[must_use]
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ is in the repository")
}

/// The binary of the profile in which the tests were built.
#[must_use]
pub fn binary() -> PathBuf {
    let test = std::env::current_exe().expect("the path of the test");
    let profile = test.ancestors().nth(2).expect("target/<profile>/deps/<test>");
    profile.join("spinfer")
}

/// The folder with the compiled components of all tests.
#[must_use]
pub fn state_dir() -> PathBuf {
    root().join("target/test-state")
}

/// Creates the state directory `own` with the compiled components of all tests.
pub fn create_state_dir(own: &Path) {
    let compiled = state_dir().join("compiled");
    let created = DirBuilder::new().recursive(true).mode(0o700).create(&compiled);
    created.and_then(|()| std::fs::create_dir_all(own)).expect("a folder");
    match symlink(&compiled, own.join("compiled")) {
        // The folder was used before.
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
        linked => linked.expect("a link"),
    }
}
