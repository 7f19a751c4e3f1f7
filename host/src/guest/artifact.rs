//! Components compiled ahead of time: made once, kept in a folder, mapped rather than read.
//!
//! An artefact is native code, and whoever may write it may do anything this process may. So the
//! folder and the file have to belong to this user or to root, nobody else may write them, and the
//! file ends in a SHA-256 of the rest. One that is truncated, damaged or of others is compiled
//! again. Its name is a hash of all it depends on: the component, the version and settings of
//! wasmtime, the processor's features; or that it is for any processor of this kind, which serves
//! where there is none for this one. Where the folder cannot be written, code stays in memory.

use std::fs::{DirBuilder, File, Metadata, Permissions};
use std::hash::{Hash, Hasher};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest, Sha256};
use tracing::{debug, info, warn};
use wasmtime::Engine as Wasmtime;
use wasmtime::component::Component;

use crate::process::read_file::read_file;

/// Bytes at the end of an artefact: the SHA-256 of those before.
const SEAL: usize = 32;
/// Part of every name: changes with what an artefact file is.
const FORMAT: &[u8] = b"spinfer artefact 1";
const EXTENSION: &str = "cwasm";
/// Bytes of a component: an interpreter and its libraries are some tens of megabytes.
pub(crate) const MAX_COMPONENT: u64 = 256 << 20;
/// That an artefact is in use is written down so often: who notices that it was written to since
/// checks it again.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// An artefact nobody has used for so long is removed.
const KEEP: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// What other users have no business with: write permission of the group and of the rest.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// Permissions of a folder of one's own.
pub const PRIVATE: u32 = 0o700;
/// Permissions of a folder whose artefacts others may run.
pub const READABLE: u32 = 0o755;

/// A folder of artefacts.
#[derive(Clone, Debug)]
pub struct Artifacts {
    folder: PathBuf,
    makes: Makes,
    /// Creates the compiler for every processor of this architecture.
    portable: fn() -> wasmtime::Result<Wasmtime>,
}

/// For which processors code is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Makes {
    /// For those with the features of this one.
    Native,
    /// For any of this kind.
    Portable,
}

/// A component file, compiled.
pub struct Artifact {
    source: PathBuf,
    digest: [u8; 32],
    /// What it is made with.
    compiler: Wasmtime,
    kept: Kept,
}

enum Kept {
    /// In a file, and which file it was when its seal was checked.
    File {
        path: PathBuf,
        checked: Mutex<Option<Identity>>,
    },
    Memory(Component),
}

/// A file that has not been replaced or written since has the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
    size: u64,
    /// Seconds and nanoseconds; nobody can set it back.
    changed: (i64, i64),
}

impl std::fmt::Debug for Artifact {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Artifact").field("source", &self.source).finish_non_exhaustive()
    }
}

impl Artifacts {
    /// Opens `folder`; makes it if there is none, with the permissions `mode`. Fails if others may
    /// write there.
    pub fn open(
        folder: &Path,
        mode: u32,
        makes: Makes,
        portable: fn() -> wasmtime::Result<Wasmtime>,
    ) -> Result<Self> {
        let made = DirBuilder::new().recursive(true).mode(mode).create(folder);
        made.and_then(|()| folder.canonicalize())
            .and_then(|folder| Ok((folder.metadata()?, folder)))
            .map_err(anyhow::Error::from)
            .and_then(|(metadata, folder)| {
                ensure!(metadata.is_dir(), "is not a folder");
                check_owner(&metadata)?;
                Ok(Self { folder, makes, portable })
            })
            .with_context(|| {
                format!("{}: cannot keep compiled components here (--state-dir)", folder.display())
            })
    }

    /// The artefact of the component in `source`, from the folder or compiled now, which takes up
    /// to a second. `progress` is for people: `3 of 5`.
    pub fn prepare(&self, engine: &Wasmtime, source: &Path, progress: &str) -> Result<Artifact> {
        let start = Instant::now();
        let wasm = read(source)?;
        let digest = Sha256::digest(&wasm).into();
        let source = source.to_owned();
        let place = |compiler: &Wasmtime| self.folder.join(name(compiler, &digest));
        let made_before = |compiler: &Wasmtime| {
            let path = place(compiler);
            let identity = check(&path).inspect_err(|why| why_not(&path, why)).ok()?;
            debug!(file = %source.display(), took = ?start.elapsed(), "was compiled before");
            let kept = Kept::File { path, checked: Mutex::new(Some(identity)) };
            Some(Artifact { source: source.clone(), digest, compiler: compiler.clone(), kept })
        };
        if self.makes == Makes::Native
            && let Some(artifact) = made_before(engine)
        {
            return Ok(artifact);
        }
        let portable = (self.portable)()?;
        if let Some(artifact) = made_before(&portable) {
            return Ok(artifact);
        }
        let compiler = match self.makes {
            Makes::Native => engine.clone(),
            Makes::Portable => portable,
        };
        let path = place(&compiler);
        info!(file = %source.display(), number = progress, "compiling");
        let code = compile(&compiler, &wasm, &source)?;
        let kept = match write(&path, &code) {
            Ok(()) => Kept::File { path, checked: Mutex::default() },
            Err(error) => {
                let folder = self.folder.display();
                warn!(%error, "cannot keep compiled components in {folder}: the code stays in memory");
                Kept::Memory(in_memory(engine, &code)?)
            }
        };
        info!(file = %source.display(), took = ?start.elapsed(), "compiled");
        Ok(Artifact { source, digest, compiler, kept })
    }

    /// Removes what has not been used for a month: of components since changed, or other settings.
    pub fn remove_old(&self) {
        let Ok(files) = self.folder.read_dir() else { return };
        for path in files.flatten().map(|file| file.path()) {
            // What was being written when a process ended abruptly included.
            if age(&path).is_ok_and(|age| age > KEEP) && std::fs::remove_file(&path).is_ok() {
                debug!(file = %path.display(), "old artefact removed");
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

    /// The component, its code mapped. An artefact that is gone or has changed since it was
    /// prepared is checked, and made again if need be.
    pub fn load(&self, engine: &Wasmtime) -> Result<Component> {
        let (path, checked) = match &self.kept {
            Kept::Memory(component) => return Ok(component.clone()),
            Kept::File { path, checked } => (path, checked),
        };
        match unchanged(path, checked) {
            Ok(()) => return map(engine, path),
            Err(why) => why_not(path, &why),
        }
        let wasm = read(&self.source)?;
        if self.digest != <[u8; 32]>::from(Sha256::digest(&wasm)) {
            bail!("{} is not the file it was at the start; start again", self.source.display());
        }
        let code = compile(&self.compiler, &wasm, &self.source)?;
        match write(path, &code).and_then(|()| unchanged(path, checked)) {
            Ok(()) => map(engine, path),
            Err(error) => {
                warn!(%error, "cannot keep compiled components");
                in_memory(engine, &code)
            }
        }
    }
}

/// Since it was last used.
fn age(path: &Path) -> io::Result<Duration> {
    let used = path.metadata()?.modified()?;
    SystemTime::now().duration_since(used).map_err(io::Error::other)
}

fn read(source: &Path) -> Result<Vec<u8>> {
    read_file(source, MAX_COMPONENT).with_context(|| source.display().to_string())
}

/// Every one of these changes the code, or whether it can run.
fn name(engine: &Wasmtime, component: &[u8; 32]) -> String {
    let mut hasher = Sha256Hasher(Sha256::new_with_prefix(FORMAT));
    hasher.write(component);
    hasher.write(env!("WASMTIME_VERSION").as_bytes());
    // Settings, target and processor features.
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

fn compile(engine: &Wasmtime, wasm: &[u8], source: &Path) -> Result<Vec<u8>> {
    engine.precompile_component(wasm).map_err(anyhow::Error::from).with_context(|| {
        format!(
            "{} is not a WebAssembly component this host can run (build it for wasm32-wasip2)",
            source.display()
        )
    })
}

/// Written beside and renamed, so that nobody ever sees half of it.
fn write(path: &Path, code: &[u8]) -> Result<()> {
    let folder = path.parent().context("an artefact is in a folder")?;
    // Whoever may look into the folder may read: an image is made by one user and run by another.
    let readable = Permissions::from_mode(0o644);
    let mut file = tempfile::Builder::new().permissions(readable).tempfile_in(folder)?;
    file.write_all(code)?;
    file.write_all(&Sha256::digest(code))?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

/// Checks owner, permissions and seal.
fn check(path: &Path) -> Result<Identity> {
    let mut file = File::open(path)?;
    let metadata = file.metadata()?;
    ensure!(metadata.is_file(), "is not a file");
    check_owner(&metadata)?;
    // In a folder of root's that is nobody's business.
    let _ = say_it_is_used(&file);
    let identity = Identity::of(&file.metadata()?);
    let mut bytes = Vec::with_capacity(usize::try_from(metadata.len())?);
    file.read_to_end(&mut bytes)?;
    let (code, seal) = bytes.split_last_chunk::<SEAL>().context("is truncated")?;
    ensure!(*seal == <[u8; SEAL]>::from(Sha256::digest(code)), "is damaged");
    Ok(identity)
}

/// Keeps it from being removed. Written down once a day: it changes the file's identity.
fn say_it_is_used(file: &File) -> io::Result<()> {
    let used = SystemTime::now().duration_since(file.metadata()?.modified()?);
    if used.is_ok_and(|used| used > DAY) { file.set_modified(SystemTime::now()) } else { Ok(()) }
}

/// Whether what belongs to this `metadata` is this user's or root's, and nobody else's to write.
pub(crate) fn check_owner(metadata: &Metadata) -> Result<()> {
    let user = rustix::process::geteuid().as_raw();
    let owner = metadata.uid();
    ensure!(owner == user || owner == 0, "belongs to user {owner}, not to {user}; use another");
    let mode = metadata.mode() & 0o777;
    ensure!(mode & WRITABLE_BY_OTHERS == 0, "others may write it (mode {mode:o}): chmod go-w");
    Ok(())
}

impl Identity {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// Checks the file, unless it is the one that was checked before.
fn unchanged(path: &Path, checked: &Mutex<Option<Identity>>) -> Result<()> {
    let mut checked = checked.lock().unwrap_or_else(PoisonError::into_inner);
    // The same process may run for months. What that changes, or cannot, is seen below.
    let _ = File::open(path).and_then(|file| say_it_is_used(&file));
    if checked.is_none_or(|checked| path.metadata().ok().map(|m| Identity::of(&m)) != Some(checked))
    {
        *checked = Some(check(path)?);
    }
    Ok(())
}

fn map(engine: &Wasmtime, path: &Path) -> Result<Component> {
    #[expect(unsafe_code, reason = "compiled code is run as it is")]
    // SAFETY: the file is what `write` wrote, for this wasmtime and these settings: its seal says
    // the first, its name the second. Only this user or root may have replaced it.
    let component = unsafe { Component::deserialize_file(engine, path) };
    component.map_err(Into::into)
}

fn in_memory(engine: &Wasmtime, code: &[u8]) -> Result<Component> {
    #[expect(unsafe_code, reason = "compiled code is run as it is")]
    // SAFETY: `code` was compiled by this engine in this process.
    let component = unsafe { Component::deserialize(engine, code) };
    component.map_err(Into::into)
}

/// That there is none yet is no news.
fn why_not(path: &Path, why: &anyhow::Error) {
    let absent =
        why.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::NotFound);
    if !absent {
        warn!(file = %path.display(), why = format!("{why:#}"), "artefact not used; compiling again");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The smallest component there is.
    const EMPTY: &[u8] = b"\0asm\x0d\0\x01\0";

    use crate::guest::engine;

    struct Setup {
        dir: tempfile::TempDir,
        engine: Wasmtime,
        artifacts: Artifacts,
        source: PathBuf,
    }

    fn setup() -> Setup {
        let dir = tempfile::tempdir().unwrap();
        let source = dir.path().join("empty.wasm");
        std::fs::write(&source, EMPTY).unwrap();
        let artifacts =
            Artifacts::open(&dir.path().join("state/compiled"), PRIVATE, Makes::Native, engine::portable).unwrap();
        let engine = Wasmtime::new(&engine::code()).unwrap();
        Setup { dir, engine, artifacts, source }
    }

    impl Setup {
        fn prepare(&self) -> Artifact {
            self.artifacts.prepare(&self.engine, &self.source, "1 of 1").unwrap()
        }

        fn files(&self) -> Vec<PathBuf> {
            self.artifacts.folder.read_dir().unwrap().map(|f| f.unwrap().path()).collect()
        }

        fn inode(&self) -> u64 {
            self.files()[0].metadata().unwrap().ino()
        }
    }

    #[test]
    fn a_component_is_compiled_once() {
        let setup = setup();
        let artifact = setup.prepare();
        assert!(artifact.load(&setup.engine).is_ok());
        let first = setup.inode();
        assert!(setup.prepare().load(&setup.engine).is_ok());
        assert_eq!((setup.files().len(), setup.inode()), (1, first), "used, not made again");
    }

    #[test]
    fn what_is_not_as_it_was_written_is_compiled_again() {
        let setup = setup();
        let whole = {
            setup.prepare();
            std::fs::read(&setup.files()[0]).unwrap()
        };
        let mut flipped = whole.clone();
        flipped[whole.len() / 2] ^= 1;
        let truncated = &whole[..whole.len() - 1];
        let foreign = b"\x7fELF of another".as_slice();
        for (name, bytes) in
            [("flipped", &*flipped), ("truncated", truncated), ("foreign", foreign), ("empty", b"")]
        {
            for started in [false, true] {
                let artifact = setup.prepare();
                let path = setup.files()[0].clone();
                std::fs::write(&path, bytes).unwrap();
                let artifact = if started { artifact } else { setup.prepare() };
                assert!(artifact.load(&setup.engine).is_ok(), "{name}");
                assert_eq!(std::fs::read(&path).unwrap(), whole, "{name}");
            }
        }
    }

    fn age_of(path: &Path, age: Duration) {
        File::open(path).unwrap().set_modified(SystemTime::now() - age).unwrap();
    }

    #[test]
    fn one_that_is_used_is_not_removed_and_several_may_use_it() {
        let setup = setup();
        let (one, other) = (setup.prepare(), setup.prepare());
        let path = setup.files()[0].clone();
        let identity = || Identity::of(&path.metadata().unwrap());
        // Neither has to check it again.
        let before = identity();
        for artifact in [&one, &other] {
            assert!(artifact.load(&setup.engine).is_ok());
            let Kept::File { checked, .. } = &artifact.kept else { panic!("it is in a file") };
            assert_eq!((*checked.lock().unwrap(), identity()), (Some(before), before));
        }
        // By a process that has run for long, and by one that starts.
        let uses: [&dyn Fn(); 2] =
            [&|| drop(one.load(&setup.engine).unwrap()), &|| drop(setup.prepare())];
        for used in uses {
            age_of(&path, KEEP + DAY);
            used();
            setup.artifacts.remove_old();
            assert!(path.exists());
        }
        age_of(&path, KEEP + DAY);
        setup.artifacts.remove_old();
        assert!(!path.exists(), "nobody uses it");
    }

    #[test]
    fn what_was_made_for_every_processor_is_used_where_there_is_nothing_better() {
        let setup = setup();
        let portable = Artifacts { makes: Makes::Portable, ..setup.artifacts.clone() };
        assert!(
            portable
                .prepare(&setup.engine, &setup.source, "1 of 1")
                .unwrap()
                .load(&setup.engine)
                .is_ok()
        );
        let [path] = <[PathBuf; 1]>::try_from(setup.files()).unwrap();
        let artifact = setup.prepare();
        assert!(artifact.load(&setup.engine).is_ok());
        assert_eq!(setup.files(), [&*path], "nothing else was made");
        // If it is lost, the same is made again.
        std::fs::remove_file(&path).unwrap();
        assert!(artifact.load(&setup.engine).is_ok());
        assert_eq!(setup.files(), [&*path]);
        std::fs::remove_file(&path).unwrap();
        setup.prepare();
        assert_ne!(setup.files(), [path], "for this processor, if nobody asks for more");
    }

    #[test]
    fn an_artefact_that_is_gone_is_made_again() {
        let setup = setup();
        let artifact = setup.prepare();
        std::fs::remove_file(&setup.files()[0]).unwrap();
        assert!(artifact.load(&setup.engine).is_ok());
        assert_eq!(setup.files().len(), 1);
    }

    #[test]
    fn but_not_from_another_component() {
        let setup = setup();
        let artifact = setup.prepare();
        std::fs::remove_file(&setup.files()[0]).unwrap();
        std::fs::write(&setup.source, [EMPTY, b"\0\x02\x01a"].concat()).unwrap();
        let error = artifact.load(&setup.engine).unwrap_err().to_string();
        assert!(error.contains("is not the file it was at the start"), "{error}");
    }

    #[test]
    fn what_others_may_write_is_not_trusted() {
        let setup = setup();
        setup.prepare();
        let (path, before) = (setup.files()[0].clone(), setup.inode());
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o666)).unwrap();
        assert!(setup.prepare().load(&setup.engine).is_ok());
        assert_ne!(setup.inode(), before, "made again");
        assert_eq!(path.metadata().unwrap().mode() & WRITABLE_BY_OTHERS, 0);

        let folder = &setup.artifacts.folder;
        assert_eq!(folder.metadata().unwrap().mode() & 0o777, 0o700);
        std::fs::set_permissions(folder, PermissionsExt::from_mode(0o770)).unwrap();
        let error = format!("{:#}", Artifacts::open(folder, PRIVATE, Makes::Native, engine::portable).unwrap_err());
        assert!(error.contains("others may write it (mode 770): chmod go-w"), "{error}");
    }

    #[test]
    fn other_settings_have_their_own_artefact() {
        let setup = setup();
        setup.prepare();
        let mut config = engine::code();
        config.epoch_interruption(false);
        let other = Wasmtime::new(&config).unwrap();
        assert!(
            setup.artifacts.prepare(&other, &setup.source, "1 of 1").unwrap().load(&other).is_ok()
        );
        assert_eq!(setup.files().len(), 2);
    }

    #[test]
    fn without_a_folder_to_write_the_code_stays_in_memory() {
        let setup = setup();
        let folder = setup.dir.path().join("gone");
        let artifacts = Artifacts::open(&folder, PRIVATE, Makes::Native, engine::portable).unwrap();
        std::fs::remove_dir(&folder).unwrap();
        let artifact = artifacts.prepare(&setup.engine, &setup.source, "1 of 1").unwrap();
        assert!(artifact.load(&setup.engine).is_ok());
    }

    #[test]
    fn what_was_not_used_for_a_month_is_removed() {
        let setup = setup();
        setup.prepare();
        setup.artifacts.remove_old();
        let [path] = <[PathBuf; 1]>::try_from(setup.files()).expect("still there");
        let old = SystemTime::now() - KEEP - Duration::from_secs(60);
        File::open(&path).unwrap().set_modified(old).unwrap();
        setup.artifacts.remove_old();
        assert_eq!(setup.files(), Vec::<PathBuf>::new());
    }

    #[test]
    fn what_is_not_a_component_is_refused_with_what_to_do() {
        let setup = setup();
        std::fs::write(&setup.source, b"\0asm\x01\0\0\0").unwrap();
        let error = setup
            .artifacts
            .prepare(&setup.engine, &setup.source, "1 of 1")
            .unwrap_err()
            .to_string();
        assert!(error.contains("build it for wasm32-wasip2"), "{error}");
    }
}
