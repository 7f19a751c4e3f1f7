//! What a component appends to the prediction log: the rows of a request and what the model said of
//! them, under the names that clients know, the same whichever protocol they came by.
//!
//! The columns are put together from the tensors that are there, after the response is: appending
//! fails no request, and what there is no memory for is not logged.

mod values;

use std::borrow::Cow;

use self::values::{ColumnValues, values};

use crate::bindings::log::spinfer::prediction_log::log as wit;
use crate::datatype::Datatype;
use crate::prediction::{ClassValue, Prediction, RowPrediction};
use crate::request::Request;
use crate::reserve;
use crate::rows::Rows;
use crate::signature::{Signature, TensorSignature};
use crate::tensor::Tensor;

/// Maximum number of elements in one row of a tensor that is logged; of a wider one the name is.
pub(crate) const MAX_WIDTH: usize = 256;
/// What a row takes at most, about, beside its elements, and an element: as it is logged, and once
/// more on its way to the host.
const ROW_BYTES: usize = 64;
const ELEMENT_BYTES: usize = 16;

/// Predictions of one request, in the making.
pub(crate) struct Draft<'a> {
    signature: &'a Signature,
    rows: usize,
    inputs: Vec<Column<'a>>,
    outputs: Vec<Column<'a>>,
    omitted: Vec<Cow<'a, str>>,
    attributes: Vec<(&'a str, Cow<'a, str>)>,
}

/// Columns of one datatype.
struct Column<'a> {
    names: ColumnNames<'a>,
    values: ColumnValues<'a>,
}

enum ColumnNames<'a> {
    One(&'a str),
    Many(Cow<'a, [String]>),
}

/// What the columns of a tensor are called: its fields, its own name, or that of each element.
/// Empty where its shape does not say how many there are, or there are too many.
pub(crate) fn column_names(tensor: &TensorSignature) -> Vec<String> {
    match tensor.row() {
        _ if !tensor.fields.is_empty() => tensor.fields.clone(),
        Some(width) if width <= MAX_WIDTH => element_names(&tensor.name, width),
        _ => Vec::new(),
    }
}

fn element_names(name: &str, width: usize) -> Vec<String> {
    match width {
        1 => vec![name.to_owned()],
        _ => (0..width).map(|index| format!("{name}[{index}]")).collect(),
    }
}

impl<'a> Draft<'a> {
    pub(crate) fn new(signature: &'a Signature, operation: &'a str, rows: usize) -> Self {
        Self {
            signature,
            rows,
            inputs: Vec::new(),
            outputs: Vec::new(),
            omitted: Vec::new(),
            attributes: vec![("operation", operation.into())],
        }
    }

    /// The client's own id.
    pub(crate) fn id(&mut self, id: Option<&'a str>) {
        self.attributes.extend(id.map(|id| ("id", id.into())));
    }

    /// A file in place of features: what it is, and its length. What the model makes of it only the
    /// component knows.
    pub(crate) fn file(&mut self, content_type: &'a str, length: usize) {
        self.attributes.push(("content_type", content_type.into()));
        self.attributes.push(("content_length", length.to_string().into()));
        for input in &self.signature.inputs {
            self.omitted.push(match input.row() {
                Some(width) => wide(&input.name, width),
                None => input.name.as_str().into(),
            });
        }
    }

    /// Rows of features, of strings, or of both.
    pub(crate) fn rows(&mut self, rows: &Rows<'a>) {
        let widths = [rows.features.len() / self.rows, rows.bytes.len() / self.rows];
        let alone = self.signature.inputs.len() == 1;
        let mut starts = [0, 0];
        for input in &self.signature.inputs {
            let of_strings = usize::from(input.datatype == Datatype::Bytes);
            let (width, start) = (widths[of_strings], starts[of_strings]);
            let own = if alone { Some(width) } else { input.row() };
            let Some(own) = own.filter(|own| start + own <= width) else { return };
            if let Some(names) = self.names(input, own) {
                let values = rows.values(input.datatype, width, start, own);
                let column = self.column(input, names, values);
                self.inputs.extend(column);
            }
            starts[of_strings] += own;
        }
    }

    /// Tensors that are inputs of the model.
    pub(crate) fn inputs(&mut self, tensors: &[Tensor]) {
        if self.rows == 0 {
            return;
        }
        let signature = self.signature;
        for tensor in tensors {
            let mut inputs = signature.inputs.iter();
            if let Some(input) = inputs.find(|input| input.name == tensor.name)
                && let Some(names) = self.names(input, tensor.count() / self.rows)
            {
                let tensor = tensor.with_axis_first(input.batch_axis);
                // They go to the graph: nothing of them can be borrowed.
                let values = values(tensor.datatype, &tensor.data).map(ColumnValues::into_owned);
                let column = self.column(input, names, values);
                self.inputs.extend(column);
            }
        }
    }

    /// Outputs of the model as they are.
    pub(crate) fn outputs(&mut self, tensors: &'a [Tensor]) {
        for tensor in tensors {
            let width = tensor.count() / self.rows;
            let mut outputs = self.signature.outputs.iter();
            let axis = outputs.find(|output| output.name == tensor.name);
            let values = match tensor.with_axis_first(axis.map_or(0, |output| output.batch_axis)) {
                Cow::Borrowed(tensor) => values(tensor.datatype, &tensor.data),
                Cow::Owned(tensor) => {
                    values(tensor.datatype, &tensor.data).map(ColumnValues::into_owned)
                }
            };
            self.output(&tensor.name, width, values);
        }
    }

    /// What the model says of each row, and the outputs that this is from. There are several where
    /// each row was an inference.
    pub(crate) fn predictions(&mut self, predictions: &'a [Prediction]) {
        self.short_form(predictions);
        let Some((first, rest)) = predictions.split_first() else { return };
        for (part, tensor) in first.tensors().into_iter().enumerate() {
            let Some(tensor) = tensor else { continue };
            let mut data = Cow::Borrowed(&*tensor.data);
            for other in rest.iter().filter_map(|other| other.tensors()[part]) {
                data.to_mut().extend_from_slice(&other.data);
            }
            let values = values(tensor.datatype, &data).map(ColumnValues::into_owned);
            let width = values.as_ref().map_or(0, ColumnValues::len) / self.rows;
            let values = match values {
                Some(ColumnValues::Int64(positions)) => {
                    Some(ColumnValues::Int64(self.classes(positions)))
                }
                other => other,
            };
            self.output(&tensor.name, width, values);
        }
    }

    /// What the graph gave for these positions in the labels.
    fn classes(&self, mut positions: Vec<i64>) -> Vec<i64> {
        let classes = &self.signature.classes;
        for position in &mut positions {
            let class = usize::try_from(*position).ok().and_then(|index| classes.get(index));
            *position = class.copied().unwrap_or(*position);
        }
        positions
    }

    /// `prediction` and `probability`, as the short form gives them.
    pub(crate) fn short_form(&mut self, predictions: &'a [Prediction]) {
        let answers = || predictions.iter().flat_map(|some| some.answers(self.signature));
        let mut texts = Vec::new();
        let mut flags = Vec::new();
        let mut integers = Vec::new();
        let (mut numbers, mut doubles) = (Vec::new(), Vec::new());
        let mut probabilities = Vec::new();
        let mut is_missing = false;
        for answer in answers() {
            match answer {
                Ok(RowPrediction::Class { class, probabilities: of_each }) => {
                    match class.value() {
                        ClassValue::Label(label) => texts.push(label.into()),
                        ClassValue::Number(number) => integers.push(number),
                        ClassValue::Missing => is_missing = true,
                    }
                    let probability = of_each.get(class.index()).copied().map(f32::from_le_bytes);
                    let none = (!of_each.is_empty()).then_some(f32::NAN);
                    probabilities.extend(probability.or(none));
                }
                Ok(RowPrediction::Text(text)) => texts.push(text.into()),
                Ok(RowPrediction::Flag(flag)) => flags.push(flag),
                Ok(RowPrediction::Numbers([number])) => numbers.push(f32::from_le_bytes(*number)),
                Ok(RowPrediction::Doubles([number])) => doubles.push(f64::from_le_bytes(*number)),
                // Several numbers have no name but the output's.
                Ok(RowPrediction::Numbers(_) | RowPrediction::Doubles(_)) | Err(_) => return,
            }
        }
        for (name, values) in [
            ("prediction", ColumnValues::Text(texts)),
            ("prediction", ColumnValues::Boolean(flags)),
            ("prediction", ColumnValues::Int64(integers)),
            ("prediction", ColumnValues::Fp32(numbers.into())),
            ("prediction", ColumnValues::Fp64(doubles)),
            ("probability", ColumnValues::Fp32(probabilities.into())),
        ] {
            if values.len() == self.rows && self.rows > 0 {
                self.outputs.push(Column { names: ColumnNames::One(name), values });
            }
        }
        // Texts and integers of the log have no missing values.
        if is_missing {
            self.omitted.push("prediction".into());
        }
    }

    fn output(&mut self, name: &str, width: usize, values: Option<ColumnValues<'a>>) {
        let mut outputs = self.signature.outputs.iter();
        let Some(output) = outputs.find(|output| output.name == name) else { return };
        // One that is called as the short form is that.
        let is_there =
            |column: &Column<'_>| matches!(column.names, ColumnNames::One(one) if one == name);
        if self.outputs.iter().any(is_there) {
            return;
        }
        if let Some(names) = self.names(output, width) {
            let column = self.column(output, names, values);
            self.outputs.extend(column);
        }
    }

    /// `None` if there are not as many values in each row as names: a free axis counts something other
    /// than rows. What the log has no value for is named.
    fn column(
        &mut self,
        tensor: &'a TensorSignature,
        names: ColumnNames<'a>,
        values: Option<ColumnValues<'a>>,
    ) -> Option<Column<'a>> {
        let width = match &names {
            ColumnNames::One(_) => 1,
            ColumnNames::Many(names) => names.len(),
        };
        let Some(values) = values else {
            self.omitted.push(match width {
                1 => tensor.name.as_str().into(),
                _ => wide(&tensor.name, width),
            });
            return None;
        };
        (values.len() == width * self.rows).then_some(Column { names, values })
    }

    /// The names of the columns of a tensor with so many elements in a row; `None` if they are not
    /// logged.
    fn names(&mut self, tensor: &'a TensorSignature, width: usize) -> Option<ColumnNames<'a>> {
        if width > MAX_WIDTH {
            self.omitted.push(wide(&tensor.name, width));
            return None;
        }
        match &*tensor.columns {
            _ if width == 0 => None,
            [name] if width == 1 => Some(ColumnNames::One(name)),
            names if names.len() == width => Some(ColumnNames::Many(names.into())),
            _ => Some(ColumnNames::Many(element_names(&tensor.name, width).into())),
        }
    }

    /// Appends them to the log, if there is memory for that.
    pub(crate) fn append(self, request: &Request) {
        let Self { signature, rows, inputs, outputs, omitted, attributes } = self;
        let elements: usize = inputs.iter().chain(&outputs).map(|some| some.values.len()).sum();
        let bytes = elements.saturating_mul(ELEMENT_BYTES);
        if reserve::check_more(rows.saturating_mul(ROW_BYTES).saturating_add(bytes)).is_err() {
            return;
        }
        let Ok(rows) = u32::try_from(rows) else { return };
        let (inputs, outputs) = (lowered(&inputs), lowered(&outputs));
        let (inputs, outputs) = (columns(&inputs), columns(&outputs));
        let omitted: Vec<&str> = omitted.iter().map(|name| &**name).collect();
        let attributes: Vec<_> = attributes.iter().map(|(name, value)| (*name, &**value)).collect();
        let predictions = wit::Predictions {
            model: &signature.name,
            version: &signature.version,
            rows,
            inputs: &inputs,
            outputs: &outputs,
            omitted: &omitted,
            attributes: &attributes,
        };
        send(request.prediction_id.as_deref(), predictions);
    }
}

/// A tensor that is left out, as `pixels[784]`.
fn wide(name: &str, width: usize) -> Cow<'static, str> {
    format!("{name}[{width}]").into()
}

/// Columns with their texts as the call to the host takes them.
struct Lowered<'a> {
    names: Vec<&'a str>,
    values: &'a ColumnValues<'a>,
    texts: Vec<&'a str>,
}

fn lowered<'a>(columns: &'a [Column<'a>]) -> Vec<Lowered<'a>> {
    let lower = |Column { names, values }: &'a Column<'a>| {
        let names = match names {
            ColumnNames::One(name) => vec![*name],
            ColumnNames::Many(names) => names.iter().map(String::as_str).collect(),
        };
        let texts = match values {
            ColumnValues::Text(texts) => texts.iter().map(|text| &**text).collect(),
            _ => Vec::new(),
        };
        Lowered { names, values, texts }
    };
    columns.iter().map(lower).collect()
}

fn columns<'a>(lowered: &'a [Lowered<'a>]) -> Vec<wit::Columns<'a>> {
    let column = |Lowered { names, values, texts }: &'a Lowered<'a>| {
        let values = match values {
            ColumnValues::Fp32(values) => wit::Values::Fp32(values),
            ColumnValues::Fp64(values) => wit::Values::Fp64(values),
            ColumnValues::Int64(values) => wit::Values::Int64(values),
            ColumnValues::Boolean(values) => wit::Values::Boolean(values),
            ColumnValues::Text(_) => wit::Values::Text(texts),
        };
        wit::Columns { names, values }
    };
    lowered.iter().map(column).collect()
}

/// The host tells its operator what it refuses; a prediction does not fail by that.
#[cfg(not(any(test, fuzzing)))]
fn send(request: Option<&str>, predictions: wit::Predictions<'_>) {
    let _refused = wit::append(request, predictions);
}

#[cfg(any(test, fuzzing))]
#[expect(clippy::needless_pass_by_value, reason = "as the bindings take them")]
fn send(request: Option<&str>, predictions: wit::Predictions<'_>) {
    captured::SENT.with_borrow_mut(|sent| sent.push(captured::shown(request, &predictions)));
}

#[cfg(any(test, fuzzing))]
mod captured {
    use std::cell::RefCell;

    use super::*;

    thread_local! {
        /// What was appended, as lines.
        pub(super) static SENT: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
    }

    pub(super) fn shown(request: Option<&str>, predictions: &wit::Predictions<'_>) -> String {
        let wit::Predictions { model, version, rows, inputs, outputs, omitted, attributes } =
            predictions;
        let mut shown = format!("{model} {version} {rows}");
        if let Some(request) = request {
            shown += &format!(" of {request}");
        }
        for (what, columns) in [("in", inputs), ("out", outputs)] {
            for wit::Columns { names, values } in *columns {
                let values = match values {
                    wit::Values::Fp32(values) => format!("fp32 {values:?}"),
                    wit::Values::Fp64(values) => format!("fp64 {values:?}"),
                    wit::Values::Int64(values) => format!("int64 {values:?}"),
                    wit::Values::Boolean(values) => format!("boolean {values:?}"),
                    wit::Values::Text(values) => format!("text {values:?}"),
                };
                shown += &format!("\n{what} {} {values}", names.join(","));
            }
        }
        if !omitted.is_empty() {
            shown += &format!("\nomitted {}", omitted.join(","));
        }
        for (name, value) in *attributes {
            shown += &format!("\n{name}={value}");
        }
        shown
    }
}

#[cfg(test)]
mod tests;
