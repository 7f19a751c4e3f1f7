use std::fs;
use std::os::unix::fs::PermissionsExt;

use spinfer_tests::{Launch, OciRegistry, root};

use super::{UserFolder, digest, guest};

#[test]
fn pushed_component_is_pulled_unchanged() {
    let (registry, home) = (OciRegistry::start(), UserFolder::new());
    let reference = format!("{}/guests/hello:1.0.0", registry.address());
    let (hello, probe) = (guest("hello_p2"), guest("probe"));
    let pushed = home.done(&["registry", "push", &reference, &hello]);
    assert!(pushed.contains("Pushed the component to"), "{pushed}");

    // The same component is the same artifact; another one does not replace it without --force.
    let again = home.done(&["registry", "push", &reference, &hello]);
    assert!(again.contains("Nothing to push"), "{again}");
    assert_eq!(digest(&again), digest(&pushed));
    let refused = home.refused(&["registry", "push", &reference, &probe]);
    assert!(refused.contains(&digest(&pushed)) && refused.contains("--force"), "{refused}");
    let forced = home.done(&["registry", "push", &reference, &probe, "--force"]);

    let (pulled, text) = home.pull(&reference, &[]);
    assert!(pulled, "{text}");
    let written = home.path("components/hello.wasm");
    assert_eq!(fs::read(&written).unwrap(), fs::read(&probe).unwrap());
    assert_eq!(written.metadata().unwrap().permissions().mode() & 0o777, 0o644);
    let (pulled, text) = home.pull(&reference, &[]);
    assert!(pulled && text.contains("Nothing to pull"), "{text}");

    let (pulled, text) = home.pull(&reference, &["--route", "/hello/...", "--promote"]);
    let part = format!("--route, --promote: {reference} is a component, not a model");
    assert!(!pulled && text.contains(&part), "{text}");

    // The replaced artifact is still available by its digest.
    let (name, _) = reference.rsplit_once(':').unwrap();
    let first = format!("{name}@{}", digest(&pushed));
    let (pulled, text) = home.pull(&first, &[]);
    assert!(!pulled && text.contains("already exists and differs"), "{text}");
    let other = home.text("other.wasm");
    let (pulled, text) = home.pull(&first, &["--output", &other]);
    assert!(pulled, "{text}");
    assert_eq!(fs::read(&other).unwrap(), fs::read(&hello).unwrap());
    assert_ne!(digest(&forced), digest(&pushed));
    assert_eq!(home.files(), ["components", "components/hello.wasm", "other.wasm"]);
}

#[test]
fn pulled_model_is_served() {
    let (registry, home) = (OciRegistry::start(), UserFolder::new());
    let from = root().join("spin.toml").display().to_string();
    // The default tag is the version.
    let name = format!("{}/models/iris", registry.address());
    let model = ["--model", "iris-classifier/1", "-f", &from];
    let pushed = home.done(&[&["registry", "push", &name], &model[..]].concat());
    assert!(pushed.contains("Pushed iris-classifier, version 1, to"), "{pushed}");
    assert!(pushed.contains("pushed model.onnx, "), "{pushed}");

    let reference = format!("{name}:1");
    let (pulled, text) = home.pull(&reference, &["--route", "/iris/..."]);
    assert!(pulled, "{text}");
    for part in [
        "Pulled: iris-classifier, version 1, into models/iris-classifier/1",
        &digest(&pushed),
        "features FP32 [-1, 4]",
        "/iris/... -> iris-classifier-1",
        "spinfer up -f",
    ] {
        assert!(text.contains(part), "{part:?} is not in {text}");
    }
    for file in ["baseline.json", "golden.json", "model.onnx", "model.toml"] {
        let pulled = fs::read(home.path(&format!("models/iris-classifier/1/{file}"))).unwrap();
        let pushed = fs::read(root().join("models/iris-classifier/1").join(file)).unwrap();
        assert_eq!(pulled, pushed, "{file}");
    }
    let files = home.files();
    assert!(!files.iter().any(|file| file.contains("/.")), "nothing staged is left: {files:?}");

    // A second pull changes nothing.
    let (pulled, text) = home.pull(&reference, &[]);
    assert!(pulled && text.contains("Exists: iris-classifier, version 1"), "{text}");
    assert_eq!(home.files(), files);

    let manifest = home.path("spin.toml");
    let spinfer = Launch::from_file(manifest).keep(home.0).up();
    for path in ["/v2/models/iris-classifier", "/v2/models/iris-classifier/versions/1", "/iris"] {
        let response =
            spinfer.post(&format!("{path}/predict"), r#"{"features": [5.1, 3.5, 1.4, 0.2]}"#);
        assert_eq!(response.json()["prediction"], "setosa", "{path}");
    }
}

#[test]
fn pull_never_overwrites_a_version() {
    let (registry, home) = (OciRegistry::start(), UserFolder::new());
    let reference = format!("{}/models/iris:1", registry.address());
    let folder = root().join("models/iris-classifier/1").display().to_string();
    let _ = home.done(&["registry", "push", &reference, &folder]);
    let (pulled, text) = home.pull(&reference, &["--output", &home.text("iris.onnx")]);
    let part = format!("--output: {reference} is a model; its files go into models/<name>/");
    assert!(!pulled && text.contains(&part), "{text}");
    assert!(home.files().is_empty());
    let (pulled, text) = home.pull(&reference, &["--no-add"]);
    assert!(pulled && text.contains("routes  none"), "{text}");
    assert!(!home.path("spin.toml").exists());

    let golden = home.path("models/iris-classifier/1/golden.json");
    fs::write(&golden, "{}").unwrap();
    let before = home.files();
    let (pulled, text) = home.pull(&reference, &[]);
    assert!(!pulled && text.contains("already exists and differs: golden.json has"), "{text}");
    assert_eq!(home.files(), before);
    assert_eq!(fs::read_to_string(&golden).unwrap(), "{}");
}

#[test]
fn invalid_registry_commands_are_refused_with_the_fix() {
    let (registry, home) = (OciRegistry::start(), UserFolder::new());
    let here = registry.address();
    let folder = root().join("models/iris-classifier").display().to_string();
    let manifest = root().join("spin.toml").display().to_string();
    let hello = guest("hello_p2");
    let text = home.text("text.wasm");
    fs::write(&text, "<html>").unwrap();
    let tagged = format!("{here}/a:1");
    for (arguments, part) in [
        (vec!["push", &tagged], "required"),
        (vec!["push", "a:1", &hello], "name the registry first"),
        (vec!["push", &format!("{here}/a"), &hello], "the tag is missing; write"),
        (vec!["push", &tagged, &text], "\"<html>\"; push a model with --model NAME/VERSION"),
        (vec!["push", &tagged, "nowhere.wasm"], "there is no such file"),
        (vec!["push", &tagged, &folder], "has a model.toml"),
        (vec!["push", &tagged, "--model", "iris"], "write <name>/<version>"),
        (vec!["push", &tagged, "--model", "iris/9", "-f", &manifest], "there is no folder"),
        (vec!["push", &tagged, "--component", "iris", "-f", &manifest], "the manifest has"),
        (vec!["pull", &format!("{here}/a")], "the tag or digest is missing"),
        (vec!["pull", &tagged], "404 Not Found: there is no such repository, tag or digest"),
        (vec!["pull", "example.invalid/a:1"], "example.invalid cannot be reached"),
        (vec!["pull", "localhost:1/a:1"], "localhost:1 cannot be reached"),
    ] {
        let printed = home.refused(&[&["registry"], &arguments[..]].concat());
        assert!(printed.contains(part), "{arguments:?}: {printed}");
    }
    assert_eq!(home.files(), ["text.wasm"]);
}
