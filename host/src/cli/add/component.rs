//! Where the component that serves an added model is.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// A component as the manifest names it.
#[derive(Debug)]
pub(in crate::cli) struct Component {
    pub(in crate::cli) source: String,
    /// What is to be written there, unless it is there.
    pub(in crate::cli) copy: Option<Vec<u8>>,
}

/// The generic component in an application's folder.
const COPY: &str = "components/generic-model.wasm";

/// Where it may be, from the folder of this binary: beside it, where packages put such files, and where
/// cargo builds it.
const BESIDE: [&str; 3] = [
    "generic-model.wasm",
    "../lib/spinfer/generic-model.wasm",
    "../components/wasm32-wasip2/component/generic_model.wasm",
];

/// The component `given`, or a copy of the generic one in the application's folder `base`: what is in
/// that folder is then all that it needs, here and on other hosts.
pub(in crate::cli) fn find(given: Option<&Path>, base: &Path) -> Result<Component> {
    if let Some(given) = given {
        let path = given
            .canonicalize()
            .with_context(|| format!("--component {}: cannot be read", given.display()))?;
        let base = if base.exists() { base.canonicalize()? } else { PathBuf::new() };
        let source = path.strip_prefix(&base).unwrap_or(&path);
        let source = source.to_str().context("--component: its path is not UTF-8")?.to_owned();
        return Ok(Component { source, copy: None });
    }
    let source = COPY.to_owned();
    // The application's: another version of spinfer may have put it there.
    if base.join(COPY).is_file() {
        return Ok(Component { source, copy: None });
    }
    let binary = env::current_exe().context("this binary's own path")?.canonicalize()?;
    let folder = binary.parent().unwrap_or(Path::new("."));
    let Some(path) = BESIDE.iter().map(|path| folder.join(path)).find(|path| path.is_file()) else {
        bail!(
            "the generic component is not beside {} (generic-model.wasm, or in ../lib/spinfer); \
             `make components` builds it in spinfer's repository, and --component says where it is",
            binary.display()
        );
    };
    let copy = fs::read(&path).with_context(|| path.display().to_string())?;
    Ok(Component { source, copy: Some(copy) })
}
