//! Builds a plan: maps the names of values to columns while nodes are compiled to steps.

use std::collections::{HashMap, HashSet};

use spinfer_backend::{Error, TensorType};

use crate::constant::Constant;
use crate::plan::Plan;
use crate::refusal::{invalid, unsupported};
use crate::rows::RowOp;
use crate::scratch::Columns;
use crate::step::Step;
use spinfer_onnx::{GraphProto, NodeProto, TensorProto};

/// Maximum number of columns of an arena. It bounds the scratch memory that a small file can claim
/// in each thread: 4 MiB of FP32.
const MAX_WIDTH: usize = 1 << 20;

/// The arena of scratch memory that a value is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arena {
    Floats,
    Doubles,
    Ints,
}

/// A computed value: one row for each row of the batch.
#[derive(Clone, Debug)]
pub(crate) struct Value {
    pub(crate) ty: TensorType,
    pub(crate) columns: Columns,
    /// The axes after the batch; their product is `columns.width`.
    pub(crate) tail: Vec<usize>,
    /// Whether its shape is `[1, batch]`, as that of `ArrayFeatureExtractor`'s output is.
    pub(crate) transposed: bool,
}

impl Value {
    pub(crate) fn arena(&self) -> Arena {
        match self.ty {
            TensorType::Fp64 => Arena::Doubles,
            TensorType::I32 | TensorType::I64 => Arena::Ints,
            _ => Arena::Floats,
        }
    }
}

/// The state of a compilation.
#[derive(Debug)]
pub(crate) struct Builder<'a> {
    pub(crate) plan: Plan,
    /// Size of the input's first axis, if it is fixed.
    pub(crate) batch: Option<u32>,
    /// Tensors that the file declares as another type: outputs of `ZipMap`.
    pub(crate) untyped: HashSet<&'a str>,
    values: HashMap<&'a str, Value>,
    constants: HashMap<&'a str, &'a TensorProto>,
    /// How many nodes and outputs read each name.
    uses: HashMap<&'a str, usize>,
    /// How many reads of FP32 columns remain, by their start. With one they may be overwritten.
    readers: HashMap<usize, usize>,
}

impl<'a> Builder<'a> {
    pub(crate) fn new(graph: &'a GraphProto, batch: Option<u32>) -> Self {
        let mut uses = HashMap::new();
        let read = graph.node.iter().flat_map(|node| &node.input).map(String::as_str);
        for name in read.chain(graph.output.iter().map(|output| output.name.as_str())) {
            *uses.entry(name).or_default() += 1;
        }
        Self {
            plan: Plan::default(),
            batch,
            untyped: HashSet::new(),
            values: HashMap::new(),
            constants: graph.initializer.iter().map(|t| (t.name.as_str(), t)).collect(),
            uses,
            readers: HashMap::new(),
        }
    }

    /// Allocates columns for a value of this type with these axes after the batch;
    /// `None` if the arena would exceed [`MAX_WIDTH`], or the value has no columns.
    pub(crate) fn allocate(&mut self, ty: TensorType, tail: &[usize]) -> Option<Value> {
        let width = tail.iter().try_fold(1usize, |width, &axis| width.checked_mul(axis))?;
        let columns = Columns { start: 0, width };
        let mut value = Value { ty, columns, tail: tail.to_vec(), transposed: false };
        let used = match value.arena() {
            Arena::Floats => &mut self.plan.floats,
            Arena::Doubles => &mut self.plan.doubles,
            Arena::Ints => &mut self.plan.ints,
        };
        value.columns.start = *used;
        *used = used.saturating_add(width);
        (width > 0 && *used <= MAX_WIDTH).then_some(value)
    }

    pub(crate) fn new_value(
        &mut self,
        node: &NodeProto,
        ty: TensorType,
        tail: &[usize],
    ) -> Result<Value, Error> {
        self.allocate(ty, tail).ok_or_else(|| unsupported(node, "its output is too wide"))
    }

    /// Names a value. Columns with two names are shared.
    pub(crate) fn name(&mut self, name: &'a str, value: Value) -> Result<(), Error> {
        let uses = self.uses.get(name).copied().unwrap_or(0);
        if value.arena() == Arena::Floats {
            let readers = self.readers.entry(value.columns.start).or_insert(1);
            *readers = (*readers + uses).saturating_sub(1);
        }
        if self.constants.contains_key(name) || self.values.insert(name, value).is_some() {
            return Err(Error::InvalidEncoding(format!("two values are named `{name}`")));
        }
        Ok(())
    }

    pub(crate) fn add_constant(
        &mut self,
        name: &'a str,
        tensor: &'a TensorProto,
    ) -> Result<(), Error> {
        if self.values.contains_key(name) || self.constants.insert(name, tensor).is_some() {
            return Err(Error::InvalidEncoding(format!("two values are named `{name}`")));
        }
        Ok(())
    }

    pub(crate) fn value(&self, name: &str) -> Option<&Value> {
        self.values.get(name)
    }

    /// The computed value that is input `index` of a node.
    pub(crate) fn input(&self, node: &'a NodeProto, index: usize) -> Result<Value, Error> {
        let name = input_name(node, index)?;
        if self.constants.contains_key(name) {
            return Err(unsupported(node, format_args!("its input `{name}` is a constant")));
        }
        let value = self.values.get(name).ok_or_else(|| {
            invalid(node, format_args!("no node before it computes its input `{name}`"))
        })?;
        Ok(value.clone())
    }

    /// [`Builder::input`], if it is a matrix with one row for each row of the batch.
    pub(crate) fn matrix(&self, node: &'a NodeProto, index: usize) -> Result<Value, Error> {
        let value = self.input(node, index)?;
        if value.transposed || value.tail.len() != 1 {
            return Err(unsupported(
                node,
                "its input does not have two axes, the first of them the batch",
            ));
        }
        Ok(value)
    }

    /// [`Builder::matrix`], if it is of FP32.
    pub(crate) fn floats(&self, node: &'a NodeProto, index: usize) -> Result<Value, Error> {
        let value = self.matrix(node, index)?;
        if value.ty == TensorType::Fp32 {
            Ok(value)
        } else {
            Err(unsupported(node, format_args!("its input is {}", value.ty)))
        }
    }

    /// [`Builder::matrix`], with FP64 and integers rounded to FP32.
    pub(crate) fn rounded(&mut self, node: &'a NodeProto, index: usize) -> Result<Value, Error> {
        let value = self.matrix(node, index)?;
        self.float_value(node, &value)
    }

    /// `value` rounded to FP32, if it is of another type.
    pub(crate) fn float_value(&mut self, node: &NodeProto, value: &Value) -> Result<Value, Error> {
        if value.arena() == Arena::Floats {
            return Ok(value.clone());
        }
        let from = value.columns;
        let mut rounded = self.new_value(node, TensorType::Fp32, &value.tail)?;
        rounded.transposed = value.transposed;
        let to = rounded.columns;
        self.plan.steps.push(if value.arena() == Arena::Doubles {
            Step::DoubleToFloat { from, to }
        } else {
            Step::IntToFloat { from, to }
        });
        Ok(rounded)
    }

    /// The constant that is input `index` of a node, or `None` if that input is computed.
    pub(crate) fn constant(
        &self,
        node: &NodeProto,
        index: usize,
    ) -> Result<Option<Constant>, Error> {
        let name = input_name(node, index)?;
        let Some(tensor) = self.constants.get(name) else { return Ok(None) };
        let read = Constant::read(tensor);
        read.map(Some).map_err(|why| unsupported(node, format_args!("constant `{name}`: {why}")))
    }

    /// Applies a row operator to a value, in place if nothing else reads it.
    pub(crate) fn rows(
        &mut self,
        node: &'a NodeProto,
        value: Value,
        op: RowOp,
    ) -> Result<(), Error> {
        let from = value.columns;
        let mut to = value;
        if self.readers.get(&from.start).is_some_and(|&readers| readers > 1) {
            to.columns = self.new_value(node, to.ty, &to.tail)?.columns;
            self.plan.steps.push(Step::Copy { from, to: to.columns, at: 0 });
        }
        self.plan.steps.push(Step::Rows { at: to.columns, op });
        self.name(output_name(node, 0)?, to)
    }
}

fn input_name(node: &NodeProto, index: usize) -> Result<&str, Error> {
    let name = node.input.get(index).map(String::as_str).filter(|name| !name.is_empty());
    name.ok_or_else(|| invalid(node, format_args!("it has no input {index}")))
}

pub(crate) fn has_input(node: &NodeProto, index: usize) -> bool {
    node.input.get(index).is_some_and(|name| !name.is_empty())
}

/// The name of output `index`. An optional output that the file leaves out has none.
pub(crate) fn output_name(node: &NodeProto, index: usize) -> Result<&str, Error> {
    let name = node.output.get(index).map(String::as_str).filter(|name| !name.is_empty());
    name.ok_or_else(|| invalid(node, format_args!("it has no output {index}")))
}
