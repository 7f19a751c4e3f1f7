//! `spinfer build --optimize`: components made smaller, for what is pushed, pulled and compiled at every node.
//!
//! Binaryen's `wasm-opt` knows core modules and not components, so that a component is taken apart into its
//! sections: each module goes through `wasm-opt`, the names of the component's parts, which only
//! debugging tools read, are left out, and everything else stays as it is.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fs;
use std::io::{ErrorKind, Write};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use wasm_encoder::RawSection;
use wasmparser::{Encoding, Parser, Payload};

use crate::config::app::App;

const OPTIMIZER: &str = "wasm-opt";

/// For speed: "for size" saves half a per cent more. The features are those that Rust's target has, and
/// SIMD; without them it refuses a module.
const OPTIONS: [&str; 8] = [
    "-O3",
    "--enable-bulk-memory",
    "--enable-multivalue",
    "--enable-mutable-globals",
    "--enable-nontrapping-float-to-int",
    "--enable-reference-types",
    "--enable-sign-ext",
    "--enable-simd",
];

/// Of the custom section with a component's names.
const NAMES: &str = "component-name";

/// Replaces each component file of `app` that `is_own` by a smaller one, telling `progress` how it goes.
///
/// # Errors
/// If `wasm-opt` is missing or fails, or a file is no component; the file at hand is then as it was.
pub fn run(app: &App, is_own: impl Fn(&Path) -> bool, progress: &mut impl Write) -> Result<()> {
    let sources = app.components.values().map(|spec| &spec.source);
    let sources: BTreeSet<_> = sources.filter(|source| is_own(source)).collect();
    for (index, source) in sources.iter().enumerate() {
        let before = fs::read(source).with_context(|| source.display().to_string())?;
        let after = component(&before).with_context(|| source.display().to_string())?;
        replace(source, &after).with_context(|| format!("cannot write {}", source.display()))?;
        let (number, count) = (index + 1, sources.len());
        let (before, after) = (before.len(), after.len());
        writeln!(progress, "[{number}/{count}] {}: {before} -> {after} bytes", source.display())?;
    }
    Ok(())
}

/// The same component, its modules optimised, without its names.
fn component(wasm: &[u8]) -> Result<Vec<u8>> {
    let mut smaller = wasm_encoder::Component::new();
    // How deep in modules and components inside of this one, which are copied whole.
    let mut depth = 0;
    for payload in Parser::new(0).parse_all(wasm) {
        let payload = payload.context("not a WebAssembly component")?;
        let in_component = depth == 1;
        match &payload {
            Payload::Version { encoding, .. } => {
                ensure!(depth > 0 || *encoding == Encoding::Component, "a module, no component");
                depth += 1;
            }
            Payload::End(_) => depth -= 1,
            Payload::CustomSection(custom) if in_component && custom.name() == NAMES => {}
            _ if in_component => {
                let Some((id, range)) = payload.as_section() else { continue };
                let data = wasm.get(range).context("ends in the middle of a section")?;
                let data = match payload {
                    Payload::ModuleSection { .. } => Cow::Owned(module(data)?),
                    _ => Cow::Borrowed(data),
                };
                smaller.section(&RawSection { id, data: &data });
            }
            _ => {}
        }
    }
    Ok(smaller.finish())
}

/// What `wasm-opt` makes of a module, or the module where that is not smaller.
fn module(wasm: &[u8]) -> Result<Vec<u8>> {
    let folder = tempfile::tempdir()?;
    let (from, to) = (folder.path().join("from.wasm"), folder.path().join("to.wasm"));
    fs::write(&from, wasm)?;
    let ran = Command::new(OPTIMIZER).args(OPTIONS).arg(&from).arg("-o").arg(&to).output();
    let output = match ran {
        Err(error) if error.kind() == ErrorKind::NotFound => bail!(
            "`{OPTIMIZER}` is missing: it is a part of Binaryen (apt-get install binaryen, brew install binaryen)"
        ),
        ran => ran.with_context(|| format!("cannot run `{OPTIMIZER}`"))?,
    };
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "`{OPTIMIZER}`: {}: {}", output.status, said.trim());
    let optimized = fs::read(&to)?;
    Ok(if optimized.len() < wasm.len() { optimized } else { wasm.to_owned() })
}

/// Written beside and renamed, so that nobody ever sees half of it.
fn replace(path: &Path, wasm: &[u8]) -> Result<()> {
    let permissions = fs::metadata(path)?.permissions();
    let folder = path.parent().context("a component is in a folder")?;
    let mut file = tempfile::Builder::new().permissions(permissions).tempfile_in(folder)?;
    file.write_all(wasm)?;
    file.persist(path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    // None of these has a module, so that `wasm-opt` is not needed.

    #[test]
    fn names_go_and_everything_else_stays() {
        let named =
            "(component $c (type $t string) (component (type u8)) (import \"a\" (func $f)))";
        let bare = "(component (type string) (component (type u8)) (import \"a\" (func)))";
        let named = wat::parse_str(named).unwrap();
        assert_eq!(component(&named).unwrap(), wat::parse_str(bare).unwrap());
    }

    #[test]
    fn what_is_no_component_is_refused() {
        let said = |wasm: &[u8]| format!("{:#}", component(wasm).unwrap_err());
        let whole = wat::parse_str("(component (component (type u8)) (type string))").unwrap();
        assert!(said(b"PNG").contains("not a WebAssembly component"));
        assert_eq!(said(b"\0asm\x01\0\0\0"), "a module, no component");
        for length in 9..whole.len() {
            if let Ok(shorter) = component(&whole[..length]) {
                assert_eq!(shorter, &whole[..length], "between two sections");
            }
        }
    }
}
