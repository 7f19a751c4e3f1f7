//! The Python package, `clients/python`: its own tests, which start the real binary. A failure shows the
//! output of pytest.

use std::process::Command;

use spinfer_tests::root;

/// Runs pytest on these files of `clients/python/tests`.
fn passes(files: &[&str]) {
    let python = root().join("target/python/bin/python");
    assert!(
        python.exists(),
        "the packages are not installed at {}: run `make clients`, which needs the network once",
        python.display()
    );
    let output = Command::new(python)
        .current_dir(root().join("clients/python"))
        .args(["-m", "pytest", "--quiet", "-rs"])
        .args(files.iter().map(|file| format!("tests/{file}")))
        .env("SPINFER_BIN", spinfer_tests::binary())
        // Tests run concurrently.
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .expect("python starts");
    assert!(
        output.status.success(),
        "{files:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn both_clients_work_against_the_host() {
    passes(&["test_host.py", "test_feedback.py", "test_feedback_file.py", "test_docs.py"]);
}

#[test]
fn client_retries_and_tensor_encoding_work() {
    passes(&["test_retries.py", "test_tensors.py"]);
}

#[test]
fn exported_dataset_is_read() {
    passes(&["test_dataset.py"]);
}

#[test]
fn package_types_examples_and_wheel_are_valid() {
    passes(&["test_package.py"]);
}

#[test]
fn trainer_writes_models_that_the_host_serves() {
    passes(&["test_trainer.py"]);
}

#[test]
fn mlflow_helper_logs_models_of_the_onnx_flavor() {
    passes(&["test_mlflow.py"]);
}
