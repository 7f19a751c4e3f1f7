//! Builds the components that tests serve: the examples and the test guests.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

const GUESTS: [&str; 13] = [
    "ab-router",
    "command",
    "diabetes-regressor",
    "digits-classifier",
    "generic-model",
    "hello-p2",
    "hostile",
    "iris-classifier",
    "language-identifier",
    "probe",
    "stores",
    "stores-older",
    "ungranted",
];

fn main() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ is in the workspace");
    for watched in
        ["components", "host/experiment", "tests/guests", "wit", "Cargo.toml", "Cargo.lock"]
    {
        println!("cargo::rerun-if-changed={}", root.join(watched).display());
    }
    let target: PathBuf = root.join("target/components");
    let status = Command::new(env::var_os("CARGO").expect("cargo runs build scripts"))
        .current_dir(root)
        .args(["build", "--target", "wasm32-wasip2", "--profile", "component", "--target-dir"])
        .arg(&target)
        .args(GUESTS.iter().flat_map(|guest| ["--package", guest]))
        // Variables of this build must not leak into that of the components.
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .env_remove("RUSTC_WRAPPER")
        .status()
        .expect("cargo starts");
    assert!(
        status.success(),
        "the test components do not build; if the target is missing: rustup target add wasm32-wasip2"
    );
    println!("cargo::rustc-env=GUESTS={}", target.join("wasm32-wasip2/component").display());
}
