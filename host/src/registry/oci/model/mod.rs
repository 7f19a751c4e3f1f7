//! Model versions as OCI artifacts, by the CNCF's ModelPack specification: a layer per file, with its
//! name as annotation, so that `oras pull` and `modctl pull` restore the same files.

mod artifact;
mod config;
mod paths;
mod remote;

pub use artifact::ModelArtifact;
pub use remote::RemoteVersion;

use super::manifest::OciManifest;
use crate::config::manifest::names;

/// Artifact type of a model.
pub const ARTIFACT: &str = "application/vnd.cncf.model.manifest.v1+json";
/// Media type of the configuration.
const CONFIG: &str = "application/vnd.cncf.model.config.v1+json";
/// Annotation: file name of a layer in ModelPack.
const FILE_PATH: &str = "org.cncf.model.filepath";

/// Maximum size of one file, in bytes: that of a protobuf message, as ONNX files are.
pub const MAX_FILE: u64 = 2 << 30;

/// A model's name and version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelVersion {
    pub name: String,
    pub version: String,
}

impl ModelVersion {
    /// Checks that name and version are valid in folders, URLs and component ids.
    ///
    /// # Errors
    /// A message with the valid form.
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

    /// Parses `iris/1`, the form of the command line.
    ///
    /// # Errors
    /// A message with the valid form.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (name, version) =
            text.split_once('/').ok_or("write <name>/<version>, \"iris-classifier/1\"")?;
        Self::new(name, version)
    }

    /// Folder of the version in an application.
    #[must_use]
    pub fn folder(&self) -> String {
        format!("models/{}/{}", self.name, self.version)
    }
}

/// Whether an artifact is a model.
#[must_use]
pub fn is_model(manifest: &OciManifest) -> bool {
    manifest.kind() == ARTIFACT || manifest.config.media_type == CONFIG
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn arbitrary_versions_do_not_panic(text in "\\PC{0,40}") {
            if let Ok(version) = ModelVersion::parse(&text) {
                let folder = version.folder();
                let plain = |part| matches!(part, std::path::Component::Normal(_));
                prop_assert!(Path::new(&folder).components().all(plain));
                prop_assert_eq!(folder.split('/').count(), 3);
            }
        }
    }
}
