//! A version of a model as an artifact, by the CNCF's ModelPack specification: a layer for each file, as it
//! is, under its name. `oras pull` and `modctl pull` give the same files.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use walkdir::{DirEntry, WalkDir};

use super::client::{Content, Repository};
use super::digest::Digest;
use super::manifest::{DESCRIPTION, Descriptor, MAX_LAYERS, Manifest, TITLE, VERSION};
use super::progress::Progress;
use crate::process::read_file::read_file;
use crate::inference::{GRAPH, SIGNATURE, check_model_folder};
use crate::config::manifest::names;

/// What kind of artifact it is.
pub const ARTIFACT: &str = "application/vnd.cncf.model.manifest.v1+json";
const CONFIG: &str = "application/vnd.cncf.model.config.v1+json";
/// Of a graph, and of weights beside it.
const WEIGHT: &str = "application/vnd.cncf.model.weight.v1.raw";
/// Of what says how to use them.
const WEIGHT_CONFIG: &str = "application/vnd.cncf.model.weight.config.v1.raw";
/// Of what people read.
const DOCUMENT: &str = "application/vnd.cncf.model.doc.v1.raw";
/// What ends the type of a layer that is a file as it is.
const RAW: &str = ".raw";
/// Annotation: the name of a layer's file, as ModelPack has it.
const FILE_PATH: &str = "org.cncf.model.filepath";

/// Bytes of a configuration.
const MAX_CONFIG: u64 = 1 << 20;
/// Bytes of a `model.toml`: it has a line for each feature.
const MAX_SIGNATURE: u64 = 1 << 20;
/// Bytes of one file: what protobuf, which ONNX is written in, can hold.
pub const MAX_FILE: u64 = 2 << 30;
/// Bytes of all files together.
const MAX_FILES: u64 = 8 << 30;
/// Folders a file may be in.
const MAX_DEPTH: usize = 8;
/// Bytes of a file's name with its folders.
const MAX_PATH: usize = 255;

/// The configuration of the artifact: as much of ModelPack's as there is something to say.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Config {
    descriptor: About,
    config: Technical,
    modelfs: ModelFs,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct About {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    description: Option<String>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Technical {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    format: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ModelFs {
    #[serde(rename = "type")]
    kind: String,
    diff_ids: Vec<Digest>,
}

/// The part of `model.toml` that an artifact is described by.
#[derive(Debug, Deserialize)]
struct Signature {
    name: Option<String>,
    version: Option<String>,
    description: Option<String>,
    sha256: Option<String>,
}

impl Signature {
    fn read(folder: &Path) -> Result<Self> {
        let path = folder.join(SIGNATURE);
        let read = || -> Result<Self> {
            Ok(toml::from_str(&String::from_utf8(read_file(&path, MAX_SIGNATURE)?)?)?)
        };
        read().with_context(|| path.display().to_string())
    }
}

/// A version: the model's name, and its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelVersion {
    pub name: String,
    pub version: String,
}

impl ModelVersion {
    /// Checks that they can be names of folders, parts of paths, and an id.
    pub fn new(name: &str, version: &str) -> Result<Self, String> {
        names::check_model_name(name).map_err(|problem| format!("the model's name {problem}"))?;
        let is_word = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
        let starts = version.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
        if !starts || version.len() > 64 || !version.bytes().all(is_word) {
            return Err(format!(
                "{version:?} is not a version; write letters, digits, `.`, `-` and `_`, at most 64: \
                 \"1\""
            ));
        }
        Ok(Self { name: name.to_owned(), version: version.to_owned() })
    }

    /// `iris/1`, as on the command line.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (name, version) =
            text.split_once('/').ok_or("write <name>/<version>, \"iris-classifier/1\"")?;
        Self::new(name, version)
    }

    /// Where it is in an application.
    #[must_use]
    pub fn folder(&self) -> String {
        format!("models/{}/{}", self.name, self.version)
    }
}

/// A file of a version.
#[derive(Debug)]
struct VersionFile {
    path: PathBuf,
    layer: Descriptor,
}

/// A version, and how it is described.
#[derive(Debug)]
pub struct ModelArtifact {
    pub version: ModelVersion,
    files: Vec<VersionFile>,
    config: Vec<u8>,
    pub manifest: Manifest,
}

impl ModelArtifact {
    /// The version in `folder`, which has to be one that can be served.
    pub fn read(folder: &Path) -> Result<Self> {
        let signature = Signature::read(folder)
            .with_context(|| format!("a version that is pushed has a {SIGNATURE}"))?;
        let missing = |key| format!("{}/{SIGNATURE}: add `{key}`", folder.display());
        let name = signature.name.with_context(|| missing("name"))?;
        let number = signature.version.with_context(|| missing("version"))?;
        ensure!(signature.sha256.is_some(), missing("sha256"));
        let version = ModelVersion::new(&name, &number)
            .map_err(|problem| anyhow::anyhow!("{}/{SIGNATURE}: {problem}", folder.display()))?;
        check_model_folder(&name, folder)?;
        let files = files(folder)?;
        let layers: Vec<_> = files.iter().map(|file| file.layer.clone()).collect();
        let config = serde_json::to_vec(&Config {
            descriptor: About {
                name: Some(name.clone()),
                version: Some(number.clone()),
                description: signature.description.clone(),
            },
            config: Technical { format: Some("onnx".into()) },
            modelfs: ModelFs {
                kind: "layers".into(),
                diff_ids: layers.iter().map(|layer| layer.digest).collect(),
            },
        })?;
        let mut manifest = Manifest::new(Some(ARTIFACT), Descriptor::of(CONFIG, &config), layers);
        let description = signature.description.map(|text| (DESCRIPTION, text));
        manifest.annotations = [(TITLE, name), (VERSION, number)]
            .into_iter()
            .chain(description)
            .map(|(key, value)| (key.to_owned(), value))
            .collect();
        Ok(Self { version, files, config, manifest })
    }

    /// Sends its content to a repository; the manifest is still to be put.
    pub async fn push(&self, to: &Repository<'_>, progress: Progress) -> Result<()> {
        for VersionFile { path, layer } in &self.files {
            let title = layer.annotations.get(TITLE).map_or("a file", String::as_str);
            to.push_blob(layer, title, Content::File(path), progress).await?;
        }
        let content = Content::Bytes(&self.config);
        let config = &self.manifest.config;
        Ok(to.push_blob(config, "its configuration", content, Progress::Silent).await?)
    }
}

/// The files of a version, in the order of their names.
fn files(folder: &Path) -> Result<Vec<VersionFile>> {
    let is_hidden = |entry: &DirEntry| {
        entry.depth() > 0 && entry.file_name().to_str().is_some_and(|name| name.starts_with('.'))
    };
    let mut files = Vec::new();
    let walk = WalkDir::new(folder).sort_by_file_name().into_iter();
    for entry in walk.filter_entry(|entry| !is_hidden(entry)) {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type().is_dir() {
            continue;
        }
        ensure!(
            entry.file_type().is_file(),
            "{}: is a link, or no file; a version has files only",
            path.display()
        );
        ensure!(files.len() < MAX_LAYERS, "{}: more than {MAX_LAYERS} files", folder.display());
        let title = path.strip_prefix(folder)?.to_str();
        let title = title.with_context(|| format!("{}: its name is not UTF-8", path.display()))?;
        check_title(title)?;
        let (digest, size) = hash(path).with_context(|| path.display().to_string())?;
        ensure!(size <= MAX_FILE, "{}: is longer than {MAX_FILE} bytes", path.display());
        let mut layer = Descriptor {
            media_type: media_type(title).to_owned(),
            digest,
            size,
            annotations: BTreeMap::new(),
        };
        for key in [TITLE, FILE_PATH] {
            layer.annotations.insert(key.to_owned(), title.to_owned());
        }
        files.push(VersionFile { path: path.to_owned(), layer });
    }
    Ok(files)
}

fn media_type(title: &str) -> &'static str {
    let extension = title.rsplit('.').next().unwrap_or_default();
    match extension {
        "toml" | "json" | "yaml" | "yml" | "txt" => WEIGHT_CONFIG,
        "md" | "pdf" => DOCUMENT,
        _ if title == "LICENSE" => DOCUMENT,
        _ => WEIGHT,
    }
}

/// The digest and the size of a file.
fn hash(path: &Path) -> Result<(Digest, u64)> {
    /// Everything that is written.
    struct Hashed(Sha256);
    impl Write for Hashed {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.update(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut hashed = Hashed(Sha256::new());
    let size = io::copy(&mut File::open(path)?, &mut hashed)?;
    Ok((Digest::finish(hashed.0), size))
}

/// Whether an artifact is one of a model.
#[must_use]
pub fn is_model(manifest: &Manifest) -> bool {
    manifest.kind() == ARTIFACT || manifest.config.media_type == CONFIG
}

/// A version in a registry, of which nothing but the description was fetched.
#[derive(Debug)]
pub struct RemoteVersion {
    pub version: ModelVersion,
    /// Relative paths, each with its content.
    files: Vec<(String, Descriptor)>,
}

impl RemoteVersion {
    /// Fetches the description, and checks what it says.
    pub async fn fetch(from: &Repository<'_>, manifest: &Manifest) -> Result<Self> {
        let mut config = Vec::new();
        let what = "the model's configuration";
        from.blob(&manifest.config, what, MAX_CONFIG, &mut config, Progress::Silent).await?;
        Self::read(manifest, &config)
    }

    fn read(manifest: &Manifest, config: &[u8]) -> Result<Self> {
        let config: Config =
            serde_json::from_slice(config).context("the model's configuration is damaged")?;
        let About { name, version, .. } = config.descriptor;
        let (Some(name), Some(version)) = (name, version) else {
            bail!("its configuration has no name and version; push it with `spinfer registry push`")
        };
        let version = ModelVersion::new(&name, &version).map_err(anyhow::Error::msg)?;
        let (mut files, mut total) = (Vec::new(), 0_u64);
        for layer in &manifest.layers {
            let title = [TITLE, FILE_PATH].iter().find_map(|key| layer.annotations.get(*key));
            let title = title.with_context(|| {
                format!("layer {} has no file name (annotation {TITLE})", layer.digest)
            })?;
            check_title(title)?;
            ensure!(
                !layer.media_type.starts_with("application/vnd.cncf.model.")
                    || layer.media_type.ends_with(RAW),
                "{title}: is an archive ({}); spinfer reads layers that are files as they are",
                layer.media_type
            );
            ensure!(layer.size <= MAX_FILE, "{title}: is longer than {MAX_FILE} bytes");
            total = total.saturating_add(layer.size);
            files.push((title.clone(), layer.clone()));
        }
        ensure!(total <= MAX_FILES, "it has {total} bytes; {MAX_FILES} are the limit");
        check_paths(files.iter().map(|(title, _)| title.as_str()))?;
        for needed in [GRAPH, SIGNATURE] {
            ensure!(
                files.iter().any(|(title, _)| title == needed),
                "it has no {needed}; a version that spinfer serves has {GRAPH} and {SIGNATURE}"
            );
        }
        Ok(Self { version, files })
    }

    /// Fetches its files into `folder`, which is empty, and checks that they are what they say.
    pub async fn pull(
        &self,
        from: &Repository<'_>,
        folder: &Path,
        progress: Progress,
    ) -> Result<()> {
        for (title, layer) in &self.files {
            let path = folder.join(title);
            let above = path.parent().context("a file is in a folder")?;
            std::fs::create_dir_all(above).with_context(|| above.display().to_string())?;
            let mut file =
                File::create_new(&path).with_context(|| format!("{title}: cannot be written"))?;
            from.blob(layer, title, MAX_FILE, &mut file, progress).await?;
            file.sync_all().with_context(|| format!("{title}: cannot be written"))?;
        }
        self.check(folder)
    }

    /// Checks that `folder` has the version that the artifact says it is, and the graph of its signature.
    fn check(&self, folder: &Path) -> Result<()> {
        let ModelVersion { name, version } = &self.version;
        let signature = Signature::read(folder)?;
        let said = (signature.name.as_deref(), signature.version.as_deref());
        ensure!(
            said == (Some(name), Some(version)),
            "{SIGNATURE} is of {}, version {}, but the artifact says {name}, version {version}",
            said.0.unwrap_or("no model"),
            said.1.unwrap_or("none")
        );
        ensure!(signature.sha256.is_some(), "{SIGNATURE} has no sha256 of {GRAPH}");
        check_model_folder(name, folder).map(drop)
    }

    /// What differs in `folder` from this version; `None`: it is the same.
    pub fn difference(&self, folder: &Path) -> Result<Option<String>> {
        let found = files(folder)?;
        let titles: BTreeSet<_> = found
            .iter()
            .filter_map(|file| file.layer.annotations.get(TITLE).map(String::as_str))
            .collect();
        for (title, layer) in &self.files {
            let same = found.iter().find(|file| file.layer.annotations.get(TITLE) == Some(title));
            match same {
                None => return Ok(Some(format!("{title} is not there"))),
                Some(file) if file.layer.digest != layer.digest => {
                    let (there, here) = (layer.digest, file.layer.digest);
                    return Ok(Some(format!("{title} has {here}, in the registry {there}")));
                }
                Some(_) => {}
            }
        }
        let known = |title: &&&str| self.files.iter().any(|(known, _)| known == **title);
        let more = titles.iter().find(|title| !known(title));
        Ok(more.map(|title| format!("{title} is not in the registry")))
    }
}

/// Checks the name of a file, which a stranger may have chosen: it stays in its folder.
fn check_title(title: &str) -> Result<()> {
    let parts: Vec<&str> = title.split('/').collect();
    let is_plain = |part: &&str| {
        !part.is_empty()
            && !part.starts_with('.')
            && !part.contains(|c: char| c == '\\' || c == ':' || c.is_control())
    };
    ensure!(
        title.len() <= MAX_PATH && parts.len() <= MAX_DEPTH && parts.iter().all(is_plain),
        "{title:?} is not the name of a file in a version's folder"
    );
    Ok(())
}

/// Checks that each file has a name of its own, that is no folder of another.
fn check_paths<'a>(titles: impl Iterator<Item = &'a str>) -> Result<()> {
    let mut seen = BTreeSet::new();
    for title in titles {
        ensure!(seen.insert(title), "{title:?} is there twice");
    }
    for title in &seen {
        let mut above = *title;
        while let Some((folder, _)) = above.rsplit_once('/') {
            ensure!(!seen.contains(folder), "{folder:?} is a file and a folder");
            above = folder;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::inference::hex;

    /// A version's folder; its graph is none, which matters to nobody here.
    fn version(dir: &Path) -> PathBuf {
        let folder = dir.join("iris/1");
        std::fs::create_dir_all(folder.join("data")).unwrap();
        std::fs::write(folder.join(GRAPH), b"graph").unwrap();
        let sha256 = hex(&Sha256::digest(b"graph"));
        let signature =
            format!("name = 'iris'\nversion = '1'\nsha256 = '{sha256}'\ndescription = 'Irises.'");
        std::fs::write(folder.join(SIGNATURE), signature).unwrap();
        std::fs::write(folder.join("data/weights.bin"), b"weights").unwrap();
        std::fs::write(folder.join("README.md"), b"# Iris").unwrap();
        std::fs::write(folder.join(".hidden"), b"").unwrap();
        folder
    }

    fn remote(artifact: &ModelArtifact) -> RemoteVersion {
        RemoteVersion::read(&artifact.manifest, &artifact.config).unwrap()
    }

    #[test]
    fn a_version_is_a_layer_for_each_file() {
        let dir = tempfile::tempdir().unwrap();
        let artifact = ModelArtifact::read(&version(dir.path())).unwrap();
        let layers: Vec<_> = artifact
            .manifest
            .layers
            .iter()
            .map(|layer| (layer.annotations[TITLE].as_str(), layer.media_type.as_str()))
            .collect();
        let expected = [
            ("README.md", DOCUMENT),
            ("data/weights.bin", WEIGHT),
            ("model.onnx", WEIGHT),
            ("model.toml", WEIGHT_CONFIG),
        ];
        assert_eq!(layers, expected);
        assert_eq!(artifact.version, ModelVersion::parse("iris/1").unwrap());
        assert!(is_model(&artifact.manifest));
        // Twice the same: it is the content that names it.
        let again = ModelArtifact::read(&version(dir.path())).unwrap();
        assert_eq!(again.manifest, artifact.manifest);
    }

    #[test]
    fn the_configuration_is_modelpacks() {
        let dir = tempfile::tempdir().unwrap();
        let artifact = ModelArtifact::read(&version(dir.path())).unwrap();
        let config: serde_json::Value = serde_json::from_slice(&artifact.config).unwrap();
        let digests: Vec<_> =
            artifact.manifest.layers.iter().map(|layer| layer.digest.to_string()).collect();
        let expected = serde_json::json!({
            "descriptor": { "name": "iris", "version": "1", "description": "Irises." },
            "config": { "format": "onnx" },
            "modelfs": { "type": "layers", "diffIds": digests },
        });
        assert_eq!(config, expected);
    }

    #[test]
    fn a_version_that_cannot_be_served_is_not_pushed() {
        let dir = tempfile::tempdir().unwrap();
        let folder = version(dir.path());
        let signature = std::fs::read_to_string(folder.join(SIGNATURE)).unwrap();
        let refused = |text: &str| {
            std::fs::write(folder.join(SIGNATURE), text).unwrap();
            format!("{:#}", ModelArtifact::read(&folder).unwrap_err())
        };
        for (from, to, part) in [
            ("name = 'iris'", "", "add `name`"),
            ("version = '1'", "", "add `version`"),
            ("sha256 = ", "other = ", "add `sha256`"),
            ("sha256 = '", "sha256 = 'ff", "a version is immutable"),
            ("version = '1'", "version = '../1'", "is not a version"),
            ("name = 'iris'", "name = '../iris'", "the model's name"),
        ] {
            let problem = refused(&signature.replace(from, to));
            assert!(problem.contains(part), "{problem}");
        }
        std::fs::write(folder.join(SIGNATURE), signature).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", folder.join("link")).unwrap();
        let problem = format!("{:#}", ModelArtifact::read(&folder).unwrap_err());
        assert!(problem.contains("is a link"), "{problem}");
    }

    #[test]
    fn what_is_there_is_compared_with_what_is_in_the_registry() {
        let dir = tempfile::tempdir().unwrap();
        let folder = version(dir.path());
        let remote = remote(&ModelArtifact::read(&folder).unwrap());
        assert_eq!(remote.difference(&folder).unwrap(), None);
        std::fs::write(folder.join("more"), b"").unwrap();
        assert!(remote.difference(&folder).unwrap().unwrap().contains("more is not in"));
        std::fs::write(folder.join("README.md"), b"other").unwrap();
        assert!(remote.difference(&folder).unwrap().unwrap().starts_with("README.md has sha256:"));
        std::fs::remove_file(folder.join("README.md")).unwrap();
        assert!(remote.difference(&folder).unwrap().unwrap().contains("is not there"));
    }

    #[test]
    fn a_file_stays_in_its_folder() {
        for title in ["model.onnx", "data/weights.bin", "a b (1).json"] {
            assert!(check_title(title).is_ok(), "{title}");
        }
        let long = "a".repeat(256);
        let deep = "a/".repeat(8) + "b";
        for title in [
            "",
            "/etc/passwd",
            "../x",
            "a/../../x",
            "a//b",
            "a/",
            "./a",
            "..",
            ".",
            ".hidden",
            "a/.b",
            "a\\b",
            "C:x",
            "a\0",
            "a\nb",
            &long,
            &deep,
        ] {
            assert!(check_title(title).is_err(), "{title:?}");
        }
    }

    #[test]
    fn an_artifact_that_is_no_version_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let artifact = ModelArtifact::read(&version(dir.path())).unwrap();
        let refused = |change: &dyn Fn(&mut Manifest)| {
            let mut manifest = artifact.manifest.clone();
            change(&mut manifest);
            format!("{:#}", RemoteVersion::read(&manifest, &artifact.config).unwrap_err())
        };
        let titled = |index: usize, title: &'static str| {
            move |manifest: &mut Manifest| {
                manifest.layers[index].annotations.insert(TITLE.into(), title.into());
            }
        };
        for (problem, part) in [
            (refused(&titled(0, "../../evil")), "is not the name of a file"),
            (refused(&titled(0, "model.onnx")), "is there twice"),
            (refused(&titled(0, "data")), "is a file and a folder"),
            (refused(&|m| m.layers[0].annotations.clear()), "has no file name"),
            (refused(&|m| m.layers[1].media_type = WEIGHT.replace(RAW, ".tar")), "is an archive"),
            (refused(&|m| m.layers[1].size = 3 << 30), "is longer than"),
            (refused(&|m| m.layers.truncate(3)), "it has no model.toml"),
        ] {
            assert!(problem.contains(part), "{problem}");
        }
        let problem = RemoteVersion::read(&artifact.manifest, b"{}").unwrap_err().to_string();
        assert!(problem.contains("damaged"), "{problem}");
    }

    proptest! {
        #[test]
        fn a_name_that_is_taken_leads_nowhere_else(title in "(\\.|/|a|b|\\.\\.|\\\\|\\PC){0,12}") {
            if check_title(&title).is_ok() {
                let path = Path::new("/base").join(&title);
                prop_assert!(path.starts_with("/base"));
                let plain = |part| matches!(part, std::path::Component::Normal(_));
                prop_assert!(Path::new(&title).components().all(plain));
            }
        }

        #[test]
        fn any_version_is_taken_or_refused(text in "\\PC{0,40}") {
            if let Ok(version) = ModelVersion::parse(&text) {
                let folder = version.folder();
                let plain = |part| matches!(part, std::path::Component::Normal(_));
                prop_assert!(Path::new(&folder).components().all(plain));
                prop_assert_eq!(folder.split('/').count(), 3);
            }
        }
    }
}
