//! `spinfer build --optimize`: components get smaller and keep their behaviour.

use std::fs;

use serde_json::{Value, json};
use spinfer_tests::{GUESTS, Launch, Manifest, STANDARD_DOOR, Spinfer, root, run, run_in};

/// Maximum size of an optimized component, in bytes: each node downloads and compiles it.
const MAX_BYTES: usize = 450_000;
/// That of the digits classifier: the crate `png` takes 80 kB more than a decoder for what the example needs.
const MAX_BYTES_WITH_PNG: usize = 540_000;

const FEATURES: &str = r#"{"features": [5.1, 3.5, 1.4, 0.2]}"#;

/// A folder with copies of these components, and a `spin.toml` for them.
fn application(guests: &[&str], more: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mut manifest = "spin_manifest_version = 2\n[application]\nname = \"a\"\n".to_owned();
    for guest in guests {
        let file = format!("{guest}.wasm");
        fs::copy(format!("{GUESTS}/{file}"), dir.path().join(&file)).unwrap();
        let id = guest.replace('_', "-");
        manifest += &format!(
            "[[trigger.http]]\nroute = \"/{id}/...\"\ncomponent = \"{id}\"\n\
             [component.{id}]\nsource = \"{file}\"\n{more}"
        );
    }
    fs::write(dir.path().join("spin.toml"), manifest).unwrap();
    dir
}

fn length(dir: &tempfile::TempDir, guest: &str) -> usize {
    fs::read(dir.path().join(format!("{guest}.wasm"))).unwrap().len()
}

fn prediction(spinfer: &Spinfer) -> Value {
    let response = spinfer.post("/iris-classifier/predict", FEATURES);
    assert_eq!(response.status, 200, "{}", response.text());
    response.json()
}

#[test]
fn optimized_components_are_smaller_and_predict_the_same() {
    let guests = [
        "iris_classifier",
        "diabetes_regressor",
        "generic_model",
        "language_identifier",
        "digits_classifier",
    ];
    let dir = application(&guests, "");
    let from = dir.path().to_str().unwrap();
    let before = guests.map(|guest| length(&dir, guest));
    let (status, output) = run(&["build", "--optimize", "--from", from]);
    assert!(status.success(), "{output}");
    for (guest, before) in guests.iter().zip(before) {
        let after = length(&dir, guest);
        let max = if *guest == "digits_classifier" { MAX_BYTES_WITH_PNG } else { MAX_BYTES };
        assert!(after < before && after <= max, "{guest}: {before} -> {after}");
        assert!(output.contains(&format!("{guest}.wasm: {before} -> {after} bytes")), "{output}");
    }
    let optimized = dir.path().join("iris_classifier.wasm");
    let mount = root().join("models/iris-classifier/1");
    for door in ["", STANDARD_DOOR] {
        let manifest = |source: &str| {
            Manifest::default().and(&format!(
                "[[trigger.http]]\nroute = \"/iris-classifier/...\"\ncomponent = \"iris\"\n\
                 [component.iris]\nsource = {source:?}\n\
                 files = [{{ source = {mount:?}, destination = \"/models/iris-classifier\" }}]\n{door}"
            ))
        };
        let plain = Launch::new(&manifest(&format!("{GUESTS}/iris_classifier.wasm"))).up();
        let smaller = Launch::new(&manifest(optimized.to_str().unwrap())).up();
        assert_eq!(prediction(&smaller), prediction(&plain));
        assert_eq!(prediction(&smaller)["prediction"], json!("setosa"));
    }
    // Components that are optimized already are not an error.
    let once = guests.map(|guest| length(&dir, guest));
    let (status, output) = run(&["build", "--optimize", "--from", from]);
    assert!(status.success(), "{output}");
    assert!(guests.iter().zip(once).all(|(guest, once)| length(&dir, guest) <= once));
}

#[test]
fn failed_optimization_leaves_the_component_unchanged() {
    let dir = application(&["iris_classifier"], "");
    let path = dir.path().join("iris_classifier.wasm");
    let from = dir.path().to_str().unwrap();
    let before = fs::read(&path).unwrap();
    let (status, output) =
        run_in(&[("PATH", "/nowhere")], &["build", "--optimize", "--from", from]);
    assert!(!status.success() && output.contains("apt-get install binaryen"), "{output}");
    assert_eq!(fs::read(&path).unwrap(), before);
    let damaged = &before[..before.len() / 2];
    fs::write(&path, damaged).unwrap();
    let (status, output) = run(&["build", "--optimize", "--from", from]);
    assert!(!status.success() && output.contains("iris_classifier.wasm"), "{output}");
    assert_eq!(fs::read(&path).unwrap(), damaged);
}
