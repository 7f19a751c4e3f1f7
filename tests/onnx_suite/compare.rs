//! Whether outputs are equal as in `numpy.testing.assert_allclose`: within a tolerance, NaN where NaN is
//! expected, the same infinities.

use spinfer_backend::{Tensor, TensorType};

use crate::tensors::{Element, elements};

/// Relative tolerance of BF16: two steps, as in the standard's runner.
const BF16_STEPS: f64 = 1.0 / 64.0;

/// Maximum distance of an element from the expected one.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Tolerance {
    /// `atol`, and `rtol` relative to the expected element.
    Each { rtol: f64, atol: f64 },
    /// Relative to the largest element.
    OfLargest(f64),
}

/// How `got` differs from `expected`.
pub(crate) fn difference(got: &Tensor, expected: &Tensor, tolerance: Tolerance) -> Option<String> {
    if got.ty != expected.ty {
        return Some(format!("{}, not {}", got.ty, expected.ty));
    }
    if got.dimensions != expected.dimensions {
        return Some(format!("shape {:?}, not {:?}", got.dimensions, expected.dimensions));
    }
    let is_bf16 = got.ty == TensorType::Bf16;
    let (got, expected) = (elements(got), elements(expected));
    let (rtol, atol) = match tolerance {
        Tolerance::Each { rtol, atol } if is_bf16 => (rtol.max(BF16_STEPS), atol),
        Tolerance::Each { rtol, atol } => (rtol, atol),
        Tolerance::OfLargest(share) => (0.0, share * largest(&expected)),
    };
    if got.len() != expected.len() {
        return Some(format!("{} elements, not {}", got.len(), expected.len()));
    }
    let apart: Vec<usize> =
        (0..got.len()).filter(|&at| !is_close(&got[at], &expected[at], rtol, atol)).collect();
    let first = *apart.first()?;
    Some(format!(
        "{} of {} elements, the first is {}, not {}",
        apart.len(),
        got.len(),
        got[first],
        expected[first]
    ))
}

/// The size of the largest finite element.
fn largest(elements: &[Element]) -> f64 {
    elements.iter().map(Element::size).filter(|size| size.is_finite()).fold(0.0, f64::max)
}

fn is_close(got: &Element, expected: &Element, rtol: f64, atol: f64) -> bool {
    let is_within = |apart: f64, expected: f64| apart <= atol + rtol * expected.abs();
    match (got, expected) {
        (Element::Float(got), Element::Float(expected)) => {
            if got.is_finite() && expected.is_finite() {
                is_within((got - expected).abs(), *expected)
            } else {
                got == expected || got.is_nan() && expected.is_nan()
            }
        }
        #[expect(clippy::cast_precision_loss, reason = "a small difference is exact")]
        (Element::Integer(got), Element::Integer(expected)) => {
            is_within((got - expected).abs() as f64, *expected as f64)
        }
        (got, expected) => got == expected,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WIDE: Tolerance = Tolerance::Each { rtol: 1.0, atol: 1.0 };

    fn floats(values: &[f32]) -> Tensor {
        let data = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Tensor {
            dimensions: vec![u32::try_from(values.len()).unwrap()],
            ty: TensorType::Fp32,
            data,
        }
    }

    #[test]
    fn nan_and_infinity_equal_only_themselves() {
        let (nan, inf) = (f32::NAN, f32::INFINITY);
        let tolerance = Tolerance::Each { rtol: 1e-3, atol: 1e-7 };
        let is_equal =
            |a: f32, b: f32| difference(&floats(&[a]), &floats(&[b]), tolerance).is_none();
        assert!(is_equal(nan, nan) && is_equal(inf, inf) && is_equal(1.0005, 1.0));
        for (a, b) in
            [(nan, 1.0), (1.0, nan), (inf, -inf), (inf, f32::MAX), (nan, inf), (1.002, 1.0)]
        {
            assert!(!is_equal(a, b), "{a} {b}");
        }
    }

    #[test]
    fn rounding_tolerance_scales_with_the_largest_element() {
        let (got, expected) = (floats(&[1000.0, 0.5]), floats(&[1000.0, 0.0]));
        assert!(difference(&got, &expected, Tolerance::Each { rtol: 1e-3, atol: 1e-7 }).is_some());
        assert_eq!(difference(&got, &expected, Tolerance::OfLargest(1e-3)), None);
        assert!(difference(&got, &expected, Tolerance::OfLargest(1e-4)).is_some());
    }

    #[test]
    fn types_and_shapes_must_match() {
        let tensor = floats(&[1.0]);
        let integer = Tensor { ty: TensorType::I32, ..tensor.clone() };
        let scalar = Tensor { dimensions: vec![], ..tensor.clone() };
        assert_eq!(difference(&integer, &tensor, WIDE).unwrap(), "I32, not FP32");
        assert_eq!(difference(&scalar, &tensor, WIDE).unwrap(), "shape [], not [1]");
    }

    #[test]
    fn strings_are_compared_byte_by_byte() {
        let text = |text: &str| {
            let length = u32::try_from(text.len()).unwrap().to_le_bytes();
            let data = [&length, text.as_bytes()].concat();
            Tensor { dimensions: vec![1], ty: TensorType::String, data }
        };
        assert_eq!(difference(&text("é"), &text("é"), WIDE), None);
        assert!(difference(&text("e"), &text("é"), WIDE).is_some());
    }
}
