//! What a component appends to the prediction log: the rows of a request and what the model said of
//! them, under the names that clients know, the same whichever protocol they came by.
//!
//! The columns are put together from the tensors that are there, after the response is: appending
//! fails no request, and what there is no memory for is not logged.

use std::borrow::Cow;

use crate::bindings::log::spinfer::prediction_log::log as wit;
use crate::prediction::{Answer, ClassValue, Prediction};
use crate::request::Request;
use crate::room;
use crate::rows::Rows;
use crate::signature::{Signature, TensorSignature};
use crate::tensor::{Datatype, Element, Tensor, split_bytes};

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
    names: Names<'a>,
    values: Values<'a>,
}

enum Names<'a> {
    One(&'a str),
    Many(Cow<'a, [String]>),
}

/// Row after row.
enum Values<'a> {
    Fp32(Cow<'a, [f32]>),
    Fp64(Vec<f64>),
    Int64(Vec<i64>),
    Boolean(Vec<bool>),
    Text(Vec<Cow<'a, str>>),
}

/// What the columns of a tensor are called: its fields, its own name, or that of each element.
/// Empty where its shape does not say how many there are, or there are too many.
pub(crate) fn column_names(tensor: &TensorSignature) -> Vec<String> {
    match tensor.shape.row() {
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
            self.omitted.push(match input.shape.row() {
                Some(width) => wide(&input.name, width),
                None => input.name.as_str().into(),
            });
        }
    }

    /// Rows of features, or of strings.
    pub(crate) fn rows(&mut self, rows: &Rows<'a>) {
        let width = rows.features.len().max(rows.bytes.len()) / self.rows;
        let alone = self.signature.inputs.len() == 1;
        let mut start = 0;
        for input in &self.signature.inputs {
            let own = if alone { Some(width) } else { input.shape.row() };
            let Some(own) = own.filter(|own| start + own <= width) else { return };
            if let Some(names) = self.names(input, own) {
                let values = rows.values(input.datatype, width, start, own);
                let column = values.and_then(|values| self.column(names, values));
                self.inputs.extend(column);
            }
            start += own;
        }
    }

    /// Tensors that are inputs of the model.
    pub(crate) fn inputs(&mut self, tensors: &[Tensor]) {
        let signature = self.signature;
        for tensor in tensors {
            let mut inputs = signature.inputs.iter();
            if let Some(input) = inputs.find(|input| input.name == tensor.name)
                && let Some(names) = self.names(input, self.width(tensor.datatype, &tensor.data))
            {
                // They go to the graph: nothing of them can be borrowed.
                let values = values(tensor.datatype, &tensor.data).map(Values::into_owned);
                let column = values.and_then(|values| self.column(names, values));
                self.inputs.extend(column);
            }
        }
    }

    /// Outputs of the model as they are.
    pub(crate) fn outputs(&mut self, tensors: &'a [Tensor]) {
        for tensor in tensors {
            let width = self.width(tensor.datatype, &tensor.data);
            self.output(&tensor.name, width, values(tensor.datatype, &tensor.data));
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
            let width = self.width(tensor.datatype, &data);
            let values = values(tensor.datatype, &data).map(Values::into_owned);
            let values = match values {
                Some(Values::Int64(positions)) => Some(Values::Int64(self.classes(positions))),
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
        let mut integers = Vec::new();
        let mut numbers = Vec::new();
        let mut probabilities = Vec::new();
        for answer in answers() {
            match answer {
                Ok(Answer::Class { class, probabilities: of_each }) => {
                    match class.value() {
                        ClassValue::Label(label) => texts.push(label.into()),
                        ClassValue::Number(number) => integers.push(number),
                    }
                    probabilities
                        .extend(of_each.get(class.index()).copied().map(f32::from_le_bytes));
                }
                Ok(Answer::Numbers([number])) => numbers.push(f32::from_le_bytes(*number)),
                // Several numbers have no name but the output's.
                Ok(Answer::Numbers(_)) | Err(_) => return,
            }
        }
        for (name, values) in [
            ("prediction", Values::Text(texts)),
            ("prediction", Values::Int64(integers)),
            ("prediction", Values::Fp32(numbers.into())),
            ("probability", Values::Fp32(probabilities.into())),
        ] {
            if values.len() == self.rows && self.rows > 0 {
                self.outputs.push(Column { names: Names::One(name), values });
            }
        }
    }

    fn output(&mut self, name: &str, width: usize, values: Option<Values<'a>>) {
        let mut outputs = self.signature.outputs.iter();
        let Some(output) = outputs.find(|output| output.name == name) else { return };
        // One that is called as the short form is that.
        let is_there = |column: &Column<'_>| matches!(column.names, Names::One(one) if one == name);
        if self.outputs.iter().any(is_there) {
            return;
        }
        if let (Some(names), Some(values)) = (self.names(output, width), values) {
            let column = self.column(names, values);
            self.outputs.extend(column);
        }
    }

    /// `None` if there are not as many values in each row as names: a free axis counts something other
    /// than rows.
    fn column(&self, names: Names<'a>, values: Values<'a>) -> Option<Column<'a>> {
        let width = match &names {
            Names::One(_) => 1,
            Names::Many(names) => names.len(),
        };
        (values.len() == width * self.rows).then_some(Column { names, values })
    }

    /// The names of the columns of a tensor with so many elements in a row; `None` if they are not
    /// logged.
    fn names(&mut self, tensor: &'a TensorSignature, width: usize) -> Option<Names<'a>> {
        if width > MAX_WIDTH {
            self.omitted.push(wide(&tensor.name, width));
            return None;
        }
        match &*tensor.columns {
            [name] if width == 1 => Some(Names::One(name)),
            names if names.len() == width => Some(Names::Many(names.into())),
            _ if width == 0 => None,
            _ => Some(Names::Many(element_names(&tensor.name, width).into())),
        }
    }

    /// How many elements there are for each row.
    fn width(&self, datatype: Datatype, data: &[u8]) -> usize {
        let elements = match datatype {
            Datatype::Bytes => split_bytes(data).count(),
            datatype => data.len() / datatype.size(),
        };
        elements / self.rows
    }

    /// Appends them to the log, if there is memory for that.
    pub(crate) fn append(self, request: &Request) {
        let Self { signature, rows, inputs, outputs, omitted, attributes } = self;
        let elements: usize = inputs.iter().chain(&outputs).map(|some| some.values.len()).sum();
        if room::check_more(elements * ELEMENT_BYTES + rows * ROW_BYTES).is_err() {
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

/// The elements of a tensor; `None` if some are no text.
fn values(datatype: Datatype, data: &[u8]) -> Option<Values<'_>> {
    let elements = || data.chunks_exact(datatype.size());
    Some(match datatype {
        Datatype::F32 => {
            let (elements, _) = data.as_chunks();
            Values::Fp32(elements.iter().map(|&element| f32::from_le_bytes(element)).collect())
        }
        Datatype::Bool => Values::Boolean(data.iter().map(|&byte| byte != 0).collect()),
        Datatype::Bytes => Values::Text(
            split_bytes(data)
                .map(|element| Some(str::from_utf8(element?).ok()?.into()))
                .collect::<Option<_>>()?,
        ),
        Datatype::F64 => {
            let (elements, _) = data.as_chunks();
            Values::Fp64(elements.iter().map(|&element| f64::from_le_bytes(element)).collect())
        }
        Datatype::F16 | Datatype::Bf16 => Values::Fp32(
            elements()
                .map(|element| match datatype.element(element) {
                    Element::F32(number) => number,
                    Element::F64(_) | Element::I64(_) => f32::NAN,
                })
                .collect(),
        ),
        Datatype::U8 | Datatype::I32 | Datatype::I64 => Values::Int64(
            elements()
                .filter_map(|element| match datatype.element(element) {
                    Element::I64(number) => Some(number),
                    Element::F32(_) | Element::F64(_) => None,
                })
                .collect(),
        ),
    })
}

impl<'a> Rows<'a> {
    /// `own` elements of each row of `width`, from `start` on, as of an input of `datatype`.
    fn values(
        &self,
        datatype: Datatype,
        width: usize,
        start: usize,
        own: usize,
    ) -> Option<Values<'a>> {
        let all = own == width;
        Some(match datatype {
            Datatype::F32 | Datatype::F16 | Datatype::Bf16 if all => {
                Values::Fp32(self.features.into())
            }
            Datatype::F32 | Datatype::F16 | Datatype::Bf16 => {
                Values::Fp32(part(self.features, width, start, own).copied().collect())
            }
            Datatype::F64 => Values::Fp64(part(self.wide()?, width, start, own).copied().collect()),
            #[expect(clippy::cast_possible_truncation, reason = "checked when it was read")]
            Datatype::U8 | Datatype::I32 | Datatype::I64 => Values::Int64(
                part(self.wide()?, width, start, own).map(|&number| number as i64).collect(),
            ),
            Datatype::Bool => Values::Boolean(
                part(self.features, width, start, own).map(|&flag| flag != 0.0).collect(),
            ),
            Datatype::Bytes => Values::Text(
                part(self.bytes, width, start, own)
                    .map(|string| Some(str::from_utf8(string).ok()?.into()))
                    .collect::<Option<_>>()?,
            ),
        })
    }
}

fn part<T>(values: &[T], width: usize, start: usize, own: usize) -> impl Iterator<Item = &T> {
    values.chunks_exact(width).flat_map(move |row| &row[start..start + own])
}

impl<'a> Values<'a> {
    fn len(&self) -> usize {
        match self {
            Self::Fp32(values) => values.len(),
            Self::Fp64(values) => values.len(),
            Self::Int64(values) => values.len(),
            Self::Boolean(values) => values.len(),
            Self::Text(values) => values.len(),
        }
    }

    fn into_owned(self) -> Values<'static> {
        match self {
            Self::Fp32(values) => Values::Fp32(values.into_owned().into()),
            Self::Fp64(values) => Values::Fp64(values),
            Self::Int64(values) => Values::Int64(values),
            Self::Boolean(values) => Values::Boolean(values),
            Self::Text(values) => {
                Values::Text(values.into_iter().map(|text| text.into_owned().into()).collect())
            }
        }
    }
}

/// Columns with their texts as the call to the host takes them.
struct Lowered<'a> {
    names: Vec<&'a str>,
    values: &'a Values<'a>,
    texts: Vec<&'a str>,
}

fn lowered<'a>(columns: &'a [Column<'a>]) -> Vec<Lowered<'a>> {
    let lower = |Column { names, values }: &'a Column<'a>| {
        let names = match names {
            Names::One(name) => vec![*name],
            Names::Many(names) => names.iter().map(String::as_str).collect(),
        };
        let texts = match values {
            Values::Text(texts) => texts.iter().map(|text| &**text).collect(),
            _ => Vec::new(),
        };
        Lowered { names, values, texts }
    };
    columns.iter().map(lower).collect()
}

fn columns<'a>(lowered: &'a [Lowered<'a>]) -> Vec<wit::Columns<'a>> {
    let column = |Lowered { names, values, texts }: &'a Lowered<'a>| {
        let values = match values {
            Values::Fp32(values) => wit::Values::Fp32(values),
            Values::Fp64(values) => wit::Values::Fp64(values),
            Values::Int64(values) => wit::Values::Int64(values),
            Values::Boolean(values) => wit::Values::Boolean(values),
            Values::Text(_) => wit::Values::Text(texts),
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
mod tests {
    use super::*;
    use crate::author::Author;
    use crate::graph::tests::graph;
    use crate::infer::infer;
    use crate::invocations::invoke;
    use crate::predict::predict_other;
    use crate::signature::tests::{iris, signature};
    use crate::{File, Graph, Mapping, Model, infer::infer_other};

    struct Any;

    impl Model for Any {
        const NAME: &'static str = "m";
    }

    /// What a request to a model whose graph gives `outputs` appends: each call as lines.
    fn sent<M: Model>(
        signature: Signature,
        outputs: Vec<Tensor>,
        operation: &str,
        body: &str,
    ) -> Vec<String> {
        let graph = graph(signature, move |_| Ok(outputs.clone()));
        let author = Author::of::<M>();
        let request = Request::post("/", body.as_bytes());
        captured::SENT.take();
        match (operation, author.mapping) {
            ("predict", _) => predict_other(&graph, &request, &author),
            ("invocations", _) => invoke(&graph, &request, author.predict),
            (_, Some(mapping)) => infer_other(&graph, &request, mapping),
            (_, None) => infer(&graph, &request),
        }
        .unwrap();
        captured::SENT.take()
    }

    fn lines<M: Model>(
        signature: Signature,
        outputs: Vec<Tensor>,
        operation: &str,
        body: &str,
    ) -> String {
        let [lines] =
            <[String; 1]>::try_from(sent::<M>(signature, outputs, operation, body)).unwrap();
        lines
    }

    fn of_iris(rows: u32) -> Vec<Tensor> {
        let many = |values: &[f32]| values.repeat(rows as usize);
        vec![
            Tensor::i64("label", &[rows], &vec![2; rows as usize]),
            Tensor::f32("probabilities", &[rows, 3], &many(&[0.25, 0.0, 0.75])),
        ]
    }

    const IN: &str = "in sepal_length,sepal_width,petal_length,petal_width fp32";

    #[test]
    fn every_protocol_appends_the_same() {
        let row = |rows: usize| {
            let repeat = |text: &str| vec![text; rows].join(", ");
            format!(
                "iris-classifier 1 {rows}\n{IN} [{}]\nout prediction text [{}]\n\
                 out probability fp32 [{}]\nout label int64 [{}]\n\
                 out probabilities[0],probabilities[1],probabilities[2] fp32 [{}]",
                repeat("1.0, 2.0, 3.0, 4.0"),
                repeat("\"virginica\""),
                repeat("0.75"),
                repeat("2"),
                repeat("0.25, 0.0, 0.75"),
            )
        };
        let tensor = |rows: usize| {
            let data = vec!["1,2,3,4"; rows].join(",");
            format!(
                r#"{{"id":"a","inputs":[{{"name":"features","shape":[{rows},4],"datatype":"FP32","data":[{data}]}}]}}"#
            )
        };
        let table = |key: &str, rows: usize| {
            format!(r#"{{"{key}":[{}]}}"#, vec!["[1,2,3,4]"; rows].join(","))
        };
        for (operation, rows, body, more) in [
            ("predict", 1, r#"{"features":[1,2,3,4]}"#.to_owned(), ""),
            ("predict", 1, r#"{"id":"a","features":[1,2,3,4]}"#.to_owned(), "\nid=a"),
            ("predict", 3, table("instances", 3), ""),
            ("infer", 1, tensor(1), "\nid=a"),
            ("infer", 2, tensor(2), "\nid=a"),
            ("invocations", 2, table("inputs", 2), ""),
        ] {
            let rows_u32 = u32::try_from(rows).unwrap();
            let lines = lines::<Any>(iris(), of_iris(rows_u32), operation, &body);
            assert_eq!(lines, format!("{}\noperation={operation}{more}", row(rows)), "{body}");
        }
    }

    #[test]
    fn outputs_that_were_not_asked_for_are_not_there() {
        let body = r#"{"inputs":[{"name":"features","shape":[1,4],"datatype":"FP32","data":[1,2,3,4]}],"outputs":[{"name":"label"}]}"#;
        let lines = lines::<Any>(iris(), of_iris(1), "infer", body);
        assert_eq!(
            lines,
            format!(
                "iris-classifier 1 1\n{IN} [1.0, 2.0, 3.0, 4.0]\nout label int64 [2]\noperation=infer"
            )
        );
    }

    #[test]
    fn numbers_and_inputs_of_several_datatypes_keep_theirs() {
        let model = "in a FP32 [-1, 2]\nin b INT64 [-1]\nin c FP64 [-1, 1]\nin d BOOL [-1]\nout y FP32 [-1]";
        struct Mapped;
        impl Model for Mapped {
            const NAME: &'static str = "m";
            const MAPPING: Option<Mapping> = Some(|_, inputs| {
                let rows = inputs[1].dimensions[0];
                Ok(vec![Tensor::f32("y", &[rows], &vec![1.5; rows as usize])])
            });
        }
        let body = r#"{"instances":[[1,2,3,4.5,0],[5,6,7,8,1]]}"#;
        let expected = "m 1 2\nin a[0],a[1] fp32 [1.0, 2.0, 5.0, 6.0]\nin b int64 [3, 7]\n\
                        in c fp64 [4.5, 8.0]\nin d boolean [false, true]\n\
                        out prediction fp32 [1.5, 1.5]\nout y fp32 [1.5, 1.5]";
        let by_rows = lines::<Mapped>(signature(model), vec![], "predict", body);
        assert_eq!(by_rows, format!("{expected}\noperation=predict"));
        let input = |name: &str, shape: &str, datatype: &str, data: &str| {
            format!(r#"{{"name":"{name}","shape":{shape},"datatype":"{datatype}","data":{data}}}"#)
        };
        let inputs = [
            input("a", "[2,2]", "FP32", "[1,2,5,6]"),
            input("b", "[2]", "INT64", "[3,7]"),
            input("c", "[2,1]", "FP64", "[4.5,8]"),
            input("d", "[2]", "BOOL", "[false,true]"),
        ];
        let body = format!(r#"{{"inputs":[{}]}}"#, inputs.join(","));
        let by_tensors = lines::<Mapped>(signature(model), vec![], "infer", &body);
        assert_eq!(by_tensors, format!("{expected}\noperation=infer"));
    }

    #[test]
    fn classes_that_are_numbers_are_numbers() {
        let model = "labels = [-1, 7]\nin x FP32 [-1, 1]\nout c INT64 [-1]\nout p FP32 [-1, 2]";
        let outputs =
            || vec![Tensor::i64("c", &[1], &[7]), Tensor::f32("p", &[1, 2], &[0.25, 0.75])];
        let expected = "m 1 1\nin x fp32 [1.0]\nout prediction int64 [7]\nout probability fp32 [0.75]\n\
                        out c int64 [7]\nout p[0],p[1] fp32 [0.25, 0.75]";
        let by_rows = lines::<Any>(signature(model), outputs(), "predict", r#"{"features":[1]}"#);
        assert_eq!(by_rows, format!("{expected}\noperation=predict"));
        let body = r#"{"inputs":[{"name":"x","shape":[1,1],"datatype":"FP32","data":[1]}]}"#;
        let by_tensors = lines::<Any>(signature(model), outputs(), "infer", body);
        assert_eq!(by_tensors, format!("{expected}\noperation=infer"));
    }

    #[test]
    fn an_output_called_as_the_short_form_is_there_once() {
        let model = "in x FP32 [-1, 1]\nout prediction FP32 [-1]";
        let output = vec![Tensor::f32("prediction", &[1], &[0.5])];
        let lines = lines::<Any>(signature(model), output, "predict", r#"{"features":[1]}"#);
        let expected = "m 1 1\nin x fp32 [1.0]\nout prediction fp32 [0.5]\noperation=predict";
        assert_eq!(lines, expected);
    }

    #[test]
    fn several_numbers_for_a_row_have_the_names_of_their_output() {
        let model = "in x FP32 [-1, 1]\nout y FP32 [-1, 2]";
        let output = vec![Tensor::f32("y", &[1, 2], &[0.5, 1.5])];
        let lines = lines::<Any>(signature(model), output, "predict", r#"{"features":[1]}"#);
        let expected = "m 1 1\nin x fp32 [1.0]\nout y[0],y[1] fp32 [0.5, 1.5]\noperation=predict";
        assert_eq!(lines, expected);
    }

    #[test]
    fn a_row_may_be_an_inference_of_its_own() {
        let model = "labels = ['a', 'b']\nin x FP32 [1, 2]\nout p FP32 [1, 2]";
        let output = vec![Tensor::f32("p", &[1, 2], &[0.25, 0.75])];
        let body = r#"{"instances":[[1,2],[3,4]]}"#;
        let lines = lines::<Any>(signature(model), output, "predict", body);
        let expected = "m 1 2\nin x[0],x[1] fp32 [1.0, 2.0, 3.0, 4.0]\n\
                        out prediction text [\"b\", \"b\"]\nout probability fp32 [0.75, 0.75]\n\
                        out p[0],p[1] fp32 [0.25, 0.75, 0.25, 0.75]\noperation=predict";
        assert_eq!(lines, expected);
    }

    #[test]
    fn what_is_too_wide_is_named() {
        let model = "in x FP32 [-1, 257]\nout y FP32 [-1, 256]";
        let output = vec![Tensor::f32("y", &[1, 256], &[0.0; 256])];
        let body = format!(r#"{{"features":[{}]}}"#, ["1"; 257].join(","));
        let lines = lines::<Any>(signature(model), output, "predict", &body);
        assert!(lines.starts_with("m 1 1\nout y[0],y[1],"), "{lines}");
        assert!(lines.ends_with("\nomitted x[257]\noperation=predict"), "{lines}");
    }

    struct Texts;

    impl Model for Texts {
        const NAME: &'static str = "m";
        const MAPPING: Option<Mapping> = Some(|_: &Graph, inputs| {
            let dimensions = &inputs[0].dimensions;
            let words = inputs[0].byte_strings()?;
            Ok(vec![
                Tensor::bytes("again", dimensions, &words),
                Tensor::bytes("raw", dimensions, &vec![[0xff]; words.len()]),
            ])
        });
    }

    #[test]
    fn strings_are_texts_and_other_bytes_are_not_logged() {
        let model = "in text BYTES [-1]\nout again BYTES [-1]\nout raw BYTES [-1]";
        let body = r#"{"inputs":[{"name":"text","shape":[2],"datatype":"BYTES","data":["a","é"]}],"parameters":{"binary_data_output":true}}"#;
        let lines = lines::<Texts>(signature(model), vec![], "infer", body);
        let expected =
            "m 1 2\nin text text [\"a\", \"é\"]\nout again text [\"a\", \"é\"]\noperation=infer";
        assert_eq!(lines, expected);
    }

    struct Picture;

    impl Model for Picture {
        const NAME: &'static str = "m";
        const FILE: Option<File> = Some(File::new("image", "image/x"));

        fn predict(_: &Graph, _: Rows<'_>) -> Result<Prediction, crate::Error> {
            Ok(Prediction::Numbers(Tensor::f32("y", &[1], &[1.0])))
        }
    }

    #[test]
    fn of_a_file_its_kind_and_length_are_there() {
        let model = "in pixels FP32 [-1, 8, 8]\nout y FP32 [-1]";
        let lines = lines::<Picture>(signature(model), vec![], "predict", r#"{"image":"AP/+"}"#);
        let expected = "m 1 1\nout prediction fp32 [1.0]\nout y fp32 [1.0]\nomitted pixels[64]\n\
                        operation=predict\ncontent_type=image/x\ncontent_length=3";
        assert_eq!(lines, expected);
    }

    #[test]
    fn the_request_is_named_where_it_has_an_id() {
        let graph = graph(iris(), |_| Ok(of_iris(1)));
        let mut request = Request::post("/", br#"{"features":[1,2,3,4]}"#);
        request.prediction_id = Some("an id".into());
        captured::SENT.take();
        predict_other(&graph, &request, &Author::of::<Any>()).unwrap();
        assert!(captured::SENT.take()[0].starts_with("iris-classifier 1 1 of an id\n"));
    }

    #[test]
    fn what_fails_appends_nothing() {
        let graph = graph(iris(), |_| Ok(of_iris(1)));
        captured::SENT.take();
        let author = Author::of::<Any>();
        for body in ["{}", r#"{"features":[1]}"#, r#"{"instances":[[1,2,3,4],[5,6,7,8]]}"#] {
            predict_other(&graph, &Request::post("/", body.as_bytes()), &author).unwrap_err();
        }
        assert!(captured::SENT.take().is_empty());
    }
}
