use std::fs::File;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use super::file::DAY;
use super::*;
use crate::guest::engine;
use crate::process::trust::WRITABLE_BY_OTHERS;

/// The smallest valid component.
const EMPTY: &[u8] = b"\0asm\x0d\0\x01\0";

struct TestSetup {
    dir: tempfile::TempDir,
    engine: Wasmtime,
    artifacts: ArtifactStore,
    source: PathBuf,
}

fn setup() -> TestSetup {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("empty.wasm");
    std::fs::write(&source, EMPTY).unwrap();
    let artifacts = ArtifactStore::open(
        &dir.path().join("state/compiled"),
        PRIVATE,
        CompileTarget::Native,
        engine::portable_compiler,
    )
    .unwrap();
    let engine = Wasmtime::new(&engine::code_config(ComponentForm::Whole)).unwrap();
    TestSetup { dir, engine, artifacts, source }
}

impl TestSetup {
    fn prepare(&self) -> Artifact {
        self.prepare_in(&self.artifacts, &self.engine).unwrap()
    }

    fn prepare_in(&self, artifacts: &ArtifactStore, engine: &Wasmtime) -> Result<Artifact> {
        let form = ComponentForm::Whole;
        let prepared = artifacts.prepare(engine, form, &self.source, "1 of 1", &|_| Ok(()))?;
        Ok(prepared.expect("every component has this form"))
    }

    fn files(&self) -> Vec<PathBuf> {
        self.artifacts.folder.read_dir().unwrap().map(|f| f.unwrap().path()).collect()
    }

    fn inode(&self) -> u64 {
        self.files()[0].metadata().unwrap().ino()
    }
}

#[test]
fn component_is_compiled_once() {
    let setup = setup();
    let artifact = setup.prepare();
    assert!(artifact.load(&setup.engine).is_ok());
    let first = setup.inode();
    assert!(setup.prepare().load(&setup.engine).is_ok());
    assert_eq!((setup.files().len(), setup.inode()), (1, first), "used, not compiled again");
}

#[test]
fn damaged_artifact_is_compiled_again() {
    let setup = setup();
    let intact = {
        setup.prepare();
        std::fs::read(&setup.files()[0]).unwrap()
    };
    let mut flipped = intact.clone();
    flipped[intact.len() / 2] ^= 1;
    let truncated = &intact[..intact.len() - 1];
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
            assert_eq!(std::fs::read(&path).unwrap(), intact, "{name}");
        }
    }
}

fn age_of(path: &Path, age: Duration) {
    File::open(path).unwrap().set_modified(SystemTime::now() - age).unwrap();
}

#[test]
fn used_artifact_is_not_removed_and_may_be_shared() {
    let setup = setup();
    let (one, other) = (setup.prepare(), setup.prepare());
    let path = setup.files()[0].clone();
    let identity = || Identity::of(&path.metadata().unwrap());
    // Neither has to check the file again.
    let before = identity();
    for artifact in [&one, &other] {
        assert!(artifact.load(&setup.engine).is_ok());
        let StoredArtifact::File { checked, .. } = &artifact.stored else {
            panic!("not in a file")
        };
        assert_eq!((*checked.lock(), identity()), (Some(before), before));
    }
    // Used by a process that has run for long, and by one that starts.
    let uses: [&dyn Fn(); 2] =
        [&|| drop(one.load(&setup.engine).unwrap()), &|| drop(setup.prepare())];
    for used in uses {
        age_of(&path, MAX_UNUSED + DAY);
        used();
        setup.artifacts.remove_old();
        assert!(path.exists());
    }
    age_of(&path, MAX_UNUSED + DAY);
    setup.artifacts.remove_old();
    assert!(!path.exists(), "not used any more");
}

#[test]
fn portable_artifact_is_used_where_there_is_no_native_one() {
    let setup = setup();
    let portable = ArtifactStore { target: CompileTarget::Portable, ..setup.artifacts.clone() };
    assert!(setup.prepare_in(&portable, &setup.engine).unwrap().load(&setup.engine).is_ok());
    let [path] = <[PathBuf; 1]>::try_from(setup.files()).unwrap();
    let artifact = setup.prepare();
    assert!(artifact.load(&setup.engine).is_ok());
    assert_eq!(setup.files(), [&*path], "nothing else is compiled");
    // If the file is lost, the same one is created again.
    std::fs::remove_file(&path).unwrap();
    assert!(artifact.load(&setup.engine).is_ok());
    assert_eq!(setup.files(), [&*path]);
    std::fs::remove_file(&path).unwrap();
    setup.prepare();
    assert_ne!(setup.files(), [path], "a native one by default");
}

#[test]
fn missing_artifact_is_compiled_again() {
    let setup = setup();
    let artifact = setup.prepare();
    std::fs::remove_file(&setup.files()[0]).unwrap();
    assert!(artifact.load(&setup.engine).is_ok());
    assert_eq!(setup.files().len(), 1);
}

#[test]
fn missing_artifact_is_not_compiled_from_a_changed_component() {
    let setup = setup();
    let artifact = setup.prepare();
    std::fs::remove_file(&setup.files()[0]).unwrap();
    std::fs::write(&setup.source, [EMPTY, b"\0\x02\x01a"].concat()).unwrap();
    let error = artifact.load(&setup.engine).unwrap_err().to_string();
    assert!(error.contains("has changed since the host started"), "{error}");
}

#[test]
fn artifact_that_others_can_write_is_not_trusted() {
    let setup = setup();
    setup.prepare();
    let (path, before) = (setup.files()[0].clone(), setup.inode());
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o666)).unwrap();
    assert!(setup.prepare().load(&setup.engine).is_ok());
    assert_ne!(setup.inode(), before, "compiled again");
    assert_eq!(path.metadata().unwrap().mode() & WRITABLE_BY_OTHERS, 0);

    let folder = &setup.artifacts.folder;
    assert_eq!(folder.metadata().unwrap().mode() & 0o777, 0o700);
    std::fs::set_permissions(folder, PermissionsExt::from_mode(0o770)).unwrap();
    let error = format!(
        "{:#}",
        ArtifactStore::open(folder, PRIVATE, CompileTarget::Native, engine::portable_compiler)
            .unwrap_err()
    );
    assert!(error.contains("other users can write it (mode 770): chmod go-w"), "{error}");
}

#[test]
fn other_settings_have_their_own_artifact() {
    let setup = setup();
    setup.prepare();
    let mut config = engine::code_config(ComponentForm::Whole);
    config.epoch_interruption(false);
    let other = Wasmtime::new(&config).unwrap();
    assert!(setup.prepare_in(&setup.artifacts, &other).unwrap().load(&other).is_ok());
    assert_eq!(setup.files().len(), 2);
}

#[test]
fn code_stays_in_memory_without_a_writable_folder() {
    let setup = setup();
    let folder = setup.dir.path().join("missing");
    let artifacts =
        ArtifactStore::open(&folder, PRIVATE, CompileTarget::Native, engine::portable_compiler)
            .unwrap();
    std::fs::remove_dir(&folder).unwrap();
    let artifact = setup.prepare_in(&artifacts, &setup.engine).unwrap();
    assert!(artifact.load(&setup.engine).is_ok());
}

#[test]
fn artifact_is_removed_after_a_month_without_use() {
    let setup = setup();
    setup.prepare();
    setup.artifacts.remove_old();
    let [path] = <[PathBuf; 1]>::try_from(setup.files()).expect("not removed yet");
    let old = SystemTime::now() - MAX_UNUSED - Duration::from_secs(60);
    File::open(&path).unwrap().set_modified(old).unwrap();
    setup.artifacts.remove_old();
    assert_eq!(setup.files(), Vec::<PathBuf>::new());
}

#[test]
fn file_that_is_not_a_component_is_refused() {
    let setup = setup();
    std::fs::write(&setup.source, b"\0asm\x0d\0\x02\0").unwrap();
    let error = setup.prepare_in(&setup.artifacts, &setup.engine).unwrap_err().to_string();
    assert!(error.contains("build it for wasm32-wasip2"), "{error}");
}
