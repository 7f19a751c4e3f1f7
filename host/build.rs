//! Tells [`artifact`](src/artifact.rs) which wasmtime compiles: artefacts of another one are not
//! used, even where its patch number is all that differs. And [`engine`](src/engine.rs) what for.

use std::path::Path;

fn main() {
    let lock = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.lock");
    println!("cargo:rerun-if-changed={}", lock.display());
    let text = std::fs::read_to_string(&lock).expect("Cargo.lock is beside the workspace");
    let version = text
        .lines()
        .skip_while(|line| *line != "name = \"wasmtime\"")
        .find_map(|line| line.strip_prefix("version = \"")?.strip_suffix('"'))
        .expect("Cargo.lock names a version of wasmtime");
    println!("cargo:rustc-env=WASMTIME_VERSION={version}");
    let target = std::env::var("TARGET").expect("Cargo says it");
    println!("cargo:rustc-env=TARGET={target}");
}
