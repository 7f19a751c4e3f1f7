//! Builds the components that tests serve: the examples and the test guests.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

const GUESTS: [&str; 16] = [
    "ab-router",
    "command",
    "diabetes-regressor",
    "digits-classifier",
    "generic-model",
    "hello-2023",
    "hello-p2",
    "hello-p3-rc",
    "hostile",
    "iris-classifier",
    "language-identifier",
    "probe",
    "router-0-1",
    "stores",
    "stores-older",
    "ungranted",
];

/// Also built as core modules, with the toolchains of Spin 2 and 3.
const CORE_MODULES: [&str; 4] = ["command", "hello-2023", "hello-p2", "hello-spin-1"];

fn main() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ is in the workspace");
    for watched in [
        "components",
        "host/experiment",
        "host/model-toml",
        "tests/guests",
        "wit",
        "Cargo.toml",
        "Cargo.lock",
    ] {
        println!("cargo::rerun-if-changed={}", root.join(watched).display());
    }
    let target_dir: PathBuf = root.join("target/components");
    for (target, guests, variable) in [
        ("wasm32-wasip2", GUESTS.as_slice(), "GUESTS"),
        ("wasm32-wasip1", CORE_MODULES.as_slice(), "CORE_MODULES"),
    ] {
        build(root, &target_dir, target, guests);
        let built = target_dir.join(target).join("component");
        println!("cargo::rustc-env={variable}={}", built.display());
    }
}

fn build(root: &Path, target_dir: &Path, target: &str, guests: &[&str]) {
    let status = Command::new(env::var_os("CARGO").expect("cargo runs build scripts"))
        .current_dir(root)
        .args(["build", "--target", target, "--profile", "component", "--target-dir"])
        .arg(target_dir)
        .args(guests.iter().flat_map(|guest| ["--package", guest]))
        // Variables of this build must not leak into that of the components.
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .env_remove("RUSTC_WRAPPER")
        .status()
        .expect("cargo starts");
    assert!(
        status.success(),
        "the test components do not build; if the target is missing: rustup target add {target}"
    );
}
