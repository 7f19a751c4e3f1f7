//! ONNX graphs, encoded field by field, as ONNX libraries do not write invalid ones.

use super::leb128;

/// An integer field of a protobuf message.
pub(super) fn int(field: u64, value: i64) -> Vec<u8> {
    [leb128(field << 3), leb128(value.cast_unsigned())].concat()
}

/// An FP32 field.
pub(super) fn float(field: u64, value: f32) -> Vec<u8> {
    [leb128(field << 3 | 5), value.to_le_bytes().to_vec()].concat()
}

/// A field with bytes, a string or a message.
pub(super) fn bytes(field: u64, value: impl AsRef<[u8]>) -> Vec<u8> {
    let value = value.as_ref();
    [leb128(field << 3 | 2), leb128(value.len() as u64), value.to_vec()].concat()
}

pub(super) fn all<T: AsRef<str>>(field: u64, values: &[T]) -> Vec<u8> {
    values.iter().flat_map(|value| bytes(field, value.as_ref())).collect()
}

pub(super) fn node(
    operator: &str,
    inputs: &[&str],
    outputs: &[&str],
    attributes: &[Vec<u8>],
) -> Vec<u8> {
    let attributes = attributes.iter().flat_map(|attribute| bytes(5, attribute)).collect();
    let node = [all(1, inputs), all(2, outputs), bytes(4, operator), attributes].concat();
    bytes(1, node)
}

/// The declaration of an FP32 tensor with the shape `[1, 4]`.
pub(super) fn value(name: &str) -> Vec<u8> {
    let shape = [bytes(1, int(1, 1)), bytes(1, int(1, 4))].concat();
    let tensor = [int(1, 1), bytes(2, shape)].concat();
    [bytes(1, name), bytes(2, bytes(1, tensor))].concat()
}

pub(super) fn initializer(name: &str, ty: i64, dims: &[i64], rest: &[Vec<u8>]) -> Vec<u8> {
    let dims: Vec<u8> = dims.iter().flat_map(|dim| int(1, *dim)).collect();
    bytes(5, [dims, int(2, ty), bytes(8, name), rest.concat()].concat())
}

/// A graph with the input `x`, the output `y` and these nodes and initializers.
pub(super) fn graph(parts: &[Vec<u8>]) -> Vec<u8> {
    [parts.concat(), bytes(2, "g"), bytes(11, value("x")), bytes(12, value("y"))].concat()
}

pub(super) fn model(parts: &[Vec<u8>]) -> Vec<u8> {
    let opset = |domain: &str, version| bytes(8, [bytes(1, domain), int(2, version)].concat());
    [int(1, 8), bytes(7, graph(parts)), opset("", 17), opset("ai.onnx.ml", 3)].concat()
}

/// `y = x + w` with an invalid `w`.
pub(super) fn weight(ty: i64, dims: &[i64], rest: &[Vec<u8>]) -> Vec<u8> {
    model(&[initializer("w", ty, dims, rest), node("Add", &["x", "w"], &["y"], &[])])
}

pub(super) fn ints(name: &str, values: &[i64]) -> Vec<u8> {
    let values: Vec<u8> = values.iter().flat_map(|value| int(8, *value)).collect();
    [bytes(1, name), values, int(20, 7)].concat()
}

/// `y = x + max(t)`, where `t` repeats `x`, which is known at run time, or `w`, which is known at load
/// time.
pub(super) fn tiled(of: &str, times: i64) -> Vec<u8> {
    let repeats = [times.to_le_bytes(), 1_i64.to_le_bytes()].concat();
    model(&[
        initializer("r", 7, &[2], &[bytes(9, repeats)]),
        initializer("w", 1, &[1, 4], &[bytes(9, [0; 16])]),
        node("Tile", &[of, "r"], &["t"], &[]),
        node("ReduceMax", &["t"], &["m"], &[]),
        node("Add", &["x", "m"], &["y"], &[]),
    ])
}

/// A graph of which most is known at load time: `times` products of square matrices.
pub(super) fn product(times: usize, size: i64) -> Vec<u8> {
    let shape = [size.to_le_bytes(), size.to_le_bytes()].concat();
    let mut parts = vec![
        initializer("s", 7, &[2], &[bytes(9, shape)]),
        node("ConstantOfShape", &["s"], &["p0"], &[]),
    ];
    for n in 0..times {
        let (factor, product) = (format!("p{n}"), format!("p{}", n + 1));
        parts.push(node("MatMul", &[&factor, &factor], &[&product], &[]));
    }
    parts.push(node("ReduceMax", &[&format!("p{times}")], &["m"], &[]));
    parts.push(node("Add", &["x", "m"], &["y"], &[]));
    model(&parts)
}
