//! The default of [`crate::Model::predict`]: what the outputs mean follows from the signature.

use std::fmt;

use spinfer_model_toml::scores_fit;

use crate::byte_strings::split_bytes;
use crate::datatype::{Datatype, Element};
use crate::error::Error;
use crate::graph::{self, Graph};
use crate::hooks::{self, Mapping};
use crate::prediction::Prediction;
use crate::row_prediction::NO_CLASS;
use crate::rows::Rows;
use crate::shape::Shape;
use crate::signature::{Signature, TensorSignature};
use crate::tensor::Tensor;

/// The roles of a model's outputs in a prediction, whatever their names and order.
enum OutputRoles<'a> {
    /// The only output: numbers.
    Numbers(&'a TensorSignature),
    /// The only output: a score per label. The class is that of the greatest.
    Scores(&'a TensorSignature),
    /// An integer, boolean or string per row: a class. Optionally scores.
    Classes(&'a TensorSignature, Option<&'a TensorSignature>),
}

/// Maximum distance from 1 of the sum of a row of probabilities: half-precision sums over some hundred
/// classes are off by some thousandths.
const SUM_TOLERANCE: f32 = 0.01;

/// Predicts from rows with the graph or the mapping.
pub(crate) fn predict(
    graph: &Graph,
    rows: Rows<'_>,
    mapping: Option<Mapping>,
) -> Result<Prediction, Error> {
    let signature = graph.signature();
    let outputs = OutputRoles::of(signature).ok_or_else(|| no_short_form(signature))?;
    let inputs = rows.inputs(signature)?;
    let (wanted, count) = outputs.wanted();
    let wanted = &wanted[..count];
    let tensors = match mapping {
        Some(mapping) => hooks::map(graph, mapping, &inputs, wanted)?,
        None => {
            let tensors = graph.compute_all(inputs, wanted)?;
            check_rows(signature, wanted, &tensors, rows.count)?;
            tensors
        }
    };
    let tensors = rows_first(wanted, tensors);
    outputs.prediction(signature, tensors, rows.count)
}

/// Refuses outputs with another number of rows. Their free axis counts something else, which is not an
/// error of the model.
fn check_rows(
    signature: &Signature,
    wanted: &[&TensorSignature],
    tensors: &[Tensor],
    rows: u32,
) -> Result<(), Error> {
    for (output, tensor) in wanted.iter().zip(tensors) {
        let counted = tensor.dimensions.get(output.batch_axis).copied();
        // Except classes, a whole output may belong to the only row.
        let is_whole = rows == 1 && !is_class(output);
        if output.counts_rows() && counted != Some(rows) && !is_whole {
            return Err(Error::invalid(format!(
                "the output {:?} has the shape {} for {rows} rows and cannot be split by row; \
                 use POST /v2/models/{}/infer, which returns it whole",
                output.name,
                Shape::of(&tensor.dimensions),
                signature.name
            )));
        }
    }
    Ok(())
}

/// Moves the batch axis of each output to the front.
fn rows_first(wanted: &[&TensorSignature], mut tensors: Vec<Tensor>) -> Vec<Tensor> {
    for (output, tensor) in wanted.iter().zip(&mut tensors) {
        if output.batch_axis > 0 {
            *tensor = tensor.with_axis_first(output.batch_axis).into_owned();
        }
    }
    tensors
}

/// The prediction for `rows` rows from computed outputs, if the model has a short form.
pub(crate) fn from_outputs(
    signature: &Signature,
    tensors: &[Tensor],
    rows: u32,
) -> Option<Prediction> {
    let outputs = OutputRoles::of(signature)?;
    let (wanted, count) = outputs.wanted();
    let wanted = &wanted[..count];
    let find = |output: &&TensorSignature| tensors.iter().find(|tensor| tensor.name == output.name);
    let tensors: Vec<_> =
        wanted.iter().map(|output| find(output).cloned()).collect::<Option<_>>()?;
    check_rows(signature, wanted, &tensors, rows).ok()?;
    let tensors = rows_first(wanted, tensors);
    let prediction = outputs.prediction(signature, tensors, rows).ok()?;
    prediction.checked(&signature.labels, rows as usize).ok()
}

impl<'a> OutputRoles<'a> {
    /// The outputs to compute, and their number.
    fn wanted(&self) -> ([&'a TensorSignature; 2], usize) {
        match *self {
            Self::Numbers(only) | Self::Scores(only) | Self::Classes(only, None) => {
                ([only, only], 1)
            }
            Self::Classes(class, Some(scores)) => ([class, scores], 2),
        }
    }

    /// The prediction from `tensors`, in the order of [`Self::wanted`].
    fn prediction(
        &self,
        signature: &Signature,
        tensors: Vec<Tensor>,
        rows: u32,
    ) -> Result<Prediction, Error> {
        match self {
            Self::Numbers(_) => {
                let [numbers] = graph::all(tensors)?;
                let is_double = numbers.datatype == Datatype::F64;
                Ok(Prediction::Numbers(if is_double { numbers } else { as_f32(numbers) }))
            }
            Self::Scores(_) => {
                let [scores] = graph::all(tensors)?;
                let scores = as_f32(scores);
                let indices = greatest(&scores.f32s()?, signature.labels.len());
                // Not an output of the model, so it has no name.
                let indices = Tensor::i64("", &[rows], &indices);
                classes(signature, indices, Some(scores))
            }
            Self::Classes(_, None) => {
                let [class] = graph::all(tensors)?;
                from_classes(signature, class, None)
            }
            Self::Classes(_, Some(_)) => {
                let [class, scores] = graph::all(tensors)?;
                from_classes(signature, class, Some(as_f32(scores)))
            }
        }
    }

    /// `None` if the outputs are not one prediction per row.
    fn of(signature: &'a Signature) -> Option<Self> {
        match &*signature.outputs {
            [class] if is_class(class) => Some(Self::Classes(class, None)),
            [only] if !only.datatype.is_float() => None,
            [only] => {
                let labels = signature.labels.len();
                let scores = labels > 1 && only.row() == Some(labels);
                Some(if scores { Self::Scores(only) } else { Self::Numbers(only) })
            }
            [class, scores] | [scores, class] if is_class(class) && scores.datatype.is_float() => {
                Some(Self::Classes(class, Some(scores)))
            }
            _ => None,
        }
    }
}

fn no_short_form(signature: &Signature) -> Error {
    let outputs: Vec<_> = signature
        .outputs
        .iter()
        .map(|output| format!("{:?} ({} {})", output.name, output.datatype.name(), output.shape))
        .collect();
    let Signature { name, .. } = signature;
    Error::invalid(format!(
        "the model {name:?} has no short form: its outputs are not one prediction per row: {}; \
         use POST /v2/models/{name}/infer",
        outputs.join(", ")
    ))
}

/// Whether an output has an integer, boolean or string per row.
fn is_class(output: &TensorSignature) -> bool {
    !output.datatype.is_float() && output.row() == Some(1)
}

/// The prediction from an output of classes.
fn from_classes(
    signature: &Signature,
    class: Tensor,
    scores: Option<Tensor>,
) -> Result<Prediction, Error> {
    let indices = match class.datatype {
        Datatype::Bytes | Datatype::Bool if signature.labels.is_empty() => {
            return Ok(Prediction::Values(class));
        }
        Datatype::Bytes => indices_of_labels(signature, &class)?,
        _ => class_indices(signature, &class)?,
    };
    classes(signature, indices, scores)
}

/// Adds the scores to the classes if they are probabilities, one per label.
///
/// # Errors
/// There are scores of more or fewer classes than labels: the labels are not those of the classes.
fn classes(
    signature: &Signature,
    indices: Tensor,
    scores: Option<Tensor>,
) -> Result<Prediction, Error> {
    let labels = signature.labels.len();
    let Some(scores) = scores.filter(|_| labels > 0) else {
        return Ok(Prediction::Labels(indices));
    };
    let (rows, count) = (indices.count(), scores.count());
    let width = if rows > 0 && count.is_multiple_of(rows) { count / rows } else { labels };
    if width == labels {
        return Ok(if are_probabilities(&scores, labels) {
            Prediction::Classes { indices, probabilities: scores }
        } else {
            Prediction::Labels(indices)
        });
    }
    // Margins are not probabilities; a row with NaN or infinities does not tell.
    let numbers = scores.data.as_chunks().0.iter();
    let is_finite = numbers.map(|&number| f32::from_le_bytes(number)).all(f32::is_finite);
    let are_margins = width == 1 || !is_finite || !are_probabilities(&scores, width);
    if scores_fit(labels, width) && are_margins {
        return Ok(Prediction::Labels(indices));
    }
    Err(Error::internal(format!(
        "/models/{}/model.toml: `labels` has {labels} of them, but the output {:?} has {width} scores for each \
         row; write a label for each score, in their order",
        signature.name, scores.name
    )))
}

/// Whether each row of `labels` numbers is a probability distribution, unlike distances and margins. Rows
/// with NaN or infinities are not considered, so that they are reported as null.
fn are_probabilities(scores: &Tensor, labels: usize) -> bool {
    let (numbers, rest) = scores.data.as_chunks();
    let distribution = |row: &[[u8; 4]]| {
        let numbers = row.iter().map(|&number| f32::from_le_bytes(number));
        let sum: f32 = numbers.clone().sum();
        !sum.is_finite()
            || (sum - 1.0).abs() <= SUM_TOLERANCE
                && numbers.into_iter().all(|number| (0.0..=1.0 + SUM_TOLERANCE).contains(&number))
    };
    let is_table = labels > 0 && rest.is_empty() && numbers.len().is_multiple_of(labels);
    is_table && numbers.chunks(labels).all(distribution)
}

/// The index of the greatest score in each row, the first of several. [`NO_CLASS`] for a row with NaN.
fn greatest(scores: &[f32], labels: usize) -> Vec<i64> {
    let position = |row: &[f32]| {
        let mut best = 0;
        for (index, score) in row.iter().enumerate() {
            if score.is_nan() {
                return NO_CLASS;
            }
            if *score > row[best] {
                best = index;
            }
        }
        best as i64
    };
    scores.chunks(labels).map(position).collect()
}

/// Converts classes to indices into the labels, as INT64. They are indices already, unless the labels in
/// `model.toml` are numbers.
fn class_indices(signature: &Signature, tensor: &Tensor) -> Result<Tensor, Error> {
    let position = |class: i64| {
        if signature.classes.is_empty() {
            return Ok(class);
        }
        let found = signature.classes.iter().position(|&known| known == class);
        found.map(|index| index as i64).ok_or_else(|| unknown_class(&class))
    };
    let numbers = tensor.data.chunks_exact(tensor.datatype.size());
    let classes: Vec<i64> = numbers
        .filter_map(|number| match tensor.datatype.element(number) {
            Element::I64(class) => Some(position(class)),
            Element::U64(class) => Some(Err(Error::invalid(format!(
                "the output {:?} is {class}, above the maximum of INT64; use POST /v2/models/{}/infer",
                tensor.name, signature.name
            )))),
            Element::F32(_) | Element::F64(_) => None,
        })
        .collect::<Result<_, _>>()?;
    let rows = u32::try_from(classes.len()).unwrap_or(u32::MAX);
    Ok(Tensor::i64(&tensor.name, &[rows], &classes))
}

/// Converts classes that are strings to indices into the labels, as INT64.
#[inline(never)]
fn indices_of_labels(signature: &Signature, tensor: &Tensor) -> Result<Tensor, Error> {
    let mut classes = Vec::new();
    for class in split_bytes(&tensor.data) {
        let class = String::from_utf8_lossy(class.unwrap_or_default());
        let found = signature.labels.iter().position(|label| *label == class);
        classes.push(found.ok_or_else(|| unknown_class(&class))? as i64);
    }
    let rows = u32::try_from(classes.len()).unwrap_or(u32::MAX);
    Ok(Tensor::i64(&tensor.name, &[rows], &classes))
}

#[cold]
fn unknown_class(class: &dyn fmt::Display) -> Error {
    Error::internal(format!("the graph returned class {class}, which is not a label of model.toml"))
}

/// Converts a floating-point tensor to FP32.
fn as_f32(tensor: Tensor) -> Tensor {
    if tensor.datatype == Datatype::F32 {
        return tensor;
    }
    let numbers = tensor.data.chunks_exact(tensor.datatype.size());
    let numbers: Vec<f32> = numbers
        .map(|number| match tensor.datatype.element(number) {
            Element::F32(number) => number,
            #[expect(clippy::cast_possible_truncation, reason = "the nearest")]
            Element::F64(number) => number as f32,
            #[expect(clippy::cast_precision_loss, reason = "the nearest")]
            Element::I64(number) => number as f32,
            #[expect(clippy::cast_precision_loss, reason = "the nearest")]
            Element::U64(number) => number as f32,
        })
        .collect();
    Tensor::f32(&tensor.name, &tensor.dimensions, &numbers)
}

#[cfg(test)]
mod tests;
