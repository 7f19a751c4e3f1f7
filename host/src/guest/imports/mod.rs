//! Imports of a component that this host does not provide: refused before the component is compiled,
//! or denied when it calls them ([`denied`]).

pub mod denied;
mod world;

use std::collections::HashMap;

use anyhow::{Result, ensure};
use wasmtime::StoreContextMut;
use wasmtime::component::Linker;

use world::World;

/// Number of patch versions tried: a host with one patch version of a minor version serves them all.
const PATCHES: u64 = 100;
/// Numbers of minor and of patch versions tried from major version 1 on, where one serves all of a
/// major version.
const MINORS: u64 = 20;
const PATCHES_EACH: u64 = 5;

/// Interfaces of Spin and of WASI that this host does not provide, or not in every version: the
/// prefix of their names, and the start of the message.
const KNOWN: [(&str, &str); 11] = [
    ("fermyon:spin/key-value", "key-value stores in a version other than 2.0.0 are"),
    ("fermyon:spin/redis", "outbound Redis in a version other than 2.0.0 is"),
    ("fermyon:spin/variables", "variables in a version other than 2.0.0 are"),
    ("spin:key-value/", "key-value stores in a version other than 3.0.0 are"),
    ("spin:redis/", "outbound Redis in a version other than 3.0.0 is"),
    ("spin:variables/", "variables in a version other than 3.0.0 are"),
    ("spinfer:prediction-log/", "the prediction log in a version other than 0.1.0 is"),
    ("wasi:blobstore/", "blob stores are"),
    ("wasi:config/", "variables in a version other than 0.2.0-draft-2024-09-27 are"),
    ("wasi:keyvalue/", "key-value stores in a version other than 0.2.0-draft2 are"),
    ("wasi:messaging/", "messaging is"),
];

/// Checks, without compiling it, that a component imports only what `linker` defines or what is
/// denied. A file that is not a component is left to the compiler, whose
/// message names the place.
///
/// # Errors
/// The component cannot be linked, with a line for each import.
pub fn check<T: 'static>(linker: &Linker<T>, wasm: &[u8]) -> Result<()> {
    let Ok(World { imports }) = World::of(wasm) else { return Ok(()) };
    let mut provided = Provided::by(linker);
    let missing = imports.iter().filter(|name| !denied::is_denied(name) && !provided.has(name));
    let missing: Vec<String> = missing.map(|name| explain(name)).collect();
    ensure!(
        missing.is_empty(),
        "it imports something this host does not provide: {}",
        missing.join("\n")
    );
    Ok(())
}

/// The names that a linker defines, by wasmtime's rules for compatible versions.
struct Provided<T: 'static> {
    probe: Linker<T>,
    /// By the part of the name that compatible versions share.
    known: HashMap<String, bool>,
}

impl<T: 'static> Provided<T> {
    fn by(linker: &Linker<T>) -> Self {
        Self { probe: linker.clone(), known: HashMap::new() }
    }

    fn has(&mut self, name: &str) -> bool {
        let (track, names) = compatible(name);
        let probe = &mut self.probe;
        *self.known.entry(track).or_insert_with(|| {
            names.iter().any(|name| {
                // A name that is defined cannot be defined again.
                let define = |_: StoreContextMut<'_, T>, (): ()| Ok(());
                probe.root().func_wrap(name, define).is_err()
            })
        })
    }
}

/// What the versions that are compatible with `name` have in common, and the names of those that are
/// tried, the most likely first.
fn compatible(name: &str) -> (String, Vec<String>) {
    let version = name.split_once('@').and_then(|(path, version)| {
        let version = semver::Version::parse(version).ok()?;
        (version.pre.is_empty() && (version.major, version.minor) != (0, 0))
            .then_some((path, version))
    });
    let Some((path, version)) = version else { return (name.to_owned(), vec![name.to_owned()]) };
    let (track, versions): (_, Vec<_>) = match (version.major, version.minor) {
        (0, minor) => (format!("0.{minor}"), (0..PATCHES).map(|patch| (minor, patch)).collect()),
        (major, _) => {
            let minors = 0..MINORS;
            let pairs = minors.flat_map(|minor| (0..PATCHES_EACH).map(move |patch| (minor, patch)));
            (major.to_string(), pairs.collect())
        }
    };
    let major = version.major;
    let others = versions.iter().map(|(minor, patch)| format!("{path}@{major}.{minor}.{patch}"));
    // Each name once: a second probe would find the first.
    let others = others.filter(|other| other != name);
    (format!("{path}@{track}"), std::iter::once(name.to_owned()).chain(others).collect())
}

fn explain(name: &str) -> String {
    let known = KNOWN.iter().find(|(start, _)| name.starts_with(start));
    match known {
        Some((_, what)) => format!("{name}: {what} not supported yet"),
        None if name.starts_with("wasi:nn/") => {
            format!("{name}: this host has wasi:nn@0.2.0-rc-2024-10-28; build with that")
        }
        None if name.starts_with("wasi:") => format!("{name}: {}", explain_wasi(name)),
        None => format!(
            "{name}: compose the component with one that exports it, for example with `wac plug`"
        ),
    }
}

/// What to build with instead of an interface of WASI that is missing.
fn explain_wasi(name: &str) -> &'static str {
    let (_, version) = name.split_once('@').unwrap_or_default();
    if version.starts_with("0.3.0-") {
        "of the release candidates of WASI 0.3, this host has 0.3.0-rc-2026-03-15; build with spin-sdk 6 \
         or later (Rust), 4 or later (Python), or another toolchain for WASI 0.3.0"
    } else if version.starts_with("0.2.0-") {
        "of the release candidates of WASI 0.2, this host has wasi:http and wasi:io of 2023-10-18; build \
         with spin-sdk 3 or later, or another toolchain for WASI 0.2"
    } else if version.starts_with("0.2.") || version.starts_with("0.3.") {
        "this host does not provide this interface of WASI; build without it"
    } else {
        "this host has WASI 0.2 and 0.3; build with a newer toolchain"
    }
}

#[cfg(test)]
mod tests {
    use wasmtime::Engine;

    use super::*;

    fn linker(interfaces: &[&str]) -> Linker<()> {
        let mut linker = Linker::new(&Engine::default());
        for interface in interfaces {
            linker.instance(interface).unwrap();
        }
        linker
    }

    /// A component with these imports, each an instance with a function.
    fn importing(names: &[&str]) -> Vec<u8> {
        let import = |name: &&str| format!("(import \"{name}\" (instance (export \"f\" (func))))");
        wat::parse_str(format!("(component {})", names.iter().map(import).collect::<String>()))
            .unwrap()
    }

    #[test]
    fn missing_imports_are_named_with_what_to_do() {
        let linker = linker(&["wasi:io/streams@0.2.6", "wasi:nn/graph@0.2.0-rc-2024-10-28"]);
        let component = importing(&[
            "wasi:io/streams@0.2.3",
            "wasi:nn/graph@0.2.0-rc-2024-10-28",
            "wasi:nn/graph@0.2.0-rc-2024-08-19",
            "wasi:io/streams@0.3.0",
            "wasi:http/types@0.3.0-rc-2026-01-06",
            "wasi:http/types@0.2.0-rc-2023-11-10",
            "wasi:io/streams",
            "spin:key-value/key-value@4.0.0",
            "spin:sqlite/sqlite@3.0.0",
            "own:thing/it@1.0.0",
        ]);
        let error = check(&linker, &component).unwrap_err().to_string();
        let missing = error.strip_prefix("it imports something this host does not provide: ");
        let missing: Vec<_> = missing.expect(&error).lines().collect();
        let expected = [
            "wasi:nn/graph@0.2.0-rc-2024-08-19: this host has wasi:nn@0.2.0-rc-2024-10-28",
            "wasi:io/streams@0.3.0: this host does not provide this interface of WASI",
            "wasi:http/types@0.3.0-rc-2026-01-06: of the release candidates of WASI 0.3",
            "wasi:http/types@0.2.0-rc-2023-11-10: of the release candidates of WASI 0.2",
            "wasi:io/streams: this host has WASI 0.2 and 0.3",
            "spin:key-value/key-value@4.0.0: key-value stores in a version other than 3.0.0 are not",
            "own:thing/it@1.0.0: compose the component",
        ];
        assert_eq!(missing.len(), expected.len(), "{missing:#?}");
        for (line, start) in missing.iter().zip(expected) {
            assert!(line.starts_with(start), "{line}");
        }
    }

    /// The same rules as wasmtime's, which links the component afterwards.
    #[test]
    fn compatible_versions_are_those_that_wasmtime_links() {
        let defined = ["a:b/c@0.2.6", "a:b/d@3.1.0", "a:b/e@0.3.0-rc-1", "a:b/f", "a:b/g@0.0.1"];
        let linker = linker(&defined);
        for name in [
            "a:b/c@0.2.0",
            "a:b/c@0.2.99",
            "a:b/c@0.3.0",
            "a:b/d@3.0.0",
            "a:b/d@3.2.1",
            "a:b/d@2.0.0",
            "a:b/e@0.3.0-rc-1",
            "a:b/e@0.3.0",
            "a:b/f",
            "a:b/f@1.0.0",
            "a:b/g@0.0.1",
            "a:b/g@0.0.2",
        ] {
            let import =
                format!("(component (import \"{name}\" (instance (export \"i\" (instance)))))");
            let component = wasmtime::component::Component::new(
                linker.engine(),
                wat::parse_str(import).unwrap(),
            )
            .unwrap();
            let mut with_item = linker.clone();
            // Nothing in the instance is needed, so only a name of another kind fails to link.
            for name in defined {
                with_item.allow_shadowing(true);
                with_item
                    .root()
                    .func_wrap(name, |_: StoreContextMut<'_, ()>, (): ()| Ok(()))
                    .unwrap();
            }
            let defined = with_item.instantiate_pre(&component).is_err();
            assert_eq!(Provided::by(&linker).has(name), defined, "{name}");
        }
    }

    #[test]
    fn interface_without_functions_needs_no_definition() {
        let types =
            "(import \"own:thing/types@1.0.0\" (instance (export \"t\" (type (sub resource)))))";
        let linker = linker(&[]);
        let with_resource = wat::parse_str(format!("(component {types})")).unwrap();
        let error = check(&linker, &with_resource).unwrap_err().to_string();
        assert!(error.contains("own:thing/types@1.0.0"), "{error}");
        let types = "(type $r (record (field \"a\" u8))) (export \"t\" (type (eq $r)))";
        let only_types =
            format!("(component (import \"own:thing/types@1.0.0\" (instance {types})))");
        check(&linker, &wat::parse_str(only_types).unwrap()).unwrap();
    }
}
