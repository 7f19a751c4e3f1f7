//! Passes facts to the crate: the exact versions of wasmtime and of what makes core modules components, as
//! native code of any other version, even of another patch, is not used (`src/guest/artifact`); and the
//! target (`src/guest/engine.rs`).

use std::path::Path;

fn main() {
    let lock = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.lock");
    println!("cargo:rerun-if-changed={}", lock.display());
    let text = std::fs::read_to_string(&lock).expect("Cargo.lock is in the root of the workspace");
    for (variable, package) in [
        ("WASMTIME_VERSION", "wasmtime"),
        ("ADAPTER_VERSION", "wasi-preview1-component-adapter-provider"),
        ("ENCODER_VERSION", "wit-component"),
    ] {
        let version = version_of(package, &text);
        println!("cargo:rustc-env={variable}={version}");
    }
    let target = std::env::var("TARGET").expect("Cargo sets TARGET");
    println!("cargo:rustc-env=TARGET={target}");
}

/// The version of a package in the lock file; the newest, if there are several.
fn version_of<'a>(package: &str, lock: &'a str) -> &'a str {
    let name = format!("name = \"{package}\"");
    let versions = lock.split("[[package]]").filter(|text| text.lines().any(|line| line == name));
    versions
        .last()
        .and_then(|text| {
            text.lines().find_map(|line| line.strip_prefix("version = \"")?.strip_suffix('"'))
        })
        .unwrap_or_else(|| panic!("Cargo.lock names a version of {package}"))
}
