//! Compiled components: compiled once, stored as artifacts in a folder, and mapped into memory.
//!
//! The name of an artifact is a hash of everything that it depends on: the component file and how it is
//! converted, the version and settings of wasmtime, and the processor's features. A portable artifact runs on every processor of
//! the architecture, and is used where there is no native one. If the folder is not writable, code
//! stays in memory. What makes an artifact trustworthy: [`file`].

mod file;
mod file_kind;

use std::borrow::Cow;
use std::fs::DirBuilder;
use std::hash::{Hash, Hasher};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail, ensure};
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use tracing::{debug, info, warn};
use wasmtime::Engine as Wasmtime;
use wasmtime::component::Component;

use crate::guest::engine::ComponentForm;
use crate::guest::{binary, sequential};
use crate::process::read_file::read_file;
use crate::process::trust::check_folder;

use file::{Identity, check_unless_unchanged, in_memory, map, write};

/// Part of the hash of every name: changes with the format of an artifact file.
const FORMAT: &[u8] = b"spinfer artifact 1";
const EXTENSION: &str = "cwasm";
/// Maximum size of a component, in bytes: an interpreter and its libraries take tens of megabytes.
pub(crate) const MAX_COMPONENT: u64 = 256 << 20;
/// Age since the last use at which an artifact is removed.
const MAX_UNUSED: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Permissions of a folder that only this user can read.
pub const PRIVATE: u32 = 0o700;
/// Permissions of a folder whose artifacts other users may run.
pub const READABLE: u32 = 0o755;

/// A folder of artifacts.
#[derive(Clone, Debug)]
pub struct ArtifactStore {
    folder: PathBuf,
    target: CompileTarget,
    /// Creates the compiler for every processor of this architecture.
    portable_compiler: PortableCompiler,
}

/// Creates a compiler of a form of components.
type PortableCompiler = fn(ComponentForm) -> wasmtime::Result<Wasmtime>;

/// The processors that code is compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompileTarget {
    /// Processors with the features of this one.
    Native,
    /// Every processor of this architecture.
    Portable,
}

/// A compiled component file.
pub struct Artifact {
    form: ComponentForm,
    source: PathBuf,
    digest: [u8; 32],
    compiler: Wasmtime,
    stored: StoredArtifact,
}

enum StoredArtifact {
    File {
        path: PathBuf,
        /// Identity of the file when its seal was checked.
        checked: Mutex<Option<Identity>>,
    },
    Memory(Component),
}

impl std::fmt::Debug for Artifact {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Artifact").field("source", &self.source).finish_non_exhaustive()
    }
}

impl ArtifactStore {
    /// Opens `folder`, or creates it with the permissions `mode`.
    ///
    /// # Errors
    /// The folder cannot be created, or other users can write to it.
    pub fn open(
        folder: &Path,
        mode: u32,
        target: CompileTarget,
        portable_compiler: PortableCompiler,
    ) -> Result<Self> {
        let created = DirBuilder::new().recursive(true).mode(mode).create(folder);
        created
            .and_then(|()| folder.canonicalize())
            .and_then(|folder| Ok((folder.metadata()?, folder)))
            .map_err(anyhow::Error::from)
            .and_then(|(metadata, folder)| {
                ensure!(metadata.is_dir(), "it is not a folder");
                check_folder(&folder)?;
                Ok(Self { folder, target, portable_compiler })
            })
            .with_context(|| {
                format!("{}: cannot store compiled components here (--state-dir)", folder.display())
            })
    }

    /// The artifact of a `form` of the component in `source`, from the folder or compiled now, which takes
    /// up to a second, after it has passed `check`. `None` if the component does not have that form.
    /// `progress` is for the log: `3 of 5`.
    ///
    /// # Errors
    /// The file cannot be read, is not a component, or does not pass `check`.
    pub fn prepare(
        &self,
        engine: &Wasmtime,
        form: ComponentForm,
        source: &Path,
        progress: &str,
        check: &dyn Fn(&[u8]) -> Result<()>,
    ) -> Result<Option<Artifact>> {
        let start = Instant::now();
        // The caller names the file in every error.
        let wasm = read_file(source, MAX_COMPONENT)?;
        if let Some(problem) = file_kind::problem(&wasm) {
            bail!("it is not a component: {problem}");
        }
        let digest = Sha256::digest(&wasm).into();
        let source = source.to_owned();
        let path_for = |compiler: &Wasmtime| self.folder.join(file_name(compiler, form, &digest));
        let find = |compiler: &Wasmtime| {
            let path = path_for(compiler);
            let identity =
                file::check(&path).inspect_err(|error| log_rejected(&path, error)).ok()?;
            debug!(file = %source.display(), took = ?start.elapsed(), "compiled before");
            let stored = StoredArtifact::File { path, checked: Mutex::new(Some(identity)) };
            let (source, compiler) = (source.clone(), compiler.clone());
            Some(Artifact { form, source, digest, compiler, stored })
        };
        if self.target == CompileTarget::Native
            && let Some(artifact) = find(engine)
        {
            return Ok(Some(artifact));
        }
        let portable = (self.portable_compiler)(form)?;
        if let Some(artifact) = find(&portable) {
            return Ok(Some(artifact));
        }
        let compiler = match self.target {
            CompileTarget::Native => engine.clone(),
            CompileTarget::Portable => portable,
        };
        let Some(component) = converted(form, &wasm)? else { return Ok(None) };
        check(&component)?;
        let path = path_for(&compiler);
        let file = source.display();
        match form {
            ComponentForm::Whole => info!(%file, number = progress, "compiling"),
            ComponentForm::Sequential => debug!(%file, "compiling the sequential form"),
        }
        let code = compile(&compiler, &component)?;
        let stored = match write(&path, &code) {
            Ok(()) => StoredArtifact::File { path, checked: Mutex::default() },
            Err(error) => {
                let folder = self.folder.display();
                warn!(%error, "cannot store compiled components in {folder}; the code stays in memory");
                StoredArtifact::Memory(in_memory(engine, &code)?)
            }
        };
        let took = start.elapsed();
        match form {
            ComponentForm::Whole => info!(%file, ?took, "compiled"),
            ComponentForm::Sequential => debug!(%file, ?took, "the sequential form is compiled"),
        }
        Ok(Some(Artifact { form, source, digest, compiler, stored }))
    }

    /// Removes artifacts that were not used for a month: those of components that have changed, or of
    /// other settings.
    pub fn remove_old(&self) {
        let Ok(files) = self.folder.read_dir() else { return };
        for path in files.flatten().map(|file| file.path()) {
            // Includes temporary files of killed processes.
            if age(&path).is_ok_and(|age| age > MAX_UNUSED) && std::fs::remove_file(&path).is_ok() {
                debug!(file = %path.display(), "unused artifact removed");
            }
        }
    }
}

impl Artifact {
    /// The SHA-256 of the component it was compiled from.
    #[must_use]
    pub fn digest(&self) -> &[u8; 32] {
        &self.digest
    }

    /// The component, with its code mapped. An artifact that has changed since it was prepared is
    /// checked again; a missing or rejected one is compiled again.
    ///
    /// # Errors
    /// The component file has changed, or the code cannot be mapped.
    pub fn load(&self, engine: &Wasmtime) -> Result<Component> {
        let (path, checked) = match &self.stored {
            StoredArtifact::Memory(component) => return Ok(component.clone()),
            StoredArtifact::File { path, checked } => (path, checked),
        };
        match check_unless_unchanged(path, checked) {
            Ok(()) => return map(engine, path),
            Err(error) => log_rejected(path, &error),
        }
        let wasm = read(&self.source)?;
        if self.digest != <[u8; 32]>::from(Sha256::digest(&wasm)) {
            bail!("{} has changed since the host started; restart the host", self.source.display());
        }
        let component = converted(self.form, &wasm)?.context("it has lost its sequential form")?;
        let code = compile(&self.compiler, &component)
            .with_context(|| self.source.display().to_string())?;
        match write(path, &code).and_then(|()| check_unless_unchanged(path, checked)) {
            Ok(()) => map(engine, path),
            Err(error) => {
                warn!(%error, "cannot store compiled components");
                in_memory(engine, &code)
            }
        }
    }
}

/// Time since the artifact was last used.
fn age(path: &Path) -> io::Result<Duration> {
    let used = path.metadata()?.modified()?;
    SystemTime::now().duration_since(used).map_err(io::Error::other)
}

fn read(source: &Path) -> Result<Vec<u8>> {
    read_file(source, MAX_COMPONENT).with_context(|| source.display().to_string())
}

/// A form of the component in `wasm`, which may be a core module; `None` if the component does not have it.
fn converted(form: ComponentForm, wasm: &[u8]) -> Result<Option<Cow<'_, [u8]>>> {
    let component = binary::to_component(wasm)?;
    Ok(match form {
        ComponentForm::Whole => Some(component),
        ComponentForm::Sequential => sequential::of(&component)?.map(Cow::Owned),
    })
}

/// The file name of an artifact: a hash of what determines the code, and whether it can run.
fn file_name(engine: &Wasmtime, form: ComponentForm, component: &[u8; 32]) -> String {
    let mut hasher = Sha256Hasher(Sha256::new_with_prefix(FORMAT));
    hasher.write(component);
    hasher.write(binary::REVISION);
    if form == ComponentForm::Sequential {
        hasher.write(sequential::REVISION);
    }
    hasher.write(env!("WASMTIME_VERSION").as_bytes());
    // Covers settings, target and processor features.
    engine.precompile_compatibility_hash().hash(&mut hasher);
    let hash = hasher.0.finalize();
    let hex: String = hash[..16].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{hex}.{EXTENSION}")
}

struct Sha256Hasher(Sha256);

impl Hasher for Sha256Hasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The first bytes of the hash so far.
    fn finish(&self) -> u64 {
        let hash: [u8; 32] = self.0.clone().finalize().into();
        hash.iter().take(8).fold(0, |bits, &byte| bits << 8 | u64::from(byte))
    }
}

fn compile(engine: &Wasmtime, wasm: &[u8]) -> Result<Vec<u8>> {
    engine
        .precompile_component(wasm)
        .map_err(anyhow::Error::from)
        .context("it is not a WebAssembly component this host can run (build it for wasm32-wasip2)")
}

/// Warns that an artifact is not used, unless there is none yet.
fn log_rejected(path: &Path, error: &anyhow::Error) {
    let missing =
        error.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::NotFound);
    if !missing {
        let reason = format!("{error:#}");
        warn!(file = %path.display(), reason, "artifact not used; compiling again");
    }
}

#[cfg(test)]
mod tests;
