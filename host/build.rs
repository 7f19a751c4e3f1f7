//! Passes two facts to the crate: the exact version of wasmtime, as native code of any other version, even
//! of another patch, is not used (`src/guest/artifact`); and the target (`src/guest/engine.rs`).

use std::path::Path;

fn main() {
    let lock = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.lock");
    println!("cargo:rerun-if-changed={}", lock.display());
    let text = std::fs::read_to_string(&lock).expect("Cargo.lock is in the root of the workspace");
    let version = text
        .lines()
        .skip_while(|line| *line != "name = \"wasmtime\"")
        .find_map(|line| line.strip_prefix("version = \"")?.strip_suffix('"'))
        .expect("Cargo.lock names a version of wasmtime");
    println!("cargo:rustc-env=WASMTIME_VERSION={version}");
    let target = std::env::var("TARGET").expect("Cargo sets TARGET");
    println!("cargo:rustc-env=TARGET={target}");
}
