//! Checks the paths of file sinks before anything is written: none may be a file of the log itself, of
//! another part of the host, or of another sink, rotated ones included, also through links.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::LOCK_FILE;
use super::json_lines::rotated;
use super::settings::{FileSettings, SinkSettings, SinkTarget};
use crate::prediction_log::{hash_key, host_lock, schema};

/// What two paths to one file have in common.
#[derive(Debug, PartialEq, Eq, Hash)]
enum FileIdentity {
    Existing {
        device: u64,
        inode: u64,
    },
    /// The path of a file that does not exist yet, without links and `..` as far as it does.
    Absent(PathBuf),
}

impl FileIdentity {
    fn of(path: &Path) -> Self {
        if let Ok(metadata) = fs::metadata(path) {
            return Self::Existing { device: metadata.dev(), inode: metadata.ino() };
        }
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let real = path.ancestors().find_map(|ancestor| {
            Some(ancestor.canonicalize().ok()?.join(path.strip_prefix(ancestor).ok()?))
        });
        Self::Absent(real.unwrap_or(path))
    }
}

/// Why the file of a sink is refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("sink `{sink}`: path: {problem}; write another path")]
pub struct SinkFileError {
    sink: String,
    problem: String,
}

/// Checks the files of `sinks` of the log in `state_folder`, in which other parts of the host write the files
/// with the names `others`.
///
/// # Errors
/// Names the first sink whose file is one of the host, or of a sink before it.
pub fn check(
    sinks: &[SinkSettings],
    state_folder: &Path,
    others: &[&str],
) -> Result<(), SinkFileError> {
    let log = state_folder.join(schema::FILE);
    let beside = [LOCK_FILE, host_lock::FILE, hash_key::FILE].map(|name| state_folder.join(name));
    let own = [schema::wal(&log), schema::shared_memory(&log), log].into_iter().chain(beside);
    let own = own.map(|path| (path, "a file of the log itself"));
    let others = others.iter().map(|name| (state_folder.join(name), "a file of the host"));
    let reserved: Vec<_> =
        own.chain(others).map(|(path, owner)| (FileIdentity::of(&path), path, owner)).collect();
    let (mut written, mut renamed) = (HashSet::new(), HashSet::new());
    for SinkSettings { name, target } in sinks {
        let SinkTarget::File(FileSettings { path, max_files, .. }) = target else { continue };
        let identity = FileIdentity::of(path);
        let rotations = || (1..=*max_files).map(move |number| rotated(path, number));
        let problem = if let Some((_, file, owner)) =
            reserved.iter().find(|(reserved, ..)| *reserved == identity)
        {
            format!("is {}, {owner}", file.display())
        } else if written.contains(&identity) {
            "another sink writes this file".into()
        } else if renamed.contains(&identity) {
            "another sink renames its full files to this name".into()
        } else if let Some(file) =
            rotations().find(|file| written.contains(&FileIdentity::of(file)))
        {
            format!("full files are renamed to {}, which another sink writes", file.display())
        } else {
            written.insert(identity);
            renamed.extend(rotations().map(|file| FileIdentity::of(&file)));
            continue;
        };
        return Err(SinkFileError { sink: name.clone(), problem });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sink(name: &str, path: PathBuf) -> SinkSettings {
        let file = FileSettings { path, max_size: 1 << 20, max_files: 1 };
        SinkSettings { name: name.into(), target: SinkTarget::File(file) }
    }

    fn refused(paths: &[PathBuf], state: &Path) -> Option<String> {
        let sinks = paths.iter().zip(["a", "b"]).map(|(path, name)| sink(name, path.clone()));
        let sinks: Vec<_> = sinks.collect();
        check(&sinks, state, &["windows.json"]).err().map(|error| error.to_string())
    }

    #[test]
    fn file_of_the_log_is_refused_by_any_path_before_and_after_it_exists() {
        let folder = tempfile::tempdir().unwrap();
        let (state, link) = (folder.path().join("state"), folder.path().join("link"));
        fs::create_dir(&state).unwrap();
        std::os::unix::fs::symlink(&state, &link).unwrap();
        let assert_refused = |path: PathBuf| {
            let error = refused(std::slice::from_ref(&path), &state);
            let error = error.unwrap_or_else(|| panic!("{} is accepted", path.display()));
            assert!(
                error.starts_with("sink `a`: path: is ") && error.contains("of the log itself")
            );
        };
        for is_there in [false, true] {
            for name in [
                "predictions.db",
                "predictions.db-wal",
                "predictions.lock",
                "predictions.sinks.lock",
                "prediction_log.key",
            ] {
                if is_there {
                    fs::write(state.join(name), "").unwrap();
                }
                assert_refused(state.join(name));
                assert_refused(link.join(name));
                assert_refused(state.join("../state/.").join(name));
            }
        }
        let hard_link = folder.path().join("hard");
        fs::hard_link(state.join("predictions.db"), &hard_link).unwrap();
        assert_refused(hard_link);
        assert_eq!(refused(&[state.join("predictions.jsonl")], &state), None);
    }

    #[test]
    fn log_in_a_folder_that_does_not_exist_yet_is_recognised() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("a/state");
        assert!(refused(&[state.join("predictions.db")], &state).is_some());
        assert_eq!(refused(&[folder.path().join("predictions.db")], &state), None);
    }

    #[test]
    fn file_of_another_part_of_the_host_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("windows.json");
        let expected = format!(
            "sink `a`: path: is {}, a file of the host; write another path",
            path.display()
        );
        assert_eq!(refused(std::slice::from_ref(&path), folder.path()), Some(expected));
        assert_eq!(refused(&[path], &folder.path().join("state")), None);
    }

    #[test]
    fn sink_cannot_write_a_file_that_another_rotates() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for is_there in [false, true] {
            if is_there {
                fs::write(path("x.jsonl"), "").unwrap();
                fs::write(path("x.jsonl.1"), "").unwrap();
            }
            let after = refused(&[path("x.jsonl"), path("./x.jsonl.1")], &path("state")).unwrap();
            assert!(after.contains("sink `b`: path: another sink renames its full"), "{after}");
            let before = refused(&[path("x.jsonl.1"), path("x.jsonl")], &path("state")).unwrap();
            let expected = format!("renamed to {}, which", path("x.jsonl.1").display());
            assert!(before.contains(&expected), "{before}");
            // One rotated file is kept.
            assert_eq!(refused(&[path("x.jsonl"), path("x.jsonl.2")], &path("state")), None);
        }
    }

    #[test]
    fn two_sinks_cannot_write_one_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let twice = refused(&[path("x.jsonl"), path("./x.jsonl")], &path("state")).unwrap();
        assert_eq!(twice, "sink `b`: path: another sink writes this file; write another path");
        fs::write(path("x.jsonl"), "").unwrap();
        fs::hard_link(path("x.jsonl"), path("y.jsonl")).unwrap();
        assert!(refused(&[path("x.jsonl"), path("y.jsonl")], &path("state")).is_some());
        assert_eq!(refused(&[path("x.jsonl"), path("z.jsonl")], &path("state")), None);
    }
}
