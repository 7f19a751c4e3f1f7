//! A model version read from a folder, to push it or to compare it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use sha2::{Digest as _, Sha256};
use walkdir::{DirEntry, WalkDir};

use super::config::{ModelDescription, ModelFs, ModelPackConfig, ModelTomlSummary, Technical};
use super::paths::check_title;
use super::{ARTIFACT, CONFIG, FILE_PATH, MAX_FILE, ModelVersion};
use crate::inference::{SIGNATURE, check_model_folder, joined};
use crate::registry::oci::client::{Content, Repository};
use crate::registry::oci::digest::Digest;
use crate::registry::oci::manifest::{
    DESCRIPTION, Descriptor, MAX_LAYERS, OciManifest, TITLE, VERSION,
};
use crate::registry::oci::progress::TransferProgress;

/// Media type of a graph, and of external weights.
const WEIGHT: &str = "application/vnd.cncf.model.weight.v1.raw";
/// Media type of configuration files.
const WEIGHT_CONFIG: &str = "application/vnd.cncf.model.weight.config.v1.raw";
/// Media type of documents.
const DOCUMENT: &str = "application/vnd.cncf.model.doc.v1.raw";

/// A file of a version, and its layer.
#[derive(Debug)]
pub(super) struct VersionFile {
    path: PathBuf,
    pub(super) layer: Descriptor,
}

/// A model version with its manifest and configuration.
#[derive(Debug)]
pub struct ModelArtifact {
    pub version: ModelVersion,
    files: Vec<VersionFile>,
    pub(super) config: Vec<u8>,
    pub manifest: OciManifest,
}

impl ModelArtifact {
    /// Reads the version in `folder`.
    ///
    /// # Errors
    /// If the version could not be served, or has links.
    pub fn read(folder: &Path) -> Result<Self> {
        let signature = ModelTomlSummary::read(folder)
            .with_context(|| format!("only a version that has a {SIGNATURE} can be pushed"))?;
        let missing = |key| format!("{}/{SIGNATURE}: add `{key}`", folder.display());
        let name = signature.name.with_context(|| missing("name"))?;
        let number = signature.version.with_context(|| missing("version"))?;
        ensure!(signature.sha256.is_some(), missing("sha256"));
        let version = ModelVersion::new(&name, &number)
            .map_err(|problem| anyhow::anyhow!("{}/{SIGNATURE}: {problem}", folder.display()))?;
        check_model_folder(&name, folder).map_err(|problems| joined(&problems))?;
        let files = files(folder)?;
        let layers: Vec<_> = files.iter().map(|file| file.layer.clone()).collect();
        let config = serde_json::to_vec(&ModelPackConfig {
            descriptor: ModelDescription {
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
        let mut manifest =
            OciManifest::new(Some(ARTIFACT), Descriptor::of(CONFIG, &config), layers);
        let description = signature.description.map(|text| (DESCRIPTION, text));
        manifest.annotations = [(TITLE, name), (VERSION, number)]
            .into_iter()
            .chain(description)
            .map(|(key, value)| (key.to_owned(), value))
            .collect();
        Ok(Self { version, files, config, manifest })
    }

    /// Pushes the content to a repository, without the manifest.
    pub async fn push(&self, to: &Repository<'_>, progress: TransferProgress) -> Result<()> {
        for VersionFile { path, layer } in &self.files {
            let title = layer.annotations.get(TITLE).map_or("a file", String::as_str);
            to.push_blob(layer, title, Content::File(path), progress).await?;
        }
        let content = Content::Bytes(&self.config);
        let config = &self.manifest.config;
        Ok(to.push_blob(config, "the configuration", content, TransferProgress::Silent).await?)
    }
}

/// The files of a version, sorted by name.
pub(super) fn files(folder: &Path) -> Result<Vec<VersionFile>> {
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
            "{}: is a link or special file; a version can only have regular files",
            path.display()
        );
        ensure!(files.len() < MAX_LAYERS, "{}: more than {MAX_LAYERS} files", folder.display());
        let title = path.strip_prefix(folder)?.to_str();
        let title = title.with_context(|| format!("{}: its name is not UTF-8", path.display()))?;
        check_title(title)?;
        let (digest, size) = hash(path).with_context(|| path.display().to_string())?;
        ensure!(size <= MAX_FILE, "{}: is larger than {MAX_FILE} bytes", path.display());
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

/// The digest and the size in bytes of a file.
fn hash(path: &Path) -> Result<(Digest, u64)> {
    /// Hashes what is written to it.
    struct HashWriter(Sha256);
    impl Write for HashWriter {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.update(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut writer = HashWriter(Sha256::new());
    let size = io::copy(&mut File::open(path)?, &mut writer)?;
    Ok((Digest::finish(writer.0), size))
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::is_model;
    use super::*;
    use crate::inference::{GRAPH, hex};

    /// The folder of a version; its graph is not an ONNX file, which is not checked here.
    pub(in super::super) fn version(dir: &Path) -> PathBuf {
        let folder = dir.join("iris/1");
        std::fs::create_dir_all(folder.join("data")).unwrap();
        std::fs::write(folder.join(GRAPH), b"graph").unwrap();
        let sha256 = hex(&Sha256::digest(b"graph"));
        let tensor = "[{ name = 'x', datatype = 'FP32', shape = [-1] }]";
        let signature = format!(
            "name = 'iris'\nversion = '1'\nsha256 = '{sha256}'\ndescription = 'Irises.'\n\
             inputs = {tensor}\noutputs = {tensor}"
        );
        std::fs::write(folder.join(SIGNATURE), signature).unwrap();
        std::fs::write(folder.join("data/weights.bin"), b"weights").unwrap();
        std::fs::write(folder.join("README.md"), b"# Iris").unwrap();
        std::fs::write(folder.join(".hidden"), b"").unwrap();
        folder
    }

    #[test]
    fn version_has_a_layer_per_file() {
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
        // The artifact depends on the content only.
        let again = ModelArtifact::read(&version(dir.path())).unwrap();
        assert_eq!(again.manifest, artifact.manifest);
    }

    #[test]
    fn configuration_follows_modelpack() {
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
    fn version_that_cannot_be_served_is_not_pushed() {
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
            ("sha256 = ", "# ", "add `sha256`"),
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
}
