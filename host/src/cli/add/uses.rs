//! What a graph does with its inputs, as far as that says which values they may have: an index has a
//! range, a divisor is not 0, a table has keys.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::onnx::{Graph, Node, Tensor, data_type};

/// What is known of the values of one input.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Uses {
    /// It holds indices, which are less than that.
    pub(super) below: Option<u64>,
    /// Something is divided by it.
    pub(super) divides: bool,
    /// Values that a table of the graph has, by column: the position in its last axis.
    pub(super) keys: BTreeMap<usize, Keys>,
}

/// The keys of a table, such as a one-hot encoding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Keys {
    Strings(Vec<String>),
    Integers(Vec<i64>),
}

/// Columns of an input, and where they are in a value that is made of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Span {
    /// The first column, of the input.
    from: usize,
    /// Its position in the value.
    at: usize,
    columns: usize,
}

impl Span {
    /// The columns of this that are at `indices` of a value, each by itself.
    fn taken(self, indices: &[i64]) -> Vec<Self> {
        let within = |(at, &index): (usize, &i64)| {
            let place = usize::try_from(index).ok()?.checked_sub(self.at)?;
            (place < self.columns).then_some(Self { from: self.from + place, at, columns: 1 })
        };
        indices.iter().enumerate().filter_map(within).collect()
    }
}

/// Operators whose output holds what their first input does.
const PASSING: [&str; 17] = [
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

/// Operators whose outputs' shapes are in the values of their inputs, from an argument on.
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

/// A graph, by the names of its values.
pub(super) struct Values<'a> {
    nodes: Vec<&'a Node>,
    /// Which nodes take a value, and as which argument.
    takers: HashMap<&'a str, Vec<(usize, usize)>>,
    makers: HashMap<&'a str, usize>,
    initializers: HashMap<&'a str, &'a Tensor>,
}

impl<'a> Values<'a> {
    pub(super) fn of(graph: &'a Graph) -> Self {
        let nodes = graph.nodes();
        let (mut takers, mut makers) = (HashMap::<_, Vec<_>>::new(), HashMap::new());
        for (index, node) in nodes.iter().enumerate() {
            for (argument, name) in node.input.iter().enumerate() {
                takers.entry(name.as_str()).or_default().push((index, argument));
            }
            makers.extend(node.output.iter().map(|name| (name.as_str(), index)));
        }
        let initializers = graph.initializer.iter().map(|tensor| (tensor.name.as_str(), tensor));
        Self { nodes, takers, makers, initializers: initializers.collect() }
    }

    /// What becomes of the input `name`, which has `columns`; `widths` are those of all inputs.
    pub(super) fn uses(&self, name: &str, columns: usize, widths: &BTreeMap<&str, usize>) -> Uses {
        let mut uses = Uses::default();
        let mut waiting = vec![(name, Span { from: 0, at: 0, columns })];
        let mut seen: HashSet<(&str, Span)> = waiting.iter().copied().collect();
        while let Some((value, span)) = waiting.pop() {
            for &(node, argument) in self.takers.get(value).into_iter().flatten() {
                let node = self.nodes[node];
                for next in self.follow(node, argument, span, widths, &mut uses) {
                    // A graph has no more of them, unless it is made to take long.
                    if seen.len() < 100_000 && seen.insert(next) {
                        waiting.push(next);
                    }
                }
            }
        }
        uses
    }

    /// The values that `node` makes of its `argument`, and what it says of that in `uses`.
    fn follow(
        &self,
        node: &'a Node,
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
                return span.taken(&indices).into_iter().flat_map(outputs).collect();
            }
            ("Concat", _) => {
                let before = &node.input[..argument];
                let widths = before.iter().map(|name| self.width(name, widths, 0));
                let offset = widths.sum::<Option<usize>>().unwrap_or(0);
                return outputs(Span { at: span.at + offset, ..span }).collect();
            }
            ("Split", 0) => return self.split(node, span),
            (passing, 0) if PASSING.contains(&passing) => return outputs(span).collect(),
            _ => {}
        }
        Vec::new()
    }

    fn split(&self, node: &'a Node, span: Span) -> Vec<(&'a str, Span)> {
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
            parts.extend(span.taken(&indices).into_iter().map(|span| (name.as_str(), span)));
            start = start.saturating_add(size);
        }
        parts
    }

    /// The columns of the value `name`, where they are known.
    fn width(&self, name: &str, inputs: &BTreeMap<&str, usize>, depth: usize) -> Option<usize> {
        if let Some(&width) = inputs.get(name) {
            return Some(width);
        }
        let node = self.nodes[*self.makers.get(name)?];
        match node.op_type.as_str() {
            "ArrayFeatureExtractor" => Some(self.integers(node.input.get(1)?)?.len()),
            "Cast" | "Identity" | "StringNormalizer" if depth < 16 => {
                self.width(node.input.first()?, inputs, depth + 1)
            }
            _ => None,
        }
    }

    fn constant(&self, name: &str) -> Option<&'a Tensor> {
        let constant = || self.nodes[*self.makers.get(name)?].attribute("value")?.t.as_ref();
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
            let node = self.nodes[*self.makers.get(name)?];
            let same = ["Cast", "DequantizeLinear", "Identity"].contains(&node.op_type.as_str());
            name = node.input.first().filter(|_| same)?;
        }
        None
    }

    /// Whether values of the inputs may decide the shape of an output, and not their shapes alone.
    pub(super) fn values_shape_outputs<'b>(&self, inputs: impl Iterator<Item = &'b str>) -> bool {
        let mut waiting: Vec<&str> = inputs.collect();
        let mut seen: HashSet<&str> = waiting.iter().copied().collect();
        while let Some(value) = waiting.pop() {
            for &(node, argument) in self.takers.get(value).into_iter().flatten() {
                let node = self.nodes[node];
                let operator = node.op_type.as_str();
                if SHAPED_BY_VALUES.iter().any(|&(op, from)| op == operator && argument >= from) {
                    return true;
                }
                let values = !["Shape", "Size"].contains(&operator);
                let outputs = node.output.iter().filter(|_| values).map(String::as_str);
                waiting.extend(outputs.filter(|&name| seen.insert(name)));
            }
        }
        false
    }
}

/// The keys of the table that `node` is, if they are strings or integers.
fn keys(node: &Node) -> Option<Keys> {
    const MAX_KEYS: usize = 100;
    let names = ["keys_strings", "cats_strings", "pool_strings"];
    let strings = names.into_iter().find_map(|name| node.attribute(name));
    let tensor = node.attribute("keys_tensor").and_then(|keys| keys.t.as_ref());
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
        return Some(Keys::Strings(strings));
    }
    let names = ["keys_int64s", "cats_int64s", "pool_int64s"];
    let integers = names.into_iter().find_map(|name| node.attribute(name));
    let integers = match (integers, tensor) {
        (Some(attribute), _) => attribute.ints.clone(),
        (None, tensor) => tensor?.integers()?,
    };
    let integers: Vec<i64> = integers.into_iter().take(MAX_KEYS).collect();
    (!integers.is_empty()).then_some(Keys::Integers(integers))
}

#[cfg(test)]
mod tests {
    use super::super::onnx::Attribute;
    use super::*;

    fn node(op_type: &str, input: &[&str], output: &[&str]) -> Node {
        let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        let (input, output) = (names(input), names(output));
        Node { input, output, op_type: op_type.into(), attribute: Vec::new() }
    }

    fn with(node: Node, attribute: Attribute) -> Node {
        Node { attribute: vec![attribute], ..node }
    }

    fn strings(name: &str, strings: &[&str]) -> Attribute {
        let strings = strings.iter().map(|text| text.as_bytes().to_vec()).collect();
        Attribute { name: name.into(), strings, ..Attribute::default() }
    }

    fn constant(name: &str, dims: &[i64], numbers: &[i64]) -> Tensor {
        Tensor {
            dims: dims.to_vec(),
            data_type: data_type::INT64,
            int64_data: numbers.to_vec(),
            name: name.into(),
            ..Tensor::default()
        }
    }

    fn graph(node: Vec<Node>, initializer: Vec<Tensor>) -> Graph {
        Graph { node, initializer, ..Graph::default() }
    }

    fn uses(graph: &Graph, name: &str, widths: &[(&str, usize)]) -> Uses {
        let widths: BTreeMap<&str, usize> = widths.iter().copied().collect();
        Values::of(graph).uses(name, widths[name], &widths)
    }

    #[test]
    fn an_index_is_below_the_rows_of_the_first_table_it_reaches() {
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
        assert_eq!(uses(&graph, "other", &[("other", 1)]).below, Some(1), "of no known table");
    }

    #[test]
    fn a_divisor_is_found_and_a_dividend_is_none() {
        let graph = graph(vec![node("Div", &["x", "d"], &["y"])], Vec::new());
        assert!(uses(&graph, "d", &[("d", 1)]).divides);
        assert_eq!(uses(&graph, "x", &[("x", 1)]), Uses::default());
    }

    /// As skl2onnx converts a ColumnTransformer: columns are put together, and taken apart again.
    #[test]
    fn keys_are_those_of_the_column() {
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
        let key = |key: &str| Keys::Strings(vec![key.to_owned()]);
        assert_eq!(uses(&graph, "city", &widths).keys, BTreeMap::from([(0, key("Rome"))]));
        assert_eq!(uses(&graph, "pair", &widths).keys, BTreeMap::from([(1, key("red"))]));
    }

    #[test]
    fn shapes_that_hang_on_values_are_known() {
        let of = |nodes| {
            let graph = graph(nodes, Vec::new());
            Values::of(&graph).values_shape_outputs(["x"].into_iter())
        };
        assert!(of(vec![node("Relu", &["x"], &["a"]), node("NonZero", &["a"], &["y"])]));
        assert!(of(vec![node("Slice", &["c", "x"], &["y"])]));
        let shape = node("Shape", &["x"], &["s"]);
        assert!(!of(vec![shape, node("Reshape", &["x", "s"], &["y"])]), "by its shape alone");
    }
}
