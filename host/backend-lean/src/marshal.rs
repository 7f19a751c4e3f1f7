//! Copies tensors into columns of scratch memory, and columns into tensors.

use spinfer_backend::{Error, Tensor, TensorType};

use crate::builder::Value;
use crate::scratch::{Area, Scratch};
use crate::signature::element_size;

/// Copies one block of the input tensor, `bytes`, into the columns of `input`.
pub(crate) fn fill(input: &Value, bytes: &[u8], area: Area, scratch: &mut Scratch) {
    fn decode<const N: usize, T>(bytes: &[u8], to: &mut [T], from: impl Fn([u8; N]) -> T) {
        bytes.as_chunks().0.iter().zip(to).for_each(|(bytes, x)| *x = from(*bytes));
    }
    let columns = input.columns;
    let ints = |scratch| area.of_mut::<i64>(scratch, columns);
    match input.ty {
        TensorType::Fp64 => {
            decode(bytes, area.of_mut(&mut scratch.doubles, columns), f64::from_le_bytes);
        }
        TensorType::I64 => decode(bytes, ints(&mut scratch.ints), i64::from_le_bytes),
        TensorType::I32 => {
            decode(bytes, ints(&mut scratch.ints), |x| i32::from_le_bytes(x).into());
        }
        _ => {
            decode(bytes, area.of_mut(&mut scratch.floats, columns), f32::from_le_bytes);
        }
    }
}

/// Maximum size of one output, in bytes: a large batch of narrow rows may have any number of wide
/// ones.
const MAX_OUTPUT: usize = 1 << 30;

/// An output tensor without rows, with capacity for all of them.
pub(crate) fn empty_output(batch: u32, rows: usize, value: &Value) -> Result<Tensor, Error> {
    let too_big =
        || Error::Runtime("an output is larger than 1 GiB, or than the available memory".into());
    let mut dimensions = Vec::with_capacity(1 + value.tail.len());
    dimensions.push(batch);
    for &axis in &value.tail {
        dimensions.push(u32::try_from(axis).map_err(|_| too_big())?);
    }
    let len = rows.checked_mul(value.columns.width * element_size(value.ty)).ok_or_else(too_big)?;
    if len > MAX_OUTPUT {
        return Err(too_big());
    }
    let mut data = Vec::new();
    data.try_reserve_exact(len).map_err(|_| too_big())?;
    Ok(Tensor { dimensions, ty: value.ty, data })
}

/// Appends one block of `value` to the data of an output tensor.
pub(crate) fn append(data: &mut Vec<u8>, value: &Value, area: Area, scratch: &Scratch) {
    let columns = value.columns;
    match value.ty {
        TensorType::I64 => {
            data.extend(area.of(&scratch.ints, columns).iter().flat_map(|x| x.to_le_bytes()));
        }
        TensorType::I32 => {
            #[expect(clippy::cast_possible_truncation, reason = "widened from I32")]
            let bytes = |x: &i64| (*x as i32).to_le_bytes();
            data.extend(area.of(&scratch.ints, columns).iter().flat_map(bytes));
        }
        _ => {
            data.extend(area.of(&scratch.floats, columns).iter().flat_map(|x| x.to_le_bytes()));
        }
    }
}
