//! A model version in a registry: its description, download and comparison with a folder.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use super::artifact::files;
use super::config::{ModelDescription, ModelPackConfig, ModelTomlSummary};
use super::paths::{check_paths, check_title};
use super::{FILE_PATH, MAX_FILE, ModelVersion};
use crate::inference::{GRAPH, SIGNATURE, check_model_folder, joined};
use crate::registry::oci::client::Repository;
use crate::registry::oci::manifest::{Descriptor, OciManifest, TITLE};
use crate::registry::oci::progress::TransferProgress;

/// Suffix of the media type of layers that are plain files.
const RAW: &str = ".raw";

/// Maximum size of a configuration, in bytes.
const MAX_CONFIG: u64 = 1 << 20;
/// Maximum size of all files together, in bytes.
const MAX_FILES: u64 = 8 << 30;

/// A version in a registry, of which only manifest and configuration were fetched.
#[derive(Debug)]
pub struct RemoteVersion {
    pub version: ModelVersion,
    /// Relative paths of the files, with their layers.
    files: Vec<(String, Descriptor)>,
}

impl RemoteVersion {
    /// Fetches and checks the configuration.
    ///
    /// # Errors
    /// If it cannot be fetched, or the artifact is not a version that can be served.
    pub async fn fetch(from: &Repository<'_>, manifest: &OciManifest) -> Result<Self> {
        let mut config = Vec::new();
        let what = "the model's configuration";
        from.blob(&manifest.config, what, MAX_CONFIG, &mut config, TransferProgress::Silent)
            .await?;
        Self::read(manifest, &config)
    }

    fn read(manifest: &OciManifest, config: &[u8]) -> Result<Self> {
        let config: ModelPackConfig =
            serde_json::from_slice(config).context("the model's configuration is damaged")?;
        let ModelDescription { name, version, .. } = config.descriptor;
        let (Some(name), Some(version)) = (name, version) else {
            bail!(
                "the model's configuration has no name or version; push the model with `spinfer \
                 registry push`"
            )
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
                "{title}: is an archive ({}); only layers that are plain files are supported",
                layer.media_type
            );
            ensure!(layer.size <= MAX_FILE, "{title}: is larger than {MAX_FILE} bytes");
            total = total.saturating_add(layer.size);
            files.push((title.clone(), layer.clone()));
        }
        ensure!(total <= MAX_FILES, "the model has {total} bytes; the maximum is {MAX_FILES}");
        check_paths(files.iter().map(|(title, _)| title.as_str()))?;
        for required in [GRAPH, SIGNATURE] {
            ensure!(
                files.iter().any(|(title, _)| title == required),
                "the model has no {required}; spinfer needs {GRAPH} and {SIGNATURE}"
            );
        }
        Ok(Self { version, files })
    }

    /// Fetches the files into the empty `folder`, and checks the version and the graph.
    ///
    /// # Errors
    /// If a file cannot be fetched, or the contents contradict the artifact.
    pub async fn pull(
        &self,
        from: &Repository<'_>,
        folder: &Path,
        progress: TransferProgress,
    ) -> Result<()> {
        for (title, layer) in &self.files {
            let path = folder.join(title);
            let parent = path.parent().context("a file is in a folder")?;
            std::fs::create_dir_all(parent).with_context(|| parent.display().to_string())?;
            let mut file =
                File::create_new(&path).with_context(|| format!("{title}: cannot be written"))?;
            from.blob(layer, title, MAX_FILE, &mut file, progress).await?;
            file.sync_all().with_context(|| format!("{title}: cannot be written"))?;
        }
        self.check(folder)
    }

    /// Checks that `folder` has the version of the artifact, and the graph of its signature.
    fn check(&self, folder: &Path) -> Result<()> {
        let ModelVersion { name, version } = &self.version;
        let signature = ModelTomlSummary::read(folder)?;
        let declared = (signature.name.as_deref(), signature.version.as_deref());
        ensure!(
            declared == (Some(name), Some(version)),
            "{SIGNATURE} is of {}, version {}, but the artifact is of {name}, version {version}",
            declared.0.unwrap_or("no model"),
            declared.1.unwrap_or("none")
        );
        ensure!(signature.sha256.is_some(), "{SIGNATURE} has no sha256 of {GRAPH}");
        check_model_folder(name, folder).map(drop).map_err(|problems| joined(&problems))
    }

    /// The first difference of `folder` from this version; `None` if they are equal.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub fn difference(&self, folder: &Path) -> Result<Option<String>> {
        let found = files(folder)?;
        let titles: BTreeSet<_> = found
            .iter()
            .filter_map(|file| file.layer.annotations.get(TITLE).map(String::as_str))
            .collect();
        for (title, layer) in &self.files {
            let local = found.iter().find(|file| file.layer.annotations.get(TITLE) == Some(title));
            match local {
                None => return Ok(Some(format!("{title} is missing"))),
                Some(file) if file.layer.digest != layer.digest => {
                    let (remote, local) = (layer.digest, file.layer.digest);
                    return Ok(Some(format!("{title} has {local}, in the registry {remote}")));
                }
                Some(_) => {}
            }
        }
        let known = |title: &&&str| self.files.iter().any(|(known, _)| known == **title);
        let additional = titles.iter().find(|title| !known(title));
        Ok(additional.map(|title| format!("{title} is not in the registry")))
    }
}

#[cfg(test)]
mod tests {
    use super::super::ModelArtifact;
    use super::super::artifact::tests::version;
    use super::*;

    const WEIGHT_ARCHIVE: &str = "application/vnd.cncf.model.weight.v1.tar";

    fn remote(artifact: &ModelArtifact) -> RemoteVersion {
        RemoteVersion::read(&artifact.manifest, &artifact.config).unwrap()
    }

    #[test]
    fn differences_from_the_registry_are_found() {
        let dir = tempfile::tempdir().unwrap();
        let folder = version(dir.path());
        let remote = remote(&ModelArtifact::read(&folder).unwrap());
        assert_eq!(remote.difference(&folder).unwrap(), None);
        std::fs::write(folder.join("more"), b"").unwrap();
        assert!(remote.difference(&folder).unwrap().unwrap().contains("more is not in"));
        std::fs::write(folder.join("README.md"), b"other").unwrap();
        assert!(remote.difference(&folder).unwrap().unwrap().starts_with("README.md has sha256:"));
        std::fs::remove_file(folder.join("README.md")).unwrap();
        assert!(remote.difference(&folder).unwrap().unwrap().contains("is missing"));
    }

    #[test]
    fn invalid_artifacts_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let artifact = ModelArtifact::read(&version(dir.path())).unwrap();
        let refused = |change: &dyn Fn(&mut OciManifest)| {
            let mut manifest = artifact.manifest.clone();
            change(&mut manifest);
            format!("{:#}", RemoteVersion::read(&manifest, &artifact.config).unwrap_err())
        };
        let titled = |index: usize, title: &'static str| {
            move |manifest: &mut OciManifest| {
                manifest.layers[index].annotations.insert(TITLE.into(), title.into());
            }
        };
        for (problem, part) in [
            (refused(&titled(0, "../../evil")), "is not the name of a file"),
            (refused(&titled(0, "model.onnx")), "is listed twice"),
            (refused(&titled(0, "data")), "is a file and a folder"),
            (refused(&|m| m.layers[0].annotations.clear()), "has no file name"),
            (refused(&|m| m.layers[1].media_type = WEIGHT_ARCHIVE.into()), "is an archive"),
            (refused(&|m| m.layers[1].size = 3 << 30), "is larger than"),
            (refused(&|m| m.layers.truncate(3)), "the model has no model.toml"),
        ] {
            assert!(problem.contains(part), "{problem}");
        }
        let problem = RemoteVersion::read(&artifact.manifest, b"{}").unwrap_err().to_string();
        assert!(problem.contains("damaged"), "{problem}");
    }
}
