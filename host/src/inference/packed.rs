//! Packed tensors: tensors of types that `wasi:nn` lacks, encoded as the bytes of a U8 tensor. The
//! format is documented in `wit/wasi-nn`.

use spinfer_backend::{Error, Tensor, TensorType};

/// Maximum rank of a packed tensor.
const MAX_RANK: usize = 16;

/// The types that are packed, with their numbers in `onnx.TensorProto.DataType`.
const TYPES: [(TensorType, u32); 7] = [
    (TensorType::I8, 3),
    (TensorType::U16, 4),
    (TensorType::I16, 5),
    (TensorType::String, 8),
    (TensorType::Bool, 9),
    (TensorType::U32, 12),
    (TensorType::U64, 13),
];

/// The number of a type that is packed; `None` for the types of `wasi:nn`.
fn code(ty: TensorType) -> Option<u32> {
    TYPES.into_iter().find_map(|(packed, code)| (packed == ty).then_some(code))
}

/// Whether tensors of this type are packed.
pub(super) fn is_packed(ty: TensorType) -> bool {
    code(ty).is_some()
}

/// Decodes a packed tensor of type `ty`. Does not check whether the data fills the dimensions. `name`
/// is the name of the input, for errors.
///
/// # Errors
/// The header is invalid.
pub(super) fn unpack(name: &str, ty: TensorType, mut bytes: Vec<u8>) -> Result<Tensor, Error> {
    let invalid = |what: String| {
        Err(Error::InvalidArgument(format!(
            "input `{name}` is {ty}, which is packed in a U8 tensor (see wit/wasi-nn): {what}"
        )))
    };
    let mut words = bytes.as_chunks::<4>().0.iter().map(|word| u32::from_le_bytes(*word));
    let (Some(found), Some(rank)) = (words.next(), words.next()) else {
        return invalid(format!("its {} bytes are too few for the header", bytes.len()));
    };
    if Some(found) != code(ty) {
        return invalid(format!("its element type is {found}"));
    }
    let rank = rank as usize;
    if rank > MAX_RANK {
        return invalid(format!("it has {rank} axes; the maximum is {MAX_RANK}"));
    }
    let dimensions: Vec<u32> = words.take(rank).collect();
    if dimensions.len() < rank {
        return invalid(format!("it is too short for its {rank} axes"));
    }
    bytes.drain(..8 + 4 * rank);
    Ok(Tensor { dimensions, ty, data: bytes })
}

/// Packs a tensor, unless `wasi:nn` has its type.
#[must_use]
pub fn pack(tensor: Tensor) -> Tensor {
    let Some(code) = code(tensor.ty) else { return tensor };
    let Tensor { dimensions, data, .. } = tensor;
    let mut bytes = Vec::with_capacity(8 + 4 * dimensions.len() + data.len());
    bytes.extend(code.to_le_bytes());
    // Both sizes fit: a graph's rank is small, and no guest receives a tensor of 4 GiB.
    bytes.extend(u32::try_from(dimensions.len()).unwrap_or(u32::MAX).to_le_bytes());
    dimensions.iter().for_each(|axis| bytes.extend(axis.to_le_bytes()));
    bytes.extend_from_slice(&data);
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    Tensor { dimensions: vec![length], ty: TensorType::U8, data: bytes }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn packed_tensor_is_unpacked(
            index in 0..TYPES.len(),
            dimensions in proptest::collection::vec(any::<u32>(), 0..=MAX_RANK),
            data in proptest::collection::vec(any::<u8>(), 0..64),
        ) {
            let ty = TYPES[index].0;
            let tensor = Tensor { dimensions, ty, data };
            let packed = pack(tensor.clone());
            prop_assert_eq!(packed.ty, TensorType::U8);
            prop_assert_eq!(packed.dimensions[0] as usize, packed.data.len());
            prop_assert_eq!(unpack("x", ty, packed.data).unwrap(), tensor);
        }

        #[test]
        fn any_bytes_are_unpacked_or_rejected(
            index in 0..TYPES.len(),
            bytes in proptest::collection::vec(any::<u8>(), 0..128),
        ) {
            if let Ok(tensor) = unpack("x", TYPES[index].0, bytes.clone()) {
                prop_assert_eq!(pack(tensor).data, bytes);
            }
        }
    }

    #[test]
    fn format_is_as_documented() {
        let tensor =
            Tensor { dimensions: vec![2, 1], ty: TensorType::I16, data: vec![1, 0, 0xff, 0xff] };
        let bytes = [5, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0xff, 0xff];
        assert_eq!(pack(tensor).data, bytes);
        let plain = Tensor { dimensions: vec![2], ty: TensorType::U8, data: vec![1, 2] };
        assert_eq!(pack(plain.clone()), plain);
    }

    #[test]
    fn invalid_header_is_rejected() {
        let words = |words: &[u32]| words.iter().flat_map(|w| w.to_le_bytes()).collect::<Vec<u8>>();
        for (bytes, part) in [
            (vec![0; 7], "its 7 bytes are too few"),
            (words(&[8, 0]), "its element type is 8"),
            (words(&[9, 17]), "it has 17 axes"),
            (words(&[9, 2, 1]), "is too short for its 2 axes"),
        ] {
            let error = unpack("x", TensorType::Bool, bytes).unwrap_err().to_string();
            assert!(error.contains(part) && error.contains("`x` is BOOL"), "{error}");
        }
    }
}
