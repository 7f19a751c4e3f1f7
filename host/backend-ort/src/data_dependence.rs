//! Whether the values of a graph's inputs decide how much there is to compute, and not their sizes
//! alone: a loop of as many turns as an input says, a tensor of as many elements.

use std::collections::HashSet;

use spinfer_onnx::{GraphProto, ModelProto, NodeProto};

/// Operators that make as much as the values of these inputs say.
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

pub(crate) fn is_data_dependent(model: &ModelProto) -> bool {
    let Some(graph) = &model.graph else { return false };
    // What graphs within this one compute is not followed.
    let within: HashSet<&str> = graph.node.iter().map(|node| node.op_type.as_str()).collect();
    let within = |node: &NodeProto| !within.contains(node.op_type.as_str());
    model.nodes().any(|node| node.op_type == "Loop" || (within(node) && sized_by(node).is_some()))
        || decide_work_of(graph)
}

fn sized_by(node: &NodeProto) -> Option<&'static [usize]> {
    SIZED_BY.iter().find(|(operator, _)| *operator == node.op_type).map(|(_, inputs)| *inputs)
}

fn decide_work_of(graph: &GraphProto) -> bool {
    let constants: HashSet<&str> = graph.initializer.iter().map(|t| t.name.as_str()).collect();
    // Names of values that depend on those of inputs. Nodes come in the order of their edges.
    let mut depending: HashSet<&str> =
        graph.input.iter().map(|input| input.name.as_str()).collect();
    depending.retain(|name| !constants.contains(name));
    for node in &graph.node {
        let depends = |input: &String| depending.contains(input.as_str());
        let sizes = sized_by(node).unwrap_or_default();
        if sizes.iter().filter_map(|&index| node.input.get(index)).any(depends) {
            return true;
        }
        // A body sees the values around it.
        let has_body = node.attribute.iter().any(|attribute| attribute.g.is_some());
        let of_sizes = matches!(node.op_type.as_str(), "Shape" | "Size");
        if !of_sizes && (has_body || node.input.iter().any(depends)) {
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
    fn a_size_that_is_a_value_of_an_input_is_found() {
        for (nodes, expected) in [
            (vec![node("Add", &["x", "x"], "y")], false),
            (vec![node("ConstantOfShape", &["x"], "y")], true),
            (vec![node("Neg", &["x"], "a"), node("Range", &["c", "a", "c"], "y")], true),
            // As many as the input has.
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
