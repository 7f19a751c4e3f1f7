//! Whether the amount of computation depends on the values of a graph's inputs and not only on
//! their sizes: an input may be the number of iterations of a loop, or the size of a tensor.

use std::collections::HashSet;

use spinfer_onnx::{GraphProto, ModelProto, NodeProto};

/// Operators whose output has a size that these inputs specify.
const SIZED_BY: [(&str, &[usize]); 8] = [
    ("ConstantOfShape", &[0]),
    ("Expand", &[1]),
    ("OneHot", &[1]),
    ("Pad", &[1]),
    ("Range", &[0, 1, 2]),
    ("Resize", &[2, 3]),
    ("Tile", &[1]),
    ("Upsample", &[1]),
];

/// Whether a graph's amount of computation depends on values. Every size in a subgraph is assumed
/// to.
pub(crate) fn is_data_dependent(model: &ModelProto) -> bool {
    let Some(graph) = &model.graph else { return false };
    // The values of subgraphs are not followed: an operator that occurs only in them counts.
    let outer: HashSet<&str> = graph.node.iter().map(|node| node.op_type.as_str()).collect();
    let is_inner = |node: &NodeProto| !outer.contains(node.op_type.as_str());
    model.nodes().any(|node| node.op_type == "Loop" || (is_inner(node) && sized_by(node).is_some()))
        || has_size_from_input(graph)
}

fn sized_by(node: &NodeProto) -> Option<&'static [usize]> {
    SIZED_BY.iter().find(|(operator, _)| *operator == node.op_type).map(|(_, inputs)| *inputs)
}

/// Whether a node of the graph itself has a size that depends on values of inputs.
fn has_size_from_input(graph: &GraphProto) -> bool {
    let constants: HashSet<&str> = graph.initializer.iter().map(|t| t.name.as_str()).collect();
    // Names of values that depend on the values of inputs. Nodes are in topological order.
    let mut depending: HashSet<&str> =
        graph.input.iter().map(|input| input.name.as_str()).collect();
    depending.retain(|name| !constants.contains(name));
    for node in &graph.node {
        let depends = |input: &String| depending.contains(input.as_str());
        let sizes = sized_by(node).unwrap_or_default();
        if sizes.iter().filter_map(|&index| node.input.get(index)).any(depends) {
            return true;
        }
        // A subgraph may use any value of the graph around it.
        let has_body = node.attribute.iter().any(|attribute| attribute.g.is_some());
        let is_size = matches!(node.op_type.as_str(), "Shape" | "Size");
        if !is_size && (has_body || node.input.iter().any(depends)) {
            depending.extend(node.output.iter().map(String::as_str));
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use spinfer_onnx::ValueInfoProto;

    use super::*;

    fn node(operator: &str, inputs: &[&str], output: &str) -> NodeProto {
        NodeProto {
            op_type: operator.into(),
            input: inputs.iter().map(|&input| input.into()).collect(),
            output: vec![output.into()],
            ..NodeProto::default()
        }
    }

    #[test]
    fn a_size_that_depends_on_the_value_of_an_input_is_found() {
        for (nodes, expected) in [
            (vec![node("Add", &["x", "x"], "y")], false),
            (vec![node("ConstantOfShape", &["x"], "y")], true),
            (vec![node("Neg", &["x"], "a"), node("Range", &["c", "a", "c"], "y")], true),
            // The size of the input and not its value.
            (vec![node("Shape", &["x"], "s"), node("ConstantOfShape", &["s"], "y")], false),
            (vec![node("Expand", &["x", "c"], "y")], false),
            (vec![node("Loop", &["c", "c"], "y")], true),
        ] {
            let input = vec![ValueInfoProto { name: "x".into(), r#type: None }];
            let graph = GraphProto { node: nodes.clone(), input, ..GraphProto::default() };
            let model = ModelProto { graph: Some(graph), ..ModelProto::default() };
            assert_eq!(is_data_dependent(&model), expected, "{nodes:?}");
        }
    }
}
