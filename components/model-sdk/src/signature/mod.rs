//! `model.toml`: the inputs and outputs of a model version.
//!
//! An input or output has these keys:
//! - `name`
//! - `datatype`: a [`Datatype`]
//! - `shape`: the size of each axis; -1 for a free axis, `[]` for a scalar
//! - `fields`, optional: the names of the elements of one row
//! - `batch_axis`, optional: the axis that counts rows, by default the first
//!
//! `spinfer-model-toml` reads the file; the host reads it with the same code, and its own keys besides.

mod columns;

use serde::Serialize;
use spinfer_model_toml::{ModelToml, TensorEntry, counts_rows, row, row_axes};

use self::columns::column_names;
pub(crate) use self::columns::{MAX_WIDTH, element_names};
use crate::datatype::Datatype;
use crate::error::Error;
use crate::json_array::ItemKind;
use crate::shape::Shape;

/// The part of `model.toml` that the component reads.
#[derive(Debug)]
pub struct Signature {
    /// Name of the model.
    pub name: String,
    /// Version of the model.
    pub version: String,
    /// Labels of the classes, in the order of their indices. Empty if there are none, as for a regression.
    pub labels: Vec<String>,
    /// The labels if they are numbers. The graph then returns labels instead of indices.
    pub classes: Vec<i64>,
    /// Inputs of the model.
    pub inputs: Vec<TensorSignature>,
    /// Outputs of the model.
    pub outputs: Vec<TensorSignature>,
    /// How long a prediction may be cached, in seconds. 0: not at all.
    pub cache_seconds: u32,
    /// Shape of one row of the only input. Empty if there are several inputs, or a row has a free axis.
    pub(crate) row: Vec<u32>,
    /// One per input. Empty if a free axis leaves the number of elements in a row open.
    pub(crate) slots: Vec<Slot>,
}

/// The elements of one input in a row.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slot {
    /// Position of the first element in the row.
    start: usize,
    /// Datatype of the elements.
    pub(crate) datatype: Datatype,
    /// Position of the first element among the row's strings, for BYTES, or else among its numbers.
    pub(crate) at: usize,
}

/// An input or output of the model.
#[derive(Debug, Serialize)]
pub struct TensorSignature {
    /// Name, as in the graph.
    pub name: String,
    /// Datatype of the elements.
    pub datatype: Datatype,
    /// Size of each axis, outermost first.
    pub shape: Shape,
    /// The axis that counts rows, if it is free. By default 0.
    #[serde(skip_serializing)]
    pub batch_axis: usize,
    /// Names of the elements of one row, in order. Empty if they have none. Not a part of the protocol's
    /// metadata.
    #[serde(skip_serializing)]
    pub fields: Vec<String>,
    /// Names of the columns in the prediction log. Empty if not known in advance.
    #[serde(skip_serializing)]
    pub(crate) columns: Vec<String>,
}

impl Signature {
    /// Parses `model.toml` of the model `name`.
    ///
    /// # Errors
    /// With what is wrong, and the line.
    pub(crate) fn parse(text: &str, name: &str) -> Result<Self, String> {
        let model = ModelToml::read(text, name).map_err(|mut problems| problems.swap_remove(0))?;
        let tensors = |entries: Vec<TensorEntry>| entries.into_iter().map(TensorSignature::of);
        let mut signature = Self {
            name: model.name,
            version: model.version,
            labels: model.labels,
            classes: model.classes,
            inputs: tensors(model.inputs).collect::<Result<_, _>>()?,
            outputs: tensors(model.outputs).collect::<Result<_, _>>()?,
            cache_seconds: model.cache_seconds,
            row: Vec::new(),
            slots: Vec::new(),
        };
        let alone = signature.inputs.len() == 1;
        for input in &mut signature.inputs {
            input.name_field(alone);
        }
        for tensor in signature.inputs.iter_mut().chain(&mut signature.outputs) {
            tensor.columns = column_names(tensor);
        }
        if let [input] = signature.inputs.as_slice() {
            let axes = input.row_axes();
            let axes = axes.iter().map(|&axis| u32::try_from(axis).ok());
            signature.row = axes.collect::<Option<_>>().unwrap_or_default();
        }
        signature.slots = signature.slots_of_row().unwrap_or_default();
        Ok(signature)
    }

    /// The elements of each input in a row. `None` if a free axis leaves their number open.
    fn slots_of_row(&self) -> Option<Vec<Slot>> {
        let (mut start, mut numbers, mut strings) = (0_usize, 0, 0);
        let slots = self.inputs.iter().map(|input| {
            let datatype = input.datatype;
            let next = if datatype == Datatype::Bytes { &mut strings } else { &mut numbers };
            let slot = Slot { start, datatype, at: *next };
            start = start.checked_add(input.row()?)?;
            *next += input.row()?;
            Some(slot)
        });
        slots.collect()
    }

    /// The element at `position` of a row. `None` if that is open.
    pub(crate) fn slot(&self, position: usize) -> Option<Slot> {
        let behind = self.slots.partition_point(|slot| slot.start <= position);
        let slot = self.slots.get(behind.checked_sub(1)?)?;
        Some(Slot { start: position, at: slot.at + position - slot.start, ..*slot })
    }

    /// The datatype of all inputs, if it is the same.
    pub(crate) fn datatype(&self) -> Option<Datatype> {
        let [first, rest @ ..] = &*self.inputs else { return None };
        rest.iter().all(|input| input.datatype == first.datatype).then_some(first.datatype)
    }

    /// Whether numbers need 64 bits: some are not FP32.
    pub(crate) fn is_wide(&self) -> bool {
        let narrow = |datatype| matches!(datatype, Datatype::F32 | Datatype::Bytes);
        !self.inputs.iter().all(|input| narrow(input.datatype))
    }

    /// The number of elements in a row, over all inputs. `None` if a free axis leaves it open.
    pub(crate) fn features(&self) -> Option<usize> {
        self.inputs.iter().try_fold(0_usize, |features, input| features.checked_add(input.row()?))
    }

    /// The kind of the elements of a row.
    pub(crate) fn kind_of_rows(&self) -> ItemKind {
        let all = |is: fn(Datatype) -> bool| self.inputs.iter().all(|input| is(input.datatype));
        if all(|datatype| datatype == Datatype::Bytes) {
            return ItemKind::Strings;
        }
        let only_numbers = all(|datatype| !matches!(datatype, Datatype::Bytes | Datatype::Bool));
        if only_numbers { ItemKind::Numbers } else { ItemKind::Mixed }
    }

    /// Whether an inference may have several rows: the batch axis of every input and output is free.
    pub(crate) fn takes_rows(&self) -> bool {
        self.inputs.iter().chain(&self.outputs).all(TensorSignature::counts_rows)
    }

    /// The position in a row of the field `name`, or of the only element of the input `name`.
    pub(crate) fn column(&self, name: &str) -> Option<usize> {
        let mut start = 0;
        let mut of_input = None;
        for input in &self.inputs {
            if let Some(position) = input.fields.iter().position(|field| field == name) {
                return Some(start + position);
            }
            let width = input.row().unwrap_or(input.fields.len());
            if width == 1 && input.name == name {
                of_input = Some(start);
            }
            start += width;
        }
        of_input
    }

    /// The names of the elements of a row, in order. Empty unless all have one.
    pub(crate) fn fields(&self) -> Vec<&str> {
        if self.inputs.iter().any(|input| input.fields.is_empty()) {
            return Vec::new();
        }
        self.inputs.iter().flat_map(|input| &input.fields).map(String::as_str).collect()
    }
}

impl TensorSignature {
    fn of(entry: TensorEntry) -> Result<Self, String> {
        let TensorEntry { name, datatype, shape, batch_axis, fields } = entry;
        let datatype = Datatype::named(datatype)
            .ok_or_else(|| format!("this component does not support the datatype {datatype}"))?;
        Ok(Self { name, datatype, shape: Shape(shape), batch_axis, fields, columns: Vec::new() })
    }

    /// Checks an output against `model.toml`. `source`: what returned it, for messages.
    ///
    /// # Errors
    /// If the datatype or shape differs: 500.
    pub(crate) fn check_output(
        &self,
        source: &str,
        datatype: Datatype,
        dimensions: &[u32],
    ) -> Result<(), Error> {
        // Some hosts return scalars with the shape `[1]`.
        let is_scalar = self.shape.0.is_empty() && dimensions == [1];
        if datatype == self.datatype && (self.shape.admits(dimensions) || is_scalar) {
            return Ok(());
        }
        Err(Error::internal(format!(
            "model.toml declares the output {:?} as {} of shape {}, but {source} returned {} of shape {}",
            self.name,
            self.datatype.name(),
            self.shape,
            datatype.name(),
            Shape::of(dimensions)
        )))
    }

    /// Whether the batch axis is free, and therefore counts rows.
    pub(crate) fn counts_rows(&self) -> bool {
        counts_rows(&self.shape.0, self.batch_axis)
    }

    /// The axes of one row.
    fn row_axes(&self) -> Vec<i64> {
        row_axes(&self.shape.0, self.batch_axis)
    }

    /// The number of elements in one row. `None` if an axis other than the batch axis is free.
    pub(crate) fn row(&self) -> Option<usize> {
        row(&self.shape.0, self.batch_axis)
    }

    /// The dimensions of `rows` rows of `row` elements each, if that determines them, with the batch axis first.
    pub(crate) fn of_rows(&self, rows: u32, row: usize) -> Option<Vec<u32>> {
        if !self.counts_rows() {
            return self.shape.dimensions(row).filter(|_| rows == 1);
        }
        let mut dimensions = vec![rows];
        dimensions.extend(Shape(self.row_axes()).dimensions(row)?);
        Some(dimensions)
    }

    /// Names the only element of a row after its input, unless it has a name. Numbers that are the only input
    /// need no names.
    fn name_field(&mut self, alone: bool) {
        let named = self.datatype == Datatype::Bytes || !alone;
        if named && self.fields.is_empty() && self.row() == Some(1) {
            self.fields.push(self.name.clone());
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
