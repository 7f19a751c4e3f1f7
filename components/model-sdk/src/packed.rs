//! The packed form (`wit/wasi-nn`): a tensor of a type that `wasi:nn` lacks, in a tensor of bytes. All numbers
//! are little-endian:
//!
//! ```text
//! 0        u32      type of the elements, a number of onnx.TensorProto.DataType
//! 4        u32      rank r, at most 16
//! 8        u32 x r  size of each axis, outermost first
//! 8 + 4r            elements in row-major order, as in binary tensor data
//! ```

use crate::byte_strings::split_bytes;
use crate::datatype::Datatype;
use crate::error::Error;
use crate::reserve::reserve;
use crate::shape::MAX_RANK;
use crate::tensor::Tensor;

impl Datatype {
    /// The type's number in the packed form. `None` for a type that `wasi:nn` has.
    pub(crate) fn packed(self) -> Option<u32> {
        match self {
            Self::I8 => Some(3),
            Self::U16 => Some(4),
            Self::I16 => Some(5),
            Self::Bytes => Some(8),
            Self::Bool => Some(9),
            Self::U32 => Some(12),
            Self::U64 => Some(13),
            Self::U8 | Self::I32 | Self::I64 | Self::F16 | Self::F32 | Self::F64 | Self::Bf16 => {
                None
            }
        }
    }
}

/// Packs `tensor`. `ty`: the number of its datatype.
///
/// # Errors
/// If a string is not UTF-8, or there is no memory.
#[cold]
#[inline(never)]
pub(crate) fn encode(ty: u32, tensor: &Tensor) -> Result<Vec<u8>, Error> {
    let Tensor { name, datatype, dimensions, data } = tensor;
    if *datatype == Datatype::Bytes {
        let is_text = |element: Option<&[u8]>| element.is_some_and(|it| str::from_utf8(it).is_ok());
        if let Some(index) = split_bytes(data).position(|element| !is_text(element)) {
            return Err(Error::invalid(format!(
                "input {name:?}: element {index} is not UTF-8, as strings of a graph must be"
            )));
        }
    }
    let rank = u32::try_from(dimensions.len()).unwrap_or(u32::MAX);
    let mut packed = Vec::new();
    reserve(&mut packed, 8 + 4 * dimensions.len() + data.len())?;
    for number in [ty, rank].iter().chain(dimensions) {
        packed.extend(number.to_le_bytes());
    }
    packed.extend_from_slice(data);
    Ok(packed)
}

/// Unpacks a tensor of `datatype`, whose number is `ty`, into its dimensions and elements.
///
/// # Errors
/// With what is wrong, if `packed` is not such a tensor.
#[cold]
#[inline(never)]
pub(crate) fn decode(
    ty: u32,
    datatype: Datatype,
    mut packed: Vec<u8>,
) -> Result<(Vec<u32>, Vec<u8>), String> {
    let (numbers, _) = packed.as_chunks();
    let mut numbers = numbers.iter().map(|&number| u32::from_le_bytes(number));
    let (Some(found), Some(rank)) = (numbers.next(), numbers.next()) else {
        return Err(format!("{} bytes are too few for a packed tensor", packed.len()));
    };
    if found != ty {
        return Err(format!("its packed type is {found}, but {} is {ty}", datatype.name()));
    }
    let rank = usize::try_from(rank).ok().filter(|&rank| rank <= MAX_RANK);
    let rank = rank.ok_or_else(|| format!("it has more than {MAX_RANK} axes"))?;
    let dimensions: Vec<u32> = numbers.take(rank).collect();
    let start = 8 + 4 * rank;
    let Some(data) = packed.get(start..).filter(|_| dimensions.len() == rank) else {
        return Err("it is truncated within its dimensions".to_owned());
    };
    let count = dimensions.iter().fold(1, |count: u64, &axis| count.saturating_mul(axis.into()));
    check(datatype, data, count)?;
    packed.drain(..start);
    Ok((dimensions, packed))
}

/// Checks that `data` is `count` elements of the datatype.
///
/// # Errors
/// With the first difference, for a message.
pub(crate) fn check(datatype: Datatype, data: &[u8], count: u64) -> Result<(), String> {
    if datatype == Datatype::Bytes {
        let mut found = 0;
        for element in split_bytes(data) {
            if element.is_none() {
                return Err(format!(
                    "element {found} of the BYTES is longer than the rest of the data"
                ));
            }
            found += 1;
        }
        if found != count {
            return Err(format!("its shape requires {count} elements, but there are {found}"));
        }
        return Ok(());
    }
    let expected = count.saturating_mul(datatype.size() as u64);
    if data.len() as u64 != expected {
        return Err(format!("its shape requires {expected} bytes, but there are {}", data.len()));
    }
    match data.iter().find(|&&byte| byte > 1) {
        Some(byte) if datatype == Datatype::Bool => {
            Err(format!("expected BOOL, bytes of 0 or 1, got {byte}"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn number(datatype: Datatype) -> u32 {
        datatype.packed().unwrap()
    }

    #[test]
    fn packed_form_byte_by_byte() {
        let words = Tensor::bytes("x", &[2, 1], &["é", ""]);
        let expected =
            [8, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 0xc3, 0xa9, 0, 0, 0, 0];
        assert_eq!(encode(8, &words).unwrap(), expected);
        let flag = Tensor::bool("x", &[], &[true]);
        assert_eq!(encode(9, &flag).unwrap(), [9, 0, 0, 0, 0, 0, 0, 0, 1]);
        let none = Tensor::bool("x", &[0, 3], &[]);
        let packed = encode(9, &none).unwrap();
        assert_eq!(packed, [9, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0]);
        assert_eq!(decode(9, Datatype::Bool, packed), Ok((vec![0, 3], vec![])));
        let latin_1 = Tensor::bytes("x", &[2], &[&b"a"[..], b"\xe9"]);
        let error = encode(8, &latin_1).unwrap_err();
        assert_eq!(error.status(), 400);
        assert!(error.to_string().contains("input \"x\": element 1 is not UTF-8"), "{error}");
    }

    #[test]
    fn data_that_does_not_match_its_header_is_refused() {
        let packed = |numbers: &[u32], rest: &[u8]| {
            let header: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
            [&header, rest].concat()
        };
        for (datatype, bytes, problem) in [
            (Datatype::Bool, vec![], "0 bytes are too few for a packed tensor"),
            (Datatype::Bool, packed(&[9], &[0; 3]), "7 bytes are too few for a packed tensor"),
            (Datatype::Bool, packed(&[3, 0], &[0]), "its packed type is 3, but BOOL is 9"),
            (Datatype::Bool, packed(&[9, 17], &[0; 99]), "more than 16 axes"),
            (Datatype::Bool, packed(&[9, u32::MAX], &[]), "more than 16 axes"),
            (Datatype::Bool, packed(&[9, 2, 1], &[0, 0, 0]), "truncated within its dimensions"),
            (Datatype::Bool, packed(&[9, 1, 2], &[0]), "requires 2 bytes, but there are 1"),
            (Datatype::Bool, packed(&[9, 0], &[0, 0]), "requires 1 bytes, but there are 2"),
            (Datatype::Bool, packed(&[9, 1, 1], &[2]), "bytes of 0 or 1, got 2"),
            (Datatype::U64, packed(&[13, 2, u32::MAX, u32::MAX], &[0; 8]), "but there are 8"),
            (Datatype::Bytes, packed(&[8, 1, 1], &[1, 0, 0, 0]), "longer than the rest"),
            (Datatype::Bytes, packed(&[8, 1, 2], &[0; 4]), "requires 2 elements, but there are 1"),
        ] {
            let refused = decode(number(datatype), datatype, bytes).unwrap_err();
            assert!(refused.contains(problem), "{refused}");
        }
    }

    proptest! {
        #[test]
        fn packing_round_trips(
            datatype in prop::sample::select(
                Datatype::ALL.into_iter().filter(|it| it.packed().is_some()).collect::<Vec<_>>()
            ),
            dimensions in prop::collection::vec(0_u32..4, 0..=MAX_RANK),
            elements in prop::collection::vec(any::<u64>(), 1..16),
        ) {
            let count: usize = dimensions.iter().map(|&axis| axis as usize).product();
            prop_assume!(count <= 4096);
            let mut tensor = Tensor { name: "x".into(), datatype, dimensions, data: Vec::new() };
            for &element in elements.iter().cycle().take(count) {
                match datatype {
                    Datatype::Bytes => crate::byte_strings::push_bytes(
                        &element.to_string().as_bytes()[..(element % 2) as usize],
                        &mut tensor.data,
                    ),
                    Datatype::Bool => tensor.data.push((element % 2) as u8),
                    _ => datatype.push_bits(element, &mut tensor.data),
                }
            }
            let packed = encode(number(datatype), &tensor).unwrap();
            let unpacked = decode(number(datatype), datatype, packed).unwrap();
            prop_assert_eq!(unpacked, (tensor.dimensions, tensor.data));
        }

        #[test]
        fn no_bytes_panic(
            datatype in prop::sample::select(Datatype::ALL.to_vec()),
            header in prop::collection::vec(0_u32..20, 0..6),
            rest in prop::collection::vec(any::<u8>(), 0..24),
        ) {
            let ty = datatype.packed().unwrap_or_default();
            let header = header.iter().flat_map(|number| number.to_le_bytes());
            let bytes = ty.to_le_bytes().into_iter().chain(header).chain(rest.iter().copied());
            let _ = decode(ty, datatype, bytes.collect());
            let _ = decode(ty, datatype, rest);
        }
    }
}
