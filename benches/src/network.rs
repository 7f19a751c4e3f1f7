//! A medium network: a multilayer perceptron of 1.8 million weights with a free first axis. The
//! weights are pseudo-random with a fixed seed, and so small that no layer saturates.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result};
use prost::Message;
use sha2::{Digest, Sha256};
use spinfer_onnx::{
    Dimension, DimensionValue, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto,
    TensorShapeProto, TensorTypeProto, TypeProto, ValueInfoProto, data_type,
};

/// Sizes of the layers: features, the hidden layers, classes.
pub const LAYERS: [usize; 5] = [256, 1024, 1024, 512, 10];

/// Writes the model folder `dir`, with `settings` in its `model.toml`.
///
/// # Errors
/// If a file cannot be written.
pub fn write(dir: &Path, settings: &str) -> Result<()> {
    std::fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
    let graph = graph().encode_to_vec();
    let digest = Sha256::digest(&graph);
    let digest = digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    std::fs::write(dir.join("model.onnx"), graph)?;
    let [features, .., classes] = LAYERS;
    let signature = format!(
        "name = 'iris-classifier'\nversion = '1'\nsha256 = '{digest}'\n{settings}\n\
         [[inputs]]\nname = 'x'\ndatatype = 'FP32'\nshape = [-1, {features}]\n\
         [[outputs]]\nname = 'y'\ndatatype = 'FP32'\nshape = [-1, {classes}]\n"
    );
    std::fs::write(dir.join("model.toml"), signature)?;
    Ok(())
}

/// An Open Inference Protocol request for one row.
#[must_use]
pub fn request() -> String {
    let features = LAYERS[0];
    let mut data = String::from("0");
    for feature in 1..features {
        let _ = write!(data, ",0.{}", feature % 10);
    }
    format!(
        r#"{{"inputs":[{{"name":"x","shape":[1,{features}],"datatype":"FP32","data":[{data}]}}]}}"#
    )
}

fn graph() -> ModelProto {
    let (mut nodes, mut weights, mut from) = (Vec::new(), Vec::new(), "x".to_owned());
    let mut random = Random(1);
    for (layer, size) in LAYERS.windows(2).enumerate() {
        let (rows, columns) = (size[0], size[1]);
        let last = layer == LAYERS.len() - 2;
        let [matrix, bias, sum] = ["w", "b", "s"].map(|name| format!("{name}{layer}"));
        let to = if last { "y".to_owned() } else { format!("h{layer}") };
        weights.push(random.tensor(&matrix, &[rows, columns]));
        weights.push(random.tensor(&bias, &[columns]));
        nodes.push(node("Gemm", &[&from, &matrix, &bias], &sum));
        nodes.push(node(if last { "Softmax" } else { "Relu" }, &[&sum], &to));
        from = to;
    }
    let [features, .., classes] = LAYERS;
    let graph = GraphProto {
        name: "mlp".into(),
        node: nodes,
        initializer: weights,
        input: vec![value("x", [None, Some(features)])],
        output: vec![value("y", [None, Some(classes)])],
        ..GraphProto::default()
    };
    let opset = OperatorSetIdProto { domain: String::new(), version: 17 };
    ModelProto {
        ir_version: 8,
        opset_import: vec![opset],
        graph: Some(graph),
        ..ModelProto::default()
    }
}

pub(crate) fn node(operator: &str, inputs: &[&str], output: &str) -> NodeProto {
    NodeProto {
        op_type: operator.into(),
        name: output.into(),
        input: inputs.iter().map(|&input| input.into()).collect(),
        output: vec![output.into()],
        ..NodeProto::default()
    }
}

/// An input or output of FP32. `None` is a free number of rows.
pub(crate) fn value<const N: usize>(name: &str, shape: [Option<usize>; N]) -> ValueInfoProto {
    let axis = |size: Option<usize>| {
        let value = match size {
            Some(size) => DimensionValue::Size(i64::try_from(size).unwrap_or(i64::MAX)),
            None => DimensionValue::Name("rows".into()),
        };
        Dimension { value: Some(value) }
    };
    let shape = TensorShapeProto { dim: shape.into_iter().map(axis).collect() };
    let tensor = TensorTypeProto { elem_type: data_type::FLOAT, shape: Some(shape) };
    let r#type = Some(TypeProto { tensor: Some(tensor), ..TypeProto::default() });
    ValueInfoProto { name: name.into(), r#type }
}

/// Knuth's linear congruential generator (MMIX).
struct Random(u64);

impl Random {
    /// Uniform in ±√(1/columns), so that sums are near 1.
    #[expect(clippy::cast_precision_loss, reason = "weights are arbitrary")]
    fn tensor(&mut self, name: &str, shape: &[usize]) -> TensorProto {
        let scale = 2.0 / (shape[shape.len() - 1] as f32).sqrt();
        let mut next = || {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            ((self.0 >> 40) as f32 / (1_u64 << 24) as f32 - 0.5) * scale
        };
        TensorProto {
            name: name.into(),
            dims: shape.iter().map(|&axis| i64::try_from(axis).unwrap_or(i64::MAX)).collect(),
            data_type: data_type::FLOAT,
            float_data: (0..shape.iter().product()).map(|_| next()).collect(),
            ..TensorProto::default()
        }
    }
}
