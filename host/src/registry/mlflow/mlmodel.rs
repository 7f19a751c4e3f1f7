//! Parses `MLmodel`, the YAML file of an MLflow model with its flavours, signature and origin.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde_json::Value;

use super::paths;

/// Name of the file.
pub const MLMODEL: &str = "MLmodel";
/// Maximum size of the file, in bytes: its signature has an entry per column.
pub const MAX_MLMODEL: u64 = 4 << 20;
/// Name of the flavour with an ONNX graph.
const ONNX: &str = "onnx";
/// Maximum number of columns in a signature.
const MAX_COLUMNS: usize = 10_000;

/// A model with the ONNX flavour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MlModel {
    /// Path of the graph, relative to the model's folder.
    pub graph: String,
    /// Version of the `onnx` package that wrote the graph.
    pub onnx_version: Option<String>,
    /// Version of the `mlflow` package that wrote the model.
    pub mlflow_version: Option<String>,
    pub run_id: Option<String>,
    /// Id of the logged model, in MLflow 3.
    pub model_id: Option<String>,
    /// Column names of the signature's inputs; empty if it has tensors or no names.
    pub columns: Vec<String>,
}

/// The YAML of the file. Unknown keys are ignored.
#[derive(Deserialize)]
struct MlModelYaml {
    flavors: BTreeMap<String, Value>,
    #[serde(default)]
    mlflow_version: Option<String>,
    #[serde(default)]
    run_id: Option<String>,
    #[serde(default)]
    model_id: Option<String>,
    #[serde(default)]
    signature: Option<MlModelSignature>,
}

#[derive(Deserialize)]
struct MlModelSignature {
    /// A JSON text.
    #[serde(default)]
    inputs: Option<String>,
}

impl MlModel {
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let text = std::str::from_utf8(bytes).context("not UTF-8 text")?;
        let written: MlModelYaml = serde_saphyr::from_str(text).map_err(|problem| {
            anyhow::anyhow!("not an {MLMODEL} file of MLflow: {}", first_line(&problem.to_string()))
        })?;
        let MlModelYaml { flavors, mlflow_version, run_id, model_id, signature } = written;
        let Some(onnx) = flavors.get(ONNX) else { bail!(without_onnx(&flavors)) };
        let graph = onnx["data"].as_str();
        let graph = graph.context("flavors.onnx.data: expected the path of the graph")?;
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

/// The message for a model without the ONNX flavour.
fn without_onnx(flavors: &BTreeMap<String, Value>) -> String {
    if flavors.is_empty() {
        return "the model has no flavour".to_owned();
    }
    let names: Vec<_> = flavors.keys().map(|name| name.escape_debug().to_string()).collect();
    format!(
        "the model has the flavours {}, but only onnx can be served; log it with \
         spinfer.mlflow.log_onnx(...) of the Python package `spinfer`, which converts it, or with \
         mlflow.onnx.log_model(...)",
        names.join(", ")
    )
}

/// The column names of the MLflow schema `inputs`; empty if it has tensors.
fn columns(inputs: &str) -> Result<Vec<String>> {
    let specs: Vec<Value> =
        serde_json::from_str(inputs).context("signature.inputs: expected a JSON list")?;
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
    // Tables are read by column name, which must be unique.
    let has_duplicates = sorted.windows(2).any(|pair| pair[0] == pair[1]);
    Ok(if has_duplicates { Vec::new() } else { names })
}

/// The first line of a parser's message; further ones quote the file.
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
    fn mlmodel_written_by_mlflow_is_parsed() {
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
    fn ids_that_look_like_numbers_are_strings() {
        let text = IRIS
            .replace("f7e1c06111cc4d0b9a4032f0c7be2c8e", "12345678901234567890123456789012")
            .replace("mlflow_version: 3.17.2", "mlflow_version: 3.17");
        let model = MlModel::parse(text.as_bytes()).unwrap();
        assert_eq!(model.run_id.as_deref(), Some("12345678901234567890123456789012"));
        assert_eq!(model.mlflow_version.as_deref(), Some("3.17"));
    }

    #[test]
    fn columns_must_have_unique_names() {
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
    fn model_without_the_onnx_flavour_is_refused_with_the_fix() {
        let text = "flavors:\n  sklearn: {}\n  python_function: {}\n";
        let error = error(text);
        assert!(error.contains("flavours python_function, sklearn"), "{error}");
        assert!(error.contains("spinfer.mlflow.log_onnx"), "{error}");
    }

    #[test]
    fn invalid_mlmodel_files_are_refused() {
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
        fn arbitrary_bytes_do_not_panic(bytes: Vec<u8>) {
            let _ = MlModel::parse(&bytes);
        }

        #[test]
        fn corrupted_files_have_valid_paths_or_are_refused(at in 0..IRIS.len(), with in "[-\\[\\]{}:'\"&*!|>%@ \n\t0a]{0,4}") {
            let text = format!("{}{with}{}", &IRIS[..at], &IRIS[(at + 1).min(IRIS.len())..]);
            if let Ok(model) = MlModel::parse(text.as_bytes()) {
                prop_assert!(paths::segments(&model.graph).is_ok());
            }
        }
    }
}
