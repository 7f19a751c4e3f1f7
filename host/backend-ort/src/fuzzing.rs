//! Fuzz target of this crate: the parts of an untrusted file that it parses and edits. `make fuzz`
//! runs it for long, the test below briefly.

use spinfer_onnx::ModelProto;

use crate::signature;

/// Reads a model's signature. An edited model can be decoded, and has the outputs of the signature.
pub fn signature(data: &[u8]) {
    let Ok(signature) = signature::read(data) else { return };
    let model = ModelProto::decode_outline(&signature.model).expect("an edited model is a model");
    let graph = model.graph.expect("a graph");
    assert_eq!(graph.output.len(), signature.outputs.len());
    for (output, declared) in graph.output.iter().zip(&signature.outputs) {
        assert_eq!(output.name, declared.name);
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn signature() {
        spinfer_mutations::run_briefly("onnx_signature", super::signature);
    }
}
