//! `spinfer build --optimize`: shrinks components before they are distributed.
//!
//! Binaryen's `wasm-opt` supports core modules, not components. So a component is split into its
//! sections: each module is optimised by `wasm-opt`, the custom section with names for debuggers is
//! removed, and all other sections are copied.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fs;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use wasm_encoder::RawSection;
use wasmparser::{Encoding, Parser, Payload};

use crate::config::app::App;
use crate::process::atomic_file::{self, Existing};

const OPTIMIZER: &str = "wasm-opt";

/// Optimises for speed: optimising for size saves only 0.5 % more. The features are those of Rust's
/// target and SIMD; `wasm-opt` refuses modules that use others.
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

/// Name of the custom section with a component's names.
const NAMES: &str = "component-name";

/// Optimises each component file of `app` that `is_own` in place, and prints its sizes to `progress`.
///
/// # Errors
/// If `wasm-opt` is missing or fails, or a file is not a component; that file is then unchanged.
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

/// The component with optimised modules and without names; a core module as a whole.
fn component(wasm: &[u8]) -> Result<Vec<u8>> {
    if let Some(Ok(Payload::Version { encoding: Encoding::Module, .. })) =
        Parser::new(0).parse_all(wasm).next()
    {
        return module(wasm);
    }
    let mut smaller = wasm_encoder::Component::new();
    // Nesting depth: modules and components inside of this one are copied as a whole.
    let mut depth = 0;
    for payload in Parser::new(0).parse_all(wasm) {
        let payload = payload.context("not a WebAssembly component")?;
        let in_component = depth == 1;
        match &payload {
            Payload::Version { .. } => depth += 1,
            Payload::End(_) => depth -= 1,
            Payload::CustomSection(custom) if in_component && custom.name() == NAMES => {}
            _ if in_component => {
                let Some((id, range)) = payload.as_section() else { continue };
                let data = wasm.get(range).context("the file is truncated within a section")?;
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

/// The module optimised by `wasm-opt`, or unchanged if that is not smaller.
fn module(wasm: &[u8]) -> Result<Vec<u8>> {
    let folder = tempfile::tempdir()?;
    let (from, to) = (folder.path().join("from.wasm"), folder.path().join("to.wasm"));
    fs::write(&from, wasm)?;
    let ran = Command::new(OPTIMIZER).args(OPTIONS).arg(&from).arg("-o").arg(&to).output();
    let output = match ran {
        Err(error) if error.kind() == ErrorKind::NotFound => bail!(
            "`{OPTIMIZER}` is not installed; install Binaryen (apt-get install binaryen, brew install \
             binaryen)"
        ),
        ran => ran.with_context(|| format!("cannot run `{OPTIMIZER}`"))?,
    };
    let message = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "`{OPTIMIZER}`: {}: {}", output.status, message.trim());
    let optimized = fs::read(&to)?;
    Ok(if optimized.len() < wasm.len() { optimized } else { wasm.to_owned() })
}

/// Replaces the file, whose permissions stay.
fn replace(path: &Path, wasm: &[u8]) -> Result<()> {
    let mode = fs::metadata(path)?.permissions().mode();
    Ok(atomic_file::write(path, wasm, mode, Existing::Replace)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    // None of these components has a module, so the tests do not need `wasm-opt`.

    #[test]
    fn only_the_section_of_names_is_removed() {
        let named =
            "(component $c (type $t string) (component (type u8)) (import \"a\" (func $f)))";
        let bare = "(component (type string) (component (type u8)) (import \"a\" (func)))";
        let named = wat::parse_str(named).unwrap();
        assert_eq!(component(&named).unwrap(), wat::parse_str(bare).unwrap());
    }

    #[test]
    fn files_other_than_components_are_refused() {
        let error = |wasm: &[u8]| format!("{:#}", component(wasm).unwrap_err());
        let whole = wat::parse_str("(component (component (type u8)) (type string))").unwrap();
        assert!(error(b"PNG").contains("not a WebAssembly component"));
        for length in 9..whole.len() {
            if let Ok(shorter) = component(&whole[..length]) {
                assert_eq!(shorter, &whole[..length], "truncated between two sections");
            }
        }
    }
}
