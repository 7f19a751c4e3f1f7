//! `model.toml`: what a model version takes and gives.

mod document;
mod read;

use std::fmt;

use serde::Serialize;

use crate::error::Error;
use crate::numbers::{Kind, MAX_RANK};
use crate::prediction_log::column_names;
use crate::tensor::Datatype;

/// The part of `model.toml` that the request protocols need. Other keys are the host's or free-form.
#[derive(Debug)]
pub struct Signature {
    /// Of the model.
    pub name: String,
    /// Of the model.
    pub version: String,
    /// Of the classes, in the order of the graph's class indices; empty for a regression.
    pub labels: Vec<String>,
    /// The labels, where they are numbers: the graph then gives these, and not their positions.
    pub classes: Vec<i64>,
    /// What the graph takes.
    pub inputs: Vec<TensorSignature>,
    /// What the graph gives.
    pub outputs: Vec<TensorSignature>,
    /// For how long a prediction may be given again; 0: not at all.
    pub cache_seconds: u32,
    /// The shape of one row of the only input; empty where there are more, or a free axis in it.
    pub(crate) row: Vec<u32>,
}

/// One input or output of the graph.
#[derive(Debug, Serialize)]
pub struct TensorSignature {
    /// In the graph.
    pub name: String,
    /// Of every element.
    pub datatype: Datatype,
    /// The size of each axis, outermost first.
    pub shape: Shape,
    /// The features of one row, in order, where they have names. The protocol's metadata has no
    /// place for them.
    #[serde(skip_serializing)]
    pub fields: Vec<String>,
    /// What the elements of one row are called in the prediction log, where that is known.
    #[serde(skip_serializing)]
    pub(crate) columns: Vec<String>,
}

/// The size of each axis, outermost first; -1 is a free axis, of any size.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub struct Shape(Vec<i64>);

impl Signature {
    /// Reads the content of `model.toml`.
    pub(crate) fn parse(text: &str, name: &str) -> Result<Self, String> {
        let mut signature = read::read(text)?;
        signature.check(name)?;
        for input in &mut signature.inputs {
            input.name_field();
        }
        for tensor in signature.inputs.iter_mut().chain(&mut signature.outputs) {
            tensor.columns = column_names(tensor);
        }
        if let [input] = signature.inputs.as_slice() {
            let axes = input.shape.row_axes().iter().map(|&axis| u32::try_from(axis).ok());
            signature.row = axes.collect::<Option<_>>().unwrap_or_default();
        }
        Ok(signature)
    }

    fn check(&self, name: &str) -> Result<(), String> {
        if self.name != name {
            return Err(format!(
                "the name is {:?}, but this component serves {name:?}: mount a version of that model",
                self.name
            ));
        }
        if self.inputs.is_empty() || self.outputs.is_empty() {
            return Err(
                "a model needs at least one of [[inputs]] and one of [[outputs]]".to_owned()
            );
        }
        for tensors in [&self.inputs, &self.outputs] {
            for (index, tensor) in tensors.iter().enumerate() {
                tensor.check()?;
                if tensors[..index].iter().any(|other| other.name == tensor.name) {
                    return Err(format!("two tensors have the name {:?}", tensor.name));
                }
            }
        }
        Ok(())
    }

    /// Whether features have to be kept as FP64: an input is not FP32.
    pub(crate) fn is_wide(&self) -> bool {
        self.inputs.iter().any(|input| input.datatype != Datatype::F32)
    }

    /// How many features the short form takes: one row of every input. `None` where a free axis
    /// leaves it open.
    pub(crate) fn features(&self) -> Option<usize> {
        self.inputs.iter().map(|input| input.shape.row()).sum()
    }

    /// What rows of the short form and of tables are of, where they are of one kind.
    pub(crate) fn kind_of_rows(&self) -> Option<Kind> {
        let strings = |input: &TensorSignature| input.datatype == Datatype::Bytes;
        if self.inputs.iter().all(strings) {
            return Some(Kind::Strings);
        }
        (!self.inputs.iter().any(strings)).then_some(Kind::Numbers)
    }

    /// Whether one inference may be of several rows: the first axis of every tensor is free.
    pub(crate) fn takes_rows(&self) -> bool {
        let mut tensors = self.inputs.iter().chain(&self.outputs);
        tensors.all(|tensor| tensor.shape.0.first() == Some(&-1))
    }

    /// The names of the features, in order; empty unless all have one.
    pub(crate) fn fields(&self) -> Vec<&str> {
        if self.inputs.iter().any(|input| input.fields.is_empty()) {
            return Vec::new();
        }
        self.inputs.iter().flat_map(|input| &input.fields).map(String::as_str).collect()
    }
}

impl TensorSignature {
    /// Refuses an output that is not as `model.toml` says; `who` gave it.
    pub(crate) fn check_output(
        &self,
        who: &str,
        datatype: Datatype,
        dimensions: &[u32],
    ) -> Result<(), Error> {
        if datatype == self.datatype && self.shape.admits(dimensions) {
            return Ok(());
        }
        Err(Error::internal(format!(
            "model.toml says that the output {:?} is {} of shape {}, but {who} gave {} of shape {}",
            self.name,
            self.datatype.name(),
            self.shape,
            datatype.name(),
            Shape::of(dimensions)
        )))
    }

    /// One string of a row has the name of its input, unless it has another.
    fn name_field(&mut self) {
        if self.datatype == Datatype::Bytes && self.fields.is_empty() && self.shape.row() == Some(1)
        {
            self.fields.push(self.name.clone());
        }
    }

    fn check(&self) -> Result<(), String> {
        let Self { name, shape, fields, .. } = self;
        if shape.0.len() > MAX_RANK || shape.0.iter().any(|&axis| axis < -1 || axis == 0) {
            return Err(format!(
                "{name:?} has the shape {shape}: expected at most {MAX_RANK} axes, each 1 or more, or -1 if free"
            ));
        }
        if !fields.is_empty() && shape.row().is_some_and(|row| row != fields.len()) {
            return Err(format!(
                "{name:?} lists {} fields, which its shape {shape} does not fit",
                fields.len()
            ));
        }
        Ok(())
    }
}

impl Shape {
    /// Of `dimensions`, for messages: formatting them as they are would be compiled beside this.
    #[cold]
    pub(crate) fn of(dimensions: &[u32]) -> Self {
        Self(dimensions.iter().map(|&dimension| dimension.into()).collect())
    }

    pub(crate) fn admits(&self, dimensions: &[u32]) -> bool {
        self.0.len() == dimensions.len()
            && self
                .0
                .iter()
                .zip(dimensions)
                .all(|(&axis, &dimension)| axis == -1 || axis == i64::from(dimension))
    }

    /// The dimensions of a tensor of this shape with so many elements, where that settles them.
    pub(crate) fn dimensions(&self, elements: usize) -> Option<Vec<u32>> {
        let mut rest = elements;
        let mut free = None;
        let mut dimensions = Vec::with_capacity(self.0.len());
        for (index, &axis) in self.0.iter().enumerate() {
            if axis == -1 {
                if free.replace(index).is_some() {
                    return None;
                }
                dimensions.push(0);
            } else {
                let axis = u32::try_from(axis).ok()?;
                if !rest.is_multiple_of(axis as usize) {
                    return None;
                }
                rest /= axis as usize;
                dimensions.push(axis);
            }
        }
        match free {
            Some(index) => dimensions[index] = u32::try_from(rest).ok()?,
            None if rest == 1 => {}
            None => return None,
        }
        Some(dimensions)
    }

    /// The dimensions of so many rows of `row` elements each, where that settles them.
    pub(crate) fn of_rows(&self, rows: u32, row: usize) -> Option<Vec<u32>> {
        if self.0.first() != Some(&-1) {
            return self.dimensions(row).filter(|_| rows == 1);
        }
        let mut dimensions = vec![rows];
        dimensions.extend(Self(self.row_axes().to_vec()).dimensions(row)?);
        Some(dimensions)
    }

    /// The axes of one row: the first axis, if free, counts rows.
    fn row_axes(&self) -> &[i64] {
        self.0.strip_prefix(&[-1]).unwrap_or(&self.0)
    }

    /// The elements of one row, unless another axis is free.
    pub(crate) fn row(&self) -> Option<usize> {
        let mut axes = self.row_axes().iter();
        axes.try_fold(1_usize, |row, &axis| row.checked_mul(usize::try_from(axis).ok()?))
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) const IRIS: &str = r#"
        name = "iris-classifier"
        version = "1"
        description = "Iris species"
        sha256 = "00"
        labels = ["setosa", "versicolor", "virginica"]
        [[inputs]]
        name = "features"
        datatype = "FP32"
        shape = [-1, 4]
        fields = ["sepal_length", "sepal_width", "petal_length", "petal_width"]
        [[outputs]]
        name = "label"
        datatype = "INT64"
        shape = [-1]
        [[outputs]]
        name = "probabilities"
        datatype = "FP32"
        shape = [-1, 3]
        [provenance]
        trained_on = 2026-11-01
        "#;

    pub(crate) fn iris() -> Signature {
        Signature::parse(IRIS, "iris-classifier").unwrap()
    }

    /// The model `m`, from lines as `in x FP32 [-1, 2]`, `out y FP32 [-1]` and those of `model.toml`.
    pub(crate) fn signature(model: &str) -> Signature {
        let mut text = "name = 'm'\nversion = '1'\n".to_owned();
        for line in model.lines() {
            let mut words = line.splitn(4, ' ');
            let tensors = match words.next() {
                Some("in") => "inputs",
                Some("out") => "outputs",
                _ => {
                    text += &format!("{line}\n");
                    continue;
                }
            };
            let [name, datatype, shape] = [(); 3].map(|()| words.next().unwrap());
            text += &format!(
                "[[{tensors}]]\nname = '{name}'\ndatatype = '{datatype}'\nshape = {shape}\n"
            );
        }
        Signature::parse(&text, "m").unwrap()
    }

    fn error(from: &str, to: &str) -> String {
        assert!(IRIS.contains(from), "{from}");
        Signature::parse(&IRIS.replacen(from, to, 1), "iris-classifier").unwrap_err()
    }

    #[test]
    fn a_signature_is_read() {
        let iris = iris();
        assert_eq!(iris.version, "1");
        assert_eq!(iris.labels, ["setosa", "versicolor", "virginica"]);
        assert_eq!(iris.outputs[0].datatype, Datatype::I64);
        assert_eq!(iris.features(), Some(4));
        assert_eq!(iris.fields().len(), 4);
    }

    #[test]
    fn a_wrong_signature_is_refused_with_its_place() {
        assert!(error(r#"name = "iris-classifier""#, r#"name = "wine""#).contains("mount"));
        assert!(error("[-1, 4]", "[-2, 4]").contains("[-2, 4]"));
        assert!(error("[-1, 4]", "[-1, 0]").contains("[-1, 0]"));
        assert!(error("[-1, 4]", "[-1, 5]").contains("4 fields"));
        assert!(error(r#""probabilities""#, r#""label""#).contains("two tensors"));
        for (from, to, problem) in [
            (
                "FP32",
                "FLOAT",
                r#"line 9: `inputs[0].datatype`: expected one of FP16, FP32, FP64, BF16, UINT8, INT32, INT64, BOOL, BYTES, got "FLOAT""#,
            ),
            ("version = \"1\"", "", "line 1: `version` is missing"),
            ("\"1\"", "1", "line 3: `version`: expected a string, got integer"),
            (
                "version = \"1\"",
                "version = \"1\"\ncache_seconds = -1",
                "line 4: `cache_seconds`: expected a number of seconds, 0 or more, got integer",
            ),
            ("\"setosa\"", "true", "line 6: `labels`: expected a string, got boolean"),
            (
                "\"setosa\"",
                "1",
                "line 6: `labels`: expected an array of integers of 64 bits, got string",
            ),
            (
                "[\"setosa\", \"versicolor\", \"virginica\"]",
                "\"setosa\"",
                "line 6: `labels`: expected an array of strings, got string",
            ),
            ("name = \"label\"", "", "line 12: `outputs[0].name` is missing"),
            (
                "[-1, 3]",
                "[-1, 3.0]",
                "line 19: `outputs[1].shape`: expected an array of integers of 64 bits, got float",
            ),
            (
                "[-1, 3]",
                "[9223372036854775808]",
                "line 19: `outputs[1].shape`: expected an array of integers of 64 bits, got integer",
            ),
            ("[[inputs]]", "[inputs]", "line 7: `inputs`: expected an array of tables, got table"),
        ] {
            assert_eq!(error(from, to), problem);
        }
        for syntax in ["labels = ", "version = \"2\"\nlabels = ["] {
            assert!(error("labels = [", syntax).starts_with("line 6: "), "{syntax}");
        }
        let tables = "name = 'x'\nversion = '1'\ninputs = [{}, 5]";
        assert_eq!(
            Signature::parse(tables, "x").unwrap_err(),
            "line 3: `inputs[0].name` is missing"
        );
        let tables = "name = 'x'\nversion = '1'\ninputs = [5]";
        assert_eq!(
            Signature::parse(tables, "x").unwrap_err(),
            "line 3: `inputs`: expected an array of tables, got integer"
        );
    }

    #[test]
    fn integers_of_any_radix() {
        let tensor = |shape| format!(r#"{{ name = "x", datatype = "FP32", shape = {shape} }}"#);
        let (of, to) = (tensor("[-1, 0x1_0, 0b11, +7]"), tensor("[]"));
        let text = format!("name = 'x'\nversion = '1'\ninputs = [{of}]\noutputs = [{to}]");
        let signature = Signature::parse(&text, "x").unwrap();
        assert_eq!(signature.inputs[0].shape.0, [-1, 16, 3, 7]);
    }

    #[test]
    fn rows_and_free_axes() {
        for (shape, row) in [
            (vec![-1, 4], Some(4)),
            (vec![4], Some(4)),
            (vec![-1], Some(1)),
            (vec![-1, 3, 28, 28], Some(2352)),
            (vec![-1, -1], None),
            (vec![2, -1], None),
            (vec![], Some(1)),
            (vec![i64::MAX, i64::MAX], None),
        ] {
            assert_eq!(Shape(shape.clone()).row(), row, "{shape:?}");
        }
        for (shape, elements, dimensions) in [
            (vec![-1, 3], 6, Some(vec![2, 3])),
            (vec![2, -1, 3], 6, Some(vec![2, 1, 3])),
            (vec![2, 3], 6, Some(vec![2, 3])),
            (vec![], 1, Some(vec![])),
            (vec![-1], 0, Some(vec![0])),
            (vec![2, 3], 12, None),
            (vec![-1, 4], 6, None),
            (vec![-1, -1], 6, None),
        ] {
            assert_eq!(
                Shape(shape.clone()).dimensions(elements),
                dimensions,
                "{shape:?} {elements}"
            );
        }
        assert!(Shape(vec![-1, 4]).admits(&[7, 4]));
        assert!(!Shape(vec![-1, 4]).admits(&[7, 3]));
        assert!(!Shape(vec![-1, 4]).admits(&[4]));
    }
}
