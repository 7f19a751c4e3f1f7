//! `model.toml`: what a model version takes and gives.
//!
//! Of an input or output it says the `name`, the `datatype` (one of [`Datatype`]), the `shape`, with -1 for
//! a free axis and `[]` for a scalar, and where they apply `fields`, the names of the elements of one row,
//! and `batch_axis`, the axis that counts rows where that is not the first. Keys that are not read here are
//! the host's (`backend`, `threads`) or free-form.

mod columns;
mod document;
mod read;

use serde::Serialize;

use self::columns::column_names;
pub(crate) use self::columns::{MAX_WIDTH, element_names};
use crate::datatype::Datatype;
use crate::error::Error;
use crate::json_array::ItemKind;
use crate::shape::{MAX_RANK, Shape};

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
    /// Of each input; empty where a free axis leaves open how many elements there are in a row.
    pub(crate) slots: Vec<Slot>,
}

/// What elements of a row are, from one of them on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slot {
    /// The position of the first in the row.
    start: usize,
    pub(crate) datatype: Datatype,
    /// Its position among the row's strings, if it is one, or else among its numbers.
    pub(crate) at: usize,
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
    /// The axis that counts rows, if it is free: 0, unless `model.toml` says otherwise.
    #[serde(skip_serializing)]
    pub batch_axis: usize,
    /// The features of one row, in order, where they have names. The protocol's metadata has no
    /// place for them.
    #[serde(skip_serializing)]
    pub fields: Vec<String>,
    /// What the elements of one row are called in the prediction log, where that is known.
    #[serde(skip_serializing)]
    pub(crate) columns: Vec<String>,
}

impl Signature {
    /// Reads the content of `model.toml`.
    pub(crate) fn parse(text: &str, name: &str) -> Result<Self, String> {
        let mut signature = read::read(text)?;
        signature.check(name)?;
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

    /// What the element at `position` of a row is; `None` where that is open.
    pub(crate) fn slot(&self, position: usize) -> Option<Slot> {
        let behind = self.slots.partition_point(|slot| slot.start <= position);
        let slot = self.slots.get(behind.checked_sub(1)?)?;
        Some(Slot { start: position, at: slot.at + position - slot.start, ..*slot })
    }

    /// The datatype of all inputs, if they have the same.
    pub(crate) fn datatype(&self) -> Option<Datatype> {
        let [first, rest @ ..] = &*self.inputs else {
            return None;
        };
        rest.iter().all(|input| input.datatype == first.datatype).then_some(first.datatype)
    }

    /// Whether numbers have to be kept in 64 bits: some are not FP32.
    pub(crate) fn is_wide(&self) -> bool {
        let narrow = |datatype| matches!(datatype, Datatype::F32 | Datatype::Bytes);
        !self.inputs.iter().all(|input| narrow(input.datatype))
    }

    /// How many features the short form takes: one row of every input. `None` where a free axis
    /// leaves it open.
    pub(crate) fn features(&self) -> Option<usize> {
        self.inputs.iter().try_fold(0_usize, |features, input| features.checked_add(input.row()?))
    }

    /// What rows of the short form and of tables are of.
    pub(crate) fn kind_of_rows(&self) -> ItemKind {
        let all = |is: fn(Datatype) -> bool| self.inputs.iter().all(|input| is(input.datatype));
        if all(|datatype| datatype == Datatype::Bytes) {
            return ItemKind::Strings;
        }
        let only_numbers = all(|datatype| !matches!(datatype, Datatype::Bytes | Datatype::Bool));
        if only_numbers { ItemKind::Numbers } else { ItemKind::Mixed }
    }

    /// Whether one inference may be of several rows: the batch axis of every tensor is free.
    pub(crate) fn takes_rows(&self) -> bool {
        self.inputs.iter().chain(&self.outputs).all(TensorSignature::counts_rows)
    }

    /// The position in a row of what `name` is called: a feature, or the only one of an input.
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
        // A scalar is `[1]` to some hosts.
        let is_scalar = self.shape.0.is_empty() && dimensions == [1];
        if datatype == self.datatype && (self.shape.admits(dimensions) || is_scalar) {
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

    /// Whether its batch axis is free, and so counts rows.
    pub(crate) fn counts_rows(&self) -> bool {
        self.shape.0.get(self.batch_axis) == Some(&-1)
    }

    /// The axes of one row.
    fn row_axes(&self) -> Vec<i64> {
        let mut axes = self.shape.0.clone();
        if self.counts_rows() {
            axes.remove(self.batch_axis);
        }
        axes
    }

    /// The elements of one row, unless another axis is free.
    pub(crate) fn row(&self) -> Option<usize> {
        let batch = if self.counts_rows() { self.batch_axis } else { usize::MAX };
        let axes = self.shape.0.iter().enumerate().filter(|(position, _)| *position != batch);
        axes.map(|(_, &axis)| axis)
            .try_fold(1_usize, |row, axis| row.checked_mul(usize::try_from(axis).ok()?))
    }

    /// The dimensions of so many rows of `row` elements each, where that settles them: the axis of rows
    /// first, if there is one.
    pub(crate) fn of_rows(&self, rows: u32, row: usize) -> Option<Vec<u32>> {
        if !self.counts_rows() {
            return self.shape.dimensions(row).filter(|_| rows == 1);
        }
        let mut dimensions = vec![rows];
        dimensions.extend(Shape(self.row_axes()).dimensions(row)?);
        Some(dimensions)
    }

    /// A column of one element has the name of its input, unless it has another. Numbers that are `alone`
    /// in a row need no name.
    fn name_field(&mut self, alone: bool) {
        let named = self.datatype == Datatype::Bytes || !alone;
        if named && self.fields.is_empty() && self.row() == Some(1) {
            self.fields.push(self.name.clone());
        }
    }

    fn check(&self) -> Result<(), String> {
        let Self { name, shape, batch_axis, fields, .. } = self;
        if shape.0.len() > MAX_RANK || shape.0.iter().any(|&axis| axis < -1) {
            return Err(format!(
                "{name:?} has the shape {shape}: expected at most {MAX_RANK} axes, each 0 or more, or -1 if free"
            ));
        }
        if *batch_axis > 0 && !self.counts_rows() {
            return Err(format!(
                "{name:?} has `batch_axis = {batch_axis}` and the shape {shape}: expected the position of a free \
                 axis, -1 in `shape`, from 0 on; without an axis that counts rows, leave `batch_axis` out"
            ));
        }
        if !fields.is_empty() && self.row().is_some_and(|row| row != fields.len()) {
            return Err(format!(
                "{name:?} lists {} fields, which its shape {shape} does not fit",
                fields.len()
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests;
