//! `MLmodel`, the YAML file at the root of an MLflow model: which flavours it has, what it takes and
//! where it comes from.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde_json::Value;

use super::paths;

/// The file's name.
pub const MLMODEL: &str = "MLmodel";
/// Maximum size of the file, in bytes: its signature has a line for each column.
pub const MAX_MLMODEL: u64 = 4 << 20;
/// The flavour that is an ONNX graph.
const ONNX: &str = "onnx";
/// Columns that are taken for the fields of a model.
const MAX_COLUMNS: usize = 10_000;

/// A model that has the ONNX flavour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MlModel {
    /// The graph's file, relative to the model's folder.
    pub graph: String,
    /// Of the `onnx` package that wrote it.
    pub onnx_version: Option<String>,
    /// Of the `mlflow` package that wrote it.
    pub mlflow_version: Option<String>,
    pub run_id: Option<String>,
    /// Of MLflow 3.
    pub model_id: Option<String>,
    /// The columns of its signature's inputs; empty where it has tensors, or no names.
    pub columns: Vec<String>,
}

/// The file as it is written. What is not read here is free.
#[derive(Deserialize)]
struct Written {
    flavors: BTreeMap<String, Value>,
    #[serde(default)]
    mlflow_version: Option<String>,
    #[serde(default)]
    run_id: Option<String>,
    #[serde(default)]
    model_id: Option<String>,
    #[serde(default)]
    signature: Option<Signature>,
}

#[derive(Deserialize)]
struct Signature {
    /// JSON within the YAML.
    #[serde(default)]
    inputs: Option<String>,
}

impl MlModel {
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let text = std::str::from_utf8(bytes).context("not text in UTF-8")?;
        let written: Written = serde_saphyr::from_str(text).map_err(|problem| {
            anyhow::anyhow!("not an {MLMODEL} file of MLflow: {}", first_line(&problem.to_string()))
        })?;
        let Written { flavors, mlflow_version, run_id, model_id, signature } = written;
        let Some(onnx) = flavors.get(ONNX) else { bail!(without_onnx(&flavors)) };
        let graph = onnx["data"].as_str();
        let graph = graph.context("flavors.onnx.data: expected the name of the graph's file")?;
        paths::segments(graph).context("flavors.onnx.data")?;
        let inputs = signature.and_then(|signature| signature.inputs);
        Ok(Self {
            graph: graph.to_owned(),
            onnx_version: onnx["onnx_version"].as_str().map(str::to_owned),
            mlflow_version,
            run_id,
            model_id,
            columns: inputs.map(|inputs| columns(&inputs)).transpose()?.unwrap_or_default(),
        })
    }
}

/// What is said of a model of other flavours.
fn without_onnx(flavors: &BTreeMap<String, Value>) -> String {
    if flavors.is_empty() {
        return "the model has no flavour".to_owned();
    }
    let names: Vec<_> = flavors.keys().map(|name| name.escape_debug().to_string()).collect();
    format!(
        "the model has the flavours {}, and not onnx, the one that can be served; log it with \
         spinfer.mlflow.log_onnx(...) of the Python package `spinfer`, which converts it, or with \
         mlflow.onnx.log_model(...)",
        names.join(", ")
    )
}

/// The names of the columns that `inputs`, a schema of MLflow, has; none if it has tensors.
fn columns(inputs: &str) -> Result<Vec<String>> {
    let specs: Vec<Value> =
        serde_json::from_str(inputs).context("signature.inputs: expected a list in JSON")?;
    ensure!(specs.len() <= MAX_COLUMNS, "signature.inputs: more than {MAX_COLUMNS} columns");
    let name = |spec: &Value| {
        if spec["type"] == "tensor" {
            return None;
        }
        spec["name"].as_str().filter(|name| !name.is_empty()).map(str::to_owned)
    };
    let names: Option<Vec<String>> = specs.iter().map(name).collect();
    let names = names.unwrap_or_default();
    let mut sorted: Vec<&String> = names.iter().collect();
    sorted.sort_unstable();
    // A table cannot be read by names of which two are the same.
    let twice = sorted.windows(2).any(|pair| pair[0] == pair[1]);
    Ok(if twice { Vec::new() } else { names })
}

/// A parser shows the place in the file on lines of its own.
fn first_line(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    line.chars().filter(|c| !c.is_control()).take(300).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const IRIS: &str = r#"artifact_path: mlflow-artifacts:/1/models/m-2ae2/artifacts
flavors:
  onnx:
    code: null
    data: model.onnx
    onnx_session_options: null
    onnx_version: 1.23.2
    providers:
    - CUDAExecutionProvider
    - CPUExecutionProvider
  python_function:
    data: model.onnx
    loader_module: mlflow.onnx
is_signature_from_type_hint: false
mlflow_version: 3.17.2
model_id: m-2ae2
model_uuid: m-2ae2
prompts: null
run_id: f7e1c06111cc4d0b9a4032f0c7be2c8e
signature:
  inputs: '[{"type": "float", "name": "sepal_length", "required": true}, {"type":
    "float", "name": "sepal_width", "required": true}]'
  outputs: '[{"type": "tensor", "tensor-spec": {"dtype": "int64", "shape": [-1]}}]'
  params: null
utc_time_created: '2026-11-29 23:32:45.773650'
"#;

    fn error(text: &str) -> String {
        format!("{:#}", MlModel::parse(text.as_bytes()).unwrap_err())
    }

    #[test]
    fn what_mlflow_writes_is_read() {
        let model = MlModel::parse(IRIS.as_bytes()).unwrap();
        let expected = MlModel {
            graph: "model.onnx".into(),
            onnx_version: Some("1.23.2".into()),
            mlflow_version: Some("3.17.2".into()),
            run_id: Some("f7e1c06111cc4d0b9a4032f0c7be2c8e".into()),
            model_id: Some("m-2ae2".into()),
            columns: vec!["sepal_length".into(), "sepal_width".into()],
        };
        assert_eq!(model, expected);
    }

    #[test]
    fn ids_that_look_like_numbers_stay_text() {
        let text = IRIS
            .replace("f7e1c06111cc4d0b9a4032f0c7be2c8e", "12345678901234567890123456789012")
            .replace("mlflow_version: 3.17.2", "mlflow_version: 3.17");
        let model = MlModel::parse(text.as_bytes()).unwrap();
        assert_eq!(model.run_id.as_deref(), Some("12345678901234567890123456789012"));
        assert_eq!(model.mlflow_version.as_deref(), Some("3.17"));
    }

    #[test]
    fn columns_are_names_that_differ() {
        for (inputs, names) in [
            (r#"[{"type": "double", "name": "a"}, {"type": "long", "name": "b"}]"#, vec!["a", "b"]),
            (r#"[{"type": "double", "name": "a"}, {"type": "double", "name": "a"}]"#, vec![]),
            (r#"[{"type": "double"}, {"type": "double"}]"#, vec![]),
            (r#"[{"type": "tensor", "tensor-spec": {}, "name": "x"}]"#, vec![]),
            ("[]", vec![]),
        ] {
            assert_eq!(columns(inputs).unwrap(), names, "{inputs}");
        }
        assert!(columns("{").is_err());
    }

    #[test]
    fn a_model_without_the_flavour_is_told_how_to_get_it() {
        let text = "flavors:\n  sklearn: {}\n  python_function: {}\n";
        let error = error(text);
        assert!(error.contains("flavours python_function, sklearn"), "{error}");
        assert!(error.contains("spinfer.mlflow.log_onnx"), "{error}");
    }

    #[test]
    fn what_is_not_a_model_is_refused() {
        for (text, problem) in [
            ("<!doctype html><html></html>", "not an MLmodel file"),
            ("", "not an MLmodel file"),
            ("flavors: [1, 2]", "not an MLmodel file"),
            ("flavors: {}", "no flavour"),
            ("flavors: {onnx: }", "flavors.onnx.data"),
            ("flavors: {onnx: {data: [1]}}", "flavors.onnx.data"),
            ("flavors: {onnx: {data: ../../etc/passwd}}", "leads out"),
            ("flavors: {onnx: {data: /etc/passwd}}", "absolute"),
            ("flavors: {onnx: {data: x}}\nsignature: {inputs: 'no'}", "signature.inputs"),
        ] {
            let error = error(text);
            assert!(error.contains(problem), "{text:?}: {error}");
        }
        assert!(MlModel::parse(&[0xff, 0xfe, 0]).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_model_or_an_error(bytes: Vec<u8>) {
            let _ = MlModel::parse(&bytes);
        }

        #[test]
        fn a_changed_file_is_a_model_or_an_error(at in 0..IRIS.len(), with in "[-\\[\\]{}:'\"&*!|>%@ \n\t0a]{0,4}") {
            let text = format!("{}{with}{}", &IRIS[..at], &IRIS[(at + 1).min(IRIS.len())..]);
            if let Ok(model) = MlModel::parse(text.as_bytes()) {
                prop_assert!(paths::segments(&model.graph).is_ok());
            }
        }
    }
}
