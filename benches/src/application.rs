//! Applications to measure: the iris classifier, as often as wanted, and requests to it.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The repository.
#[must_use]
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("benches/ is in the repository")
}

/// What the tools keep from run to run: compiled components.
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

/// The model name the iris component asks for, and its route unless it has another.
pub const IRIS: &str = "/v2/models/iris-classifier";

/// A request to the iris classifier, below the model's route.
#[derive(Clone, Copy, Debug)]
pub struct Operation {
    pub name: &'static str,
    pub body: &'static str,
}

pub const PREDICT: Operation =
    Operation { name: "predict", body: r#"{"features": [5.1, 3.5, 1.4, 0.2]}"# };

pub const INFER: Operation = Operation {
    name: "infer",
    body: r#"{"inputs": [{"name": "features", "shape": [1, 4], "datatype": "FP32", "data": [5.1, 3.5, 1.4, 0.2]}]}"#,
};

/// A manifest in the making.
#[derive(Clone, Debug)]
pub struct Application(String);

impl Application {
    /// `settings` stand under `[application]`.
    #[must_use]
    pub fn new(settings: &str) -> Self {
        Self(format!("spin_manifest_version = 2\n[application]\nname = 'bench'\n{settings}\n"))
    }

    /// The iris classifier as component `id`, of a component file and a model folder; `settings`
    /// stand under `[component.<id>]`.
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

    /// Writes the manifest into `dir` as `<name>.toml`.
    pub fn write(&self, dir: &Path, name: &str) -> Result<PathBuf> {
        let path = dir.join(format!("{name}.toml"));
        std::fs::write(&path, &self.0).with_context(|| path.display().to_string())?;
        Ok(path)
    }
}
