//! Tensors as the operators of this module take and give them: strings included, which `wasi:nn` does
//! not carry but pipelines do between their nodes.

use std::borrow::Cow;
use std::fmt;

use spinfer_backend::Error;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ElementType {
    F32,
    F64,
    I16,
    I32,
    I64,
    Str,
}

impl fmt::Display for ElementType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "FP32",
            Self::F64 => "FP64",
            Self::I16 => "I16",
            Self::I32 => "I32",
            Self::I64 => "I64",
            Self::Str => "strings",
        })
    }
}

/// The elements of a tensor, row-major.
#[derive(Clone, Debug, PartialEq)]
pub enum Values {
    F32(Vec<f32>),
    F64(Vec<f64>),
    I16(Vec<i16>),
    I32(Vec<i32>),
    I64(Vec<i64>),
    Str(Vec<String>),
}

impl Values {
    #[must_use]
    pub fn as_slice(&self) -> Slice<'_> {
        match self {
            Self::F32(values) => Slice::F32(values),
            Self::F64(values) => Slice::F64(values),
            Self::I16(values) => Slice::I16(values),
            Self::I32(values) => Slice::I32(values),
            Self::I64(values) => Slice::I64(values),
            Self::Str(values) => Slice::Str(values),
        }
    }
}

/// [`Values`] that belong to somebody else.
#[derive(Clone, Copy, Debug)]
pub enum Slice<'a> {
    F32(&'a [f32]),
    F64(&'a [f64]),
    I16(&'a [i16]),
    I32(&'a [i32]),
    I64(&'a [i64]),
    Str(&'a [String]),
}

impl<'a> Slice<'a> {
    #[must_use]
    pub fn ty(self) -> ElementType {
        match self {
            Self::F32(_) => ElementType::F32,
            Self::F64(_) => ElementType::F64,
            Self::I16(_) => ElementType::I16,
            Self::I32(_) => ElementType::I32,
            Self::I64(_) => ElementType::I64,
            Self::Str(_) => ElementType::Str,
        }
    }

    pub(crate) fn len(self) -> usize {
        match self {
            Self::F32(values) => values.len(),
            Self::F64(values) => values.len(),
            Self::I16(values) => values.len(),
            Self::I32(values) => values.len(),
            Self::I64(values) => values.len(),
            Self::Str(values) => values.len(),
        }
    }

    /// Numbers as FP32, rounded.
    pub(crate) fn floats(self) -> Result<Cow<'a, [f32]>, Error> {
        #[expect(clippy::cast_possible_truncation, reason = "rounding is what is asked for")]
        Ok(match self {
            Self::F32(values) => Cow::Borrowed(values),
            Self::F64(values) => values.iter().map(|&x| x as f32).collect(),
            Self::I16(values) => values.iter().map(|&x| f32::from(x)).collect(),
            Self::I32(values) => values.iter().map(|&x| x as f32).collect(),
            Self::I64(values) => values.iter().map(|&x| x as f32).collect(),
            Self::Str(_) => return Err(wrong_type(self.ty())),
        })
    }
}

/// What a kernel says of a type that [`super::Operator::kernel`] should have refused.
pub(super) fn wrong_type(ty: ElementType) -> Error {
    Error::InvalidArgument(format!("it does not take {ty}"))
}

/// A tensor to read.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    pub shape: &'a [usize],
    /// As many as the product of the shape.
    pub values: Slice<'a>,
}

impl View<'_> {
    /// Rows and columns: `[features]` is one row.
    pub(crate) fn matrix(self) -> Result<(usize, usize), Error> {
        match *self.shape {
            [width] => Ok((1, width)),
            [rows, width] => Ok((rows, width)),
            _ => Err(not_a_matrix(self.shape.len())),
        }
    }

    /// As [`View::matrix`], the columns being as many as the model was made for.
    pub(crate) fn rows_of(self, width: usize) -> Result<usize, Error> {
        match self.matrix()? {
            (rows, got) if got == width => Ok(rows),
            (_, got) => Err(Error::InvalidArgument(format!("{got} features, not {width}"))),
        }
    }
}

pub(super) fn not_a_matrix(axes: usize) -> Error {
    Error::InvalidArgument(format!(
        "its input has {axes} axes; it takes [rows, features], or [features] for one row"
    ))
}

/// A tensor that an operator made.
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    pub shape: Vec<usize>,
    /// As many as the product of the shape.
    pub values: Values,
}

impl Array {
    pub(crate) fn floats(shape: &[usize], values: Vec<f32>) -> Self {
        Self { shape: shape.to_vec(), values: Values::F32(values) }
    }
}

/// Bytes of one output: a small file may ask for anything.
const MAX_BYTES: usize = 1 << 30;

/// The number of elements of an output of this shape, if it can be allocated.
pub(crate) fn elements(shape: &[usize]) -> Result<usize, Error> {
    let count = shape.iter().try_fold(1usize, |count, &axis| count.checked_mul(axis));
    count.filter(|&count| count <= MAX_BYTES / size_of::<String>()).ok_or_else(|| {
        Error::Runtime(format!("an output of shape {shape:?} takes more than 1 GiB"))
    })
}
