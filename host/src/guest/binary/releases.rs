//! Interfaces of WASI by the names of a release candidate whose types are those of the release: SDKs
//! of early 2026 import them.

use std::borrow::Cow;
use std::collections::HashSet;

use anyhow::{Context, Result};
use wasm_encoder::reencode::{ReencodeComponent, RoundtripReencoder};
use wasm_encoder::{
    Component, ComponentExportSection, ComponentExternName, ComponentImportSection, RawSection,
};
use wasmparser::{Parser, Payload};

/// A version of WASI that is served as another.
struct Candidate {
    /// Start and end of the names of its interfaces.
    package: &'static str,
    version: &'static str,
    /// The version of the same types.
    same: &'static str,
    /// The same for a component that imports both: names are unique, and every patch version of a
    /// track is the same interface to the linker.
    same_again: &'static str,
    /// Whether its imports are served so too, and not only the handler's export.
    imports: bool,
}

const CANDIDATES: [Candidate; 3] = [
    Candidate {
        package: "wasi:",
        version: "@0.3.0-rc-2026-03-15",
        same: "@0.3.0",
        same_again: "@0.3.1000000",
        imports: true,
    },
    // The host has these imports by their own names: `capabilities/wasi_http_2023`.
    Candidate {
        package: "wasi:http/incoming-handler",
        version: "@0.2.0-rc-2023-10-18",
        same: "@0.2.0",
        same_again: "@0.2.1000000",
        imports: false,
    },
    Candidate {
        package: "wasi:config/store",
        version: "@0.2.0-rc.1",
        same: "@0.2.0-draft-2024-09-27",
        // Not linked: nothing imports both.
        same_again: "@0.2.0-rc.1",
        imports: true,
    },
];

/// The component in `wasm` with the imports and exports of these release candidates named as those of
/// the release; `None` if it has none. Components nested in it are unchanged: their names are their own.
///
/// # Errors
/// The file is damaged.
pub(super) fn rename(wasm: &[u8]) -> Result<Option<Vec<u8>>> {
    let names = Names::of(wasm)?;
    if !names.imports.iter().any(|name| candidate(name, true).is_some())
        && !names.exports.iter().any(|name| candidate(name, false).is_some())
    {
        return Ok(None);
    }
    let mut renamed = Component::new();
    // Nesting depth in modules and components: those inside of this one are copied as a whole.
    let mut depth = 0_usize;
    for payload in Parser::new(0).parse_all(wasm) {
        let payload = payload?;
        match &payload {
            Payload::Version { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentImportSection(section) if depth == 1 => {
                let mut imports = ComponentImportSection::new();
                for import in section.clone() {
                    let import = import?;
                    let name = renamed_name(import.name.into(), true, &names.imports);
                    imports.import(name, RoundtripReencoder.component_type_ref(import.ty)?);
                }
                renamed.section(&imports);
            }
            Payload::ComponentExportSection(section) if depth == 1 => {
                let mut exports = ComponentExportSection::new();
                for export in section.clone() {
                    let export = export?;
                    let name = renamed_name(export.name.into(), false, &names.exports);
                    let ty = export.ty.map(|ty| RoundtripReencoder.component_type_ref(ty));
                    exports.export(name, export.kind.into(), export.index, ty.transpose()?);
                }
                renamed.section(&exports);
            }
            _ if depth == 1 => {
                if let Some((id, range)) = payload.as_section() {
                    let data = wasm.get(range).context("it is truncated within a section")?;
                    renamed.section(&RawSection { id, data });
                }
            }
            // Part of a module or component that has been copied.
            _ => {}
        }
    }
    Ok(Some(renamed.finish()))
}

/// The names of a component's own imports and exports.
#[derive(Debug, Default, PartialEq, Eq)]
struct Names {
    imports: HashSet<String>,
    exports: HashSet<String>,
}

impl Names {
    fn of(wasm: &[u8]) -> Result<Self> {
        let mut names = Self::default();
        let mut depth = 0_usize;
        for payload in Parser::new(0).parse_all(wasm) {
            match payload? {
                Payload::Version { .. } => depth += 1,
                Payload::End(_) => depth = depth.saturating_sub(1),
                Payload::ComponentImportSection(section) if depth == 1 => {
                    for import in section {
                        names.imports.insert(import?.name.name.to_owned());
                    }
                }
                Payload::ComponentExportSection(section) if depth == 1 => {
                    for export in section {
                        names.exports.insert(export?.name.name.to_owned());
                    }
                }
                _ => {}
            }
        }
        Ok(names)
    }
}

fn renamed_name<'a>(
    name: ComponentExternName<'a>,
    is_import: bool,
    all: &HashSet<String>,
) -> ComponentExternName<'a> {
    let Some((interface, candidate)) = candidate(&name.name, is_import) else { return name };
    let same = format!("{interface}{}", candidate.same);
    let renamed =
        if all.contains(&same) { format!("{interface}{}", candidate.same_again) } else { same };
    ComponentExternName { name: Cow::Owned(renamed), ..name }
}

/// The interface without its version, if `name` is of a release candidate that is served as another.
fn candidate(name: &str, is_import: bool) -> Option<(&str, &'static Candidate)> {
    CANDIDATES.iter().filter(|candidate| candidate.imports || !is_import).find_map(|candidate| {
        let interface = name.strip_suffix(candidate.version)?;
        interface.starts_with(candidate.package).then_some((interface, candidate))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The names of the imports and exports of the component after renaming, which must be valid.
    fn renamed(items: &str) -> Option<(Vec<String>, Vec<String>)> {
        let wasm = wat::parse_str(format!("(component {items})")).unwrap();
        let renamed = rename(&wasm).unwrap()?;
        let mut validator =
            wasmparser::Validator::new_with_features(wasmparser::WasmFeatures::all());
        validator.validate_all(&renamed).unwrap();
        assert_eq!(rename(&renamed).unwrap(), None, "once is enough");
        let names = Names::of(&renamed).unwrap();
        let sorted = |names: HashSet<String>| {
            let mut names: Vec<_> = names.into_iter().collect();
            names.sort_unstable();
            names
        };
        Some((sorted(names.imports), sorted(names.exports)))
    }

    #[test]
    fn candidate_has_the_name_of_the_release() {
        let items = "
            (import \"wasi:cli/environment@0.3.0-rc-2026-03-15\" (instance $a (export \"f\" (func))))
            (import \"wasi:cli/exit@0.3.0-rc-2026-03-15\" (instance $b (export \"f\" (func))))
            (import \"wasi:cli/exit@0.3.0\" (instance $c (export \"f\" (func))))
            (import \"wasi:cli/exit@0.3.0-rc-2026-01-06\" (instance $d))
            (import \"own:cli/exit@0.3.0-rc-2026-03-15\" (instance $e))
            (component $inner (import \"wasi:cli/exit@0.3.0-rc-2026-03-15\" (instance)))
            (instance (instantiate $inner (with \"wasi:cli/exit@0.3.0-rc-2026-03-15\" (instance $b))))
            (export \"wasi:http/handler@0.3.0-rc-2026-03-15\" (instance $a))";
        let (imports, exports) = renamed(items).unwrap();
        assert_eq!(
            imports,
            [
                "own:cli/exit@0.3.0-rc-2026-03-15",
                "wasi:cli/environment@0.3.0",
                "wasi:cli/exit@0.3.0",
                "wasi:cli/exit@0.3.0-rc-2026-01-06",
                "wasi:cli/exit@0.3.1000000",
            ]
        );
        assert_eq!(exports, ["wasi:http/handler@0.3.0"]);
    }

    #[test]
    fn only_the_handler_of_the_first_candidate_is_renamed() {
        let version = "0.2.0-rc-2023-10-18";
        let items = format!(
            "(import \"wasi:http/types@{version}\" (instance $a (export \"f\" (func))))
             (export \"wasi:http/incoming-handler@{version}\" (instance $a))"
        );
        let (imports, exports) = renamed(&items).unwrap();
        assert_eq!(imports, [format!("wasi:http/types@{version}")]);
        assert_eq!(exports, ["wasi:http/incoming-handler@0.2.0"]);
    }

    #[test]
    fn configuration_has_the_name_of_its_draft() {
        let (imports, _) = renamed("(import \"wasi:config/store@0.2.0-rc.1\" (instance))").unwrap();
        assert_eq!(imports, ["wasi:config/store@0.2.0-draft-2024-09-27"]);
    }

    #[test]
    fn component_of_releases_is_unchanged() {
        assert_eq!(renamed("(import \"wasi:cli/exit@0.3.0\" (instance))"), None);
    }
}
