//! Files beside an ONNX file that hold its weights, as exporters of PyTorch write them:
//! `model.onnx.data`.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::external::{self, SideFile};
use crate::registry::mlflow::paths;

/// The weights of the graph in `bytes`, whose file is `path`, put into it; `None`: they are.
pub(super) fn bundle(path: &Path, bytes: &[u8]) -> Result<Option<Vec<u8>>> {
    // Something else than a graph is told of by what loads it.
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

/// Opens the file `name` in `folder`, or in a folder of that.
fn open(folder: &Path, name: &str) -> Result<SideFile> {
    let segments = paths::segments(name).context("where its weights are")?;
    let path = segments.iter().fold(folder.to_owned(), |path, segment| path.join(segment));
    let shown = path.display();
    let whole: PathBuf = path.canonicalize().with_context(|| {
        format!(
            "its weights are in {name:?}, which is to be beside it: {shown}; put it there, or save the \
             graph again with save_as_external_data=False"
        )
    })?;
    ensure!(
        whole.starts_with(folder.canonicalize()?),
        "its weights are in {shown}, a link that leads out of the graph's folder; copy both files"
    );
    let file = File::open(&whole).with_context(|| shown.to_string())?;
    let about = file.metadata()?;
    ensure!(about.is_file(), "its weights are in {shown}, which is no file");
    Ok(SideFile { file, size: about.len() })
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
    fn weights_beside_the_graph_are_bundled() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.onnx");
        fs::create_dir(dir.path().join("more")).unwrap();
        for location in ["model.onnx.data", "more/weights", "./more/weights"] {
            fs::write(dir.path().join(location), [7; 4]).unwrap();
            let bundled = bundle(&path, &graph(location)).unwrap().unwrap();
            assert!(external::files(&bundled).unwrap().is_empty());
            assert_eq!(bundle(&path, &bundled).unwrap(), None, "complete in itself");
        }
        assert_eq!(bundle(&path, b"no graph").unwrap(), None);
    }

    #[test]
    fn only_files_of_the_folder_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("models");
        fs::create_dir(&folder).unwrap();
        fs::write(dir.path().join("secret"), [7; 4]).unwrap();
        symlink(dir.path().join("secret"), folder.join("link")).unwrap();
        symlink(dir.path(), folder.join("above")).unwrap();
        let path = folder.join("model.onnx");
        for (location, part) in [
            ("model.onnx.data", "its weights are in \"model.onnx.data\", which is to be beside it"),
            ("../secret", "leads out"),
            ("/etc/passwd", "absolute"),
            ("link", "a link that leads out"),
            ("above/secret", "a link that leads out"),
            ("above/models", "no file"),
        ] {
            let error = fails(&path, location);
            assert!(error.contains(part), "{location}: {error}");
        }
    }
}
