//! Imports of a component that this host does not provide, and what to do about each.

use wasmtime::StoreContextMut;
use wasmtime::component::{Component, Linker};

/// Number of patch versions tried: a host with one patch version of a minor version serves them all.
const PATCHES: u64 = 100;

/// Interfaces of Spin and of WASI that this host does not provide, or not in every version: the
/// prefix of their names, and the start of the message.
const KNOWN: [(&str, &str); 22] = [
    ("fermyon:spin/config", "variables of Spin 1 (build with a newer SDK) are"),
    ("fermyon:spin/http", "outbound requests of Spin 1 (build with a newer SDK: wasi:http) are"),
    ("fermyon:spin/key-value", "key-value stores of Spin 1 (build with a newer SDK) are"),
    ("fermyon:spin/llm", "large language models are"),
    ("fermyon:spin/mqtt", "MQTT is"),
    ("fermyon:spin/mysql", "MySQL is"),
    ("fermyon:spin/postgres", "PostgreSQL is"),
    ("fermyon:spin/redis", "outbound Redis of Spin 1 (build with a newer SDK) is"),
    ("fermyon:spin/sqlite", "SQLite databases are"),
    ("fermyon:spin/variables", "variables in a version other than 2.0.0 are"),
    ("spin:key-value/", "key-value stores in a version other than 3.0.0 are"),
    ("spin:mqtt/", "MQTT is"),
    ("spin:mysql/", "MySQL is"),
    ("spin:postgres/", "PostgreSQL is"),
    ("spin:redis/", "outbound Redis in a version other than 3.0.0 is"),
    ("spin:sqlite/", "SQLite databases are"),
    ("spin:variables/", "variables in a version other than 3.0.0 are"),
    ("spinfer:prediction-log/", "the prediction log in a version other than 0.1.0 is"),
    ("wasi:blobstore/", "blob stores are"),
    ("wasi:config/", "variables in a version other than 0.2.0-draft-2024-09-27 are"),
    ("wasi:keyvalue/", "key-value stores in a version other than 0.2.0-draft2 are"),
    ("wasi:messaging/", "messaging is"),
];

/// A message for each import of `component` that `linker` does not define.
pub fn missing<T: 'static>(linker: &Linker<T>, component: &Component) -> Vec<String> {
    let mut probe = linker.clone();
    let mut provides = |name: &str| {
        // A name that is defined cannot be defined again.
        let definition = probe.root().func_wrap(name, |_: StoreContextMut<'_, T>, (): ()| Ok(()));
        definition.is_err()
    };
    let types = component.component_type();
    let names = types.imports(linker.engine()).map(|(name, _)| name.to_owned());
    let missing = names.filter(|name| !compatible(name).any(|name| provides(&name)));
    missing.map(|name| explain(&name)).collect()
}

/// `name`, and the same interface with every other patch version.
fn compatible(name: &str) -> impl Iterator<Item = String> {
    let version = name.split_once('@').and_then(|(path, version)| {
        let version = semver::Version::parse(version).ok()?;
        version.pre.is_empty().then_some((path.to_owned(), version))
    });
    let patches = version.into_iter().flat_map(|(path, version)| {
        let (major, minor) = (version.major, version.minor);
        (0..PATCHES).map(move |patch| format!("{path}@{major}.{minor}.{patch}"))
    });
    std::iter::once(name.to_owned()).chain(patches.filter({
        let name = name.to_owned();
        move |other| *other != name
    }))
}

fn explain(name: &str) -> String {
    let known = KNOWN.iter().find(|(start, _)| name.starts_with(start));
    match known {
        Some((_, what)) => format!("{name}: {what} not supported yet"),
        None if name.starts_with("wasi:nn/") => {
            format!("{name}: this host has wasi:nn@0.2.0-rc-2024-10-28; build with that")
        }
        None if name.starts_with("wasi:") => {
            format!("{name}: this host has WASI 0.2 and 0.3; build with a newer toolchain")
        }
        None => format!(
            "{name}: compose the component with one that exports it, for example with `wac plug`"
        ),
    }
}

#[cfg(test)]
mod tests {
    use wasmtime::Engine;

    use super::*;

    #[test]
    fn missing_imports_are_named_with_what_to_do() {
        let mut config = wasmtime::Config::new();
        config.wasm_component_model(true);
        let engine = Engine::new(&config).unwrap();
        let mut linker = Linker::<()>::new(&engine);
        linker.instance("wasi:io/streams@0.2.6").unwrap();
        linker.instance("wasi:nn/graph@0.2.0-rc-2024-10-28").unwrap();
        let interface = |name: &str| format!("(import \"{name}\" (instance))");
        let names = [
            "wasi:io/streams@0.2.3",
            "wasi:nn/graph@0.2.0-rc-2024-10-28",
            "wasi:nn/graph@0.2.0-rc-2024-08-19",
            "wasi:io/streams@0.3.0",
            "spin:key-value/key-value@4.0.0",
            "own:thing/it@1.0.0",
        ];
        let text = format!("(component {})", names.map(interface).concat());
        let component = Component::new(&engine, wat::parse_str(text).unwrap()).unwrap();
        let missing = missing(&linker, &component);
        let expected = [
            "wasi:nn/graph@0.2.0-rc-2024-08-19: this host has wasi:nn@0.2.0-rc-2024-10-28",
            "wasi:io/streams@0.3.0: this host has WASI 0.2 and 0.3",
            "spin:key-value/key-value@4.0.0: key-value stores in a version other than 3.0.0 are not",
            "own:thing/it@1.0.0: compose the component",
        ];
        assert_eq!(missing.len(), expected.len(), "{missing:#?}");
        for (line, start) in missing.iter().zip(expected) {
            assert!(line.starts_with(start), "{line}");
        }
    }
}
