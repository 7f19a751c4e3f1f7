//! The folders that a component sees, and the models in them.
//!
//! A version of a model is the folder `/models/<name>` in a component's mounts. It contains
//! `model.onnx` and usually `model.toml`, whose `sha256` must be that of the graph.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use spinfer_backend::LoadOptions;

use super::batch::Batching;
use super::graph::Placement;
use super::options::{BackendName, LoadRequest};
use crate::process::read_file::read_file;
use crate::process::toml_text;

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

/// Maximum number of threads of one inference.
const MAX_THREADS: usize = 64;

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

/// The settings in `model.toml` that the host reads; the component reads the rest.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct ModelSettings {
    sha256: Option<String>,
    pub(super) version: Option<String>,
    /// On which threads inferences run.
    #[serde(default)]
    pub(super) placement: Placement,
    /// The backend that must run the graph.
    backend: Option<BackendName>,
    /// Maximum number of threads of one inference.
    threads: Option<usize>,
    pub(super) batching: Option<Batching>,
    #[serde(default)]
    inputs: Vec<EdgeSettings>,
    #[serde(default)]
    outputs: Vec<EdgeSettings>,
}

/// The settings in an entry of `[[inputs]]` or `[[outputs]]` that the host reads.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct EdgeSettings {
    #[serde(default)]
    pub(super) name: String,
    /// Index of the batch axis.
    pub(super) batch_axis: Option<usize>,
}

impl ModelSettings {
    fn parse(text: &str) -> Result<Self> {
        let settings: Self = toml_text::parse(text)?;
        settings.check()?;
        Ok(settings)
    }

    /// The entries of all inputs and outputs.
    pub(super) fn edges(&self) -> Vec<EdgeSettings> {
        self.inputs.iter().chain(&self.outputs).cloned().collect()
    }

    /// How to load the graph.
    pub(super) fn load_request(&self) -> LoadRequest {
        let options =
            self.threads.map_or_else(LoadOptions::default, |threads| LoadOptions { threads });
        LoadRequest { backend: self.backend, options }
    }

    fn check(&self) -> Result<()> {
        if let Some(threads) = self.threads {
            ensure!(
                (1..=MAX_THREADS).contains(&threads),
                "threads = {threads}: write a number from 1 to {MAX_THREADS}"
            );
            ensure!(
                threads == 1 || self.backend != Some(BackendName::Lean),
                "threads = {threads}: the lean backend uses one thread; remove `threads` or `backend`"
            );
        }
        let Some(batching) = &self.batching else { return Ok(()) };
        ensure!(
            self.placement == Placement::Auto,
            "a model with `[batching]` runs on compute threads: remove `placement` or `[batching]`"
        );
        batching.check().map_err(anyhow::Error::msg)
    }
}

/// Reads the graph of a model folder and its settings. Verifies the graph against `model.toml`, if
/// there is one.
pub(super) fn read_graph(folder: &Path) -> Result<(Vec<u8>, [u8; 32], ModelSettings)> {
    let path = folder.join(GRAPH);
    let bytes = read_file(&path, MAX_GRAPH).with_context(|| {
        format!("{}: cannot be read; a model folder contains {GRAPH}", path.display())
    })?;
    let digest: [u8; 32] = Sha256::digest(&bytes).into();
    let signature = folder.join(SIGNATURE);
    if !signature.exists() {
        return Ok((bytes, digest, ModelSettings::default()));
    }
    let text = read_file(&signature, MAX_SIGNATURE)
        .and_then(|bytes| Ok(String::from_utf8(bytes)?))
        .with_context(|| signature.display().to_string())?;
    let settings = ModelSettings::parse(&text).with_context(|| signature.display().to_string())?;
    let actual = hex(&digest);
    match &settings.sha256 {
        Some(declared) if !declared.eq_ignore_ascii_case(&actual) => bail!(
            "{}: sha256 is {declared}, but that of {GRAPH} is {actual}; a version is immutable: \
             restore the file, or create a new version",
            signature.display()
        ),
        Some(_) | None => Ok((bytes, digest, settings)),
    }
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
    let text = String::from_utf8(read_file(&path, MAX_SIGNATURE)?)?;
    let settings = ModelSettings::parse(&text).with_context(|| path.display().to_string())?;
    Ok(settings.load_request())
}

/// Checks the settings in a `model.toml`.
#[cfg(any(test, fuzzing))]
pub(crate) fn check_settings(text: &str) -> Result<()> {
    ModelSettings::parse(text).map(drop)
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
}

/// Checks the folder of the model `name`.
///
/// # Errors
/// The graph or the settings cannot be read, or the graph is not the declared one.
pub fn check_model_folder(name: &str, folder: &Path) -> Result<MountedModel> {
    let (_, graph, settings) = read_graph(folder)?;
    // Without a signature, the digest depends on the graph only.
    let signature = std::fs::read(folder.join(SIGNATURE)).unwrap_or_default();
    let digest = Sha256::new().chain_update(graph).chain_update(signature).finalize().into();
    Ok(MountedModel { name: name.to_owned(), version: settings.version, digest })
}

/// Lower-case hexadecimal.
#[must_use]
pub fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
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
        std::fs::write(folder.join(SIGNATURE), format!("sha256 = '{digest}'\nother = 1")).unwrap();
        assert!(check_model_folder("m", &folder).is_ok());
        std::fs::write(folder.join(GRAPH), b"another").unwrap();
        let error = check_model_folder("m", &folder).unwrap_err().to_string();
        assert!(error.contains("a version is immutable"), "{error}");
    }

    #[test]
    fn host_settings_are_parsed_and_checked() {
        let dir = tempfile::tempdir().unwrap();
        let folder = graph(dir.path(), "one");
        let read = |text: &str| {
            std::fs::write(folder.join(SIGNATURE), text).unwrap();
            read_graph(&folder).map(|(_, _, settings)| settings).map_err(|e| format!("{e:#}"))
        };
        let settings = read("name = 'm'").unwrap();
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
