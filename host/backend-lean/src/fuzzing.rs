//! The fuzz targets of this crate: everything foreign it reads. `make fuzz` runs them for long, the
//! tests below for a moment.

use spinfer_backend::{Backend, Encoding, Graph, Tensor};

use crate::Lean;

/// Bytes of an input that is made up.
const INPUT_MOST: usize = 1 << 20;

/// A graph: loaded, and run on two rows and on none. What it gives is as it promised.
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
    let len = count.checked_mul(info.ty.size()?).filter(|&len| len <= INPUT_MOST)?;
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
