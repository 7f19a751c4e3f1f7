//! Converts a core module of WASI preview 1 to a component, as Spin does: Rust for `wasm32-wasip1`, TinyGo.
//!
//! Such a module carries the types of its world in custom sections, which its SDK puts there. Its
//! imports of preview 1 are adapted to WASI 0.2.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

use anyhow::{Result, anyhow, bail, ensure};
use wasi_preview1_component_adapter_provider::{
    WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, WASI_SNAPSHOT_PREVIEW1_COMMAND_ADAPTER,
    WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER,
};
use wasmparser::{KnownCustom, Parser, Payload};
use wit_component::ComponentEncoder;

/// Start of the names of the custom sections with the types of a world.
const WORLD: &str = "component-type";
/// Maximum size of these sections, in bytes: those of Spin's SDKs take tens of kilobytes.
const MAX_WORLDS: usize = 4 << 20;
/// Maximum number of imports and of exports: those of a large Go program are a few hundred.
const MAX_ITEMS: u32 = 100_000;

/// The component of a core module.
///
/// # Errors
/// The module was not built for components, or it is invalid.
pub(super) fn to_component(wasm: &[u8]) -> Result<Vec<u8>> {
    let adapter = Contents::of(wasm)?.adapter()?;
    let convert = || {
        ComponentEncoder::default()
            // The compiler validates the component.
            .validate(false)
            .module(wasm)?
            .adapter(WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, adapter)?
            .encode()
    };
    // The encoder indexes what it reads, and panics at some invalid modules.
    let converted = catch_unwind(AssertUnwindSafe(convert));
    converted
        .unwrap_or_else(|_| Err(anyhow!("it is invalid")))
        .map_err(|error| anyhow!("it cannot become a component: {error:#}"))
}

/// What tells how a module was built.
#[derive(Debug, Default)]
struct Contents {
    /// Size of the sections with the types of its world, in bytes.
    worlds: usize,
    exports: BTreeSet<String>,
    /// Modules that it imports from.
    imports: BTreeSet<String>,
    /// Versions of the tools that built it, for a message.
    tools: Vec<String>,
}

impl Contents {
    fn of(wasm: &[u8]) -> Result<Self> {
        let mut contents = Self::default();
        for payload in Parser::new(0).parse_all(wasm) {
            match payload? {
                Payload::CustomSection(section) if section.name().starts_with(WORLD) => {
                    contents.worlds = contents.worlds.saturating_add(section.data().len());
                }
                Payload::CustomSection(section) => {
                    if let KnownCustom::Producers(producers) = section.as_known() {
                        contents.tools.extend(tools(producers));
                    }
                }
                Payload::ImportSection(imports) => {
                    ensure!(imports.count() <= MAX_ITEMS, "it has too many imports");
                    for import in imports.into_imports() {
                        contents.imports.insert(import?.module.to_owned());
                    }
                }
                Payload::ExportSection(exports) => {
                    ensure!(exports.count() <= MAX_ITEMS, "it has too many exports");
                    for export in exports {
                        contents.exports.insert(export?.name.to_owned());
                    }
                }
                _ => {}
            }
        }
        Ok(contents)
    }

    /// The adapter for the module: that of a library with a world, or of a command.
    fn adapter(&self) -> Result<&'static [u8]> {
        ensure!(
            self.worlds <= MAX_WORLDS,
            "the types of its world take {} bytes; at most {MAX_WORLDS} are read",
            self.worlds
        );
        if self.worlds > 0 {
            return Ok(WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER);
        }
        let tools = match self.tools.as_slice() {
            [] => String::new(),
            tools => format!(" (built by {})", tools.join(", ")),
        };
        if self.exports.contains("handle-http-request")
            || self.imports.contains("wasi-outbound-http")
        {
            bail!(
                "it was built with an SDK of Spin 0 or 1{tools}; build it with spin-sdk 3 or later \
                 (Rust) or github.com/spinframework/spin-go-sdk/v2 or later (Go)"
            );
        }
        // A command exports `wasi:cli/run`, which the executor `wagi` runs.
        if self.exports.contains("_start") {
            return Ok(WASI_SNAPSHOT_PREVIEW1_COMMAND_ADAPTER);
        }
        bail!("it has no component types{tools}; build it with spin-sdk, or for wasm32-wasip2")
    }
}

/// The languages and tools of a producers section, with their versions.
fn tools(producers: wasmparser::ProducersSectionReader<'_>) -> Vec<String> {
    let fields = producers.into_iter().flatten();
    let values = fields.flat_map(|field| field.values.into_iter().flatten());
    values.map(|tool| format!("{} {}", tool.name, tool.version).trim().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use wasm_encoder::{CustomSection, Section};
    use wasmparser::{Encoding, Validator, WasmFeatures};
    use wit_component::StringEncoding;

    use super::*;

    const WIT: &str = "
        package mine:thing;
        interface it {
            record pair { a: string, b: list<u32> }
            convert: func(pair: pair) -> result<string>;
        }
        world thing { export it; }";

    const CODE: &str = r#"(module
        (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
        (memory (export "memory") 1)
        (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024))
        (func (export "mine:thing/it#convert") (param i32 i32 i32 i32) (result i32)
            (call $exit (i32.const 1)) (i32.const 1024)))"#;

    /// A core module as a toolchain builds it: code, and the types of its world.
    fn module() -> Vec<u8> {
        let mut resolve = wit_parser::Resolve::default();
        let package = resolve.push_source("thing.wit", WIT).unwrap();
        let world = resolve.select_world(&[package], None).unwrap();
        let types =
            wit_component::metadata::encode(&resolve, world, StringEncoding::UTF8, None).unwrap();
        let mut wasm = wat::parse_str(CODE).unwrap();
        let section = CustomSection { name: WORLD.into(), data: types.into() };
        section.append_to(&mut wasm);
        wasm
    }

    #[test]
    fn module_becomes_a_component_of_its_world() {
        let component = to_component(&module()).unwrap();
        Validator::new_with_features(WasmFeatures::all()).validate_all(&component).unwrap();
        let names: String = String::from_utf8_lossy(&component).into_owned();
        assert!(names.contains("mine:thing/it") && names.contains("wasi:cli/exit@0.2."), "{names}");
    }

    #[test]
    fn command_becomes_a_component_that_can_be_run() {
        let module = r#"(module (memory (export "memory") 1) (func (export "_start")))"#;
        let component = to_component(&wat::parse_str(module).unwrap()).unwrap();
        Validator::new_with_features(WasmFeatures::all()).validate_all(&component).unwrap();
        assert!(String::from_utf8_lossy(&component).contains("wasi:cli/run@0.2."));
    }

    #[test]
    fn module_without_types_is_refused_with_what_to_build() {
        let producers = r#"(@producers (language "Rust" "1.60") (sdk "tiny" "0.1"))"#;
        for (export, expected) in [
            ("handle-http-request", "it was built with an SDK of Spin 0 or 1 (built by Rust 1.60"),
            ("other", "it has no component types (built by Rust 1.60, tiny 0.1); build it with"),
        ] {
            let module = format!("(module (func (export \"{export}\")) {producers})");
            let error = to_component(&wat::parse_str(module).unwrap()).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}");
        }
    }

    proptest! {
        /// Whatever is damaged: the result is a component or an error with a reason.
        #[test]
        fn damaged_module_is_an_error_at_most(
            changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
            length in any::<prop::sample::Index>(),
            truncated in any::<bool>(),
        ) {
            let mut wasm = module();
            for (place, byte) in changes {
                let place = place.index(wasm.len());
                wasm[place] = byte;
            }
            if truncated {
                wasm.truncate(length.index(wasm.len()));
            }
            match to_component(&wasm) {
                Ok(component) => prop_assert_eq!(
                    super::super::encoding(&component),
                    Some(Encoding::Component)
                ),
                Err(error) => prop_assert!(!error.to_string().is_empty()),
            }
        }
    }
}
