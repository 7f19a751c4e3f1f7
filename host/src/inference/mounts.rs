//! The folders a component sees, and the models in them.
//!
//! A model version is the folder `/models/<name>` in a component's mounts. It holds `model.onnx`
//! and usually `model.toml`, whose `sha256` then has to be that of the graph.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use spinfer_backend::LoadOptions;

use super::batch::Batching;
use super::graph::Placement;
use super::options::{BackendName, LoadRequest};
use crate::process::read_file::read_file;

/// Where models are in a component's file system.
pub const MODELS: &str = "/models";
/// The graph of a model folder.
pub const GRAPH: &str = "model.onnx";
/// Beside the graph: what it takes and gives, and more.
pub const SIGNATURE: &str = "model.toml";
/// Bytes of a graph: what protobuf, which ONNX is written in, can hold.
const MAX_GRAPH: u64 = 2 << 30;
/// Bytes of a `model.toml`: it has a line for each feature.
const MAX_SIGNATURE: u64 = 1 << 20;

/// Maximum number of threads of one inference.
const MAX_THREADS: usize = 64;

/// Destination in the guest -> folder of the host, read-only.
#[derive(Clone, Debug, Default)]
pub struct Mounts(Vec<(String, PathBuf)>);

impl Mounts {
    /// `destination` is absolute and without a trailing slash; the root is empty.
    pub fn add(&mut self, destination: String, source: PathBuf) {
        self.0.push((destination, source));
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &Path)> {
        self.0.iter().map(|(destination, source)| (destination.as_str(), source.as_path()))
    }

    /// The folder of the model `name`. `None` where the component has no such mount, or `name` is
    /// not one path segment.
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

/// The part of `model.toml` the host reads; the rest is the component's.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Settings {
    sha256: Option<String>,
    pub(super) version: Option<String>,
    /// Where inferences run.
    #[serde(default)]
    pub(super) placement: Placement,
    /// Which backend has to run it.
    backend: Option<BackendName>,
    /// Threads that one inference may use.
    threads: Option<usize>,
    pub(super) batching: Option<Batching>,
    #[serde(default)]
    inputs: Vec<EdgeSettings>,
    #[serde(default)]
    outputs: Vec<EdgeSettings>,
}

/// What the host reads of an entry of `[[inputs]]` or `[[outputs]]`.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct EdgeSettings {
    #[serde(default)]
    pub(super) name: String,
    /// Which axis is the batch.
    pub(super) batch_axis: Option<usize>,
}

impl Settings {
    fn parse(text: &str) -> Result<Self> {
        let settings: Self = toml::from_str(text)?;
        settings.check()?;
        Ok(settings)
    }

    /// What is said of inputs and outputs.
    pub(super) fn edges(&self) -> Vec<EdgeSettings> {
        self.inputs.iter().chain(&self.outputs).cloned().collect()
    }

    /// How the graph is to be loaded.
    pub(super) fn load_request(&self) -> LoadRequest {
        let options =
            self.threads.map_or_else(LoadOptions::default, |threads| LoadOptions { threads });
        LoadRequest { backend: self.backend, options }
    }

    fn check(&self) -> Result<()> {
        if let Some(threads) = self.threads {
            ensure!(
                (1..=MAX_THREADS).contains(&threads),
                "threads = {threads}: from 1 to {MAX_THREADS} threads may share one inference"
            );
            ensure!(
                threads == 1 || self.backend != Some(BackendName::Lean),
                "threads = {threads}: lean uses one; remove `threads` or `backend`"
            );
        }
        let Some(batching) = &self.batching else { return Ok(()) };
        ensure!(
            self.placement == Placement::Auto,
            "a batched model runs on compute threads: remove `placement` or `[batching]`"
        );
        batching.check().map_err(anyhow::Error::msg)
    }
}

/// Reads a model folder's graph and its settings, and verifies it against `model.toml`, where there
/// is one.
pub(super) fn read_graph(folder: &Path) -> Result<(Vec<u8>, [u8; 32], Settings)> {
    let path = folder.join(GRAPH);
    let bytes = read_file(&path, MAX_GRAPH).with_context(|| {
        format!("{}: cannot be read; a model folder holds {GRAPH}", path.display())
    })?;
    let digest: [u8; 32] = Sha256::digest(&bytes).into();
    let signature = folder.join(SIGNATURE);
    if !signature.exists() {
        return Ok((bytes, digest, Settings::default()));
    }
    let text = read_file(&signature, MAX_SIGNATURE)
        .and_then(|bytes| Ok(String::from_utf8(bytes)?))
        .with_context(|| signature.display().to_string())?;
    let settings = Settings::parse(&text).with_context(|| signature.display().to_string())?;
    let actual = hex(&digest);
    match &settings.sha256 {
        Some(declared) if !declared.eq_ignore_ascii_case(&actual) => bail!(
            "{}: sha256 is {declared}, but {GRAPH} beside it has {actual}; a version is \
             immutable: restore the file, or make a new version",
            signature.display()
        ),
        Some(_) | None => Ok((bytes, digest, settings)),
    }
}

/// How the settings of a model folder, if it has any, have its graph loaded.
///
/// # Errors
/// If they cannot be read, or make no sense.
pub fn load_request(folder: &Path) -> Result<LoadRequest> {
    let path = folder.join(SIGNATURE);
    if !path.exists() {
        return Ok(LoadRequest::default());
    }
    let text = String::from_utf8(read_file(&path, MAX_SIGNATURE)?)?;
    let settings = Settings::parse(&text).with_context(|| path.display().to_string())?;
    Ok(settings.load_request())
}

/// Whether a `model.toml` says what the host can do.
#[cfg(any(test, fuzzing))]
pub(crate) fn check_settings(text: &str) -> Result<()> {
    Settings::parse(text).map(drop)
}

/// A version of a model, as a component has it.
#[derive(Clone, Debug)]
pub struct MountedModel {
    /// By which the component loads it.
    pub name: String,
    /// As its signature says.
    pub version: Option<String>,
    /// What tells it from any other: the SHA-256 of its graph's and its signature.
    pub digest: [u8; 32],
}

/// Whether the folder of the model `name` can be served.
pub fn check_model_folder(name: &str, folder: &Path) -> Result<MountedModel> {
    let (_, graph, settings) = read_graph(folder)?;
    // Without one, all that matters is the graph.
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
    fn a_name_is_looked_up_in_the_longest_mount() {
        let dir = tempfile::tempdir().unwrap();
        let one = graph(dir.path(), "one");
        let all = graph(dir.path(), "all/two");
        let mounts = mounts(dir.path(), &[("/models", "all"), ("/models/one", "one")]);
        assert_eq!(mounts.model_folder("one"), Some(one));
        assert_eq!(mounts.model_folder("two"), Some(all));
        assert_eq!(mounts.model_folder("three"), None);
    }

    #[test]
    fn a_name_cannot_leave_the_mounts() {
        let dir = tempfile::tempdir().unwrap();
        graph(dir.path(), "secret");
        let mounts = mounts(dir.path(), &[("/models", "all"), ("/models/one", "one")]);
        for name in ["../secret", "..", ".", "", "/", "one/../../secret", "a/b", "one\\..", "\0"] {
            assert_eq!(mounts.model_folder(name), None, "{name:?}");
        }
    }

    #[test]
    fn a_graph_that_is_not_the_declared_one_is_refused() {
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
    fn settings_of_the_host_are_read_and_checked() {
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
            ("threads = 2\nbackend = 'lean'", "lean uses one"),
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
