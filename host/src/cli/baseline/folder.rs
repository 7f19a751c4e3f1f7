//! Finds the folder of a model version.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::cli::edit::Edit;
use crate::guest::files::Files;
use crate::inference::{self, SIGNATURE};

/// The folder of a `version` of the `model`: one mounted by a component of the manifest `from`, or one
/// in the model repository next to it.
pub(super) fn find(from: &Path, model: &str, version: Option<&str>) -> Result<PathBuf> {
    let Edit { base, manifest, path, .. } = Edit::open(from)?;
    // The name becomes a path segment, and must not lead out of the repository.
    let is_name =
        !model.is_empty() && !model.contains(['/', '\\', '\0']) && !model.starts_with('.');
    let mut versions: BTreeMap<String, PathBuf> = BTreeMap::new();
    let mut add = |folder: PathBuf| -> Result<()> {
        if folder.join(SIGNATURE).is_file() {
            versions.entry(inference::declared(&folder)?.version).or_insert(folder);
        }
        Ok(())
    };
    for (id, component) in &manifest.component {
        let files = Files::resolve(component, &base).map_err(|problems| {
            let problems: Vec<_> = problems.into_iter().map(|(_, problem)| problem).collect();
            anyhow::anyhow!("{}: component.{id}.files: {}", path.display(), problems.join("; "))
        })?;
        for (_, folder) in files.folders.models().filter(|(name, _)| *name == model) {
            add(folder.to_owned())?;
        }
    }
    let repository = base.join("models").join(model);
    if is_name && repository.is_dir() {
        let entries =
            fs::read_dir(&repository).with_context(|| repository.display().to_string())?;
        for entry in entries {
            add(entry?.path())?;
        }
    }
    let available = || versions.keys().cloned().collect::<Vec<_>>().join(", ");
    match (version, versions.len()) {
        (_, 0) => bail!(
            "--model {model}: there is no version of it in {} or {}; `spinfer models` lists the models",
            path.display(),
            repository.display()
        ),
        (Some(version), _) => versions.get(version).cloned().with_context(|| {
            format!("--version {version}: {model} has no such version; it has {}", available())
        }),
        (None, 1) => Ok(versions.into_values().next().unwrap_or_default()),
        (None, _) => bail!("{model} has the versions {}; choose one with --version", available()),
    }
}
