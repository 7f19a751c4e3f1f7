//! The component that serves an added model.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// A component for the manifest.
#[derive(Debug)]
pub(in crate::cli) struct AddedComponent {
    /// `source` of the component, relative to the manifest.
    pub(in crate::cli) source: String,
    /// Contents to write to `source`; `None` if the file exists.
    pub(in crate::cli) copy: Option<Vec<u8>>,
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
        return Ok(AddedComponent { source, copy: None });
    }
    let source = COPY.to_owned();
    // An existing copy stays: another version of spinfer may have written it.
    if base.join(COPY).is_file() {
        return Ok(AddedComponent { source, copy: None });
    }
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
    let copy = fs::read(&path).with_context(|| path.display().to_string())?;
    Ok(AddedComponent { source, copy: Some(copy) })
}
