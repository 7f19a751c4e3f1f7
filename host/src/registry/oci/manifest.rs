//! OCI image manifests, which list an artifact's content by type, size and digest.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::digest::Digest;

/// Media type of a manifest.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// Media type of an index of manifests, one per platform.
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// Maximum size of a manifest, in bytes: that of the distribution specification.
pub const MAX_MANIFEST: u64 = 4 << 20;
/// Maximum number of layers of an artifact.
pub const MAX_LAYERS: usize = 256;

/// Annotation: file name of a layer. `oras pull` writes the layer to this file.
pub const TITLE: &str = "org.opencontainers.image.title";
/// Annotation: version of an artifact.
pub const VERSION: &str = "org.opencontainers.image.version";
/// Annotation: human-readable description of an artifact.
pub const DESCRIPTION: &str = "org.opencontainers.image.description";

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OciManifest {
    pub schema_version: u32,
    #[serde(default)]
    pub media_type: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    pub config: Descriptor,
    pub layers: Vec<Descriptor>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// Describes content in a registry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    pub media_type: String,
    pub digest: Digest,
    pub size: u64,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl Descriptor {
    /// Describes `content`.
    #[must_use]
    pub fn of(media_type: &str, content: &[u8]) -> Self {
        Self {
            media_type: media_type.to_owned(),
            digest: Digest::of(content),
            size: content.len() as u64,
            annotations: BTreeMap::new(),
        }
    }
}

impl OciManifest {
    /// A manifest, with an artifact type if there is one.
    #[must_use]
    pub fn new(artifact_type: Option<&str>, config: Descriptor, layers: Vec<Descriptor>) -> Self {
        Self {
            schema_version: 2,
            media_type: Some(MANIFEST.to_owned()),
            artifact_type: artifact_type.map(str::to_owned),
            config,
            layers,
            annotations: BTreeMap::new(),
        }
    }

    /// The JSON text that is pushed.
    pub fn bytes(&self) -> serde_json::Result<Vec<u8>> {
        serde_json::to_vec(self)
    }

    /// The digest of [`Self::bytes`].
    pub fn digest(&self) -> serde_json::Result<Digest> {
        Ok(Digest::of(&self.bytes()?))
    }

    /// Parses a manifest.
    ///
    /// # Errors
    /// A description of the problem.
    pub fn parse(body: &[u8]) -> Result<Self, String> {
        /// Fields common to manifests and indexes.
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct ManifestHead {
            schema_version: Option<u64>,
            media_type: Option<String>,
            manifests: Option<serde::de::IgnoredAny>,
        }
        let head: ManifestHead = serde_json::from_slice(body).map_err(|error| error.to_string())?;
        if head.manifests.is_some() || head.media_type.as_deref() == Some(INDEX) {
            return Err("it is an index of several artifacts; select one by its digest".into());
        }
        if head.schema_version != Some(2) {
            return Err("its `schemaVersion` is not 2".into());
        }
        let manifest: Self = serde_json::from_slice(body).map_err(|error| error.to_string())?;
        let layers = manifest.layers.len();
        if layers > MAX_LAYERS {
            return Err(format!("it has {layers} layers; the maximum is {MAX_LAYERS}"));
        }
        Ok(manifest)
    }

    /// The artifact type, or else the media type of the configuration.
    #[must_use]
    pub fn kind(&self) -> &str {
        self.artifact_type.as_deref().unwrap_or(&self.config.media_type)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn whole() -> String {
        let config = Descriptor::of("application/vnd.oci.empty.v1+json", b"{}");
        let mut layer = Descriptor::of("application/wasm", b"\0asm");
        layer.annotations.insert(TITLE.into(), "a.wasm".into());
        serde_json::to_string(&OciManifest::new(Some("a/b"), config, vec![layer])).unwrap()
    }

    #[test]
    fn manifest_round_trips() {
        let manifest = OciManifest::parse(whole().as_bytes()).unwrap();
        assert_eq!(serde_json::to_string(&manifest).unwrap(), whole());
        assert_eq!((manifest.kind(), manifest.layers.len()), ("a/b", 1));
    }

    #[test]
    fn invalid_manifests_are_refused() {
        let layers = whole().replace(
            "\"layers\":[",
            &format!("\"layers\":[{}", {
                let layer = serde_json::to_string(&Descriptor::of("a", b"")).unwrap();
                format!("{layer},").repeat(MAX_LAYERS)
            }),
        );
        for (body, part) in [
            ("<html>", "expected value"),
            ("{}", "schemaVersion"),
            (r#"{"schemaVersion":1}"#, "schemaVersion"),
            (r#"{"schemaVersion":2,"manifests":[]}"#, "index of several"),
            (r#"{"schemaVersion":2}"#, "config"),
            (&whole().replace("sha256:", "md5:"), "not a SHA-256 digest"),
            (&whole().replace("\"size\":4", "\"size\":-4"), "-4"),
            (&layers, "257 layers"),
        ] {
            let problem = OciManifest::parse(body.as_bytes()).unwrap_err();
            assert!(problem.contains(part), "{body}: {problem}");
        }
    }

    proptest! {
        #[test]
        fn corrupted_manifests_do_not_panic(at in 0..400_usize, with in "\\PC{0,8}") {
            let whole = whole();
            let at = at.min(whole.len());
            let _ = OciManifest::parse(format!("{}{with}{}", &whole[..at], &whole[at..]).as_bytes());
            let _ = OciManifest::parse(&whole.as_bytes()[..at]);
        }
    }
}
