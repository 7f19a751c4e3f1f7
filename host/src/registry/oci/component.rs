//! A component as an artifact, as the WebAssembly ecosystem has it (the CNCF's "Wasm OCI artifact"): `wkg`,
//! Spin and wasmCloud pull what is pushed here, and the other way round.

use std::fs::File;
use std::io::{Read, Seek};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;
use wasmparser::{Encoding, Parser, Payload};

use super::client::{Content, Repository};
use super::digest::Digest;
use super::manifest::{Descriptor, Manifest, TITLE};
use super::progress::Progress;
use crate::guest::artifact::MAX_COMPONENT;
use crate::process::read_file::read_file;

/// The type of a component's configuration.
const CONFIG: &str = "application/vnd.wasm.config.v0+json";
/// The type of its only layer.
const LAYER: &str = "application/wasm";
/// What tools wrote before there was an agreement.
const OLD_LAYER: &str = "application/vnd.wasm.content.layer.v1+wasm";
/// Bytes that tell what a file is, and how one that is none begins.
const HEADER: usize = 64;
/// What somebody may have meant who pushes a file that is no component.
const MODEL_HINT: &str = "; a model is pushed with --model NAME/VERSION, or by its folder";
/// The same component is the same artifact, whenever it is pushed.
const CREATED: &str = "1970-01-01T00:00:00Z";

/// A component, and how it is described.
#[derive(Debug)]
pub struct ComponentArtifact {
    bytes: Vec<u8>,
    config: Vec<u8>,
    pub manifest: Manifest,
}

/// The configuration of the artifact.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Config<'a> {
    created: &'static str,
    author: Option<&'a str>,
    architecture: &'static str,
    os: &'static str,
    layer_digests: [Digest; 1],
    component: World,
}

/// What a component has to be given, and gives.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
struct World {
    exports: Vec<String>,
    imports: Vec<String>,
    target: Option<String>,
}

impl ComponentArtifact {
    /// The component in `path`.
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = read_file(path, MAX_COMPONENT)
            .with_context(|| format!("{}: cannot be read", path.display()))?;
        let component = world(&bytes).with_context(|| path.display().to_string())?;
        let mut layer = Descriptor::of(LAYER, &bytes);
        if let Some(name) = path.file_name().and_then(|name| name.to_str()) {
            layer.annotations.insert(TITLE.into(), name.into());
        }
        let config = serde_json::to_vec(&Config {
            created: CREATED,
            author: None,
            architecture: "wasm",
            os: "wasip2",
            layer_digests: [layer.digest],
            component,
        })?;
        let manifest = Manifest::new(None, Descriptor::of(CONFIG, &config), vec![layer]);
        Ok(Self { bytes, config, manifest })
    }

    /// Sends its content to a repository; the manifest is still to be put.
    pub async fn push(&self, to: &Repository<'_>, progress: Progress) -> Result<()> {
        let Self { bytes, config, manifest } = self;
        for layer in &manifest.layers {
            to.push_blob(layer, "the component", Content::Bytes(bytes), progress).await?;
        }
        let content = Content::Bytes(config);
        Ok(to.push_blob(&manifest.config, "its configuration", content, Progress::Silent).await?)
    }
}

/// The layer that is the component of an artifact; `None`: it is not one of a component.
pub fn layer(manifest: &Manifest) -> Result<Option<&Descriptor>> {
    let is_component = |layer: &&Descriptor| matches!(&*layer.media_type, LAYER | OLD_LAYER);
    let mut layers = manifest.layers.iter().filter(is_component);
    match (layers.next(), layers.next()) {
        (Some(layer), None) => Ok(Some(layer)),
        (Some(_), Some(_)) => bail!("it has more than one component; one is what is pulled"),
        (None, _) if manifest.config.media_type == CONFIG => {
            bail!("it has no layer of type {LAYER}, which is where a component is")
        }
        (None, _) => Ok(None),
    }
}

/// Fetches a component into `file`.
pub async fn pull(
    from: &Repository<'_>,
    layer: &Descriptor,
    file: &mut File,
    progress: Progress,
) -> Result<()> {
    from.blob(layer, "the component", MAX_COMPONENT, file, progress).await?;
    check_file(file)
}

/// Whether a file that was fetched is a component, by its beginning.
pub fn check_file(file: &mut File) -> Result<()> {
    let mut start = Vec::new();
    file.rewind()?;
    file.take(HEADER as u64).read_to_end(&mut start)?;
    check(&start, "")
}

/// Whether these are the bytes of a component, by their beginning. `hint` is said of what is no
/// WebAssembly.
fn check(bytes: &[u8], hint: &str) -> Result<()> {
    let first = Parser::new(0).parse_all(bytes).next().transpose().ok().flatten();
    match first {
        Some(Payload::Version { encoding: Encoding::Component, .. }) => Ok(()),
        Some(Payload::Version { .. }) => {
            bail!("it is a core module, no component (build it for wasm32-wasip2)")
        }
        _ => bail!("it is no WebAssembly{}{hint}", beginning(bytes)),
    }
}

/// What a file begins with, if that is text.
fn beginning(bytes: &[u8]) -> String {
    let start = bytes.get(..HEADER).unwrap_or(bytes);
    let is_text = start.iter().all(|byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace());
    if start.is_empty() || !is_text {
        return String::new();
    }
    format!("; it begins with {:?}", super::error::excerpt(start))
}

/// The names of what the component imports and exports itself: of one that is to be pushed.
fn world(bytes: &[u8]) -> Result<World> {
    check(bytes, MODEL_HINT)?;
    let mut world = World::default();
    // How deep in modules and components within.
    let mut depth = 0_usize;
    for payload in Parser::new(0).parse_all(bytes) {
        match payload.context("it is damaged")? {
            Payload::Version { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentImportSection(section) if depth == 1 => {
                for import in section {
                    world.imports.push(import.context("it is damaged")?.name.name.to_owned());
                }
            }
            Payload::ComponentExportSection(section) if depth == 1 => {
                for export in section {
                    world.exports.push(export.context("it is damaged")?.name.name.to_owned());
                }
            }
            _ => {}
        }
    }
    ensure!(depth == 0, "it is truncated");
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
    fn the_configuration_names_what_the_component_is_given_and_gives() {
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
    fn what_is_no_component_is_refused() {
        let bytes = wat::parse_str(COMPONENT).unwrap();
        for (bytes, part) in [
            (&b"\0asm\x01\0\0\0"[..], "core module"),
            (b"<html>", "it is no WebAssembly; it begins with \"<html>\"; a model is pushed"),
            (b"\x08\x07\x12\x07pytorch", "it is no WebAssembly; a model is pushed with --model"),
            (b"", "it is no WebAssembly; a model is pushed"),
            (&bytes[..bytes.len() - 1], "damaged"),
        ] {
            let problem = format!("{:#}", world(bytes).unwrap_err());
            assert!(problem.contains(part), "{problem}");
        }
    }

    #[test]
    fn the_only_component_of_an_artifact_is_pulled() {
        let config = |kind| Descriptor::of(kind, b"{}");
        let one = Descriptor::of(LAYER, b"1");
        let manifest = |kind, layers| Manifest::new(None, config(kind), layers);
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
        fn a_damaged_component_is_read_or_refused(at in 0..120_usize, with in any::<u8>()) {
            let mut bytes = wat::parse_str(COMPONENT).unwrap();
            let at = at.min(bytes.len() - 1);
            bytes[at] = with;
            let _ = world(&bytes);
        }
    }
}
