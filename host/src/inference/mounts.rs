//! The folders that a component sees, and the models in them.
//!
//! A version of a model is the folder `/models/<name>` in a component's mounts. It contains
//! `model.onnx` and usually `model.toml`, whose `sha256` must be that of the graph.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Result, anyhow};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use spinfer_model_toml::ModelToml;

use super::model_toml::{DeclaredModel, GraphTensors, ModelSettings, compare};
use super::options::LoadRequest;
use crate::process::read_file::read_file;

/// Folder of the models in a component's file system.
pub const MODELS: &str = "/models";
/// File name of the graph in a model folder.
pub const GRAPH: &str = "model.onnx";
/// File name of the signature in a model folder: the inputs and outputs of the graph, and settings.
pub const SIGNATURE: &str = "model.toml";
/// Maximum size of a graph, in bytes: that of a protobuf message, the format of ONNX.
const MAX_GRAPH: u64 = 2 << 30;
/// Maximum size of a `model.toml`, in bytes: it has a line for each feature.
const MAX_SIGNATURE: u64 = 1 << 20;

/// Destination in the guest -> folder of the host, read-only.
#[derive(Clone, Debug, Default)]
pub struct Mounts(Vec<(String, PathBuf)>);

impl Mounts {
    /// Adds a mount. `destination` is absolute, without a trailing slash; the root is empty.
    pub fn add(&mut self, destination: String, source: PathBuf) {
        self.0.push((destination, source));
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &Path)> {
        self.0.iter().map(|(destination, source)| (destination.as_str(), source.as_path()))
    }

    /// The folder of the model `name`; `None` if it is not mounted, or `name` is not a single path
    /// segment.
    #[must_use]
    pub fn model_folder(&self, name: &str) -> Option<PathBuf> {
        if name.is_empty() || name.contains(['/', '\\', '\0']) || name == "." || name == ".." {
            return None;
        }
        let guest = format!("{MODELS}/{name}");
        let (destination, source) = self
            .iter()
            .filter(|(destination, _)| {
                guest.strip_prefix(destination).is_some_and(|r| r.is_empty() || r.starts_with('/'))
            })
            .max_by_key(|(destination, _)| destination.len())?;
        let folder = source.join(guest[destination.len()..].trim_start_matches('/'));
        folder.join(GRAPH).is_file().then_some(folder)
    }

    /// The models that are mounted one by one, as `/models/<name>`.
    pub fn models(&self) -> impl Iterator<Item = (&str, &Path)> {
        self.iter().filter_map(|(destination, source)| {
            let name = destination.strip_prefix(MODELS)?.strip_prefix('/')?;
            (!name.is_empty() && !name.contains('/')).then_some((name, source))
        })
    }
}

/// The files of a version folder.
pub(super) struct VersionFiles {
    pub(super) graph: Vec<u8>,
    /// SHA-256 of the graph.
    pub(super) digest: [u8; 32],
    /// `None` if there is no `model.toml`.
    pub(super) declared: Option<DeclaredModel>,
    /// The text of `model.toml`; empty if there is none.
    signature: String,
}

impl VersionFiles {
    /// Reads the folder of the model `name`, and compares its files.
    ///
    /// # Errors
    /// Every problem: the file, the key, what is wrong, and what to write.
    pub(super) fn read(name: &str, folder: &Path) -> Result<Self, Vec<String>> {
        let mut problems = Vec::new();
        let graph = read_graph(folder).map_err(|problem| problems.push(problem));
        let path = folder.join(SIGNATURE);
        let signature = match path.exists() {
            true => read_text(&path).map_err(|problem| problems.push(problem)),
            false => Ok(String::new()),
        };
        let mut of_signature = Vec::new();
        let declared = match &signature {
            Ok(text) if path.exists() => {
                DeclaredModel::read(text, name).map(Some).map_err(|found| of_signature = found)
            }
            _ => Ok(None),
        };
        if let (Ok((bytes, digest)), Ok(text)) = (&graph, &signature) {
            of_signature.extend(wrong_digest(text, digest));
            if let Ok(Some(DeclaredModel { model, .. })) = &declared {
                let graph = GraphTensors::of_file(bytes);
                of_signature.extend(graph.iter().flat_map(|graph| compare(model, graph)));
            }
        }
        problems.extend(in_file(&path, of_signature));
        match (graph, declared, signature) {
            (Ok((graph, digest)), Ok(declared), Ok(signature)) if problems.is_empty() => {
                Ok(Self { graph, digest, declared, signature })
            }
            _ => Err(problems),
        }
    }

    /// The settings of the host; the defaults if there is no `model.toml`.
    pub(super) fn settings(&self) -> ModelSettings {
        self.declared.as_ref().map(|declared| declared.settings.clone()).unwrap_or_default()
    }
}

/// The problems of a file.
pub(super) fn in_file(path: &Path, problems: Vec<String>) -> impl Iterator<Item = String> {
    let path = path.display().to_string();
    problems.into_iter().map(move |problem| format!("{path}: {problem}"))
}

/// The graph in a version folder, and its SHA-256.
fn read_graph(folder: &Path) -> Result<(Vec<u8>, [u8; 32]), String> {
    let path = folder.join(GRAPH);
    let bytes = read_file(&path, MAX_GRAPH).map_err(|error| {
        format!("{}: cannot be read; a model folder contains {GRAPH}: {error:#}", path.display())
    })?;
    let digest = Sha256::digest(&bytes).into();
    Ok((bytes, digest))
}

fn read_text(path: &Path) -> Result<String, String> {
    read_file(path, MAX_SIGNATURE)
        .and_then(|bytes| Ok(String::from_utf8(bytes)?))
        .map_err(|error| format!("{}: {error:#}", path.display()))
}

/// The problem if `model.toml` declares another graph than that with `digest`.
fn wrong_digest(signature: &str, digest: &[u8; 32]) -> Option<String> {
    #[derive(Deserialize)]
    struct Declared {
        sha256: Option<String>,
    }

    let declared = toml::from_str::<Declared>(signature).ok()?.sha256?;
    let actual = hex(digest);
    (!declared.eq_ignore_ascii_case(&actual)).then(|| {
        format!(
            "sha256 is {declared}, but that of {GRAPH} is {actual}; a version is immutable: restore the file, \
             or create a new version"
        )
    })
}

/// How the settings of a model folder, if it has any, have its graph loaded.
///
/// # Errors
/// The settings cannot be read or are invalid.
pub fn load_request(folder: &Path) -> Result<LoadRequest> {
    let path = folder.join(SIGNATURE);
    if !path.exists() {
        return Ok(LoadRequest::default());
    }
    let text = read_text(&path).map_err(anyhow::Error::msg)?;
    let settings = ModelSettings::parse(&text)
        .map_err(|problems| joined(&in_file(&path, problems).collect::<Vec<_>>()))?;
    Ok(settings.load_request())
}

/// What the `model.toml` in `folder` declares, not compared with the graph.
///
/// # Errors
/// The file cannot be read or is invalid: every problem, with the file.
pub fn declared(folder: &Path) -> Result<ModelToml> {
    let path = folder.join(SIGNATURE);
    let text = read_text(&path).map_err(anyhow::Error::msg)?;
    ModelToml::parse(&text)
        .map_err(|problems| joined(&in_file(&path, problems).collect::<Vec<_>>()))
}

/// The problems of a version folder as one error.
#[must_use]
pub fn joined(problems: &[String]) -> anyhow::Error {
    anyhow!(problems.join("\n"))
}

/// Checks the settings in a `model.toml`.
#[cfg(any(test, fuzzing))]
pub(crate) fn check_settings(text: &str) -> Result<(), Vec<String>> {
    DeclaredModel::read(text, "m").map(drop)
}

/// A version of a model, as mounted by a component.
#[derive(Clone, Debug)]
pub struct MountedModel {
    /// The name by which the component loads it.
    pub name: String,
    /// The version in its signature.
    pub version: Option<String>,
    /// The SHA-256 of the digest of its graph and its signature.
    pub digest: [u8; 32],
    /// What its signature declares; `None` if there is none.
    pub declared: Option<Arc<ModelToml>>,
}

/// Checks the folder of the model `name`.
///
/// # Errors
/// Every problem: the graph or the settings cannot be read, or the graph is not the declared one.
pub fn check_model_folder(name: &str, folder: &Path) -> Result<MountedModel, Vec<String>> {
    let files = VersionFiles::read(name, folder)?;
    // Without a signature, the digest depends on the graph only.
    let digest = Sha256::new().chain_update(files.digest).chain_update(&files.signature);
    Ok(MountedModel {
        name: name.to_owned(),
        version: files.settings().version,
        digest: digest.finalize().into(),
        declared: files.declared.map(|declared| Arc::new(declared.model)),
    })
}

/// Lower-case hexadecimal.
#[must_use]
pub fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::super::batch::Batching;
    use super::super::graph::Placement;
    use super::super::options::BackendName;
    use super::*;

    fn mounts(dir: &Path, destinations: &[(&str, &str)]) -> Mounts {
        let mut mounts = Mounts::default();
        for (destination, folder) in destinations {
            let source = dir.join(folder);
            std::fs::create_dir_all(&source).unwrap();
            mounts.add((*destination).to_owned(), source);
        }
        mounts
    }

    fn graph(dir: &Path, folder: &str) -> PathBuf {
        let folder = dir.join(folder);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(GRAPH), b"graph").unwrap();
        folder
    }

    #[test]
    fn model_is_looked_up_in_the_longest_matching_mount() {
        let dir = tempfile::tempdir().unwrap();
        let one = graph(dir.path(), "one");
        let all = graph(dir.path(), "all/two");
        let mounts = mounts(dir.path(), &[("/models", "all"), ("/models/one", "one")]);
        assert_eq!(mounts.model_folder("one"), Some(one));
        assert_eq!(mounts.model_folder("two"), Some(all));
        assert_eq!(mounts.model_folder("three"), None);
    }

    #[test]
    fn model_name_cannot_leave_the_mounts() {
        let dir = tempfile::tempdir().unwrap();
        graph(dir.path(), "secret");
        let mounts = mounts(dir.path(), &[("/models", "all"), ("/models/one", "one")]);
        for name in ["../secret", "..", ".", "", "/", "one/../../secret", "a/b", "one\\..", "\0"] {
            assert_eq!(mounts.model_folder(name), None, "{name:?}");
        }
    }

    #[test]
    fn graph_with_another_digest_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let folder = graph(dir.path(), "one");
        assert!(check_model_folder("m", &folder).is_ok(), "without model.toml");
        let digest = hex(&Sha256::digest(b"graph"));
        std::fs::write(folder.join(SIGNATURE), format!("sha256 = '{digest}'\n{SMALL}")).unwrap();
        assert!(check_model_folder("m", &folder).is_ok());
        std::fs::write(folder.join(GRAPH), b"another").unwrap();
        let problems = check_model_folder("m", &folder).unwrap_err();
        assert!(problems[0].contains("a version is immutable"), "{problems:?}");
        // Both files are reported.
        std::fs::write(folder.join(SIGNATURE), format!("lables = []\n{SMALL}")).unwrap();
        std::fs::remove_file(folder.join(GRAPH)).unwrap();
        let problems = check_model_folder("m", &folder).unwrap_err();
        assert!(problems[0].contains("a model folder contains model.onnx"), "{problems:?}");
        assert!(problems[1].contains("model.toml: line 1: `lables`"), "{problems:?}");
        assert_eq!(problems.len(), 2);
    }

    const SMALL: &str = "name = 'm'\nversion = '1'\n\
                         inputs = [{ name = 'x', datatype = 'FP32', shape = [-1] }]\n\
                         outputs = [{ name = 'y', datatype = 'FP32', shape = [-1] }]\n";

    #[test]
    fn host_settings_are_parsed_and_checked() {
        let dir = tempfile::tempdir().unwrap();
        let folder = graph(dir.path(), "one");
        let read = |text: &str| {
            std::fs::write(folder.join(SIGNATURE), format!("{SMALL}{text}")).unwrap();
            let files = VersionFiles::read("m", &folder).map_err(|problems| problems.join("\n"))?;
            Ok::<_, String>(files.settings())
        };
        let settings = read("").unwrap();
        assert_eq!((settings.placement, settings.batching), (Placement::Auto, None));
        assert_eq!(settings.load_request(), LoadRequest::default());
        let request = read("backend = 'onnxruntime'\nthreads = 2").unwrap().load_request();
        assert_eq!((request.backend, request.options.threads), (Some(BackendName::OnnxRuntime), 2));
        let settings = read("placement = 'compute-thread'").unwrap();
        assert_eq!(settings.placement, Placement::ComputeThread);
        let settings = read("[batching]\nmax_batch_size = 8\nmax_queue_delay = '2ms'").unwrap();
        let max_queue_delay = std::time::Duration::from_millis(2);
        assert_eq!(settings.batching, Some(Batching { max_batch_size: 8, max_queue_delay }));
        for (text, part) in [
            ("placement = 'gpu'", "compute-thread"),
            ("backend = 'tract'", "expected `lean` or `onnxruntime`"),
            ("threads = 0", "from 1 to 64"),
            ("threads = 2\nbackend = 'lean'", "the lean backend uses one thread"),
            ("[batching]", "max_batch_size"),
            ("[batching]\nmax_batch_size = 8\nmax_queue_delay = 'soon'", "\"30s\""),
            ("[batching]\nsize = 8", "size"),
            ("[batching]\nmax_batch_size = 1", "at least 2"),
            ("placement = 'inline'\n[batching]\nmax_batch_size = 8", "remove `placement`"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(part) && error.contains("model.toml"), "{error}");
        }
    }
}
