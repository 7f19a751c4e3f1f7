//! Files of other formats: how to convert them to ONNX.

use std::path::Path;

/// By extension: the format, and how to convert it.
const FORMATS: [(&[&str], &str, &str); 8] = [
    (
        &["pkl", "pickle", "joblib", "skops"],
        "a pickled Python object",
        "convert a scikit-learn model with `skl2onnx.to_onnx(model, X[:1])`, or export it with \
         `spinfer.model_trainer.export` (docs/python.md)",
    ),
    (
        &["pt", "pth", "pt2"],
        "a PyTorch model",
        "convert it with `torch.onnx.export(model, (example,), \"model.onnx\")`",
    ),
    (
        &["pb", "tflite"],
        "a TensorFlow model",
        "convert it with `python -m tf2onnx.convert --saved-model FOLDER --output model.onnx` \
         (`--tflite FILE` for TensorFlow Lite)",
    ),
    (
        &["h5", "hdf5", "keras"],
        "a Keras model",
        "convert it with `keras.models.load_model(FILE).export(\"model.onnx\", format=\"onnx\")`",
    ),
    (
        &["safetensors"],
        "weights without a graph",
        "export the model with `optimum-cli export onnx --model FOLDER OUTPUT`, or with \
         `torch.onnx.export`",
    ),
    (
        &["gguf", "ggml"],
        "weights for llama.cpp",
        "large language models are not served; export another format of the model with \
         `optimum-cli export onnx`",
    ),
    (
        &["xgb", "ubj", "bst", "lgb"],
        "a model of XGBoost or LightGBM",
        "convert it with `onnxmltools.convert_xgboost` or `onnxmltools.convert_lightgbm`",
    ),
    (
        &["cbm"],
        "a CatBoost model",
        "convert it with `model.save_model(\"model.onnx\", format=\"onnx\")`",
    ),
];

/// What `path` is, and how to convert it, if its name or its content is that of another format.
pub(super) fn conversion(path: &Path) -> Option<String> {
    if path.is_dir() {
        let is_saved_model = path.join("saved_model.pb").exists();
        let extension = if is_saved_model { "pb" } else { return Some(folder()) };
        return by_extension(extension);
    }
    by_extension(&path.extension()?.to_str()?.to_ascii_lowercase())
}

fn folder() -> String {
    "it is a folder; pass the ONNX file in it".into()
}

fn by_extension(extension: &str) -> Option<String> {
    let (_, format, remedy) = FORMATS.iter().find(|(names, ..)| names.contains(&extension))?;
    Some(format!("it is {format}, not ONNX; {remedy}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn format_is_recognised_by_its_extension() {
        for (name, part) in [
            ("t.pkl", "skl2onnx"),
            ("a/T.JOBLIB", "skl2onnx"),
            ("net.pt", "torch.onnx.export"),
            ("frozen.pb", "tf2onnx"),
            ("m.keras", "format=\"onnx\""),
            ("m.safetensors", "optimum-cli"),
            ("m.gguf", "large language models are not served"),
            ("m.ubj", "convert_xgboost"),
            ("m.cbm", "save_model"),
        ] {
            let found = conversion(Path::new(name)).unwrap();
            assert!(found.contains(part) && found.lines().count() == 1, "{name}: {found}");
        }
        for name in ["m.onnx", "m", "m.wasm", "pkl"] {
            assert_eq!(conversion(Path::new(name)), None, "{name}");
        }
    }

    #[test]
    fn folder_is_a_saved_model_or_none_of_ours() {
        let folder = tempfile::tempdir().unwrap();
        assert!(conversion(folder.path()).unwrap().contains("is a folder"));
        std::fs::write(folder.path().join("saved_model.pb"), "").unwrap();
        assert!(conversion(folder.path()).unwrap().contains("tf2onnx"));
    }
}
