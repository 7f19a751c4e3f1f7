//! Checks `[component.<id>.dependencies]`: the components that another one is composed with.

use std::path::Path;

use super::{Problems, listed};
use crate::config::manifest::{ComponentEntry, Dependency, Inherit, Manifest, TextOr, names};

/// The package that the host itself implements. A dependency for it is ignored.
const HOST_PACKAGE: &str = "wasi:nn";

/// The keys of a component that a dependency may inherit.
const INHERITED: [&str; 7] = [
    "ai_models",
    "allowed_outbound_hosts",
    "environment",
    "files",
    "key_value_stores",
    "sqlite_databases",
    "variables",
];

/// Checks the dependencies of the component under `key`. Composition is not supported yet: a
/// dependency that the host implements is ignored, any other is an error.
pub(super) fn check(
    key: &str,
    component: &ComponentEntry,
    manifest: &Manifest,
    base: &Path,
    problems: &mut Problems,
) {
    for (name, dependency) in &component.dependencies {
        let key = format!("{key}.dependencies.\"{name}\"");
        let package = match package(name) {
            Ok(package) => package,
            Err(problem) => {
                problems.add(key, problem);
                continue;
            }
        };
        let checked = match dependency {
            TextOr::Text(version) => requirement(version),
            TextOr::Table(dependency) => check_location(dependency, manifest, base)
                .and_then(|()| check_inheritance(dependency)),
        };
        if let Err(problem) = checked {
            problems.add(key, problem);
        } else if package == Some(HOST_PACKAGE) {
            tracing::debug!("{key}: ignored, as the host implements {HOST_PACKAGE}");
        } else {
            problems.add(
                key,
                "composition is not supported yet; compose the component beforehand, for example \
                 with `wac plug`, and set `source` to the result",
            );
        }
    }
}

/// The package in a dependency's name: `a:b` of `a:b`, `a:b@1.0.0` and `a:b/c@1.0.0`. `None` for a
/// plain name.
fn package(name: &str) -> Result<Option<&str>, String> {
    let (path, version) = match name.split_once('@') {
        Some((path, version)) => (path, Some(version)),
        None => (name, None),
    };
    let invalid = || {
        format!("\"{name}\" is not a valid import name; write \"a:b/c@1.0.0\", \"a:b\" or \"name\"")
    };
    if version.is_some_and(|version| semver::Version::parse(version).is_err()) {
        return Err(invalid());
    }
    if !path.contains([':', '/']) {
        let plain = names::check_component_id(path).is_ok() && version.is_none();
        return if plain { Ok(None) } else { Err(invalid()) };
    }
    let (package, interface) = match path.split_once('/') {
        Some((package, interface)) => (package, Some(interface)),
        None => (path, None),
    };
    let words = package.split(':').chain(interface);
    if package.split(':').count() != 2
        || words.into_iter().any(|w| names::check_component_id(w).is_err())
    {
        return Err(invalid());
    }
    Ok(Some(package))
}

/// Checks where a dependency comes from.
fn check_location(dependency: &Dependency, manifest: &Manifest, base: &Path) -> Result<(), String> {
    let Dependency { version, registry, package, path, url, digest, component, .. } = dependency;
    match (version, path, url, component) {
        (Some(version), None, None, None) if digest.is_none() => requirement(version),
        (None, Some(path), None, None) => match base.join(path) {
            path if path.is_file() => Ok(()),
            path => Err(format!("path: {} does not exist", path.display())),
        },
        (None, None, Some(url), None) => check_url(url, digest.as_deref()),
        (None, None, None, Some(id)) if manifest.component.contains_key(id) => Ok(()),
        (None, None, None, Some(id)) => Err(format!(
            "component: [component.{id}] does not exist; available components: {}",
            listed(manifest.component.keys())
        )),
        _ => Err(format!(
            "set exactly one of `path`, `component`, `url` with `digest`, or `version`{}",
            if registry.is_some() || package.is_some() {
                " with `registry` and `package`"
            } else {
                ""
            }
        )),
    }
}

/// Checks which grants a dependency inherits from its component.
fn check_inheritance(dependency: &Dependency) -> Result<(), String> {
    let Some(Inherit::Some(keys)) = &dependency.inherit_configuration else { return Ok(()) };
    match keys.iter().find(|key| !INHERITED.contains(&key.as_str())) {
        None => Ok(()),
        Some(key) => Err(format!(
            "inherit_configuration: unknown key \"{key}\"; expected one of {}",
            INHERITED.join(", ")
        )),
    }
}

fn requirement(version: &str) -> Result<(), String> {
    semver::VersionReq::parse(version)
        .map(drop)
        .map_err(|e| format!("\"{version}\" is not a version requirement: {e}; write \">=1.0.0\""))
}

fn check_url(url: &str, digest: Option<&str>) -> Result<(), String> {
    let uri = url.parse::<http::Uri>().ok();
    if !uri.is_some_and(|uri| uri.host().is_some() && uri.scheme().is_some()) {
        return Err(format!("url: \"{url}\" is not a URL; write \"https://example.com/a.wasm\""));
    }
    let hex = digest.and_then(|digest| digest.strip_prefix("sha256:")).unwrap_or_default();
    if hex.len() != 64 || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err("digest: must be \"sha256:\" and 64 hexadecimal digits".into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn import_name_gives_its_package() {
        for (name, expected) in [
            ("a:b", Some("a:b")),
            ("a:b@0.1.0", Some("a:b")),
            ("a:b/c", Some("a:b")),
            ("wasi:nn@0.2.0-rc-2024-10-28", Some("wasi:nn")),
            ("wasi:nn/graph@0.2.0-rc-2024-10-28", Some("wasi:nn")),
            ("plain-name", None),
        ] {
            assert_eq!(package(name), Ok(expected), "{name}");
        }
        for name in ["", "a:", "a:b:c", "a/b", "a:b/", "a:b@one", "a b", "a@1.0.0"] {
            assert!(package(name).unwrap_err().contains("is not a valid import name"), "{name}");
        }
    }
}
