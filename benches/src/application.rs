//! Applications to measure: any number of iris classifiers, and requests to them.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};
use spinfer_backend_ort::library::FILE;

/// The folder of the repository.
#[must_use]
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("benches/ is in the repository")
}

/// The state directory of all runs, which has compiled components.
///
/// # Errors
/// If it cannot be created.
pub fn state_dir() -> Result<PathBuf> {
    let dir = root().join("target/bench-state");
    std::fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
    Ok(dir)
}

/// The example component's file.
#[must_use]
pub fn iris_component() -> PathBuf {
    root().join("target/components/wasm32-wasip2/component/iris_classifier.wasm")
}

/// The folder of a version of the iris classifier.
#[must_use]
pub fn iris_model(version: &str) -> PathBuf {
    root().join("models/iris-classifier").join(version)
}

/// ONNX Runtime's library as `make onnxruntime` installs it.
#[must_use]
pub fn onnxruntime_library() -> PathBuf {
    root().join("target/onnxruntime").join(FILE)
}

/// The default route of the iris classifier.
pub const IRIS: &str = "/v2/models/iris-classifier";

/// An operation of the iris classifier: the path below its route, and the request body.
#[derive(Clone, Copy, Debug)]
pub struct Operation<'a> {
    pub name: &'a str,
    pub body: &'a str,
}

/// A prediction for one row of features.
pub const PREDICT: Operation<'_> =
    Operation { name: "predict", body: r#"{"features": [5.1, 3.5, 1.4, 0.2]}"# };

/// An inference on one row of features (Open Inference Protocol).
pub const INFER: Operation<'_> = Operation {
    name: "infer",
    body: r#"{"inputs": [{"name": "features", "shape": [1, 4], "datatype": "FP32", "data": [5.1, 3.5, 1.4, 0.2]}]}"#,
};

/// A part of the response to [`PREDICT`].
pub const PREDICTED: &str = r#""prediction":"setosa""#;

/// A body of `infer` with some rows of features.
#[must_use]
pub fn infer_rows(rows: u32) -> String {
    let mut data = String::new();
    for row in 0..rows {
        let _ = write!(data, "5.1, 3.5, 1.{}, 0.{}, ", row % 10, row % 7);
    }
    let data = data.trim_end_matches(", ");
    format!(
        r#"{{"inputs": [{{"name": "features", "shape": [{rows}, 4], "datatype": "FP32", "data": [{data}]}}]}}"#
    )
}

/// Builds a manifest.
#[derive(Clone, Debug)]
pub struct Application(String);

impl Application {
    /// A manifest without components, with `settings` under `[application]`.
    #[must_use]
    pub fn new(settings: &str) -> Self {
        Self(format!("spin_manifest_version = 2\n[application]\nname = 'bench'\n{settings}\n"))
    }

    /// Adds the iris classifier as component `id`, with `settings` under `[component.<id>]`.
    #[must_use]
    pub fn with(
        mut self,
        route: &str,
        id: &str,
        component: &Path,
        model: &Path,
        settings: &str,
    ) -> Self {
        let _ = write!(
            self.0,
            "[[trigger.http]]\nroute = '{route}/...'\ncomponent = '{id}'\n\
             [component.{id}]\nsource = '{}'\n\
             files = [{{ source = '{}', destination = '/models/iris-classifier' }}]\n{settings}\n",
            component.display(),
            model.display(),
        );
        self
    }

    /// Appends text.
    #[must_use]
    pub fn and(mut self, more: &str) -> Self {
        self.0.push_str(more);
        self
    }

    /// Writes the manifest into `dir` as `<name>.toml`.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write(&self, dir: &Path, name: &str) -> Result<PathBuf> {
        let path = dir.join(format!("{name}.toml"));
        std::fs::write(&path, &self.0).with_context(|| path.display().to_string())?;
        Ok(path)
    }
}

/// Copies the model folder `model` into `dir`, with other bytes in its graph, so that it is another
/// graph for the host.
///
/// # Errors
/// If a file cannot be read or written.
pub fn distinct_model(model: &Path, dir: &Path, name: &str) -> Result<PathBuf> {
    let folder = dir.join(name);
    std::fs::create_dir_all(&folder)?;
    let mut graph = std::fs::read(model.join("model.onnx"))?;
    let signature = std::fs::read_to_string(model.join("model.toml"))?;
    let before = hex(&graph);
    // `ModelProto.doc_string`: field 6, a string. The last occurrence counts.
    graph.extend(section(0x32, name.as_bytes())?);
    std::fs::write(folder.join("model.toml"), signature.replace(&before, &hex(&graph)))?;
    std::fs::write(folder.join("model.onnx"), graph)?;
    Ok(folder)
}

/// Copies the component file `component` into `dir`, with other bytes.
///
/// # Errors
/// If a file cannot be read or written.
pub fn distinct_component(component: &Path, dir: &Path, name: &str) -> Result<PathBuf> {
    let path = dir.join(format!("{name}.wasm"));
    let mut bytes = std::fs::read(component)
        .with_context(|| format!("{}; `make components` builds it", component.display()))?;
    // A custom section (id 0) with a name and no content.
    let named = [&[u8::try_from(name.len())?], name.as_bytes()].concat();
    bytes.extend(section(0, &named)?);
    std::fs::write(&path, bytes)?;
    Ok(path)
}

/// `tag`, the length of `content` in LEB128, and `content`.
fn section(tag: u8, content: &[u8]) -> Result<Vec<u8>> {
    let length = u8::try_from(content.len())?;
    anyhow::ensure!(length < 0x80, "the name has {length} bytes, more than 127");
    Ok([&[tag, length], content].concat())
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
