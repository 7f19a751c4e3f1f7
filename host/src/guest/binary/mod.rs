//! A component file as this host compiles it: a core module becomes a component, and interfaces of
//! release candidates get the names of the release.

mod module;
mod releases;

use std::borrow::Cow;

use anyhow::{Context, Result};
use wasmparser::{Encoding, Parser, Payload};

/// Part of the hash of every artifact: changes when the same file is converted differently.
pub(crate) const REVISION: &[u8] = concat!(
    "conversion 1, adapter ",
    env!("ADAPTER_VERSION"),
    ", encoder ",
    env!("ENCODER_VERSION")
)
.as_bytes();

/// The component in `wasm`, which may be a core module. A file that is neither is returned
/// unchanged, for the compiler to refuse.
///
/// # Errors
/// It is a core module that cannot become a component, with the reason and a remedy.
pub(crate) fn to_component(wasm: &[u8]) -> Result<Cow<'_, [u8]>> {
    let component = match encoding(wasm) {
        Some(Encoding::Module) => {
            Cow::Owned(module::to_component(wasm).context("it is a core module, not a component")?)
        }
        _ => Cow::Borrowed(wasm),
    };
    Ok(match releases::rename(&component) {
        Ok(Some(renamed)) => Cow::Owned(renamed),
        // Damaged: left to the compiler.
        Ok(None) | Err(_) => component,
    })
}

fn encoding(wasm: &[u8]) -> Option<Encoding> {
    match Parser::new(0).parse_all(wasm).next()?.ok()? {
        Payload::Version { encoding, .. } => Some(encoding),
        _ => None,
    }
}
