//! The configuration of a model's artifact, and the part of `model.toml` it is derived from.

use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::inference::SIGNATURE;
use crate::process::read_file::read_file;
use crate::process::toml_text;
use crate::registry::oci::digest::Digest;

/// Maximum size of a `model.toml`, in bytes: it has a line per feature.
const MAX_SIGNATURE: u64 = 1 << 20;

/// The configuration of the artifact: the part of ModelPack's that is used.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ModelPackConfig {
    pub(super) descriptor: ModelDescription,
    pub(super) config: Technical,
    pub(super) modelfs: ModelFs,
}

#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct ModelDescription {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) version: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) description: Option<String>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Technical {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) format: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ModelFs {
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) diff_ids: Vec<Digest>,
}

/// The part of `model.toml` that describes an artifact.
#[derive(Debug, Deserialize)]
pub(super) struct ModelTomlSummary {
    pub(super) name: Option<String>,
    pub(super) version: Option<String>,
    pub(super) description: Option<String>,
    pub(super) sha256: Option<String>,
}

impl ModelTomlSummary {
    pub(super) fn read(folder: &Path) -> Result<Self> {
        let path = folder.join(SIGNATURE);
        let read = || -> Result<Self> {
            toml_text::parse(&String::from_utf8(read_file(&path, MAX_SIGNATURE)?)?)
        };
        read().with_context(|| path.display().to_string())
    }
}
