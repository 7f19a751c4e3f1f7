//! What a component imports, read from its binary without compiling it.

use anyhow::{Result, ensure};
use wasmparser::component_types::{ComponentAnyTypeId, ComponentEntityType, ComponentItem};
use wasmparser::types::TypesRef;
use wasmparser::{Encoding, Parser, Payload, ValidPayload, Validator, WasmFeatures};

/// The names of the imports of a component.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct World {
    /// Imports that have to be defined: an interface with nothing but types does not.
    pub(super) imports: Vec<String>,
}

impl World {
    /// The world of the component in `wasm`. Function bodies are not validated.
    ///
    /// # Errors
    /// It is not a component, or it is invalid.
    pub(super) fn of(wasm: &[u8]) -> Result<Self> {
        let mut validator = Validator::new_with_features(WasmFeatures::all());
        let mut world = Self::default();
        // Nesting depth in modules and components.
        let mut depth = 0_usize;
        for payload in Parser::new(0).parse_all(wasm) {
            let payload = payload?;
            match &payload {
                Payload::Version { encoding, .. } => {
                    ensure!(depth > 0 || *encoding == Encoding::Component, "it is a core module");
                    depth += 1;
                }
                Payload::ComponentImportSection(imports) if depth == 1 => {
                    for import in imports.clone() {
                        world.imports.push(import?.name.name.to_owned());
                    }
                }
                _ => {}
            }
            if let ValidPayload::End(types) = validator.payload(&payload)? {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    world.imports.retain(|name| {
                        let import = types.as_ref().component_item_for_import(name);
                        import.is_none_or(|item| needs_definition(types.as_ref(), item))
                    });
                }
            }
        }
        Ok(world)
    }
}

fn needs_definition(types: TypesRef<'_>, item: &ComponentItem) -> bool {
    match item.ty {
        ComponentEntityType::Instance(id) => {
            types[id].exports.values().any(|item| needs_definition(types, item))
        }
        ComponentEntityType::Type { referenced, .. } => {
            matches!(referenced, ComponentAnyTypeId::Resource(_))
        }
        _ => true,
    }
}
