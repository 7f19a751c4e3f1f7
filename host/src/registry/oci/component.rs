//! Components as OCI artifacts, in the format of the CNCF's "Wasm OCI artifact", which is compatible
//! with `wkg`, Spin and wasmCloud.

use std::fs::File;
use std::io::{Read, Seek};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;
use wasmparser::{Encoding, Parser, Payload};

use super::client::{Content, Repository};
use super::digest::Digest;
use super::manifest::{Descriptor, OciManifest, TITLE};
use super::progress::TransferProgress;
use crate::guest::artifact::MAX_COMPONENT;
use crate::process::read_file::read_file;

/// Media type of a component's configuration.
const CONFIG: &str = "application/vnd.wasm.config.v0+json";
/// Media type of its only layer.
const LAYER: &str = "application/wasm";
/// Media type of the layer before it was standardised.
const OLD_LAYER: &str = "application/vnd.wasm.content.layer.v1+wasm";
/// Number of bytes read to detect the type of a file, and shown if it is another one.
const HEADER: usize = 64;
/// Hint for a pushed file that is not a component.
const MODEL_HINT: &str = "; push a model with --model NAME/VERSION, or pass its folder";
/// A constant time, so that the same component is always the same artifact.
const CREATED: &str = "1970-01-01T00:00:00Z";

/// A component with its manifest and configuration.
#[derive(Debug)]
pub struct ComponentArtifact {
    bytes: Vec<u8>,
    config: Vec<u8>,
    pub manifest: OciManifest,
}

/// The configuration of the artifact.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ComponentConfig<'a> {
    created: &'static str,
    author: Option<&'a str>,
    architecture: &'static str,
    os: &'static str,
    layer_digests: [Digest; 1],
    component: World,
}

/// The imports and exports of a component.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
struct World {
    exports: Vec<String>,
    imports: Vec<String>,
    target: Option<String>,
}

impl ComponentArtifact {
    /// Reads the component at `path`.
    ///
    /// # Errors
    /// If the file cannot be read or is not a component.
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = read_file(path, MAX_COMPONENT)
            .with_context(|| format!("{}: cannot be read", path.display()))?;
        let component = world(&bytes).with_context(|| path.display().to_string())?;
        let mut layer = Descriptor::of(LAYER, &bytes);
        if let Some(name) = path.file_name().and_then(|name| name.to_str()) {
            layer.annotations.insert(TITLE.into(), name.into());
        }
        let config = serde_json::to_vec(&ComponentConfig {
            created: CREATED,
            author: None,
            architecture: "wasm",
            os: "wasip2",
            layer_digests: [layer.digest],
            component,
        })?;
        let manifest = OciManifest::new(None, Descriptor::of(CONFIG, &config), vec![layer]);
        Ok(Self { bytes, config, manifest })
    }

    /// Pushes the content to a repository, without the manifest.
    pub async fn push(&self, to: &Repository<'_>, progress: TransferProgress) -> Result<()> {
        let Self { bytes, config, manifest } = self;
        for layer in &manifest.layers {
            to.push_blob(layer, "the component", Content::Bytes(bytes), progress).await?;
        }
        let content = Content::Bytes(config);
        Ok(to
            .push_blob(&manifest.config, "the configuration", content, TransferProgress::Silent)
            .await?)
    }
}

/// The layer with the component; `None` if the artifact is not a component.
///
/// # Errors
/// If there are several components, or none in the artifact of a component.
pub fn layer(manifest: &OciManifest) -> Result<Option<&Descriptor>> {
    let is_component = |layer: &&Descriptor| matches!(&*layer.media_type, LAYER | OLD_LAYER);
    let mut layers = manifest.layers.iter().filter(is_component);
    match (layers.next(), layers.next()) {
        (Some(layer), None) => Ok(Some(layer)),
        (Some(_), Some(_)) => bail!("the artifact has more than one component; expected one"),
        (None, _) if manifest.config.media_type == CONFIG => {
            bail!("the artifact has no layer of type {LAYER} with the component")
        }
        (None, _) => Ok(None),
    }
}

/// Fetches a component into `file`, and checks that it is one.
pub async fn pull(
    from: &Repository<'_>,
    layer: &Descriptor,
    file: &mut File,
    progress: TransferProgress,
) -> Result<()> {
    from.blob(layer, "the component", MAX_COMPONENT, file, progress).await?;
    check_file(file)
}

/// Checks by its header that a fetched file is WebAssembly: a component, or a core module that becomes
/// one when it is loaded.
pub fn check_file(file: &mut File) -> Result<()> {
    let mut start = Vec::new();
    file.rewind()?;
    file.take(HEADER as u64).read_to_end(&mut start)?;
    encoding(&start, "").map(drop)
}

/// Checks the header of a component. `hint` is added to the error if it is not WebAssembly.
fn check(bytes: &[u8], hint: &str) -> Result<()> {
    match encoding(bytes, hint)? {
        Encoding::Component => Ok(()),
        Encoding::Module => {
            bail!("it is a core module, not a component; build it for wasm32-wasip2")
        }
    }
}

fn encoding(bytes: &[u8], hint: &str) -> Result<Encoding> {
    let first = Parser::new(0).parse_all(bytes).next().transpose().ok().flatten();
    match first {
        Some(Payload::Version { encoding, .. }) => Ok(encoding),
        _ => bail!("it is not WebAssembly{}{hint}", text_start(bytes)),
    }
}

/// The start of a file for a message, if it is text.
fn text_start(bytes: &[u8]) -> String {
    let start = bytes.get(..HEADER).unwrap_or(bytes);
    let is_text = start.iter().all(|byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace());
    if start.is_empty() || !is_text {
        return String::new();
    }
    format!("; it starts with {:?}", super::error::excerpt(start))
}

/// The names of the component's own imports and exports.
fn world(bytes: &[u8]) -> Result<World> {
    check(bytes, MODEL_HINT)?;
    let mut world = World::default();
    // Nesting depth in modules and components.
    let mut depth = 0_usize;
    for payload in Parser::new(0).parse_all(bytes) {
        match payload.context("the component is damaged")? {
            Payload::Version { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentImportSection(section) if depth == 1 => {
                for import in section {
                    world
                        .imports
                        .push(import.context("the component is damaged")?.name.name.to_owned());
                }
            }
            Payload::ComponentExportSection(section) if depth == 1 => {
                for export in section {
                    world
                        .exports
                        .push(export.context("the component is damaged")?.name.name.to_owned());
                }
            }
            _ => {}
        }
    }
    ensure!(depth == 0, "the component is truncated");
    Ok(world)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    const COMPONENT: &str = r#"(component
        (import "wasi:nn/graph@0.2.0-rc-2024-10-28" (instance))
        (component (import "inner" (func)))
        (instance $i)
        (export "wasi:http/handler@0.3.0" (instance $i)))"#;

    #[test]
    fn configuration_lists_imports_and_exports() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("one.wasm");
        let bytes = wat::parse_str(COMPONENT).unwrap();
        std::fs::write(&path, &bytes).unwrap();
        let artifact = ComponentArtifact::read(&path).unwrap();
        let config: Value = serde_json::from_slice(&artifact.config).unwrap();
        let expected = json!({
            "created": "1970-01-01T00:00:00Z",
            "author": null,
            "architecture": "wasm",
            "os": "wasip2",
            "layerDigests": [Digest::of(&bytes).to_string()],
            "component": {
                "exports": ["wasi:http/handler@0.3.0"],
                "imports": ["wasi:nn/graph@0.2.0-rc-2024-10-28"],
                "target": null,
            },
        });
        assert_eq!(config, expected);
        let layer = layer(&artifact.manifest).unwrap().unwrap();
        assert_eq!(layer.annotations[TITLE], "one.wasm");
        assert_eq!(artifact.manifest.config.media_type, CONFIG);
    }

    #[test]
    fn files_other_than_components_are_refused() {
        let bytes = wat::parse_str(COMPONENT).unwrap();
        for (bytes, part) in [
            (&b"\0asm\x01\0\0\0"[..], "core module"),
            (b"<html>", "it is not WebAssembly; it starts with \"<html>\"; push a model"),
            (b"\x08\x07\x12\x07pytorch", "it is not WebAssembly; push a model with --model"),
            (b"", "it is not WebAssembly; push a model"),
            (&bytes[..bytes.len() - 1], "damaged"),
        ] {
            let problem = format!("{:#}", world(bytes).unwrap_err());
            assert!(problem.contains(part), "{problem}");
        }
    }

    #[test]
    fn artifact_must_have_exactly_one_component() {
        let config = |kind| Descriptor::of(kind, b"{}");
        let one = Descriptor::of(LAYER, b"1");
        let manifest = |kind, layers| OciManifest::new(None, config(kind), layers);
        let only = manifest(CONFIG, vec![Descriptor::of("text/plain", b""), one.clone()]);
        assert_eq!(layer(&only).unwrap(), Some(&one));
        assert!(layer(&manifest(CONFIG, vec![one.clone(), one])).is_err());
        assert!(layer(&manifest(CONFIG, vec![])).is_err());
        assert_eq!(
            layer(&manifest("application/vnd.oci.image.config.v1+json", vec![])).unwrap(),
            None
        );
    }

    proptest! {
        #[test]
        fn corrupted_components_do_not_panic(at in 0..120_usize, with in any::<u8>()) {
            let mut bytes = wat::parse_str(COMPONENT).unwrap();
            let at = at.min(bytes.len() - 1);
            bytes[at] = with;
            let _ = world(&bytes);
        }
    }
}
