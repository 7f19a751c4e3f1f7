//! What the component appends to the prediction log: the rows of a request and their predictions, under the
//! names that clients use, the same for every protocol.
//!
//! Columns are built from the tensors of the request and the response, after the response. Appending fails no
//! request: predictions that do not fit into memory are not logged.

mod append;
mod values;

use std::borrow::Cow;

use self::values::{ColumnValues, values};

use crate::datatype::Datatype;
use crate::prediction::Prediction;
use crate::row_prediction::{ClassValue, RowPrediction};
use crate::rows::Rows;
use crate::signature::{MAX_WIDTH, Signature, TensorSignature, element_names};
use crate::tensor::Tensor;

/// The predictions of one request, collected for the log.
pub(crate) struct Draft<'a> {
    signature: &'a Signature,
    rows: usize,
    inputs: Vec<Column<'a>>,
    outputs: Vec<Column<'a>>,
    omitted: Vec<Cow<'a, str>>,
    attributes: Vec<(&'a str, Cow<'a, str>)>,
}

/// One or more columns of one datatype.
struct Column<'a> {
    names: ColumnNames<'a>,
    values: ColumnValues<'a>,
}

/// The names of columns.
enum ColumnNames<'a> {
    One(&'a str),
    Many(Cow<'a, [String]>),
}

impl<'a> Draft<'a> {
    /// Without inputs and outputs. `operation`: as in the path of the request.
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

    /// Adds the client's id of the request.
    pub(crate) fn id(&mut self, id: Option<&'a str>) {
        self.attributes.extend(id.map(|id| ("id", id.into())));
    }

    /// Adds the type and length of a file instead of inputs: only the component knows its features.
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

    /// Adds rows as the inputs.
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

    /// Adds tensors as the inputs.
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
                // Copied: the graph takes the tensors.
                let values = values(tensor.datatype, &tensor.data).map(ColumnValues::into_owned);
                let column = self.column(input, names, values);
                self.inputs.extend(column);
            }
        }
    }

    /// Adds tensors as the outputs.
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

    /// Adds the short form of predictions, and their outputs. There are several if each row was an inference.
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
                Some(ColumnValues::Int64(indices)) => {
                    Some(ColumnValues::Int64(self.classes(indices)))
                }
                other => other,
            };
            self.output(&tensor.name, width, values);
        }
    }

    /// The classes with these indices, as the graph returned them.
    fn classes(&self, mut indices: Vec<i64>) -> Vec<i64> {
        let classes = &self.signature.classes;
        for index in &mut indices {
            let class = usize::try_from(*index).ok().and_then(|index| classes.get(index));
            *index = class.copied().unwrap_or(*index);
        }
        indices
    }

    /// Adds the columns `prediction` and `probability`, as in the short form.
    pub(crate) fn short_form(&mut self, predictions: &'a [Prediction]) {
        let mut texts = Vec::new();
        let mut flags = Vec::new();
        let mut integers = Vec::new();
        let (mut numbers, mut doubles) = (Vec::new(), Vec::new());
        let mut probabilities = Vec::new();
        let mut is_missing = false;
        for row in predictions.iter().flat_map(|some| some.by_row(self.signature)) {
            match row {
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
                // Several numbers per row are logged under the output's name only.
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
        // Columns of text and integers cannot have missing values.
        if is_missing {
            self.omitted.push("prediction".into());
        }
    }

    /// Adds the columns of an output.
    fn output(&mut self, name: &str, width: usize, values: Option<ColumnValues<'a>>) {
        let mut outputs = self.signature.outputs.iter();
        let Some(output) = outputs.find(|output| output.name == name) else { return };
        // An output with the name of a column of the short form is the same.
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

    /// `None` if a row has another number of values than names (a free axis counts something else than
    /// rows), or if the log cannot represent the values; they are then listed as omitted.
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

    /// The names of the columns of a tensor with `width` elements per row. `None` if they are not logged.
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
}

/// The name of an omitted tensor, as `pixels[784]`.
fn wide(name: &str, width: usize) -> Cow<'static, str> {
    format!("{name}[{width}]").into()
}

#[cfg(test)]
mod tests;
