//! Class labels stored in a graph, as by classifiers of `ai.onnx.ml` and converters of scikit-learn
//! models.
//!
//! Strings are more expensive to pass to a component than numbers. If an output holds string labels from
//! one place in the graph, those are replaced by 0, 1, 2, ..., so that the output holds class indices;
//! all other bytes are preserved. Strings from elsewhere stay strings.

mod indices;
mod trace;

use bytes::Bytes;
use prost::Message;
use spinfer_onnx::{ModelProto, ValueInfoProto, data_type};

use self::indices::to_indices;
use self::trace::{OutputTrace, trace_output};

/// The class labels, in the order of the probabilities.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Labels {
    /// The output holds indices of these names, or the names themselves.
    Names(Vec<String>),
    /// The output holds these numbers.
    Numbers(Vec<i64>),
}

impl Labels {
    /// The labels as a list to print.
    pub(super) fn shown(&self) -> String {
        match self {
            Self::Names(names) => names
                .iter()
                .map(|name| name.escape_debug().to_string())
                .collect::<Vec<_>>()
                .join(", "),
            Self::Numbers(numbers) => {
                numbers.iter().map(i64::to_string).collect::<Vec<_>>().join(", ")
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::Names(names) => names.len(),
            Self::Numbers(numbers) => numbers.len(),
        }
    }
}

/// The labels of the graph in `bytes`, and the bytes with string labels replaced by indices, where
/// possible.
pub(super) fn find(bytes: &Bytes) -> (Option<Labels>, Option<Vec<u8>>) {
    let Ok(ModelProto { graph: Some(graph), .. }) = ModelProto::decode(bytes.clone()) else {
        // The backend reports the error when it loads the file.
        return (None, None);
    };
    let integers = [data_type::STRING, data_type::INT64, data_type::INT32];
    let mut sources = Vec::new();
    for output in &graph.output {
        let Some(ty) = element_type(output).filter(|ty| integers.contains(ty)) else { continue };
        match trace_output(&graph, &output.name) {
            Some(OutputTrace { labels: Labels::Numbers(numbers), .. })
                if ty != data_type::STRING =>
            {
                return (Some(Labels::Numbers(numbers)), None);
            }
            Some(source) if ty == data_type::STRING => sources.push(source),
            _ => {}
        }
    }
    match <[OutputTrace; 1]>::try_from(sources) {
        Ok([source]) => {
            let changed = source
                .location
                .as_ref()
                .and_then(|location| to_indices(bytes, &graph, &source, location).ok());
            (Some(source.labels), changed)
        }
        // With several outputs of labels, the classes are ambiguous.
        Err(_) => (None, None),
    }
}

fn element_type(info: &ValueInfoProto) -> Option<i32> {
    Some(info.tensor_type()?.elem_type)
}

/// The fuzz target of this module: replaced labels are found again as indices.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz(data: &[u8]) {
    let found = find(&Bytes::copy_from_slice(data));
    let (Some(Labels::Names(names)), Some(changed)) = found else { return };
    let indices = (0..).take(names.len()).collect();
    let (again, _) = find(&changed.into());
    assert_eq!(again, Some(Labels::Numbers(indices)), "{names:?}");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use spinfer_onnx::wire::replace;
    use spinfer_onnx::{
        AttributeProto, GraphProto, NodeProto, TensorProto, TensorTypeProto, TypeProto,
    };

    use super::*;

    const FOREST: &[u8] = include_bytes!("../../../../../tests/models/add/strings-forest.onnx");
    const BAYES: &[u8] = include_bytes!("../../../../../tests/models/add/strings-bayes.onnx");

    fn names(names: &[&str]) -> Labels {
        Labels::Names(names.iter().map(|&name| name.to_owned()).collect())
    }

    fn node(op_type: &str, input: &str, output: &str) -> NodeProto {
        let (input, output) = (vec![input.into()], vec![output.into()]);
        NodeProto { input, output, op_type: op_type.into(), ..NodeProto::default() }
    }

    fn model(node: Vec<NodeProto>, initializer: Vec<TensorProto>, elem_type: i32) -> Vec<u8> {
        let tensor = Some(TensorTypeProto { elem_type, shape: None });
        let r#type = Some(TypeProto { tensor, ..TypeProto::default() });
        let output = vec![ValueInfoProto { name: "y".into(), r#type }];
        let graph = GraphProto { node, initializer, output, ..GraphProto::default() };
        ModelProto { graph: Some(graph), ..ModelProto::default() }.encode_to_vec()
    }

    #[test]
    fn string_labels_become_indices_and_nothing_else_changes() {
        let expected = names(&["setosa", "versicolor", "virginica"]);
        for bytes in [FOREST, BAYES] {
            let (labels, changed) = find(&Bytes::from_static(bytes));
            assert_eq!(labels.as_ref(), Some(&expected));
            let changed = changed.unwrap();
            let (before, after) =
                (ModelProto::decode(bytes).unwrap(), ModelProto::decode(&*changed).unwrap());
            let (before, after) = (before.graph.unwrap(), after.graph.unwrap());
            assert_eq!(element_type(&before.output[0]), Some(data_type::STRING));
            assert_eq!(element_type(&after.output[0]), Some(data_type::INT64));
            assert_eq!(before.output[1..], after.output[1..]);
            let differ = before.node.iter().zip(&after.node).filter(|(a, b)| a != b).count();
            let constants = before.initializer.iter().zip(&after.initializer);
            let differ = differ + constants.filter(|(a, b)| a != b).count();
            assert!(differ == 1 || differ == 2, "the labels, and a cast: {differ}");
            // Numbers are not replaced again.
            let found = find(&changed.into());
            assert_eq!(found, (Some(Labels::Numbers(vec![0, 1, 2])), None));
        }
    }

    #[test]
    fn labels_in_raw_bytes_and_in_constants_are_found() {
        let raw = |data_type, data: Vec<u8>| {
            let raw_data = Bytes::from(data);
            TensorProto { data_type, raw_data, ..TensorProto::default() }
        };
        for tensor in [
            raw(data_type::INT64, [3_i64, -7].map(i64::to_le_bytes).concat()),
            raw(data_type::INT32, [3_i32, -7].map(i32::to_le_bytes).concat()),
        ] {
            let initializer = TensorProto { name: "classes".into(), ..tensor.clone() };
            let extract = || node("ArrayFeatureExtractor", "classes", "y");
            let value = AttributeProto {
                name: "value".into(),
                t: Some(Box::new(tensor)),
                ..AttributeProto::default()
            };
            let constant = NodeProto { attribute: vec![value], ..node("Constant", "", "classes") };
            for bytes in [
                model(vec![extract()], vec![initializer], data_type::INT64),
                model(vec![constant, extract()], Vec::new(), data_type::INT64),
            ] {
                let expected = Some(Labels::Numbers(vec![3, -7]));
                assert_eq!(find(&bytes.into()), (expected, None));
            }
        }
    }

    #[test]
    fn other_strings_are_not_replaced() {
        let labels = |name: &str, strings: &[&str], ints: &[i64]| AttributeProto {
            name: name.into(),
            strings: strings.iter().map(|text| text.as_bytes().to_vec()).collect(),
            ints: ints.to_vec(),
            ..AttributeProto::default()
        };
        let values = labels("values_strings", &["b", "a"], &[]);
        let encoder = |keys| NodeProto {
            attribute: vec![labels("keys_int64s", &[], keys), values.clone()],
            ..node("LabelEncoder", "x", "y")
        };
        for (nodes, expected) in [
            (vec![node("LabelEncoder", "x", "y")], None),
            // The labels are known, but the output keeps holding them.
            (vec![encoder(&[1, 0])], Some(names(&["a", "b"]))),
            (vec![encoder(&[3, 7])], None),
            // A cycle, and a graph that never computes the output.
            (vec![node("Identity", "y", "x"), node("Identity", "x", "y")], None),
            (vec![], None),
        ] {
            let bytes = model(nodes, Vec::new(), data_type::STRING);
            assert_eq!(find(&bytes.into()), (expected, None));
        }
    }

    proptest! {
        #[test]
        fn corrupted_files_do_not_panic(
            forest: bool,
            damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
            length: prop::sample::Index,
            cut: bool,
        ) {
            let mut bytes = if forest { FOREST } else { BAYES }.to_vec();
            for (at, with) in damage {
                let at = at.index(bytes.len());
                bytes[at] = with;
            }
            if cut {
                bytes.truncate(length.index(bytes.len()));
            }
            fuzz(&bytes);
        }

        #[test]
        fn fields_that_are_not_replaced_are_preserved(bytes in prop::collection::vec(any::<u8>(), 0..64), tag in 1_u32..16) {
            if let Ok(same) = replace(&bytes, tag, |_, _| Ok(None)) {
                prop_assert_eq!(same, bytes);
            }
        }
    }
}
