//! Valid manifests with what they resolve to, and invalid ones with their errors. The expected text is in
//! a file next to each. `UPDATE_GOLDEN=1` rewrites it, for review.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use spinfer::config::app::{App, ComponentSpec, Options};
use spinfer::config::manifest;
use spinfer::server::connections::ConnectionLimits;
use spinfer::storage::key_value::StoreConfig;
use spinfer_tests::root;

fn manifests(folder: &str) -> Vec<PathBuf> {
    let files = root().join("tests/manifests").join(folder).read_dir().unwrap();
    let mut paths: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    paths.sort();
    assert!(!paths.is_empty());
    paths
}

fn resolve(path: &Path) -> Result<App, String> {
    let base = path.parent().unwrap();
    // As if a runtime config bound this label, and no other.
    let bound = ("my_store".to_owned(), StoreConfig::default());
    let options = Options { key_value: [bound].into(), ..Options::default() };
    let app =
        manifest::read(path).and_then(|manifest| App::resolve_with(&manifest, base, &options));
    app.map_err(|error| format!("{error:#}\n").replace(&format!("{}/", base.display()), ""))
}

/// How `output` differs from the text in the file next to `path`.
fn compare(path: &Path, extension: &str, output: &str) -> Option<String> {
    let golden = path.with_extension(extension);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&golden, output).unwrap();
    }
    let expected = std::fs::read_to_string(&golden).unwrap_or_default();
    (output != expected)
        .then(|| format!("{}\n--- expected\n{expected}--- actual\n{output}", path.display()))
}

#[test]
fn invalid_manifest_is_refused_with_every_problem() {
    let differ: Vec<_> = manifests("invalid")
        .iter()
        .filter_map(|path| match resolve(path) {
            Ok(_) => Some(format!("{} was accepted", path.display())),
            Err(output) => compare(path, "err", &output),
        })
        .collect();
    assert!(differ.is_empty(), "{}", differ.join("\n"));
}

#[test]
fn valid_manifest_resolves_to_its_golden_summary() {
    for path in manifests("valid") {
        let app = resolve(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let differs = compare(&path, "app", &summary(&app, path.parent().unwrap()));
        assert!(differs.is_none(), "{}", differs.unwrap());
    }
}

fn summary(app: &App, base: &Path) -> String {
    let App { name, version, instances, connections, .. } = app;
    let ConnectionLimits { max: most, keep_alive } = connections;
    let mut out = format!(
        "{name} {version:?} instances={instances} connections={most} keep_alive={keep_alive:?}\n"
    );
    for route in &app.routes {
        let _ = writeln!(out, "{} -> {}", route.pattern, route.target);
    }
    for (id, spec) in &app.components {
        let ComponentSpec { environment, variables, limits, reuse, door, .. } = spec;
        let _ = writeln!(out, "component {id}");
        let _ = writeln!(out, "  environment {environment:?}");
        for (name, value) in variables.iter() {
            let _ = writeln!(out, "  variable {name}={value}");
        }
        let _ = writeln!(out, "  stores {:?} {:?}", spec.key_value_stores, spec.sqlite_databases);
        let _ = writeln!(out, "  models {:?}", spec.ai_models);
        for (scheme, host, port) in [
            ("https", "example.com", None),
            ("http", "example.com", None),
            ("http", "www.example.com", Some(8999)),
            ("redis", "10.1.2.3", None),
        ] {
            let allowed = spec.outbound_hosts.allows(scheme, host, port);
            let _ = writeln!(out, "  {scheme}://{host} {port:?}: {allowed}");
        }
        let _ = writeln!(out, "  itself: {}", spec.outbound_hosts.allows_self());
        let files = format!("{:?}", spec.files).replace(&format!("{}/", base.display()), "");
        let _ = writeln!(out, "  {files}");
        let _ = writeln!(
            out,
            "  door {door:?} deadline {:?} instances {} requests {}",
            limits.deadline,
            limits.instances,
            reuse.requests.map_or_else(|| "by interface".into(), |requests| requests.to_string())
        );
    }
    out
}
