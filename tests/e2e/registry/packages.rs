use std::fs;

use spinfer_tests::{Launch, OciRegistry};

use super::faulty::{FakeServer, Reply};
use super::{UserFolder, digest, guest};

/// Writes the manifest of an application whose only component has this `source`.
fn write_manifest(home: &UserFolder, source: &str) -> String {
    let text = format!(
        "spin_manifest_version = 2\n[application]\nname = \"test\"\n[[trigger.http]]\n\
         route = \"/...\"\ncomponent = \"hello\"\n[component.hello]\nsource = {source}\n"
    );
    fs::write(home.path("spin.toml"), text).unwrap();
    home.text("spin.toml")
}

/// `spinfer check` with a state directory.
fn check(home: &UserFolder, state: &str, more: &[&str]) -> (bool, String) {
    let (manifest, state) = (home.text("spin.toml"), home.text(state));
    home.run(&[&["check", "-f", &manifest, "--state-dir", &state], more].concat())
}

fn package(registry: &OciRegistry) -> String {
    let address = registry.address();
    format!("{{ registry = \"{address}\", package = \"acme:hello\", version = \"1.0.0\" }}")
}

#[test]
fn package_source_is_pinned_and_cached() {
    let (registry, home) = (OciRegistry::start(), UserFolder::new());
    let reference = format!("{}/acme/hello:1.0.0", registry.address());
    let pushed = home.done(&["registry", "push", &reference, &guest("hello_p2")]);
    let manifest = write_manifest(&home, &package(&registry));

    let (checked, text) = check(&home, "state", &["--locked"]);
    assert!(!checked && text.contains("--locked allows no new pin"), "{text}");
    let (checked, text) = check(&home, "state", &[]);
    assert!(checked && text.contains(&format!("Fetching {reference}")), "{text}");
    let lock = fs::read_to_string(home.path("spinfer.lock")).unwrap();
    assert!(lock.contains(&digest(&pushed)) && lock.contains("acme:hello@1.0.0"), "{lock}");

    // Without the registry, a component that is pinned and cached is served.
    drop(registry);
    let (checked, text) = check(&home, "state", &["--locked"]);
    assert!(checked && !text.contains("Fetching"), "{text}");
    let state = home.text("state");
    let (checked, text) = check(&home, "other-state", &[]);
    assert!(!checked && text.contains("cannot be reached"), "{text}");
    let spinfer = Launch::from_file(manifest).state_dir(state).keep(home.0).up();
    assert_eq!(spinfer.get("/").status, 200);
}

#[test]
fn republished_version_is_refused_until_registry_update() {
    let (registry, home) = (OciRegistry::start(), UserFolder::new());
    let reference = format!("{}/acme/hello:1.0.0", registry.address());
    let first = home.done(&["registry", "push", &reference, &guest("hello_p2")]);
    let manifest = write_manifest(&home, &package(&registry));
    let (checked, text) = check(&home, "state", &[]);
    assert!(checked, "{text}");
    let second = home.done(&["registry", "push", &reference, &guest("probe"), "--force"]);
    let lock = fs::read_to_string(home.path("spinfer.lock")).unwrap();

    // The cached component is used; without a cache the difference is noticed.
    let (checked, text) = check(&home, "state", &[]);
    assert!(checked, "{text}");
    let (checked, text) = check(&home, "elsewhere", &[]);
    assert!(!checked, "{text}");
    for part in [&digest(&first), &digest(&second), "component.hello.source", "registry update"] {
        assert!(text.contains(part), "{part:?} is not in {text}");
    }
    assert_eq!(fs::read_to_string(home.path("spinfer.lock")).unwrap(), lock);

    let state = home.text("elsewhere");
    let update = ["registry", "update", "-f", &manifest, "--state-dir", &state];
    let updated = home.done(&update);
    assert!(updated.contains(&format!("{} -> {}", digest(&first), digest(&second))), "{updated}");
    assert!(home.done(&update).contains("unchanged"));
    let (checked, text) = check(&home, "elsewhere", &["--locked"]);
    assert!(checked, "{text}");
}

#[test]
fn damaged_cached_component_is_fetched_again() {
    let (registry, home) = (OciRegistry::start(), UserFolder::new());
    let reference = format!("{}/acme/hello:1.0.0", registry.address());
    let _ = home.done(&["registry", "push", &reference, &guest("hello_p2")]);
    let _ = write_manifest(&home, &package(&registry));
    let (checked, text) = check(&home, "state", &[]);
    assert!(checked, "{text}");
    let cached = fs::read_dir(home.path("state/fetched")).unwrap().next().unwrap().unwrap().path();
    fs::write(&cached, "damaged").unwrap();
    let (checked, text) = check(&home, "state", &[]);
    assert!(checked && text.contains("cached component not used"), "{text}");
    assert_eq!(fs::read(&cached).unwrap(), fs::read(guest("hello_p2")).unwrap());
}

#[test]
fn url_source_must_match_its_digest() {
    let home = UserFolder::new();
    let hello = fs::read(guest("hello_p2")).unwrap();
    let expected = sha256(&guest("hello_p2"));
    let server = FakeServer::start(move |request| match request.path.as_str() {
        "/hello.wasm" => Reply::ok("application/wasm", &hello),
        "/moved.wasm" => Reply::redirect("/hello.wasm"),
        "/page.wasm" => Reply::ok("text/html", b"<html>not here</html>"),
        _ => Reply::status(404, b""),
    });
    let address = server.address();
    let source = |path: &str, digest: &str| {
        format!("{{ url = \"http://{address}/{path}\", digest = \"{digest}\" }}")
    };
    let page = format!("sha256:{}", "0".repeat(64));
    for (path, digest, part) in [
        ("hello.wasm", page.as_str(), "should have the digest sha256:000"),
        ("nowhere.wasm", &expected, "404 Not Found"),
        ("page.wasm", &expected, &expected),
    ] {
        let _ = write_manifest(&home, &source(path, digest));
        let (checked, text) = check(&home, "state", &[]);
        assert!(!checked && text.contains(part) && text.contains(path), "{text}");
        assert_eq!(fs::read_dir(home.path("state/fetched")).unwrap().count(), 0);
    }
    let _ = write_manifest(&home, &source("moved.wasm", &expected));
    let (checked, text) = check(&home, "state", &[]);
    assert!(checked, "{text}");
    assert!(!home.path("spinfer.lock").exists(), "the manifest pins it");
    drop(server);
    let (checked, text) = check(&home, "state", &[]);
    assert!(checked, "cached: {text}");
}

/// By `sha256sum`.
fn sha256(path: &str) -> String {
    let output = std::process::Command::new("sha256sum").arg(path).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    format!("sha256:{}", text.split_whitespace().next().unwrap())
}

#[test]
fn plain_http_beyond_loopback_requires_insecure_http() {
    let home = UserFolder::new();
    let package =
        "{ registry = \"192.0.2.1:5000\", package = \"acme:hello\", version = \"1.0.0\" }";
    let digest = format!("sha256:{}", "0".repeat(64));
    let url = format!("{{ url = \"http://192.0.2.1/a.wasm\", digest = \"{digest}\" }}");
    let _ = write_manifest(&home, &url);
    let (checked, text) = check(&home, "state", &[]);
    assert!(!checked && text.contains("allow it with --insecure-http 192.0.2.1"), "{text}");
    let _ = write_manifest(&home, package);
    let (checked, text) = check(&home, "state", &["--locked"]);
    assert!(!checked && text.contains("is not in"), "{text}");
}
