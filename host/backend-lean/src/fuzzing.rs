//! The fuzz targets of this crate: everything foreign it reads. `make fuzz` runs them for long, the
//! tests below for a moment.

use prost::Message;
use spinfer_backend::{Backend, Encoding, Graph, Tensor};

use crate::Lean;
use crate::ml::{Array, ElementType, Operator, Values, View};
use crate::onnx::Model;

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
            assert_eq!(output.data.len(), elements * info.ty.size(), "{info:?}");
        }
    }
}

fn input(graph: &dyn Graph, rows: u32) -> Option<Tensor> {
    let info = graph.inputs().first()?;
    let mut dimensions: Vec<u32> =
        info.shape.as_ref()?.iter().map(|axis| axis.unwrap_or(rows)).collect();
    *dimensions.first_mut()? = rows;
    let count = dimensions.iter().try_fold(1usize, |n, &axis| n.checked_mul(axis as usize))?;
    let len = count.checked_mul(info.ty.size()).filter(|&len| len <= INPUT_MOST)?;
    Some(Tensor { dimensions, ty: info.ty, data: vec![0x41; len] })
}

/// The first node of a graph as an operator of `ai.onnx.ml`, and run on inputs of every type.
pub fn operator(data: &[u8]) {
    let Ok(model) = Model::decode(data) else { return };
    let Some(node) = model.graph.as_ref().and_then(|graph| graph.node.first()) else { return };
    let version = model.opset_import.first().map_or(1, |import| import.version);
    let Ok(operator) = Operator::read(&node.encode_to_vec(), version) else { return };
    for values in [
        Values::F32(vec![0.5, f32::NAN, -1.0, 1e30]),
        Values::F64(vec![0.5, f64::NAN, -1.0, 1e300]),
        Values::I32(vec![0, 1, -1, i32::MAX]),
        Values::I64(vec![0, 1, -1, i64::MAX]),
        Values::Str(["", "a", "b", "\u{e9}"].map(str::to_owned).to_vec()),
    ] {
        run(&operator, &Array { shape: vec![2, 2], values });
    }
}

/// On as many times the same input as it takes.
fn run(operator: &Operator, input: &Array) {
    let types: Vec<ElementType> = vec![input.values.as_slice().ty(); operator.inputs];
    let Ok(kernel) = operator.kernel(&types) else { return };
    let view = || View { shape: &input.shape, values: input.values.as_slice() };
    let views: Vec<View<'_>> = types.iter().map(|_| view()).collect();
    let Ok(outputs) = kernel.run(&views) else { return };
    let shapes: Vec<&[usize]> = types.iter().map(|_| &input.shape[..]).collect();
    for (got, output) in outputs.iter().zip(&operator.outputs) {
        let promised = output.dims(&shapes, |n| n);
        assert!(promised.is_ok_and(|promised| promised == got.shape), "{operator:?}");
        assert_eq!(got.shape.iter().product::<usize>(), got.values.as_slice().len());
    }
}

#[cfg(test)]
mod tests {
    use spinfer_mutations::run_briefly;

    #[test]
    fn graphs() {
        run_briefly("onnx", super::onnx);
    }

    #[test]
    fn operators() {
        run_briefly("operator", super::operator);
    }
}
