//! Where the host finds ONNX Runtime's library, and what happens without it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use spinfer_tests::{binary, root};

const FILE: &str =
    if cfg!(target_os = "macos") { "libonnxruntime.dylib" } else { "libonnxruntime.so" };

/// The program in a folder without the library, and an application.
struct InstalledProgram {
    dir: tempfile::TempDir,
}

impl InstalledProgram {
    fn new() -> Self {
        // A hard link requires the file system of the build.
        let location = root().join("target/tmp");
        fs::create_dir_all(&location).unwrap();
        let dir = tempfile::tempdir_in(location).unwrap();
        fs::create_dir_all(dir.path().join("bin")).unwrap();
        fs::create_dir_all(dir.path().join("app")).unwrap();
        fs::hard_link(binary(), dir.path().join("bin/spinfer")).unwrap();
        Self { dir }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    fn command(&self, arguments: &[&str], variable: Option<&Path>) -> Output {
        let mut command = Command::new(self.path("bin/spinfer"));
        command.args(arguments).current_dir(self.path("app")).env_remove("ORT_DYLIB_PATH");
        if let Some(path) = variable {
            command.env("ORT_DYLIB_PATH", path);
        }
        command.output().unwrap()
    }

    /// Adds a model of tests/models with more arguments: whether it succeeds, and the output.
    fn add(&self, model: &str, arguments: &[&str], variable: Option<&Path>) -> (bool, String) {
        let file = root().join("tests/models").join(model);
        let component = root().join("target/components/wasm32-wasip2/component/generic_model.wasm");
        let (file, component) = (file.to_str().unwrap(), component.to_str().unwrap());
        let add = [&["add", file, "--component", component], arguments].concat();
        let Output { status, stdout, stderr } = self.command(&add, variable);
        let printed = [stdout, stderr].concat();
        (status.success(), String::from_utf8(printed).unwrap())
    }
}

fn library() -> PathBuf {
    root().join("target/onnxruntime").join(FILE)
}

#[test]
fn library_is_found_in_each_of_its_locations() {
    let installed = InstalledProgram::new();
    let library = library();
    let by_flag = ["--onnxruntime", library.to_str().unwrap()];
    let (added, printed) = installed.add("identity-u8.onnx", &by_flag, None);
    assert!(added && printed.contains("(onnxruntime)"), "{printed}");
    let folder = ["--onnxruntime", library.parent().unwrap().to_str().unwrap()];
    let (added, printed) = installed.add("identity-u8.onnx", &folder, None);
    assert!(added, "{printed}");
    let (added, printed) = installed.add("identity-u8.onnx", &[], Some(&library));
    assert!(added, "{printed}");
    for location in ["bin", "lib/spinfer"] {
        fs::create_dir_all(installed.path(location)).unwrap();
        let link = installed.path(location).join(FILE);
        symlink(&library, &link).unwrap();
        let (added, printed) = installed.add("identity-u8.onnx", &[], None);
        assert!(added, "{location}: {printed}");
        fs::remove_file(link).unwrap();
    }
}

#[test]
fn without_the_library_unsupported_graphs_are_refused_with_how_to_install_it() {
    let installed = InstalledProgram::new();
    let (added, printed) = installed.add("identity-u8.onnx", &[], None);
    assert!(!added, "{printed}");
    for part in
        ["lean:", "pip download", "--onnxruntime <path>", "ORT_DYLIB_PATH", "make onnxruntime"]
    {
        assert!(printed.contains(part), "{part} in {printed}");
    }
    let lean = root().join("models/iris-classifier/1/model.onnx");
    let (added, printed) = installed.add(lean.to_str().unwrap(), &[], None);
    assert!(added && printed.contains("(lean)"), "{printed}");
}

#[test]
fn missing_or_invalid_library_is_an_error() {
    let installed = InstalledProgram::new();
    let nowhere = installed.path("nowhere.so");
    let named = ["--onnxruntime", nowhere.to_str().unwrap()];
    for (arguments, variable, by) in
        [(&named[..], None, "--onnxruntime"), (&[], Some(nowhere.as_path()), "ORT_DYLIB_PATH")]
    {
        let (added, printed) = installed.add("identity-u8.onnx", arguments, variable);
        let expected =
            format!("{by}: ONNX Runtime's library does not exist: {}", nowhere.display());
        assert!(!added && printed.contains(&expected), "{printed}");
    }
    let other = installed.path("other.so");
    fs::write(&other, "not a library").unwrap();
    let (added, printed) =
        installed.add("identity-u8.onnx", &["--onnxruntime", other.to_str().unwrap()], None);
    assert!(!added && printed.contains("cannot be loaded"), "{printed}");
}

#[test]
fn model_toml_selects_the_backend_and_models_reports_why() {
    let installed = InstalledProgram::new();
    let (added, printed) = installed.add("identity-u8.onnx", &[], Some(&library()));
    assert!(added, "{printed}");
    let iris = root().join("models/iris-classifier/1/model.onnx");
    let (added, printed) = installed.add(iris.to_str().unwrap(), &["--name", "iris"], None);
    assert!(added, "{printed}");
    let models = || {
        let Output { stdout, .. } = installed.command(&["models", "--json"], Some(&library()));
        let rows: serde_json::Value = serde_json::from_slice(&stdout).unwrap();
        let of = |model: &str| {
            let mut rows = rows.as_array().unwrap().iter();
            rows.find(|row| row["model"] == model).cloned().unwrap()
        };
        (of("identity-u8"), of("iris"))
    };
    let (identity, iris) = models();
    assert_eq!(identity["backend"], "onnxruntime");
    assert!(identity["reason"].as_str().unwrap().contains("lean covers"), "{identity}");
    assert_eq!(iris["backend"], "lean");
    let path = installed.path("app/models/iris/1/model.toml");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, format!("backend = 'onnxruntime'\nthreads = 2\n{text}")).unwrap();
    let (_, iris) = models();
    assert_eq!((&iris["backend"], &iris["reason"]), (&"onnxruntime".into(), &"requested".into()));
    let path = installed.path("app/models/identity-u8/1/model.toml");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, format!("backend = 'lean'\n{text}")).unwrap();
    let (identity, _) = models();
    assert_eq!(identity["backend"], serde_json::Value::Null);
    assert!(identity["error"].as_str().unwrap().contains("lean"), "{identity}");
}
