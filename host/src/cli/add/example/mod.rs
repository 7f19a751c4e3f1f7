//! Example inputs of a graph, from a file: a request of the Open Inference Protocol or nested lists as
//! JSON ([`json`]), or arrays saved by NumPy ([`npz`]).

mod json;
mod npz;

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use bytesize::ByteSize;
use spinfer_backend::{Tensor, TensorInfo, TensorType};

use super::values::{put_float, put_integer, put_string};
use crate::inference::{bind, datatype};
use crate::process::read_file::read_file;

/// Maximum size of the file, in bytes.
const MAX_FILE: u64 = 256 << 20;
/// Maximum number of elements of all arrays.
const MAX_ELEMENTS: usize = 16 << 20;

/// The arrays of an example, named after the inputs.
#[derive(Debug)]
pub(in crate::cli) struct Example(Vec<Array>);

/// An array of an example.
#[derive(Debug, PartialEq)]
struct Array {
    name: String,
    shape: Vec<usize>,
    /// Datatype of the Open Inference Protocol, if the example specifies it.
    datatype: Option<String>,
    elements: Elements,
}

#[derive(Debug, PartialEq)]
enum Elements {
    Floats(Vec<f64>),
    Integers(Vec<i128>),
    Bools(Vec<bool>),
    Strings(Vec<Vec<u8>>),
}

impl Example {
    pub(in crate::cli) fn read(path: &Path) -> Result<Self> {
        let read = || {
            let bytes = read_file(path, MAX_FILE)?;
            let arrays = match path.extension().and_then(|extension| extension.to_str()) {
                Some("npz") => npz::parse(&bytes)?,
                _ => json::parse(&bytes)?,
            };
            anyhow::Ok(Self(arrays))
        };
        read().with_context(|| format!("--example {}", path.display()))
    }

    /// The tensors for `inputs`, in their order.
    pub(in crate::cli) fn tensors(&self, inputs: &[TensorInfo]) -> Result<Vec<Tensor>> {
        let named = self.0.iter().map(|array| {
            let info = inputs.iter().find(|info| info.name == array.name);
            // `bind` reports an unknown name with the graph's inputs.
            let ty = info.map_or(TensorType::U8, |info| info.ty);
            let tensor = match info {
                Some(_) => array.tensor(ty).with_context(|| format!("`{}`", array.name))?,
                None => Tensor { dimensions: Vec::new(), ty, data: Vec::new() },
            };
            Ok((array.name.clone(), tensor))
        });
        let named: Result<Vec<_>> = named.collect();
        named
            .and_then(|named| Ok(bind(inputs, named)?))
            .context("--example: it does not fit the graph")
    }
}

impl Array {
    fn tensor(&self, ty: TensorType) -> Result<Tensor> {
        let own = datatype(ty);
        if let Some(given) = &self.datatype {
            ensure!(given == own, "the input is {own}, not {given}");
        }
        let mut data = Vec::new();
        let is_float = ty.size().is_some()
            && matches!(
                ty,
                TensorType::Fp16 | TensorType::Bf16 | TensorType::Fp32 | TensorType::Fp64
            );
        match (&self.elements, ty) {
            (Elements::Floats(numbers), _) if is_float => {
                numbers.iter().for_each(|&number| put_float(ty, number, &mut data));
            }
            #[expect(clippy::cast_precision_loss, reason = "rounds to the nearest value")]
            (Elements::Integers(numbers), _) if is_float => {
                numbers.iter().for_each(|&number| put_float(ty, number as f64, &mut data));
            }
            (Elements::Strings(strings), TensorType::String) => {
                strings.iter().for_each(|string| put_string(string, &mut data));
            }
            (Elements::Integers(numbers), ty) if ty != TensorType::String => {
                numbers.iter().try_for_each(|&number| put_integer(ty, number, &mut data))?;
            }
            (Elements::Bools(bools), TensorType::Bool) => {
                data.extend(bools.iter().map(|&value| u8::from(value)));
            }
            (Elements::Floats(numbers), _) if numbers.is_empty() => {}
            (elements, _) => bail!("the input is {own}, but the example has {}", elements.kind()),
        }
        let dimensions = self.shape.iter().map(|&size| u32::try_from(size));
        Ok(Tensor { dimensions: dimensions.collect::<Result<_, _>>()?, ty, data })
    }
}

impl Elements {
    fn kind(&self) -> &'static str {
        match self {
            Self::Floats(_) => "floating-point numbers",
            Self::Integers(_) => "integers",
            Self::Bools(_) => "booleans",
            Self::Strings(_) => "strings",
        }
    }
}

/// Counts the elements of all arrays, up to [`MAX_ELEMENTS`].
#[derive(Default)]
struct ElementCount(usize);

impl ElementCount {
    /// The number of elements of `shape`.
    fn add(&mut self, shape: &[usize]) -> Result<usize> {
        let count = shape.iter().try_fold(1_usize, |n, &axis| n.checked_mul(axis));
        let all = count.and_then(|count| self.0.checked_add(count));
        let all = all.filter(|&all| all <= MAX_ELEMENTS);
        self.0 = all.with_context(|| {
            format!("it has more than {} elements", ByteSize(MAX_ELEMENTS as u64).as_u64())
        })?;
        Ok(count.unwrap_or_default())
    }
}

/// The fuzz target of this module: bytes are arrays whose elements fill their shapes, or an error.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz(data: &[u8]) {
    for arrays in [npz::parse(data), npz::parse_array("x", data), json::parse(data)] {
        for array in arrays.into_iter().flatten() {
            let elements = match &array.elements {
                Elements::Floats(elements) => elements.len(),
                Elements::Integers(elements) => elements.len(),
                Elements::Bools(elements) => elements.len(),
                Elements::Strings(elements) => elements.len(),
            };
            assert_eq!(elements, array.shape.iter().product::<usize>(), "{:?}", array.shape);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(ty: TensorType, shape: &[Option<u32>]) -> TensorInfo {
        let shape = Some(shape.to_vec());
        TensorInfo { name: "x".into(), ty, shape, axis_names: Vec::new() }
    }

    fn tensor(json: &str, ty: TensorType) -> Result<Tensor, String> {
        let example = Example(json::parse(json.as_bytes()).unwrap());
        let tensors = example.tensors(&[info(ty, &[None, Some(2)])]);
        tensors.map(|mut tensors| tensors.remove(0)).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn arrays_are_converted_to_the_types_of_the_graph() {
        let half = tensor(r#"{"x": [[0.5, 1]]}"#, TensorType::Fp16).unwrap();
        assert_eq!((half.dimensions, half.data), (vec![1, 2], vec![0, 0x38, 0, 0x3c]));
        let bytes = tensor(r#"{"x": [[-1, 2], [3, 4]]}"#, TensorType::I8).unwrap();
        assert_eq!((bytes.dimensions, bytes.data), (vec![2, 2], vec![255, 2, 3, 4]));
        let bools = tensor(r#"{"x": [[true, false]]}"#, TensorType::Bool).unwrap();
        assert_eq!(bools.data, [1, 0]);
        let strings = tensor(r#"{"x": [["a", ""]]}"#, TensorType::String).unwrap();
        assert_eq!(strings.data, [1, 0, 0, 0, b'a', 0, 0, 0, 0]);
        let missing = tensor(r#"{"x": [[null, 1.5]]}"#, TensorType::Fp32).unwrap();
        assert!(f32::from_le_bytes(missing.data[..4].try_into().unwrap()).is_nan());
    }

    #[test]
    fn example_that_does_not_fit_is_refused() {
        for (json, ty, part) in [
            (r#"{"x": [[1.5, 2]]}"#, TensorType::I64, "is INT64, but the example has floating"),
            (r#"{"x": [[300, 2]]}"#, TensorType::U8, "300 is out of range for the type U8"),
            (r#"{"x": [["a", "b"]]}"#, TensorType::Fp32, "is FP32, but the example has strings"),
            (r#"{"x": [[1, 2]]}"#, TensorType::String, "is BYTES, but the example has integers"),
            (
                r#"{"x": [[1, 2, 3]]}"#,
                TensorType::Fp32,
                "shape [-1, 2] (-1 is any size), not [1, 3]",
            ),
            (r#"{"y": [[1, 2]]}"#, TensorType::Fp32, "unknown input `y`; the graph has `x`"),
            ("{}", TensorType::Fp32, "input `x` is missing"),
            (
                r#"{"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP64", "data": [1, 2]}]}"#,
                TensorType::Fp32,
                "the input is FP32, not FP64",
            ),
        ] {
            let error = tensor(json, ty).unwrap_err();
            assert!(error.contains(part), "{json}: {error}");
        }
    }
}
