//! What is known of an operator's outputs before it runs.

use std::ops::Mul;

use spinfer_backend::Error;

use super::values::{ElementType, not_a_matrix};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Output {
    pub ty: OutputType,
    pub shape: OutputShape,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputType {
    /// That of the first input.
    Input,
    Is(ElementType),
    /// I64 for strings, strings for I64.
    StringsOrIndices,
}

/// The shape of an output in terms of those of the inputs. A first input of one axis is one row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputShape {
    /// That of the first input.
    Input,
    /// That of the first input, which is a matrix or a row.
    Matrix,
    /// That of the first input, and one more axis of this size.
    InputAnd(usize),
    /// `[rows]`
    Rows,
    /// `[rows, n]`
    RowsBy(usize),
    /// That of the first input, its last axis as long as the second input has elements; of one axis,
    /// it gets a first one of size 1.
    Extracted,
}

impl Output {
    pub(super) fn new(ty: ElementType, shape: OutputShape) -> Self {
        Self { ty: OutputType::Is(ty), shape }
    }

    pub(super) fn as_input(shape: OutputShape) -> Self {
        Self { ty: OutputType::Input, shape }
    }

    /// The element type, from that of the first input.
    #[must_use]
    pub fn element_type(&self, input: ElementType) -> ElementType {
        match self.ty {
            OutputType::Input => input,
            OutputType::Is(ty) => ty,
            OutputType::StringsOrIndices if input == ElementType::Str => ElementType::I64,
            OutputType::StringsOrIndices => ElementType::Str,
        }
    }

    /// The axes, from those of the inputs; `size` makes one of a number.
    pub fn dims<D: Clone + Mul<Output = D>>(
        &self,
        inputs: &[&[D]],
        size: impl Fn(usize) -> D,
    ) -> Result<Vec<D>, Error> {
        let first = inputs.first().copied().unwrap_or(&[]);
        let rows = || match first {
            [_] => Ok(size(1)),
            [rows, _] => Ok(rows.clone()),
            _ => Err(not_a_matrix(first.len())),
        };
        match self.shape {
            OutputShape::Input => Ok(first.to_vec()),
            OutputShape::Matrix => rows().map(|_| first.to_vec()),
            OutputShape::InputAnd(n) => Ok([first, &[size(n)]].concat()),
            OutputShape::Rows => Ok(vec![rows()?]),
            OutputShape::RowsBy(n) => Ok(vec![rows()?, size(n)]),
            OutputShape::Extracted => {
                let indices = inputs.get(1).copied().unwrap_or(&[]);
                let count = indices.iter().cloned().fold(size(1), Mul::mul);
                match first {
                    [] => Err(Error::InvalidArgument("its first input has no axes".into())),
                    [_] => Ok(vec![size(1), count]),
                    [outer @ .., _] => Ok([outer, &[count]].concat()),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_follow_from_the_inputs() {
        let dims = |shape, inputs: &[&[usize]]| {
            Output::new(ElementType::F32, shape).dims(inputs, |n| n).ok()
        };
        assert_eq!(dims(OutputShape::Input, &[&[2, 3, 4]]), Some(vec![2, 3, 4]));
        assert_eq!(dims(OutputShape::Matrix, &[&[2, 3, 4]]), None);
        assert_eq!(dims(OutputShape::Matrix, &[&[3]]), Some(vec![3]));
        assert_eq!(dims(OutputShape::InputAnd(5), &[&[2, 1]]), Some(vec![2, 1, 5]));
        assert_eq!(dims(OutputShape::Rows, &[&[7, 3]]), Some(vec![7]));
        assert_eq!(dims(OutputShape::Rows, &[&[3]]), Some(vec![1]));
        assert_eq!(dims(OutputShape::Rows, &[&[]]), None);
        assert_eq!(dims(OutputShape::RowsBy(2), &[&[7, 3]]), Some(vec![7, 2]));
        assert_eq!(dims(OutputShape::Extracted, &[&[4], &[2, 3]]), Some(vec![1, 6]));
        assert_eq!(dims(OutputShape::Extracted, &[&[5, 4], &[2]]), Some(vec![5, 2]));
        assert_eq!(dims(OutputShape::Extracted, &[&[], &[2]]), None);
    }
}
