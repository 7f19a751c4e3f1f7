//! What a registry holds under a tag: a manifest, which lists content by type, size and digest.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::digest::Digest;

pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// Of several manifests: one artifact for each platform.
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// Bytes of a manifest: what the distribution specification has registries take.
pub const MAX_MANIFEST: u64 = 4 << 20;
/// Layers of an artifact that is pulled.
pub const MAX_LAYERS: usize = 256;

/// Annotation: the name of a layer's file. `oras pull` writes it under this name.
pub const TITLE: &str = "org.opencontainers.image.title";
/// Annotation: the version of an artifact.
pub const VERSION: &str = "org.opencontainers.image.version";
/// Annotation: what an artifact is, for people.
pub const DESCRIPTION: &str = "org.opencontainers.image.description";

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
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

/// Content of a registry.
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

impl Manifest {
    /// An artifact of its own type, if it has one.
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

    /// What is put into a registry.
    pub fn bytes(&self) -> serde_json::Result<Vec<u8>> {
        serde_json::to_vec(self)
    }

    /// What names it there.
    pub fn digest(&self) -> serde_json::Result<Digest> {
        Ok(Digest::of(&self.bytes()?))
    }

    /// Reads a manifest; what is wrong with it otherwise.
    pub fn parse(body: &[u8]) -> Result<Self, String> {
        /// What every manifest has, of whatever kind.
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Head {
            schema_version: Option<u64>,
            media_type: Option<String>,
            manifests: Option<serde::de::IgnoredAny>,
        }
        let head: Head = serde_json::from_slice(body).map_err(|error| error.to_string())?;
        if head.manifests.is_some() || head.media_type.as_deref() == Some(INDEX) {
            return Err(
                "it is an index of several artifacts; name one of them by its digest".into()
            );
        }
        if head.schema_version != Some(2) {
            return Err("it has no `schemaVersion` 2".into());
        }
        let manifest: Self = serde_json::from_slice(body).map_err(|error| error.to_string())?;
        let layers = manifest.layers.len();
        if layers > MAX_LAYERS {
            return Err(format!("it has {layers} layers; {MAX_LAYERS} are the limit"));
        }
        Ok(manifest)
    }

    /// What kind of artifact it is.
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
        serde_json::to_string(&Manifest::new(Some("a/b"), config, vec![layer])).unwrap()
    }

    #[test]
    fn a_manifest_is_what_was_written() {
        let manifest = Manifest::parse(whole().as_bytes()).unwrap();
        assert_eq!(serde_json::to_string(&manifest).unwrap(), whole());
        assert_eq!((manifest.kind(), manifest.layers.len()), ("a/b", 1));
    }

    #[test]
    fn what_is_no_manifest_is_refused() {
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
            (&whole().replace("sha256:", "md5:"), "no SHA-256 digest"),
            (&whole().replace("\"size\":4", "\"size\":-4"), "-4"),
            (&layers, "257 layers"),
        ] {
            let problem = Manifest::parse(body.as_bytes()).unwrap_err();
            assert!(problem.contains(part), "{body}: {problem}");
        }
    }

    proptest! {
        #[test]
        fn a_damaged_manifest_is_read_or_refused(at in 0..400_usize, with in "\\PC{0,8}") {
            let whole = whole();
            let at = at.min(whole.len());
            let _ = Manifest::parse(format!("{}{with}{}", &whole[..at], &whole[at..]).as_bytes());
            let _ = Manifest::parse(&whole.as_bytes()[..at]);
        }
    }
}
