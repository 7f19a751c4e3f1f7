//! Generated input values: small, and in the range that the graph's operators need.

use anyhow::{Result, ensure};
use fastrand::Rng;
use half::{bf16, f16};
use spinfer_backend::{Tensor, TensorInfo, TensorType};

use super::uses::{TableKeys, Uses};

/// How values are generated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SampleKind {
    /// Random values within the restrictions of their uses.
    Likely,
    Ones,
    Zeros,
}

/// Maximum size of a generated input, in bytes.
pub(super) const MAX_BYTES: usize = 256 << 20;
/// Strings for inputs without known keys.
const WORDS: [&str; 3] = ["a", "b", "c"];

/// The number of elements of a tensor of `ty` with these `dimensions`; fails above [`MAX_BYTES`].
pub(super) fn elements(ty: TensorType, dimensions: &[u32]) -> Result<usize> {
    let count = dimensions.iter().try_fold(1_usize, |n, &axis| n.checked_mul(axis as usize));
    // A string is a length of 4 bytes and some letters.
    let bytes = count.and_then(|count| count.checked_mul(ty.size().unwrap_or(8)));
    ensure!(bytes.is_some_and(|bytes| bytes <= MAX_BYTES), "an input is larger than 256 MiB");
    Ok(count.unwrap_or_default())
}

/// A generated input of these `dimensions`.
pub(super) fn tensor(
    info: &TensorInfo,
    uses: &Uses,
    dimensions: Vec<u32>,
    kind: SampleKind,
    random: &mut Rng,
) -> Result<Tensor> {
    let count = elements(info.ty, &dimensions)?;
    let columns = dimensions.last().map_or(1, |&last| (last as usize).max(1));
    let is_image = info.ty == TensorType::U8 && dimensions.len() > 2;
    let mut data = Vec::with_capacity(count * info.ty.size().unwrap_or(8));
    for index in 0..count {
        let keys = uses.keys.get(&(index % columns));
        match info.ty {
            TensorType::String => {
                let text = match keys {
                    Some(TableKeys::Strings(keys)) => keys[random.usize(..keys.len())].as_str(),
                    _ => WORDS[random.usize(..WORDS.len())],
                };
                let text = if kind == SampleKind::Zeros { "" } else { text };
                put_string(text.as_bytes(), &mut data);
            }
            TensorType::Fp16 | TensorType::Bf16 | TensorType::Fp32 | TensorType::Fp64 => {
                let number = match (kind, keys) {
                    (SampleKind::Zeros, _) => 0.0,
                    (SampleKind::Ones, _) => 1.0,
                    // 1/8 to 1 is exact in every type.
                    (SampleKind::Likely, Some(TableKeys::Integers(keys))) => {
                        float(*choose(keys, random))
                    }
                    (SampleKind::Likely, _) => f64::from(random.u8(1..=8)) / 8.0,
                };
                put_float(info.ty, number, &mut data);
            }
            ty => {
                let number = match kind {
                    SampleKind::Zeros => 0,
                    SampleKind::Ones => 1,
                    SampleKind::Likely => integer(uses, keys, is_image, random),
                };
                put_integer(ty, number.into(), &mut data)?;
            }
        }
    }
    Ok(Tensor { dimensions, ty: info.ty, data })
}

fn choose<'a, T>(from: &'a [T], random: &mut Rng) -> &'a T {
    &from[random.usize(..from.len())]
}

#[expect(clippy::cast_precision_loss, reason = "keys of floating-point inputs are small")]
fn float(number: i64) -> f64 {
    number as f64
}

fn integer(uses: &Uses, keys: Option<&TableKeys>, is_image: bool, random: &mut Rng) -> i64 {
    if let Some(TableKeys::Integers(keys)) = keys {
        return *choose(keys, random);
    }
    let min = i64::from(uses.divides);
    let below = match uses.below {
        Some(below) => i64::try_from(below).unwrap_or(i64::MAX),
        None if is_image => 256,
        None if uses.divides => 4,
        // Masks, segment ids and unknown uses.
        None => 2,
    };
    random.i64(min..below.max(min + 1))
}

/// Appends a string as an element of a BYTES tensor.
pub(in crate::cli) fn put_string(text: &[u8], data: &mut Vec<u8>) {
    data.extend(u32::try_from(text.len()).unwrap_or(u32::MAX).to_le_bytes());
    data.extend_from_slice(text);
}

/// Appends `number` as an element of a floating-point type.
pub(in crate::cli) fn put_float(ty: TensorType, number: f64, data: &mut Vec<u8>) {
    #[expect(clippy::cast_possible_truncation, reason = "rounds to the nearest value")]
    match ty {
        TensorType::Fp16 => data.extend(f16::from_f64(number).to_le_bytes()),
        TensorType::Bf16 => data.extend(bf16::from_f64(number).to_le_bytes()),
        TensorType::Fp32 => data.extend((number as f32).to_le_bytes()),
        _ => data.extend(number.to_le_bytes()),
    }
}

/// Appends `number` as an element of an integer type or BOOL.
pub(in crate::cli) fn put_integer(ty: TensorType, number: i128, data: &mut Vec<u8>) -> Result<()> {
    let fits = match ty {
        TensorType::Bool => (0..=1).contains(&number),
        TensorType::U8 => u8::try_from(number).is_ok(),
        TensorType::I8 => i8::try_from(number).is_ok(),
        TensorType::U16 => u16::try_from(number).is_ok(),
        TensorType::I16 => i16::try_from(number).is_ok(),
        TensorType::U32 => u32::try_from(number).is_ok(),
        TensorType::I32 => i32::try_from(number).is_ok(),
        TensorType::U64 => u64::try_from(number).is_ok(),
        _ => i64::try_from(number).is_ok(),
    };
    ensure!(fits, "{number} is out of range for the type {ty}");
    data.extend_from_slice(&number.to_le_bytes()[..ty.size().unwrap_or(8)]);
    Ok(())
}

/// `given` resized to `dimensions`: elements are repeated or dropped.
pub(super) fn resized(given: &Tensor, dimensions: Vec<u32>) -> Result<Tensor> {
    if dimensions == given.dimensions {
        return Ok(given.clone());
    }
    let count = elements(given.ty, &dimensions)?;
    ensure!(dimensions.len() == given.dimensions.len(), "the number of axes differs");
    ensure!(!given.dimensions.contains(&0) || count == 0, "the example has no elements");
    let spans = element_spans(given);
    let mut data = Vec::new();
    for index in 0..count {
        let (mut rest, mut from, mut stride) = (index, 0, 1);
        for (&size, &given_size) in dimensions.iter().zip(&given.dimensions).rev() {
            from += rest % size as usize % given_size as usize * stride;
            rest /= size as usize;
            stride *= given_size as usize;
        }
        let span = spans.get(from).cloned().unwrap_or_default();
        data.extend_from_slice(given.data.get(span).unwrap_or_default());
        ensure!(data.len() <= MAX_BYTES, "an input is larger than 256 MiB");
    }
    Ok(Tensor { dimensions, ty: given.ty, data })
}

/// The byte range of each element in the data of a tensor.
fn element_spans(tensor: &Tensor) -> Vec<std::ops::Range<usize>> {
    if let Some(size) = tensor.ty.size() {
        return (0..tensor.data.len() / size).map(|n| n * size..(n + 1) * size).collect();
    }
    let mut start = 0;
    let strings = spinfer_backend::strings(&tensor.data).map_while(|string| {
        let end = start + 4 + string?.len();
        let span = start..end;
        start = end;
        Some(span)
    });
    strings.collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn generated(ty: TensorType, uses: &Uses, dimensions: &[u32], kind: SampleKind) -> Tensor {
        let info = TensorInfo { name: "x".into(), ty, shape: None, axis_names: Vec::new() };
        tensor(&info, uses, dimensions.to_vec(), kind, &mut Rng::with_seed(1)).unwrap()
    }

    fn i64s(tensor: &Tensor) -> Vec<i64> {
        tensor.data.as_chunks().0.iter().map(|&bytes| i64::from_le_bytes(bytes)).collect()
    }

    #[test]
    fn indices_are_in_range_and_divisors_are_not_zero() {
        let index = Uses { below: Some(5), ..Uses::default() };
        let values = i64s(&generated(TensorType::I64, &index, &[200], SampleKind::Likely));
        assert!(values.iter().all(|value| (0..5).contains(value)), "{values:?}");
        assert!((0..5).all(|value| values.contains(&value)), "{values:?}");
        let divisor = Uses { divides: true, ..Uses::default() };
        let values = i64s(&generated(TensorType::I64, &divisor, &[200], SampleKind::Likely));
        assert!(values.iter().all(|value| (1..4).contains(value)), "{values:?}");
        // An index of a one-row table that is also a divisor.
        let both = Uses { below: Some(1), divides: true, ..Uses::default() };
        assert_eq!(i64s(&generated(TensorType::I64, &both, &[1], SampleKind::Likely)), [1]);
    }

    #[test]
    fn keys_of_each_column_are_used() {
        let strings = TableKeys::Strings(vec!["Rome".into()]);
        let keys = BTreeMap::from([(0, strings), (1, TableKeys::Integers(vec![7]))]);
        let uses = Uses { keys, ..Uses::default() };
        assert_eq!(i64s(&generated(TensorType::I64, &uses, &[2, 2], SampleKind::Likely))[1], 7);
        let text = generated(TensorType::String, &uses, &[1, 1], SampleKind::Likely);
        assert_eq!(text.data, [&4_u32.to_le_bytes()[..], b"Rome"].concat());
    }

    #[test]
    fn every_type_gets_values_of_its_size() {
        for (ty, size) in [
            (TensorType::Fp16, 2),
            (TensorType::Bf16, 2),
            (TensorType::Fp64, 8),
            (TensorType::Bool, 1),
            (TensorType::I8, 1),
            (TensorType::U16, 2),
            (TensorType::U32, 4),
            (TensorType::U64, 8),
        ] {
            for kind in [SampleKind::Likely, SampleKind::Ones, SampleKind::Zeros] {
                assert_eq!(
                    generated(ty, &Uses::default(), &[2, 3], kind).data.len(),
                    6 * size,
                    "{ty}"
                );
            }
        }
        assert_eq!(
            generated(TensorType::String, &Uses::default(), &[2], SampleKind::Zeros).data,
            [0; 8]
        );
    }

    #[test]
    fn resized_tensor_repeats_or_drops_elements() {
        let given = Tensor { dimensions: vec![2, 2], ty: TensorType::U8, data: vec![1, 2, 3, 4] };
        assert_eq!(resized(&given, vec![3, 1]).unwrap().data, [1, 3, 1]);
        assert_eq!(resized(&given, vec![1, 3]).unwrap().data, [1, 2, 1]);
        let mut data = Vec::new();
        ["a", "bc"].iter().for_each(|text| put_string(text.as_bytes(), &mut data));
        let strings = Tensor { dimensions: vec![2], ty: TensorType::String, data: data.clone() };
        assert_eq!(resized(&strings, vec![4]).unwrap().data, data.repeat(2));
        let empty = Tensor { dimensions: vec![0], ty: TensorType::U8, data: Vec::new() };
        assert!(resized(&empty, vec![2]).is_err());
    }

    #[test]
    fn oversized_tensor_is_an_error() {
        assert!(elements(TensorType::Fp32, &[u32::MAX, 2]).is_err());
        assert!(elements(TensorType::Fp32, &[u32::MAX; 9]).is_err());
    }
}
