//! Where the binary, the components and the state directories of tests are.

use std::fs::DirBuilder;
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::{Path, PathBuf};

/// Where the components the tests serve were built.
pub const GUESTS: &str = env!("GUESTS");

/// The repository.
#[must_use]
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ is in the repository")
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
