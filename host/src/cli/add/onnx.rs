//! Properties of ONNX graphs.

use spinfer_onnx::{GraphProto, ValueInfoProto};

/// Operators with random outputs.
const RANDOM: [&str; 6] = [
    "Bernoulli",
    "Multinomial",
    "RandomNormal",
    "RandomNormalLike",
    "RandomUniform",
    "RandomUniformLike",
];

/// Whether outputs may differ for equal inputs.
pub(super) fn is_random(graph: &GraphProto) -> bool {
    graph.nodes().any(|node| RANDOM.contains(&&*node.op_type))
}

/// The size of each axis, if the file has a shape; -1 is a free axis.
pub(super) fn declared_shape(info: &ValueInfoProto) -> Option<Vec<i64>> {
    let shape = info.tensor_type()?.shape.as_ref()?;
    let size = |size: u64| i64::try_from(size).unwrap_or(i64::MAX);
    Some(shape.dim.iter().map(|axis| axis.size().map_or(-1, size)).collect())
}

#[cfg(test)]
mod tests {
    use spinfer_onnx::{AttributeProto, NodeProto};

    use super::*;

    #[test]
    fn random_operators_are_found_in_subgraphs() {
        let of = |op_type: &str, g: Option<GraphProto>| {
            let attribute =
                vec![AttributeProto { g: g.map(Box::new), ..AttributeProto::default() }];
            let node =
                vec![NodeProto { op_type: op_type.into(), attribute, ..NodeProto::default() }];
            GraphProto { node, ..GraphProto::default() }
        };
        for (graph, random) in [
            (of("MatMul", None), false),
            (of("RandomNormalLike", None), true),
            (of("If", Some(of("Add", None))), false),
            (of("If", Some(of("Loop", Some(of("Bernoulli", None))))), true),
        ] {
            assert_eq!(is_random(&graph), random, "{graph:?}");
        }
    }
}
