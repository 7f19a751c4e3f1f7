//! Binds named tensors to the inputs of a graph, and checks everything that backends rely on.

use spinfer_backend::{Error, Tensor, TensorInfo, TensorType, strings};

use super::packed;
use crate::process::text::shortened;

/// Maximum number of axes of a tensor in a message.
const MAX_AXES_SHOWN: usize = 16;

/// The tensors in the order of the graph's inputs.
///
/// # Errors
/// A tensor is missing, duplicate or unknown, has another type or shape than the input, or its data
/// does not fill its dimensions.
pub fn bind(infos: &[TensorInfo], named: Vec<(String, Tensor)>) -> Result<Vec<Tensor>, Error> {
    let mut slots: Vec<Option<Tensor>> = infos.iter().map(|_| None).collect();
    for (name, tensor) in named {
        let Some(index) = infos.iter().position(|info| info.name == name) else {
            let names: Vec<_> = infos.iter().map(|info| format!("`{}`", info.name)).collect();
            let name = shortened(&name);
            return invalid(format!("unknown input `{name}`; the graph has {}", names.join(", ")));
        };
        let info = &infos[index];
        let tensor = if packed::is_packed(info.ty) && tensor.ty == TensorType::U8 {
            packed::unpack(&info.name, info.ty, tensor.data)?
        } else {
            tensor
        };
        check(info, &tensor)?;
        if slots[index].replace(tensor).is_some() {
            return invalid(format!("duplicate input `{name}`"));
        }
    }
    slots
        .into_iter()
        .zip(infos)
        .map(|(slot, info)| match slot {
            Some(tensor) => Ok(tensor),
            None => invalid(format!("input `{}` is missing", info.name)),
        })
        .collect()
}

fn check(info: &TensorInfo, tensor: &Tensor) -> Result<(), Error> {
    let TensorInfo { name, ty, shape, .. } = info;
    if tensor.ty != *ty {
        return invalid(format!("input `{name}` is {ty}, not {}", tensor.ty));
    }
    if let Some(shape) = shape {
        let fits = shape.len() == tensor.dimensions.len()
            && shape
                .iter()
                .zip(&tensor.dimensions)
                .all(|(axis, got)| axis.is_none_or(|a| a == *got));
        if !fits {
            let expected: Vec<i64> = shape.iter().map(|a| a.map_or(-1, i64::from)).collect();
            return invalid(format!(
                "input `{name}` has shape {expected:?} (-1 is any size), not {:?}",
                &tensor.dimensions[..tensor.dimensions.len().min(MAX_AXES_SHOWN)]
            ));
        }
    }
    if !is_full(tensor) {
        return invalid(format!(
            "input `{name}`: {} bytes of data do not fill a {ty} tensor of shape {:?}",
            tensor.data.len(),
            &tensor.dimensions[..tensor.dimensions.len().min(MAX_AXES_SHOWN)]
        ));
    }
    match ty {
        TensorType::Bool if tensor.data.iter().any(|&byte| byte > 1) => {
            invalid(format!("input `{name}`: the bytes of a BOOL tensor must be 0 or 1"))
        }
        TensorType::String
            if !strings(&tensor.data).flatten().all(|s| str::from_utf8(s).is_ok()) =>
        {
            invalid(format!("input `{name}`: a string is not UTF-8"))
        }
        _ => Ok(()),
    }
}

/// Whether a tensor's data consists of exactly the number of elements of its dimensions.
fn is_full(tensor: &Tensor) -> bool {
    let elements =
        tensor.dimensions.iter().try_fold(1_usize, |n, &axis| n.checked_mul(axis as usize));
    let Some(elements) = elements else { return false };
    match tensor.ty.size() {
        Some(size) => elements.checked_mul(size) == Some(tensor.data.len()),
        // Bounded by the data, whatever the dimensions claim: each string is prefixed by its length.
        None => {
            let mut found = 0;
            strings(&tensor.data).all(|string| {
                found += usize::from(string.is_some());
                string.is_some()
            }) && found == elements
        }
    }
}

fn invalid<T>(message: String) -> Result<T, Error> {
    Err(Error::InvalidArgument(message))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(name: &str, shape: Option<Vec<Option<u32>>>) -> TensorInfo {
        TensorInfo { name: name.into(), ty: TensorType::Fp32, shape, axis_names: Vec::new() }
    }

    fn tensor(dimensions: &[u32], bytes: usize) -> Tensor {
        Tensor { dimensions: dimensions.to_vec(), ty: TensorType::Fp32, data: vec![0; bytes] }
    }

    #[test]
    fn tensors_are_bound_in_the_order_of_the_graph() {
        let infos = [info("a", Some(vec![None, Some(2)])), info("b", None)];
        let named = vec![("b".into(), tensor(&[1], 4)), ("a".into(), tensor(&[3, 2], 24))];
        let bound = bind(&infos, named).unwrap();
        assert_eq!(bound, [tensor(&[3, 2], 24), tensor(&[1], 4)]);
    }

    #[test]
    fn invalid_tensors_are_refused_by_name() {
        let infos = [info("a", Some(vec![None, Some(2)]))];
        let u8_tensor = Tensor { ty: TensorType::U8, ..tensor(&[1, 2], 2) };
        let good = || ("a".to_owned(), tensor(&[1, 2], 8));
        let huge = tensor(&[u32::MAX, 2], 8);
        for (named, part) in [
            (vec![], "`a` is missing"),
            (vec![("x".into(), tensor(&[1, 2], 8))], "unknown input `x`; the graph has `a`"),
            (vec![good(), good()], "duplicate input `a`"),
            (vec![("a".into(), u8_tensor)], "is FP32, not U8"),
            (vec![("a".into(), tensor(&[2], 8))], "shape [-1, 2]"),
            (vec![("a".into(), tensor(&[1, 3], 12))], "shape [-1, 2]"),
            (vec![("a".into(), tensor(&[1, 2], 7))], "7 bytes"),
            (vec![("a".into(), huge)], "8 bytes"),
        ] {
            let error = bind(&infos, named).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn overflowing_shape_is_refused() {
        let infos = [info("a", None)];
        let error = bind(&infos, vec![("a".into(), tensor(&[u32::MAX; 5], 0))]).unwrap_err();
        assert!(error.to_string().contains("do not fill"), "{error}");
    }
}
