//! How a graph uses its inputs, which restricts their values: an index has a range, a divisor is not 0,
//! a table has keys.

use std::collections::{BTreeMap, HashMap, HashSet};

use spinfer_onnx::{GraphProto, NodeProto, TensorProto, data_type};

/// Restrictions on the values of one input.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Uses {
    /// Exclusive upper bound, if the values are indices.
    pub(super) below: Option<u64>,
    /// Whether the values are divisors.
    pub(super) divides: bool,
    /// Keys of a table in the graph, by column: the position in the last axis.
    pub(super) keys: BTreeMap<usize, TableKeys>,
}

/// Keys of a table, such as a one-hot encoding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum TableKeys {
    Strings(Vec<String>),
    Integers(Vec<i64>),
}

/// Columns of an input, and their position in a value derived from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Span {
    /// First column in the input.
    from: usize,
    /// Position of that column in the value.
    at: usize,
    /// Number of columns.
    columns: usize,
}

impl Span {
    /// The columns of this span selected by `indices` of a value, one span each.
    fn select(self, indices: &[i64]) -> Vec<Self> {
        let within = |(at, &index): (usize, &i64)| {
            let offset = usize::try_from(index).ok()?.checked_sub(self.at)?;
            (offset < self.columns).then_some(Self { from: self.from + offset, at, columns: 1 })
        };
        indices.iter().enumerate().filter_map(within).collect()
    }
}

/// Operators whose output keeps the values of their first input.
const PASS_THROUGH: [&str; 17] = [
    "Cast",
    "CastLike",
    "Clip",
    "Dropout",
    "Expand",
    "Flatten",
    "Identity",
    "Pad",
    "Reshape",
    "Slice",
    "Squeeze",
    "StringConcat",
    "StringNormalizer",
    "Tile",
    "Tokenizer",
    "Transpose",
    "Unsqueeze",
];

/// Operators whose outputs' shapes depend on the values of inputs, from the given argument on.
const SHAPED_BY_VALUES: [(&str, usize); 20] = [
    ("Compress", 0),
    ("ConstantOfShape", 0),
    ("Expand", 1),
    ("If", 0),
    ("Loop", 0),
    ("NonMaxSuppression", 0),
    ("NonZero", 0),
    ("OneHot", 1),
    ("Pad", 1),
    ("Range", 0),
    ("Reshape", 1),
    ("Resize", 1),
    ("Slice", 1),
    ("Split", 1),
    ("StringSplit", 0),
    ("Tile", 1),
    ("Tokenizer", 0),
    ("TopK", 1),
    ("Unique", 0),
    ("Upsample", 1),
];

/// A graph indexed by the names of its values.
pub(super) struct ValueMap<'a> {
    nodes: Vec<&'a NodeProto>,
    /// Nodes with a value as input: the node and the argument.
    consumers: HashMap<&'a str, Vec<(usize, usize)>>,
    /// The node that outputs a value.
    producers: HashMap<&'a str, usize>,
    initializers: HashMap<&'a str, &'a TensorProto>,
}

impl<'a> ValueMap<'a> {
    pub(super) fn of(graph: &'a GraphProto) -> Self {
        let nodes: Vec<&NodeProto> = graph.nodes().collect();
        let (mut consumers, mut producers) = (HashMap::<_, Vec<_>>::new(), HashMap::new());
        for (index, node) in nodes.iter().enumerate() {
            for (argument, name) in node.input.iter().enumerate() {
                consumers.entry(name.as_str()).or_default().push((index, argument));
            }
            producers.extend(node.output.iter().map(|name| (name.as_str(), index)));
        }
        let initializers = graph.initializer.iter().map(|tensor| (tensor.name.as_str(), tensor));
        Self { nodes, consumers, producers, initializers: initializers.collect() }
    }

    /// The uses of the input `name` with `columns`; `widths` are the columns of all inputs.
    pub(super) fn uses(&self, name: &str, columns: usize, widths: &BTreeMap<&str, usize>) -> Uses {
        let mut uses = Uses::default();
        let mut queue = vec![(name, Span { from: 0, at: 0, columns })];
        let mut seen: HashSet<(&str, Span)> = queue.iter().copied().collect();
        while let Some((value, span)) = queue.pop() {
            for &(node, argument) in self.consumers.get(value).into_iter().flatten() {
                let node = self.nodes[node];
                for next in self.follow(node, argument, span, widths, &mut uses) {
                    // The bound stops graphs crafted to take long.
                    if seen.len() < 100_000 && seen.insert(next) {
                        queue.push(next);
                    }
                }
            }
        }
        uses
    }

    /// The values that `node` derives from its `argument`; restrictions are added to `uses`.
    fn follow(
        &self,
        node: &'a NodeProto,
        argument: usize,
        span: Span,
        widths: &BTreeMap<&str, usize>,
        uses: &mut Uses,
    ) -> Vec<(&'a str, Span)> {
        let outputs = |span: Span| node.output.iter().map(move |name| (name.as_str(), span));
        let index_of = |data: usize, axis: i64, uses: &mut Uses| {
            let size = node.input.get(data).and_then(|name| self.size(name, axis)).unwrap_or(1);
            uses.below = Some(uses.below.map_or(size, |below| below.min(size)));
        };
        let axis = || node.attribute("axis").map_or(0, |axis| axis.i);
        match (node.op_type.as_str(), argument) {
            ("Gather" | "GatherElements", 1) => index_of(0, axis(), uses),
            ("GatherND" | "ScatterND" | "ScatterElements" | "Scatter", 1) => uses.below = Some(1),
            ("EmbedLayerNormalization", 0) => index_of(2, 0, uses),
            ("EmbedLayerNormalization", 1) => index_of(4, 0, uses),
            ("Div" | "Mod", 1) => uses.divides = true,
            ("LabelEncoder" | "OneHotEncoder" | "CategoryMapper" | "TfIdfVectorizer", 0) => {
                if let Some(keys) = keys(node) {
                    for column in (span.from..).take(span.columns) {
                        uses.keys.entry(column).or_insert_with(|| keys.clone());
                    }
                }
            }
            ("ArrayFeatureExtractor" | "Gather", 0) => {
                let of_columns = node.op_type != "Gather" || matches!(axis(), 1 | -1);
                let indices = node.input.get(1).and_then(|name| self.integers(name));
                let Some(indices) = indices.filter(|_| of_columns) else {
                    return outputs(span).collect();
                };
                return span.select(&indices).into_iter().flat_map(outputs).collect();
            }
            ("Concat", _) => {
                let before = &node.input[..argument];
                let widths = before.iter().map(|name| self.width(name, widths, 0));
                let offset = widths.sum::<Option<usize>>().unwrap_or(0);
                return outputs(Span { at: span.at + offset, ..span }).collect();
            }
            ("Split", 0) => return self.split(node, span),
            (operator, 0) if PASS_THROUGH.contains(&operator) => return outputs(span).collect(),
            _ => {}
        }
        Vec::new()
    }

    fn split(&self, node: &'a NodeProto, span: Span) -> Vec<(&'a str, Span)> {
        let sizes = node.attribute("split").map(|split| split.ints.clone());
        let sizes = sizes.or_else(|| self.integers(node.input.get(1)?)).unwrap_or_default();
        let equal = span.columns / node.output.len().max(1);
        let mut start = 0_usize;
        let mut parts = Vec::new();
        for (position, name) in node.output.iter().enumerate() {
            let size = sizes.get(position).and_then(|&size| usize::try_from(size).ok());
            let size = size.unwrap_or(equal);
            let indices: Vec<i64> = (start..start.saturating_add(size).min(start + 10_000))
                .filter_map(|index| i64::try_from(index).ok())
                .collect();
            parts.extend(span.select(&indices).into_iter().map(|span| (name.as_str(), span)));
            start = start.saturating_add(size);
        }
        parts
    }

    /// The number of columns of the value `name`, if known.
    fn width(&self, name: &str, inputs: &BTreeMap<&str, usize>, depth: usize) -> Option<usize> {
        if let Some(&width) = inputs.get(name) {
            return Some(width);
        }
        let node = self.nodes[*self.producers.get(name)?];
        match node.op_type.as_str() {
            "ArrayFeatureExtractor" => Some(self.integers(node.input.get(1)?)?.len()),
            "Cast" | "Identity" | "StringNormalizer" if depth < 16 => {
                self.width(node.input.first()?, inputs, depth + 1)
            }
            _ => None,
        }
    }

    fn constant(&self, name: &str) -> Option<&'a TensorProto> {
        let constant = || self.nodes[*self.producers.get(name)?].attribute("value")?.t.as_deref();
        self.initializers.get(name).copied().or_else(constant)
    }

    fn integers(&self, name: &str) -> Option<Vec<i64>> {
        self.constant(name)?.integers()
    }

    /// The size of an axis of a constant, which may be stored quantized.
    fn size(&self, name: &str, axis: i64) -> Option<u64> {
        let mut name = name;
        for _ in 0..16 {
            if let Some(tensor) = self.constant(name) {
                let rank = i64::try_from(tensor.dims.len()).ok()?;
                let axis = if axis < 0 { axis + rank } else { axis };
                let size = tensor.dims.get(usize::try_from(axis).ok()?)?;
                return u64::try_from(*size).ok().filter(|&size| size > 0);
            }
            let node = self.nodes[*self.producers.get(name)?];
            let keeps_shape =
                ["Cast", "DequantizeLinear", "Identity"].contains(&node.op_type.as_str());
            name = node.input.first().filter(|_| keeps_shape)?;
        }
        None
    }

    /// Whether the shape of an output may depend on the values of the inputs, not only on their shapes.
    pub(super) fn values_shape_outputs<'b>(&self, inputs: impl Iterator<Item = &'b str>) -> bool {
        let mut queue: Vec<&str> = inputs.collect();
        let mut seen: HashSet<&str> = queue.iter().copied().collect();
        while let Some(value) = queue.pop() {
            for &(node, argument) in self.consumers.get(value).into_iter().flatten() {
                let node = self.nodes[node];
                let operator = node.op_type.as_str();
                if SHAPED_BY_VALUES.iter().any(|&(op, from)| op == operator && argument >= from) {
                    return true;
                }
                let values = !["Shape", "Size"].contains(&operator);
                let outputs = node.output.iter().filter(|_| values).map(String::as_str);
                queue.extend(outputs.filter(|&name| seen.insert(name)));
            }
        }
        false
    }
}

/// The keys of the table `node`, if they are strings or integers.
fn keys(node: &NodeProto) -> Option<TableKeys> {
    const MAX_KEYS: usize = 100;
    let names = ["keys_strings", "cats_strings", "pool_strings"];
    let strings = names.into_iter().find_map(|name| node.attribute(name));
    let tensor = node.attribute("keys_tensor").and_then(|keys| keys.t.as_deref());
    let text = |strings: &[Vec<u8>]| {
        let strings = strings.iter().take(MAX_KEYS);
        strings.filter_map(|bytes| String::from_utf8(bytes.clone()).ok()).collect::<Vec<_>>()
    };
    let strings = match (strings, tensor) {
        (Some(attribute), _) => text(&attribute.strings),
        (None, Some(tensor)) if tensor.data_type == data_type::STRING => text(&tensor.string_data),
        _ => Vec::new(),
    };
    if !strings.is_empty() {
        return Some(TableKeys::Strings(strings));
    }
    let names = ["keys_int64s", "cats_int64s", "pool_int64s"];
    let integers = names.into_iter().find_map(|name| node.attribute(name));
    let integers = match (integers, tensor) {
        (Some(attribute), _) => attribute.ints.clone(),
        (None, tensor) => tensor?.integers()?,
    };
    let integers: Vec<i64> = integers.into_iter().take(MAX_KEYS).collect();
    (!integers.is_empty()).then_some(TableKeys::Integers(integers))
}

#[cfg(test)]
mod tests {
    use spinfer_onnx::AttributeProto;

    use super::*;

    fn node(op_type: &str, input: &[&str], output: &[&str]) -> NodeProto {
        let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        let (input, output) = (names(input), names(output));
        NodeProto { input, output, op_type: op_type.into(), ..NodeProto::default() }
    }

    fn with(node: NodeProto, attribute: AttributeProto) -> NodeProto {
        NodeProto { attribute: vec![attribute], ..node }
    }

    fn strings(name: &str, strings: &[&str]) -> AttributeProto {
        let strings = strings.iter().map(|text| text.as_bytes().to_vec()).collect();
        AttributeProto { name: name.into(), strings, ..AttributeProto::default() }
    }

    fn constant(name: &str, dims: &[i64], numbers: &[i64]) -> TensorProto {
        TensorProto {
            dims: dims.to_vec(),
            data_type: data_type::INT64,
            int64_data: numbers.to_vec(),
            name: name.into(),
            ..TensorProto::default()
        }
    }

    fn graph(node: Vec<NodeProto>, initializer: Vec<TensorProto>) -> GraphProto {
        GraphProto { node, initializer, ..GraphProto::default() }
    }

    fn uses(graph: &GraphProto, name: &str, widths: &[(&str, usize)]) -> Uses {
        let widths: BTreeMap<&str, usize> = widths.iter().copied().collect();
        ValueMap::of(graph).uses(name, widths[name], &widths)
    }

    #[test]
    fn index_is_bounded_by_the_smallest_table() {
        let quantized = node("DequantizeLinear", &["Q", "s"], &["E"]);
        let graph = graph(
            vec![
                quantized,
                node("Cast", &["ids"], &["i"]),
                node("Gather", &["E", "i"], &["a"]),
                node("Gather", &["P", "ids"], &["b"]),
                node("Gather", &["x", "other"], &["c"]),
            ],
            vec![constant("Q", &[300, 4], &[]), constant("P", &[50, 4], &[])],
        );
        assert_eq!(uses(&graph, "ids", &[("ids", 1)]).below, Some(50));
        assert_eq!(
            uses(&graph, "other", &[("other", 1)]).below,
            Some(1),
            "a table of unknown size"
        );
    }

    #[test]
    fn only_the_divisor_of_a_division_is_restricted() {
        let graph = graph(vec![node("Div", &["x", "d"], &["y"])], Vec::new());
        assert!(uses(&graph, "d", &[("d", 1)]).divides);
        assert_eq!(uses(&graph, "x", &[("x", 1)]), Uses::default());
    }

    /// As skl2onnx converts a ColumnTransformer: columns are concatenated, then extracted again.
    #[test]
    fn keys_are_traced_to_their_column() {
        let encoder = |from: &str, key: &str| {
            with(node("OneHotEncoder", &[from], &["y"]), strings("cats_strings", &[key]))
        };
        let graph = graph(
            vec![
                node("Concat", &["city", "pair"], &["all"]),
                node("ArrayFeatureExtractor", &["all", "zero"], &["a"]),
                node("ArrayFeatureExtractor", &["all", "two"], &["b"]),
                encoder("a", "Rome"),
                encoder("b", "red"),
            ],
            vec![constant("zero", &[1], &[0]), constant("two", &[1], &[2])],
        );
        let widths = [("city", 1), ("pair", 2)];
        let key = |key: &str| TableKeys::Strings(vec![key.to_owned()]);
        assert_eq!(uses(&graph, "city", &widths).keys, BTreeMap::from([(0, key("Rome"))]));
        assert_eq!(uses(&graph, "pair", &widths).keys, BTreeMap::from([(1, key("red"))]));
    }

    #[test]
    fn value_dependent_shapes_are_detected() {
        let of = |nodes| {
            let graph = graph(nodes, Vec::new());
            ValueMap::of(&graph).values_shape_outputs(["x"].into_iter())
        };
        assert!(of(vec![node("Relu", &["x"], &["a"]), node("NonZero", &["a"], &["y"])]));
        assert!(of(vec![node("Slice", &["c", "x"], &["y"])]));
        let shape = node("Shape", &["x"], &["s"]);
        assert!(
            !of(vec![shape, node("Reshape", &["x", "s"], &["y"])]),
            "depends only on the shape"
        );
    }
}
