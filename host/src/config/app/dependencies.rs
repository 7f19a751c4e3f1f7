//! `[component.<id>.dependencies]`: which components another is to be composed with.

use std::path::Path;

use super::{Problems, listed};
use crate::config::manifest::{Component, Dependency, Inherit, Manifest, TextOr, names};

/// The package this host supplies itself, whoever else could.
const OURS: &str = "wasi:nn";

/// The keys of a component whose grants a dependency may have too.
const INHERITED: [&str; 7] = [
    "ai_models",
    "allowed_outbound_hosts",
    "environment",
    "files",
    "key_value_stores",
    "sqlite_databases",
    "variables",
];

/// Checks the dependencies of a component, whose key is `key`. None is composed yet: what the host
/// supplies itself needs none, and another is an error.
pub(super) fn check(
    key: &str,
    component: &Component,
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
            TextOr::Table(dependency) => {
                place(dependency, manifest, base).and_then(|()| inherited(dependency))
            }
        };
        if let Err(problem) = checked {
            problems.add(key, problem);
        } else if package == Some(OURS) {
            tracing::debug!("{key}: this host has {OURS} itself");
        } else {
            problems.add(
                key,
                "components are not composed with others yet; compose it beforehand, for example \
                 with `wac plug`, and give the result as `source`",
            );
        }
    }
}

/// The package of a dependency's name: `a:b`, `a:b@1.0.0`, `a:b/c@1.0.0`; a plain name has none.
fn package(name: &str) -> Result<Option<&str>, String> {
    let (path, version) = match name.split_once('@') {
        Some((path, version)) => (path, Some(version)),
        None => (name, None),
    };
    let form = || {
        format!(
            "\"{name}\" is not the name of an import; write \"a:b/c@1.0.0\", \"a:b\" or \"name\""
        )
    };
    if version.is_some_and(|version| semver::Version::parse(version).is_err()) {
        return Err(form());
    }
    if !path.contains([':', '/']) {
        let plain = names::check_component_id(path).is_ok() && version.is_none();
        return if plain { Ok(None) } else { Err(form()) };
    }
    let (package, interface) = match path.split_once('/') {
        Some((package, interface)) => (package, Some(interface)),
        None => (path, None),
    };
    let words = package.split(':').chain(interface);
    if package.split(':').count() != 2
        || words.into_iter().any(|w| names::check_component_id(w).is_err())
    {
        return Err(form());
    }
    Ok(Some(package))
}

/// Where a dependency is said to be.
fn place(dependency: &Dependency, manifest: &Manifest, base: &Path) -> Result<(), String> {
    let Dependency { version, registry, package, path, url, digest, component, .. } = dependency;
    match (version, path, url, component) {
        (Some(version), None, None, None) if digest.is_none() => requirement(version),
        (None, Some(path), None, None) => match base.join(path) {
            path if path.is_file() => Ok(()),
            path => Err(format!("path: no file {}", path.display())),
        },
        (None, None, Some(url), None) => check_url(url, digest.as_deref()),
        (None, None, None, Some(id)) if manifest.component.contains_key(id) => Ok(()),
        (None, None, None, Some(id)) => Err(format!(
            "component: there is no [component.{id}]; the manifest has {}",
            listed(manifest.component.keys())
        )),
        _ => Err(format!(
            "give either `path`, `component`, `url` with `digest`, or `version`{}",
            if registry.is_some() || package.is_some() {
                " with `registry` and `package`"
            } else {
                ""
            }
        )),
    }
}

/// Checks what a dependency is to have of the grants of the component it is of.
fn inherited(dependency: &Dependency) -> Result<(), String> {
    let Some(Inherit::Some(keys)) = &dependency.inherit_configuration else { return Ok(()) };
    match keys.iter().find(|key| !INHERITED.contains(&key.as_str())) {
        None => Ok(()),
        Some(key) => Err(format!(
            "inherit_configuration: nothing is inherited by \"{key}\"; there are {}",
            INHERITED.join(", ")
        )),
    }
}

fn requirement(version: &str) -> Result<(), String> {
    semver::VersionReq::parse(version).map(drop).map_err(|e| {
        format!("\"{version}\" is not a requirement of a version: {e}; write \">=1.0.0\"")
    })
}

fn check_url(url: &str, digest: Option<&str>) -> Result<(), String> {
    let uri = url.parse::<http::Uri>().ok();
    if !uri.is_some_and(|uri| uri.host().is_some() && uri.scheme().is_some()) {
        return Err(format!("url: \"{url}\" is not a URL"));
    }
    let hex = digest.and_then(|digest| digest.strip_prefix("sha256:")).unwrap_or_default();
    if hex.len() != 64 || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err("digest: write \"sha256:\" and 64 hexadecimal digits".into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_imports_are_spins() {
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
            assert!(package(name).unwrap_err().contains("is not the name of an import"), "{name}");
        }
    }
}
