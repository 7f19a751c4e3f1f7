//! Concatenates and splits tensors along an axis.

use spinfer_backend::{Tensor, TensorType};

/// Concatenates tensors along `axis`; their other axes have the same sizes. `None` if the result is too
/// long.
pub(super) fn concatenate<'a>(
    tensors: impl Iterator<Item = &'a Tensor> + Clone,
    axis: usize,
) -> Option<Tensor> {
    let first = tensors.clone().next()?;
    let rows = |tensor: &Tensor| tensor.dimensions.get(axis).copied();
    let all = tensors.clone().try_fold(0_u32, |all, tensor| all.checked_add(rows(tensor)?))?;
    let bytes = tensors.clone().map(|tensor| tensor.data.len()).sum();
    let mut dimensions = first.dimensions.clone();
    *dimensions.get_mut(axis)? = all;
    let mut data = Vec::with_capacity(bytes);
    // Without elements, the axes before may have any size.
    if bytes > 0 {
        let (outer, inner) = around(first, axis)?;
        let mut rest: Vec<(&[u8], usize)> = tensors
            .map(|tensor| Some((&*tensor.data, inner.checked_mul(rows(tensor)? as usize)?)))
            .collect::<Option<_>>()?;
        for _ in 0..outer {
            for (rest, elements) in &mut rest {
                data.extend_from_slice(take(rest, first.ty, *elements)?);
            }
        }
    }
    Some(Tensor { dimensions, ty: first.ty, data })
}

/// Splits `tensor` along `axis` into parts with these numbers of `rows`; `None` if their sum is not the
/// size of the axis.
pub(super) fn split(tensor: &Tensor, axis: usize, rows: &[usize]) -> Option<Vec<Tensor>> {
    if *tensor.dimensions.get(axis)? as usize != rows.iter().sum::<usize>() {
        return None;
    }
    let part = |&rows: &usize| {
        let mut dimensions = tensor.dimensions.clone();
        dimensions[axis] = u32::try_from(rows).ok()?;
        Some(Tensor { dimensions, ty: tensor.ty, data: Vec::new() })
    };
    let mut parts: Vec<Tensor> = rows.iter().map(part).collect::<Option<_>>()?;
    let mut data = tensor.data.as_slice();
    if !data.is_empty() {
        let (outer, inner) = around(tensor, axis)?;
        for _ in 0..outer {
            for (part, rows) in parts.iter_mut().zip(rows) {
                let taken = take(&mut data, tensor.ty, rows.checked_mul(inner)?)?;
                part.data.extend_from_slice(taken);
            }
        }
    }
    data.is_empty().then_some(parts)
}

/// The product of the sizes of all axes before `axis`, and of those after it.
fn around(tensor: &Tensor, axis: usize) -> Option<(usize, usize)> {
    let (before, from) = tensor.dimensions.split_at_checked(axis)?;
    let product =
        |axes: &[u32]| axes.iter().try_fold(1_usize, |n, &axis| n.checked_mul(axis as usize));
    Some((product(before)?, product(from.get(1..)?)?))
}

/// Takes the bytes of the next `elements` elements.
fn take<'a>(data: &mut &'a [u8], ty: TensorType, elements: usize) -> Option<&'a [u8]> {
    let length = match ty.size() {
        Some(size) => elements.checked_mul(size)?,
        None => {
            let mut length = 0_usize;
            for _ in 0..elements {
                let (size, _) = data.get(length..)?.split_first_chunk()?;
                length = length.checked_add(4)?.checked_add(u32::from_le_bytes(*size) as usize)?;
            }
            length
        }
    };
    let taken;
    (taken, *data) = data.split_at_checked(length)?;
    Some(taken)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Each element encodes its position in the tensor, as a number or as a string of some length.
    fn tensor(dimensions: &[u32], ty: TensorType, start: usize) -> Tensor {
        let elements = dimensions.iter().map(|&axis| axis as usize).product::<usize>();
        let mut data = Vec::new();
        for n in start..start + elements {
            let text = "é".repeat(n % 4) + &n.to_string();
            match ty {
                TensorType::I64 => data.extend((n as u64).to_le_bytes()),
                _ => {
                    data.extend(u32::try_from(text.len()).unwrap().to_le_bytes());
                    data.extend_from_slice(text.as_bytes());
                }
            }
        }
        Tensor { dimensions: dimensions.to_vec(), ty, data }
    }

    proptest! {
        #[test]
        fn concatenated_tensors_are_split_along_any_axis(
            before in proptest::collection::vec(0_u32..4, 0..3),
            behind in proptest::collection::vec(0_u32..4, 0..3),
            rows in proptest::collection::vec(0_u32..4, 1..5),
            strings in any::<bool>(),
        ) {
            let ty = if strings { TensorType::String } else { TensorType::I64 };
            let axis = before.len();
            let tensors: Vec<_> = rows.iter().enumerate().map(|(n, rows)| {
                tensor(&[&before[..], &[*rows], &behind].concat(), ty, n * 1000)
            }).collect();
            let all = concatenate(tensors.iter(), axis).unwrap();
            let counts: Vec<usize> = rows.iter().map(|&rows| rows as usize).collect();
            prop_assert_eq!(all.dimensions[axis], rows.iter().sum::<u32>());
            prop_assert_eq!(split(&all, axis, &counts).unwrap(), tensors);
        }
    }

    #[test]
    fn second_axis_is_concatenated_row_by_row() {
        let bytes = |dimensions: &[u32], data: &[u8]| Tensor {
            dimensions: dimensions.to_vec(),
            ty: TensorType::U8,
            data: data.to_vec(),
        };
        let parts = [bytes(&[2, 1], &[1, 2]), bytes(&[2, 2], &[3, 4, 5, 6])];
        let all = bytes(&[2, 3], &[1, 3, 4, 2, 5, 6]);
        assert_eq!(concatenate(parts.iter(), 1).unwrap(), all);
        assert_eq!(split(&all, 1, &[1, 2]).unwrap(), parts);
        assert_eq!(split(&all, 1, &[1, 1]), None, "a row too many");
        assert_eq!(split(&all, 1, &[1, 3]), None, "a row too few");
        assert_eq!(split(&all, 2, &[3]), None, "no such axis");
    }

    #[test]
    fn huge_axes_without_elements_take_no_time() {
        let huge = Tensor {
            dimensions: vec![u32::MAX, u32::MAX, 0],
            ty: TensorType::U8,
            data: Vec::new(),
        };
        let all = concatenate([&huge, &huge].into_iter(), 2).unwrap();
        assert_eq!(split(&all, 2, &[0, 0]).unwrap(), [huge.clone(), huge.clone()]);
        assert_eq!(concatenate([&huge, &huge].into_iter(), 0), None, "over 2^32 rows");
    }
}
