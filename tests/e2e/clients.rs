//! Clients from PyPI, unmodified: one script of `tests/python` each, against the real binary. A failure
//! shows the output of the script.

use std::process::Command;

use spinfer_tests::{Launch, Manifest, Spinfer, root};

use super::protocol::iris;

fn passes(script: &str, spinfer: &Spinfer) {
    let python = root().join("target/python/bin/python");
    assert!(
        python.exists(),
        "the clients are not installed at {}: run `make clients`, which needs the network once",
        python.display()
    );
    let output = Command::new(python)
        .arg(root().join("tests/python").join(script))
        .arg(spinfer.address().to_string())
        .output()
        .expect("python starts");
    assert!(
        output.status.success(),
        "{script}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn triton_client_works_unmodified() {
    passes("triton_client.py", &iris());
}

#[test]
fn triton_client_sends_and_receives_strings() {
    let manifest = Manifest::default();
    let manifest = manifest.with_model("language-identifier", "language", 1, "/...", "");
    passes("triton_text_client.py", &Launch::new(&manifest).up());
}

#[test]
fn kserve_client_works_unmodified() {
    passes("kserve_client.py", &iris());
}

#[test]
fn mlflow_client_works_unmodified() {
    passes("mlflow_client.py", &iris());
}
