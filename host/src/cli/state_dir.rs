//! Where this host keeps what it has made or fetched: `--state-dir`.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;

#[derive(Clone, Debug, Args)]
pub struct StateDir {
    /// Where to keep compiled and fetched components [default: spinfer in the user's cache folder], and
    /// the default key-value store [default: .spin beside the manifest]
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
}

impl StateDir {
    /// This one, or else what the runtime config says.
    #[must_use]
    pub fn or(&self, configured: Option<PathBuf>) -> Self {
        Self { state_dir: self.state_dir.clone().or(configured) }
    }

    /// The folder, made if there is none, with the permissions `mode`. What is compiled is native
    /// code: nobody else may write there.
    pub fn open(&self, base: &Path, mode: u32) -> Result<PathBuf> {
        let folder =
            self.state_dir.clone().or_else(user_cache).unwrap_or_else(|| base.join(".spinfer"));
        let made = DirBuilder::new().recursive(true).mode(mode).create(&folder);
        made.and_then(|()| folder.canonicalize())
            .with_context(|| format!("{}: cannot keep state here (--state-dir)", folder.display()))
    }
}

/// `spinfer` in the user's cache folder, by the XDG base directory specification. Not beside the
/// manifest: an application from elsewhere could bring compiled code along.
fn user_cache() -> Option<PathBuf> {
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
    let cache = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")));
    Some(cache?.join("spinfer"))
}
