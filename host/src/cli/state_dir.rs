//! `--state-dir`: the folder of compiled and fetched components.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;

use crate::process::trust::check_folder;

#[derive(Clone, Debug, Args)]
pub struct StateDir {
    /// Folder of compiled and fetched components [default: spinfer in the user's cache folder], and of
    /// the default key-value store [default: .spin next to the manifest]
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
}

impl StateDir {
    /// This flag, or the value of the runtime config.
    #[must_use]
    pub fn or(&self, configured: Option<PathBuf>) -> Self {
        Self { state_dir: self.state_dir.clone().or(configured) }
    }

    /// Opens the folder, creating it with the permissions `mode` if it is missing. It contains native
    /// code, so no other user may write to it, or replace it.
    ///
    /// # Errors
    /// If the folder cannot be created, or another user can change it.
    pub fn open(&self, base: &Path, mode: u32) -> Result<PathBuf> {
        let folder =
            self.state_dir.clone().or_else(user_cache).unwrap_or_else(|| base.join(".spinfer"));
        let created = DirBuilder::new().recursive(true).mode(mode).create(&folder);
        let opened = created.and_then(|()| folder.canonicalize()).with_context(|| {
            format!(
                "{}: cannot create the state folder; choose another one with --state-dir",
                folder.display()
            )
        })?;
        check_folder(&opened).with_context(|| {
            format!(
                "{}: not safe as the state folder, which contains native code; choose another one with \
                 --state-dir",
                folder.display()
            )
        })?;
        Ok(opened)
    }
}

/// `spinfer` in the user's cache folder, by the XDG base directory specification. Not next to the
/// manifest: a downloaded application could contain malicious native code.
fn user_cache() -> Option<PathBuf> {
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
    let cache = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")));
    Some(cache?.join("spinfer"))
}
