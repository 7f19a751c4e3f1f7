//! The fuzz target of this crate: what of a foreign file it reads and edits itself. `make fuzz` runs it
//! for long, the test below for a moment.

use spinfer_onnx::ModelProto;

use crate::signature;

/// A model's edges: refused, or a model that can be decoded, with as many outputs as promised.
pub fn signature(data: &[u8]) {
    let Ok(edges) = signature::read(data) else { return };
    let model = ModelProto::decode_outline(&edges.model).expect("what is edited is a model");
    let graph = model.graph.expect("a graph");
    assert_eq!(graph.output.len(), edges.outputs.len());
    for (output, promised) in graph.output.iter().zip(&edges.outputs) {
        assert_eq!(output.name, promised.name);
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn signature() {
        spinfer_mutations::run_briefly("onnx_signature", super::signature);
    }
}
