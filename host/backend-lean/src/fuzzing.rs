//! Fuzz targets of this crate: everything untrusted that it parses. `make fuzz` runs them for long,
//! the tests below briefly.

use spinfer_backend::{Backend, Encoding, Graph, Tensor};

use crate::Lean;

/// Maximum size of a generated input, in bytes.
const MAX_INPUT: usize = 1 << 20;

/// Loads a graph, and runs it on two rows and on none. Its outputs have to fit their declarations.
pub fn onnx(data: &[u8]) {
    let Ok(graph) = Lean.load(data, Encoding::Onnx) else { return };
    for rows in [2, 0] {
        let Some(input) = input(graph.as_ref(), rows) else { continue };
        let Ok(outputs) = graph.compute(vec![input]) else { continue };
        assert_eq!(outputs.len(), graph.outputs().len());
        for (output, info) in outputs.iter().zip(graph.outputs()) {
            let elements: usize = output.dimensions.iter().map(|&axis| axis as usize).product();
            assert_eq!(
                output.data.len(),
                elements * info.ty.size().unwrap_or_default(),
                "{info:?}"
            );
        }
    }
}

fn input(graph: &dyn Graph, rows: u32) -> Option<Tensor> {
    let info = graph.inputs().first()?;
    let mut dimensions: Vec<u32> =
        info.shape.as_ref()?.iter().map(|axis| axis.unwrap_or(rows)).collect();
    *dimensions.first_mut()? = rows;
    let count = dimensions.iter().try_fold(1usize, |n, &axis| n.checked_mul(axis as usize))?;
    let len = count.checked_mul(info.ty.size()?).filter(|&len| len <= MAX_INPUT)?;
    Some(Tensor { dimensions, ty: info.ty, data: vec![0x41; len] })
}

#[cfg(test)]
mod tests {
    use spinfer_mutations::run_briefly;

    #[test]
    fn graphs() {
        run_briefly("onnx", super::onnx);
    }
}
