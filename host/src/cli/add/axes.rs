//! The free axes of a graph's inputs, and which of them share a size.
//!
//! Axes of the same name (ONNX's `dim_param`) have the same size. Names may be sums and products of
//! other names, as PyTorch exporters write them: `past_sequence_length + 1`, `2*s0`. Unnamed axes at the
//! same position have the same size.

use spinfer_backend::{Tensor, TensorInfo};

/// Free axes that share a size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FreeAxis {
    /// Name in the file, or a description, for messages.
    pub(super) name: String,
    /// The first of the axes: the input, and the position in its shape.
    pub(super) first: (usize, usize),
}

/// The size of an axis.
#[derive(Clone, Debug, PartialEq, Eq)]
enum AxisSize {
    Fixed(u32),
    /// A sum of products: a factor, and positions in [`Axes::free`].
    Free(Vec<(i64, Vec<usize>)>),
}

/// The axes of all inputs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Axes {
    inputs: Vec<Vec<AxisSize>>,
    pub(super) free: Vec<FreeAxis>,
}

impl Axes {
    /// The axes of `inputs` with these `shapes`; `None` is a free axis.
    pub(super) fn of(inputs: &[TensorInfo], shapes: &[Vec<Option<u32>>]) -> Self {
        Self::named(inputs, shapes, |input, axis| {
            let name = inputs[input].axis_names.get(axis).and_then(Option::as_deref);
            match name {
                Some(name) => parse(name).unwrap_or_else(|| vec![(1, vec![name.to_owned()])]),
                None => vec![(1, vec![format!("axis {axis}")])],
            }
        })
    }

    /// The axes of `inputs` with these `shapes`, each with a size of its own, whatever its name.
    pub(super) fn separate(inputs: &[TensorInfo], shapes: &[Vec<Option<u32>>]) -> Self {
        Self::named(inputs, shapes, |input, axis| {
            vec![(1, vec![format!("axis {axis} of {}", inputs[input].name)])]
        })
    }

    /// `terms` returns the terms whose sum is the size of an axis.
    fn named(
        inputs: &[TensorInfo],
        shapes: &[Vec<Option<u32>>],
        terms: impl Fn(usize, usize) -> Vec<(i64, Vec<String>)>,
    ) -> Self {
        let mut axes = Self { inputs: Vec::new(), free: Vec::new() };
        for (input, shape) in shapes.iter().enumerate().take(inputs.len()) {
            let mut sizes = Vec::new();
            for (axis, size) in shape.iter().enumerate() {
                if let Some(size) = size {
                    sizes.push(AxisSize::Fixed(*size));
                    continue;
                }
                let mut free = Vec::new();
                for (factor, names) in terms(input, axis) {
                    let position = |name: &String| axes.position(name, (input, axis));
                    free.push((factor, names.iter().map(position).collect()));
                }
                sizes.push(AxisSize::Free(free));
            }
            axes.inputs.push(sizes);
        }
        axes
    }

    /// The sizes that the free axes have in `example`.
    pub(super) fn sizes_of(&self, example: &[Tensor]) -> Vec<u32> {
        let size = |(free, axis): (usize, &FreeAxis)| {
            let plain = (0..example.len()).find_map(|input| Some((input, self.axis(input, free)?)));
            let (input, axis) = plain.unwrap_or(axis.first);
            example[input].dimensions.get(axis).copied().unwrap_or(1)
        };
        self.free.iter().enumerate().map(size).collect()
    }

    /// Whether the dimensions of `example` follow from the sizes of its free axes.
    pub(super) fn fit(&self, example: &[Tensor]) -> bool {
        let dimensions = self.dimensions(&self.sizes_of(example)).unwrap_or_default();
        example.iter().map(|tensor| &tensor.dimensions).eq(&dimensions)
    }

    fn position(&mut self, name: &str, first: (usize, usize)) -> usize {
        let known = self.free.iter().position(|free| free.name == name);
        known.unwrap_or_else(|| {
            self.free.push(FreeAxis { name: name.to_owned(), first });
            self.free.len() - 1
        })
    }

    /// The dimensions of each input for `sizes` of the free axes; `None` if one is negative or exceeds
    /// 32 bits.
    pub(super) fn dimensions(&self, sizes: &[u32]) -> Option<Vec<Vec<u32>>> {
        let of = |size: &AxisSize| match size {
            AxisSize::Fixed(size) => Some(*size),
            AxisSize::Free(terms) => {
                let mut sum = 0_i64;
                for (factor, axes) in terms {
                    let product = axes.iter().try_fold(*factor, |product, &axis| {
                        product.checked_mul((*sizes.get(axis)?).into())
                    });
                    sum = sum.checked_add(product?)?;
                }
                u32::try_from(sum).ok()
            }
        };
        self.inputs.iter().map(|axes| axes.iter().map(of).collect()).collect()
    }

    /// The shape of each input for `model.toml`: -1 where the size depends on an axis that `is_free`.
    pub(super) fn shapes(&self, sizes: &[u32], is_free: &[bool]) -> Vec<Vec<i64>> {
        let dimensions = self.dimensions(sizes).unwrap_or_default();
        let of = |(size, &dimension): (&AxisSize, &u32)| match size {
            AxisSize::Free(terms)
                if terms.iter().flat_map(|(_, axes)| axes).any(|&a| is_free[a]) =>
            {
                -1
            }
            _ => i64::from(dimension),
        };
        let inputs = self.inputs.iter().zip(&dimensions);
        inputs.map(|(axes, sizes)| axes.iter().zip(sizes).map(of).collect()).collect()
    }

    /// The position in `input` of the axis whose size is exactly that of `free`.
    pub(super) fn axis(&self, input: usize, free: usize) -> Option<usize> {
        self.inputs[input].iter().position(|size| *size == AxisSize::Free(vec![(1, vec![free])]))
    }
}

/// Parses a name as a sum of products of names and numbers.
fn parse(name: &str) -> Option<Vec<(i64, Vec<String>)>> {
    let mut terms = Vec::new();
    let mut sign = 1;
    for (index, word) in name.split(' ').enumerate() {
        match (index % 2, word) {
            (0, product) => {
                let mut term = (sign, Vec::new());
                for factor in product.split('*') {
                    match factor.parse::<u32>() {
                        Ok(number) => term.0 = i64::checked_mul(term.0, number.into())?,
                        Err(_) if is_name(factor) => term.1.push(factor.to_owned()),
                        Err(_) => return None,
                    }
                }
                terms.push(term);
            }
            (_, "+") => sign = 1,
            (_, "-") => sign = -1,
            _ => return None,
        }
    }
    (name.split(' ').count() % 2 == 1).then_some(terms)
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && !text.contains(|c: char| c.is_whitespace() || "()+/,".contains(c))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use spinfer_backend::TensorType;

    use super::*;

    fn input(axes: &[&str]) -> TensorInfo {
        let name = |name: &&str| (!name.is_empty()).then(|| (*name).to_owned());
        let fixed = |name: &&str| name.parse().ok();
        TensorInfo {
            name: "x".into(),
            ty: TensorType::Fp32,
            shape: Some(axes.iter().map(fixed).collect()),
            axis_names: axes.iter().map(name).collect(),
        }
    }

    fn axes(inputs: &[&[&str]]) -> Axes {
        let infos: Vec<_> = inputs.iter().map(|axes| input(axes)).collect();
        let shapes: Vec<_> = infos.iter().flat_map(|info| info.shape.clone()).collect();
        Axes::of(&infos, &shapes)
    }

    #[test]
    fn axes_of_the_same_name_have_the_same_size() {
        let axes = axes(&[&["batch", "seq", "4"], &["seq", "batch"]]);
        assert_eq!(axes.free.len(), 2);
        assert_eq!(axes.dimensions(&[2, 3]).unwrap(), [vec![2, 3, 4], vec![3, 2]]);
        assert_eq!(axes.shapes(&[2, 3], &[true, false]), [vec![-1, 3, 4], vec![3, -1]]);
        assert_eq!((axes.axis(0, 0), axes.axis(1, 0)), (Some(0), Some(1)));
    }

    #[test]
    fn unnamed_axes_at_the_same_position_have_the_same_size() {
        let axes = axes(&[&["", "3"], &["", ""]]);
        assert_eq!(axes.dimensions(&[5, 6]).unwrap(), [vec![5, 3], vec![5, 6]]);
    }

    #[test]
    fn name_can_be_a_sum_or_product_of_others() {
        let axes = axes(&[&["past", "seq"], &["past + seq", "2*seq"], &["past - 1"], &["a//2"]]);
        let dimensions = axes.dimensions(&[4, 3, 9]).unwrap();
        assert_eq!(dimensions, [vec![4, 3], vec![7, 6], vec![3], vec![9]]);
        assert_eq!(axes.dimensions(&[0, 3, 9]), None, "negative");
        assert_eq!(axes.axis(1, 0), None, "only in a sum");
        assert_eq!(axes.shapes(&[4, 3, 9], &[false, true, false])[1], [-1, -1]);
    }

    proptest! {
        #[test]
        fn arbitrary_names_do_not_panic(name in "[a-z0-9*+ /-]{0,12}", size: u32) {
            let axes = axes(&[&[&name, "seq"]]);
            let _ = axes.dimensions(&vec![size; axes.free.len()]);
        }
    }
}
