//! External data files next to an ONNX file, as PyTorch exporters write them: `model.onnx.data`.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::external::{self, SideFile};
use crate::registry::mlflow::paths;

/// The graph `bytes` of the file `path` with its external weights merged in; `None` if it has none.
pub(super) fn bundle(path: &Path, bytes: &[u8]) -> Result<Option<Vec<u8>>> {
    // A file that is not a graph is reported when it is loaded.
    let Ok(names) = external::files(bytes) else { return Ok(None) };
    if names.is_empty() {
        return Ok(None);
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    let mut files = BTreeMap::new();
    for name in names {
        let file = open(folder, &name)?;
        files.insert(name, file);
    }
    external::inline(bytes, &files).map(Some)
}

/// Opens the file `name` in `folder` or below.
fn open(folder: &Path, name: &str) -> Result<SideFile> {
    let segments = paths::segments(name).context("location of the external weights")?;
    let path = segments.iter().fold(folder.to_owned(), |path, segment| path.join(segment));
    let shown = path.display();
    let resolved: PathBuf = path.canonicalize().with_context(|| {
        format!(
            "its weights are in {name:?}, expected at {shown}; put the file there, or save the graph \
             again with save_as_external_data=False"
        )
    })?;
    ensure!(
        resolved.starts_with(folder.canonicalize()?),
        "its weights are in {shown}, a link out of the graph's folder; copy both files"
    );
    let file = File::open(&resolved).with_context(|| shown.to_string())?;
    let metadata = file.metadata()?;
    ensure!(metadata.is_file(), "its weights are in {shown}, which is not a file");
    Ok(SideFile { file, size: metadata.len() })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::super::external::tests::{model, tensor};
    use super::*;

    fn graph(location: &str) -> Vec<u8> {
        model(&[tensor("w", &[1], &[("location", location)])], b"")
    }

    fn fails(path: &Path, location: &str) -> String {
        format!("{:#}", bundle(path, &graph(location)).unwrap_err())
    }

    #[test]
    fn external_weights_are_merged_into_the_graph() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.onnx");
        fs::create_dir(dir.path().join("more")).unwrap();
        for location in ["model.onnx.data", "more/weights", "./more/weights"] {
            fs::write(dir.path().join(location), [7; 4]).unwrap();
            let bundled = bundle(&path, &graph(location)).unwrap().unwrap();
            assert!(external::files(&bundled).unwrap().is_empty());
            assert_eq!(bundle(&path, &bundled).unwrap(), None, "no external weights are left");
        }
        assert_eq!(bundle(&path, b"no graph").unwrap(), None);
    }

    #[test]
    fn external_weights_outside_of_the_folder_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("models");
        fs::create_dir(&folder).unwrap();
        fs::write(dir.path().join("secret"), [7; 4]).unwrap();
        symlink(dir.path().join("secret"), folder.join("link")).unwrap();
        symlink(dir.path(), folder.join("above")).unwrap();
        let path = folder.join("model.onnx");
        for (location, part) in [
            ("model.onnx.data", "its weights are in \"model.onnx.data\", expected at"),
            ("../secret", "leads out"),
            ("/etc/passwd", "absolute"),
            ("link", "a link out of"),
            ("above/secret", "a link out of"),
            ("above/models", "not a file"),
        ] {
            let error = fails(&path, location);
            assert!(error.contains(part), "{location}: {error}");
        }
    }
}
