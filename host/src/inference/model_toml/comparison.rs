//! Compares what `model.toml` declares with the graph.
//!
//! An axis that the graph leaves free can be fixed in `model.toml`, as `spinfer add` does where the graph
//! runs with one size only. An output can be left out. Files declare sizes of output axes that are not those
//! of a run, so only a run contradicts `model.toml` there.

use spinfer_model_toml::{ModelToml, TensorEntry};

use super::graph_tensors::{GraphTensor, GraphTensors};
use super::nearest;
use crate::inference::graph::LoadedGraph;

/// Whether a tensor is an input or an output.
#[derive(Clone, Copy)]
enum Side {
    Input,
    Output,
}

/// What is known of the axes of a tensor.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Evidence {
    /// Of an input: its sizes are the only ones that the graph accepts.
    Input,
    /// Of an output, as declared.
    Output,
    /// Of an output in a run.
    Run,
}

impl Side {
    fn one(self) -> &'static str {
        match self {
            Self::Input => "input",
            Self::Output => "output",
        }
    }
}

/// Every contradiction between `model` and `graph`: the key, what is wrong, and what to write.
pub(in crate::inference) fn compare(model: &ModelToml, graph: &GraphTensors) -> Vec<String> {
    let mut problems = Vec::new();
    if !model.mapped {
        unknown_names(Side::Input, &model.inputs, &graph.inputs, &mut problems);
        missing_inputs(model, graph, &mut problems);
        unknown_names(Side::Output, &model.outputs, &graph.outputs, &mut problems);
        // Of a mapping, inputs of the same name may differ.
        tensors(Side::Input, &model.inputs, &graph.inputs, &mut problems);
    }
    tensors(Side::Output, &model.outputs, &graph.outputs, &mut problems);
    problems
}

/// As `compare`, with a loaded graph. What its backend does not know is compared with the outputs of a run
/// on zeros.
#[must_use]
pub fn check_loaded(model: &ModelToml, graph: &LoadedGraph) -> Vec<String> {
    let tensors = GraphTensors::of_loaded(graph);
    let mut problems = compare(model, &tensors);
    if problems.is_empty() && needs_run(model, &tensors) {
        let declared = |name: &str| {
            let inputs = if model.mapped { &[][..] } else { &model.inputs };
            inputs.iter().find(|input| input.name == name).map(|input| &*input.shape)
        };
        // A graph that does not run on zeros is checked by its first response.
        let dimensions = graph.dimensions_of_run(declared).unwrap_or_default();
        for (output, dimensions) in tensors.outputs.iter().zip(dimensions) {
            problems.extend(check_run(model, &output.name, &dimensions));
        }
    }
    problems
}

/// Whether only a run shows something that `model` declares of its outputs.
fn needs_run(model: &ModelToml, graph: &GraphTensors) -> bool {
    let is_open = |entry: &TensorEntry| {
        let Some(output) = graph.outputs.iter().find(|it| it.name == entry.name) else {
            return false;
        };
        let Some(shape) = &output.shape else { return true };
        let mut axes = entry.shape.iter().zip(shape);
        axes.any(|(&axis, known)| axis >= 0 && known.map(i64::from) != Some(axis))
    };
    let scores = model.scores().filter(|_| !model.labels.is_empty());
    model.outputs.iter().any(is_open) || scores.is_some_and(|(_, scores)| scores.row().is_none())
}

/// Compares the `dimensions` of the output `name` in a run.
fn check_run(model: &ModelToml, name: &str, dimensions: &[u32]) -> Option<String> {
    let index = model.outputs.iter().position(|output| output.name == name)?;
    let entry = &model.outputs[index];
    let axes = dimensions.iter().copied().map(Some).collect();
    let run =
        GraphTensor { name: name.to_owned(), datatype: None, shape: Some(axes), is_tensor: true };
    if let Some(problem) = shape(&format!("outputs[{index}]"), Evidence::Run, entry, &run) {
        return Some(problem);
    }
    let is_scores = model.scores().is_some_and(|(scores, _)| scores == index);
    let row = dimensions
        .iter()
        .enumerate()
        .filter(|(axis, _)| *axis != entry.batch_axis || entry.shape.get(*axis) != Some(&-1));
    let width = row.map(|(_, &size)| size as usize).product();
    is_scores.then(|| model.scores_problem(index, width)).flatten()
}

/// Declared names that the graph does not have.
fn unknown_names(
    side: Side,
    declared: &[TensorEntry],
    graph: &[GraphTensor],
    problems: &mut Vec<String>,
) {
    let is_declared = |tensor: &&GraphTensor| declared.iter().any(|it| it.name == tensor.name);
    let undeclared: Vec<_> = graph.iter().filter(|tensor| !is_declared(tensor)).collect();
    for (index, TensorEntry { name, .. }) in declared.iter().enumerate() {
        let has = |tensor: &GraphTensor| {
            tensor.name == *name || !tensor.is_tensor && name.starts_with(&tensor.name)
        };
        if graph.iter().any(has) {
            continue;
        }
        let one = side.one();
        let names: Vec<_> = graph.iter().map(|tensor| format!("{:?}", tensor.name)).collect();
        let similar = nearest(name, undeclared.iter().map(|tensor| &*tensor.name));
        let fix = match (similar, &*undeclared) {
            (Some(name), _) => name,
            (None, [only]) => &only.name,
            (None, _) => "...",
        };
        problems.push(format!(
            "`{one}s[{index}].name`: is {name:?}, but the graph's {one}s are {}; write name = {fix:?}, or \
             `mapped = true` at the top of the file if the component maps the {one}s",
            names.join(", ")
        ));
    }
}

/// Inputs of the graph that are not declared, unless a declared one has a wrong name.
fn missing_inputs(model: &ModelToml, graph: &GraphTensors, problems: &mut Vec<String>) {
    if !problems.is_empty() {
        return;
    }
    let is_declared = |tensor: &&GraphTensor| model.inputs.iter().any(|it| it.name == tensor.name);
    for GraphTensor { name, datatype, shape, .. } in
        graph.inputs.iter().filter(|it| !is_declared(it))
    {
        let datatype = datatype.unwrap_or("...");
        let shape =
            shape.as_deref().map_or("[...]".to_owned(), |shape| format!("{:?}", sizes(shape)));
        problems.push(format!(
            "[[inputs]]: the graph's input {name:?} is missing; add [[inputs]] with name = {name:?}, \
             datatype = {datatype:?}, shape = {shape}"
        ));
    }
}

/// Datatypes and shapes of the tensors that both have.
fn tensors(
    side: Side,
    declared: &[TensorEntry],
    graph: &[GraphTensor],
    problems: &mut Vec<String>,
) {
    for (index, entry) in declared.iter().enumerate() {
        let Some(tensor) = graph.iter().find(|tensor| tensor.name == entry.name) else { continue };
        let key = format!("{}s[{index}]", side.one());
        if let Some(datatype) = tensor.datatype.filter(|datatype| *datatype != entry.datatype) {
            problems.push(format!(
                "`{key}.datatype`: is {:?}, but {:?} of the graph is {datatype}; write datatype = {datatype:?}",
                entry.datatype, entry.name
            ));
        }
        let evidence = match side {
            Side::Input => Evidence::Input,
            Side::Output => Evidence::Output,
        };
        problems.extend(shape(&key, evidence, entry, tensor));
    }
}

fn shape(
    key: &str,
    evidence: Evidence,
    entry: &TensorEntry,
    tensor: &GraphTensor,
) -> Option<String> {
    let axes = tensor.shape.as_ref()?;
    // Components accept the shape `[1]` for a scalar.
    if evidence != Evidence::Input && entry.shape.is_empty() && **axes == [Some(1)] {
        return None;
    }
    let agree = |(&declared, axis): (&i64, &Option<u32>)| match axis {
        None => true,
        Some(_) if evidence == Evidence::Output => true,
        Some(_) if declared == -1 => evidence == Evidence::Run,
        Some(size) => declared == i64::from(*size),
    };
    if entry.shape.len() == axes.len() && entry.shape.iter().zip(axes).all(agree) {
        return None;
    }
    let fix: Vec<i64> = match entry.shape.len() == axes.len() {
        false => sizes(axes),
        true => {
            let both = entry.shape.iter().zip(axes);
            both.map(|(&declared, axis)| match axis {
                Some(size) if evidence != Evidence::Run || declared >= 0 => i64::from(*size),
                _ => declared,
            })
            .collect()
        }
    };
    Some(format!(
        "`{key}.shape`: is {:?}, but {:?} of the graph has {:?} (-1 is a free axis); write shape = {fix:?}",
        entry.shape,
        entry.name,
        sizes(axes)
    ))
}

/// The size of each axis; -1 for a free one.
fn sizes(axes: &[Option<u32>]) -> Vec<i64> {
    axes.iter().map(|axis| axis.map_or(-1, i64::from)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const IRIS: &str = include_str!("../../../../models/iris-classifier/1/model.toml");
    const GRAPH: &[u8] = include_bytes!("../../../../models/iris-classifier/1/model.onnx");

    fn problems(edits: &[(&str, &str)]) -> Vec<String> {
        let edited = edits.iter().fold(IRIS.to_owned(), |text, (from, to)| {
            assert!(text.contains(from), "{from}");
            text.replacen(from, to, 1)
        });
        let model = ModelToml::read(&edited, "iris-classifier").unwrap();
        compare(&model, &GraphTensors::of_file(GRAPH).unwrap())
    }

    const FIELDS: &str =
        "\nfields = [\"sepal_length\", \"sepal_width\", \"petal_length\", \"petal_width\"]";

    #[test]
    fn contradictions_name_the_key_and_the_fix() {
        assert_eq!(problems(&[]), [""; 0]);
        for (edits, expected) in [
            (
                &[("\"features\"", "\"measurements\"")][..],
                &[
                    "`inputs[0].name`: is \"measurements\", but the graph's inputs are \"features\"; write name = \
                  \"features\", or `mapped = true` at the top of the file if the component maps the inputs",
                ][..],
            ),
            (
                &[("FP32", "FP64")],
                &[
                    "`inputs[0].datatype`: is \"FP64\", but \"features\" of the graph is FP32; write datatype = \
                  \"FP32\"",
                ],
            ),
            (
                &[("[-1, 4]", "[-1, 5]"), (FIELDS, "")],
                &[
                    "`inputs[0].shape`: is [-1, 5], but \"features\" of the graph has [-1, 4] (-1 is a free \
                  axis); write shape = [-1, 4]",
                ],
            ),
            (
                &[("[-1, 4]", "[-1, -1]"), (FIELDS, "")],
                &[
                    "`inputs[0].shape`: is [-1, -1], but \"features\" of the graph has [-1, 4] (-1 is a free \
                  axis); write shape = [-1, 4]",
                ],
            ),
            (
                &[("[-1, 4]", "[4]")],
                &[
                    "`inputs[0].shape`: is [4], but \"features\" of the graph has [-1, 4] (-1 is a free axis); \
                  write shape = [-1, 4]",
                ],
            ),
            (
                &[("\"label\"", "\"lable\""), ("INT64", "INT32")],
                &[
                    "`outputs[0].name`: is \"lable\", but the graph's outputs are \"label\", \"probabilities\"; \
                  write name = \"label\", or `mapped = true` at the top of the file if the component maps the \
                  outputs",
                ],
            ),
            (
                &[("INT64", "INT32"), ("shape = [-1]", "shape = [-1, 1]")],
                &[
                    "`outputs[0].datatype`: is \"INT32\", but \"label\" of the graph is INT64; write datatype \
                     = \"INT64\"",
                    "`outputs[0].shape`: is [-1, 1], but \"label\" of the graph has [-1] (-1 is a free axis); \
                     write shape = [-1]",
                ],
            ),
            // Only a run shows the size of an output.
            (&[("[-1, 3]", "[-1, 2]"), (", \"virginica\"", "")], &[]),
            // The file may fix what the graph leaves free, and leave out outputs.
            (&[("[-1, 4]", "[1, 4]")], &[]),
            (&[("[[outputs]]\nname = \"label\"\ndatatype = \"INT64\"\nshape = [-1]\n", "")], &[]),
            // A mapping has inputs of its own.
            (&[("name =", "mapped = true\nname ="), ("\"features\"", "\"text\"")], &[]),
        ] {
            assert_eq!(problems(edits), expected);
        }
    }

    #[test]
    fn missing_input_is_shown_as_it_should_be_declared() {
        let mut graph = GraphTensors::of_file(GRAPH).unwrap();
        graph.inputs.push(GraphTensor {
            name: "age".into(),
            datatype: Some("INT64"),
            shape: Some(vec![None]),
            is_tensor: true,
        });
        let model = ModelToml::read(IRIS, "iris-classifier").unwrap();
        assert_eq!(
            compare(&model, &graph),
            [
                "[[inputs]]: the graph's input \"age\" is missing; add [[inputs]] with name = \"age\", datatype = \
              \"INT64\", shape = [-1]"
            ]
        );
    }

    #[test]
    fn run_shows_what_the_graph_leaves_open() {
        let text = IRIS.replace("[-1, 3]", "[-1, -1]");
        let model = ModelToml::read(&text, "iris-classifier").unwrap();
        let mut graph = GraphTensors::of_file(GRAPH).unwrap();
        graph.outputs[1].shape = Some(vec![None, None]);
        assert!(needs_run(&model, &graph));
        assert_eq!(check_run(&model, "probabilities", &[1, 3]), None);
        let problem = check_run(&model, "probabilities", &[1, 4]).unwrap();
        assert!(problem.contains("`labels`: has 3 of them"), "{problem}");
        let problem = check_run(&model, "probabilities", &[3]).unwrap();
        assert!(problem.contains("`outputs[1].shape`"), "{problem}");
        let text = IRIS.replace("[-1, 3]", "[-1, 2]").replace(", \"virginica\"", "");
        let other = ModelToml::read(&text, "iris-classifier").unwrap();
        assert!(needs_run(&other, &GraphTensors::of_file(GRAPH).unwrap()));
        let problem = check_run(&other, "probabilities", &[1, 3]).unwrap();
        assert!(problem.contains("write shape = [-1, 3]"), "{problem}");
        graph.outputs[1].shape = None;
        let model = ModelToml::read(IRIS, "iris-classifier").unwrap();
        assert!(needs_run(&model, &graph));
    }
}
