//! Inputs and outputs of a graph, read before ONNX Runtime loads it. Outputs that are not tensors
//! are replaced in the file, or refused with their name.
//!
//! - The output of `ai.onnx.ml.ZipMap`, dictionaries of scores, becomes the tensor of scores.
//! - The output of `SequenceConstruct`, a list of tensors, becomes one output for each of them:
//!   `<name>_0`, `<name>_1`, ...

use std::borrow::Cow;

use prost::{DecodeError, Message};
use spinfer_backend::Error;
use spinfer_onnx::wire::{push, splice};
use spinfer_onnx::{
    GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorTypeProto, TypeProto,
    ValueInfoProto, data_type,
};

use crate::low_precision::LowPrecision;
use crate::{data_dependence, locale};

/// A graph whose inputs and outputs are tensors.
pub(crate) struct Signature<'a> {
    /// The model: the file, or the edited file.
    pub(crate) model: Cow<'a, [u8]>,
    /// Inputs that are not constants, as the file declares them.
    pub(crate) inputs: Vec<ValueInfoProto>,
    pub(crate) outputs: Vec<ValueInfoProto>,
    /// Whether the time of a run depends on the values of inputs.
    pub(crate) data_dependent: bool,
}

pub(crate) fn read(bytes: &[u8]) -> Result<Signature<'_>, Error> {
    let invalid = |e: DecodeError| Error::InvalidEncoding(format!("not an ONNX model: {e}"));
    let model = ModelProto::decode_outline(bytes).map_err(invalid)?;
    let graph = model
        .graph
        .as_ref()
        .ok_or_else(|| Error::InvalidEncoding("not an ONNX model: it contains no graph".into()))?;
    if let Some(tensor) = graph.initializer.iter().find(|tensor| tensor.is_external()) {
        return Err(Error::Unsupported(format!(
            "the weights `{}` are in another file; `spinfer add` merges them into the graph",
            tensor.name
        )));
    }
    let is_constant =
        |input: &ValueInfoProto| graph.initializer.iter().any(|tensor| tensor.name == input.name);
    let inputs: Vec<ValueInfoProto> =
        graph.input.iter().filter(|input| !is_constant(input)).cloned().collect();
    for input in &inputs {
        check("input", input)?;
    }
    let replacements = graph
        .output
        .iter()
        .map(|output| Replacement::of(graph, output))
        .collect::<Result<Vec<_>, Error>>()?;
    let data_dependent = data_dependence::is_data_dependent(&model);
    let locales = locale::has_missing(graph);
    if replacements.iter().all(Option::is_none) && !locales {
        let outputs = graph.output.clone();
        return Ok(Signature { model: Cow::Borrowed(bytes), inputs, outputs, data_dependent });
    }
    let mut edited = edit(bytes, &model, &replacements).map_err(invalid)?;
    if locales {
        edited = locale::replace_missing(&edited).map_err(invalid)?;
    }
    let outputs = graph.output.iter().zip(replacements).flat_map(|(output, replacement)| {
        replacement.map_or_else(|| vec![output.clone()], |replacement| replacement.outputs)
    });
    Ok(Signature { model: Cow::Owned(edited), inputs, outputs: outputs.collect(), data_dependent })
}

/// Refuses a value that is not a tensor of a supported type.
fn check(kind: &str, value: &ValueInfoProto) -> Result<(), Error> {
    let name = &value.name;
    let refuse = |what: &str| {
        Err(Error::Unsupported(format!(
            "the {kind} `{name}` is {what}, which cannot be served; export the graph with a tensor of \
             numbers, truth values or strings in its place"
        )))
    };
    let Some(ty) = &value.r#type else {
        return if kind == "output" { Ok(()) } else { refuse("of no type") };
    };
    let Some(tensor) = &ty.tensor else {
        return match ty {
            TypeProto { sequence: Some(_), .. } => refuse("a sequence"),
            TypeProto { map: Some(_), .. } => refuse("a map"),
            TypeProto { optional: Some(_), .. } => refuse("an optional value"),
            TypeProto { sparse_tensor: Some(_), .. } => refuse("a sparse tensor"),
            _ if kind == "output" => Ok(()),
            _ => refuse("of no type"),
        };
    };
    let ty = tensor.elem_type;
    let known = matches!(ty, data_type::FLOAT..=data_type::UINT64 | data_type::BFLOAT16)
        || LowPrecision::of(ty).is_some();
    if known { Ok(()) } else { refuse(&format!("a tensor of {}", data_type::name(ty))) }
}

/// The replacement of an output that is not a tensor.
struct Replacement {
    /// Names of the values that it consists of, and of the outputs that they become.
    values: Vec<(String, String)>,
    outputs: Vec<ValueInfoProto>,
}

impl Replacement {
    fn of(graph: &GraphProto, output: &ValueInfoProto) -> Result<Option<Self>, Error> {
        let producer = graph.node.iter().find(|node| node.output.contains(&output.name));
        let producer = producer.map(|node| (node.operator(), node));
        match producer {
            Some((operator, node)) if operator == "ai.onnx.ml.ZipMap" => {
                let [scores] = node.input.as_slice() else { return Ok(None) };
                let tensor = TensorTypeProto { elem_type: data_type::FLOAT, shape: None };
                Ok(Some(Self {
                    values: vec![(scores.clone(), output.name.clone())],
                    outputs: vec![info(output.name.clone(), tensor)],
                }))
            }
            Some((operator, node)) if operator == "SequenceConstruct" => {
                let element = output.r#type.as_ref().and_then(|ty| ty.sequence.as_ref());
                let element = element.and_then(|ty| ty.elem_type.as_ref()?.tensor.clone());
                let element = element.ok_or_else(|| {
                    Error::Unsupported(format!(
                        "the output `{}` is not a sequence of tensors, which cannot be served",
                        output.name
                    ))
                })?;
                let names = (0..node.input.len()).map(|n| format!("{}_{n}", output.name));
                let outputs: Vec<ValueInfoProto> = names
                    .map(|name| info(name, TensorTypeProto { shape: None, ..element.clone() }))
                    .collect();
                outputs.iter().try_for_each(|output| check("output", output))?;
                let names = outputs.iter().map(|output| output.name.clone());
                let values = node.input.iter().cloned().zip(names).collect();
                Ok(Some(Self { values, outputs }))
            }
            _ => check("output", output).map(|()| None),
        }
    }
}

fn info(name: String, tensor: TensorTypeProto) -> ValueInfoProto {
    ValueInfoProto {
        name,
        r#type: Some(TypeProto { tensor: Some(tensor), ..TypeProto::default() }),
    }
}

/// The model with the outputs replaced, and an `Identity` for each value that is now an output. The
/// nodes that computed the old outputs are removed.
fn edit(
    bytes: &[u8],
    model: &ModelProto,
    replacements: &[Option<Replacement>],
) -> Result<Vec<u8>, DecodeError> {
    let replaced: Vec<&str> = model
        .graph
        .iter()
        .flat_map(|graph| graph.output.iter().zip(replacements))
        .filter(|(_, replacement)| replacement.is_some())
        .map(|(output, _)| output.name.as_str())
        .collect();
    let values = replacements.iter().flatten().flat_map(|replacement| &replacement.values);
    let identities: Vec<Vec<u8>> = values
        .map(|(from, to)| {
            let (input, output) = (vec![from.clone()], vec![to.clone()]);
            NodeProto { input, output, op_type: "Identity".into(), ..NodeProto::default() }
                .encode_to_vec()
        })
        .collect();
    let mut edited = splice(bytes, ModelProto::GRAPH, |_, graph| {
        let without = splice(graph, GraphProto::NODE, |_, node| {
            let node = NodeProto::decode_outline(node)?;
            let is_removed = node.output.iter().any(|output| replaced.contains(&output.as_str()));
            Ok(is_removed.then(Vec::new))
        })?;
        let mut graph = splice(&without, GraphProto::OUTPUT, |position, _| {
            let replacement = replacements.get(position).and_then(Option::as_ref);
            let outputs = |r: &Replacement| r.outputs.iter().map(Message::encode_to_vec).collect();
            Ok(replacement.map(outputs))
        })?;
        for node in &identities {
            push(GraphProto::NODE, node, &mut graph);
        }
        Ok(Some(vec![graph]))
    })?;
    if !model.opset_import.iter().any(|set| matches!(set.domain.as_str(), "" | "ai.onnx")) {
        let set = OperatorSetIdProto { domain: String::new(), version: 13 };
        push(ModelProto::OPSET_IMPORT, &set.encode_to_vec(), &mut edited);
    }
    Ok(edited)
}
