//! The component that serves an added model.

use std::env;
use std::fs;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use wasmparser::{Validator, WasmFeatures};

use crate::cli::atomic_files::FileTransaction;
use crate::guest::artifact::MAX_COMPONENT;
use crate::process::read_file::read_file;

/// A component for the manifest.
#[derive(Debug)]
pub(in crate::cli) struct AddedComponent {
    /// `source` of the component, relative to the manifest.
    pub(in crate::cli) source: String,
    state: SourceState,
}

/// What is at `source`, and what becomes of it.
#[derive(Debug, PartialEq, Eq)]
enum SourceState {
    /// The component to use.
    Ready,
    /// Another build of the generic component, which stays: another version of spinfer may have written it.
    OtherVersion,
    /// Nothing: these contents are written.
    Missing(Vec<u8>),
    /// A file that is not a component, and why. These contents replace it.
    Damaged(Vec<u8>, String),
}

/// Path of the generic component in an application's folder.
const COPY: &str = "components/generic-model.wasm";

/// Paths searched for the generic component, relative to the folder of this binary: next to it, where
/// packages install it, and where cargo builds it.
const SEARCH_PATHS: [&str; 3] = [
    "generic-model.wasm",
    "../lib/spinfer/generic-model.wasm",
    "../components/wasm32-wasip2/component/generic_model.wasm",
];

/// The component `given`, or a copy of the generic one in the application's folder `base`: a
/// self-contained folder can be served on other hosts too.
pub(in crate::cli) fn find(given: Option<&Path>, base: &Path) -> Result<AddedComponent> {
    if let Some(given) = given {
        let path = given
            .canonicalize()
            .with_context(|| format!("--component {}: cannot be read", given.display()))?;
        let base = if base.exists() { base.canonicalize()? } else { PathBuf::new() };
        let source = path.strip_prefix(&base).unwrap_or(&path);
        let source = source.to_str().context("--component: its path is not UTF-8")?.to_owned();
        return Ok(AddedComponent { source, state: SourceState::Ready });
    }
    let path = base.join(COPY);
    let existing =
        match fs::exists(&path).and_then(|exists| exists.then(|| fs::read(&path)).transpose()) {
            Err(error) if error.kind() == ErrorKind::NotADirectory => None,
            existing => existing.with_context(|| path.display().to_string())?,
        };
    let state = state(existing.as_deref(), generic)?;
    Ok(AddedComponent { source: COPY.to_owned(), state })
}

/// What becomes of the `existing` copy of the `generic` component. Its contents are compared: its existence
/// does not show that it was written to its end.
fn state(
    existing: Option<&[u8]>,
    generic: impl FnOnce() -> Result<Vec<u8>>,
) -> Result<SourceState> {
    let Some(existing) = existing else { return Ok(SourceState::Missing(generic()?)) };
    let problem = check(existing).err();
    let generic = match (generic(), &problem) {
        (Ok(generic), _) => generic,
        // The application has one, and does not need that of this installation.
        (Err(_), None) => return Ok(SourceState::Ready),
        (Err(error), Some(problem)) => {
            return Err(error.context(format!("{COPY} is damaged: {problem}")));
        }
    };
    Ok(match problem {
        _ if existing == generic => SourceState::Ready,
        None => SourceState::OtherVersion,
        Some(problem) => SourceState::Damaged(generic, problem),
    })
}

/// Checks that `wasm` is a whole component.
fn check(wasm: &[u8]) -> Result<(), String> {
    if !wasmparser::Parser::is_component(wasm) {
        return Err("it is not a WebAssembly component".into());
    }
    let valid = Validator::new_with_features(WasmFeatures::all()).validate_all(wasm);
    valid.map(drop).map_err(|error| error.to_string())
}

/// The generic component of this installation.
fn generic() -> Result<Vec<u8>> {
    let binary = env::current_exe().context("this binary's own path")?.canonicalize()?;
    let folder = binary.parent().unwrap_or(Path::new("."));
    let mut candidates = SEARCH_PATHS.iter().map(|path| folder.join(path));
    let Some(path) = candidates.find(|path| path.is_file()) else {
        bail!(
            "there is no generic-model.wasm next to {} or in ../lib/spinfer; build it with `make \
             components` in spinfer's repository, or pass its path with --component",
            binary.display()
        );
    };
    let shown = || path.display().to_string();
    let wasm = read_file(&path, MAX_COMPONENT).with_context(shown)?;
    check(&wasm).map_err(anyhow::Error::msg).with_context(shown)?;
    Ok(wasm)
}

impl AddedComponent {
    /// Writes the component in the application's folder `base`, if it is needed.
    pub(in crate::cli) fn write(&self, base: &Path, files: &mut FileTransaction) -> Result<()> {
        let path = base.join(&self.source);
        match &self.state {
            SourceState::Ready | SourceState::OtherVersion => Ok(()),
            SourceState::Missing(wasm) => files.create_file(&path, wasm),
            SourceState::Damaged(wasm, _) => files.write_file(&path, wasm),
        }
    }

    /// Prints what is remarkable about the component.
    pub(in crate::cli) fn print(&self, out: &mut impl Write) -> io::Result<()> {
        let source = &self.source;
        match &self.state {
            SourceState::Ready | SourceState::Missing(_) => Ok(()),
            SourceState::OtherVersion => {
                writeln!(
                    out,
                    "  note    {source} is of another version of spinfer, and is unchanged"
                )
            }
            SourceState::Damaged(_, problem) => {
                writeln!(out, "  note    {source} was damaged, and is replaced: {problem}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_existing_copy_is_used_only_if_it_is_whole() {
        let generic = wat::parse_str("(component (component (type u8)) (type string))").unwrap();
        let other = wat::parse_str("(component (type u8))").unwrap();
        let of = |existing: Option<&[u8]>| state(existing, || Ok(generic.clone())).unwrap();
        assert_eq!(of(None), SourceState::Missing(generic.clone()));
        assert_eq!(of(Some(&generic)), SourceState::Ready);
        assert_eq!(of(Some(&other)), SourceState::OtherVersion);
        for damaged in [&generic[..generic.len() - 1], b"", b"\0asm\x01\0\0\0", b"PNG"] {
            let SourceState::Damaged(replacement, _) = of(Some(damaged)) else {
                panic!("{damaged:?} is used");
            };
            assert_eq!(replacement, generic);
        }
        let without = |existing: Option<&[u8]>| state(existing, || bail!("not installed"));
        assert_eq!(without(Some(&other)).unwrap(), SourceState::Ready);
        assert!(without(None).is_err());
        let error = format!("{:#}", without(Some(b"PNG")).unwrap_err());
        assert!(error.contains("generic-model.wasm is damaged"), "{error}");
    }
}
