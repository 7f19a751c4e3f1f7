//! The shapes of tensors.

use std::fmt;

use serde::Serialize;
pub(crate) use spinfer_model_toml::MAX_RANK;

/// The size of each axis, outermost first. -1: a free axis, which may have any size.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub struct Shape(pub(crate) Vec<i64>);

impl Shape {
    /// The shape of `dimensions`, for messages: formatting `[u32]` as well would add code to every
    /// component.
    #[cold]
    pub(crate) fn of(dimensions: &[u32]) -> Self {
        Self(dimensions.iter().map(|&dimension| dimension.into()).collect())
    }

    /// Whether a tensor with these dimensions has this shape.
    pub(crate) fn admits(&self, dimensions: &[u32]) -> bool {
        self.0.len() == dimensions.len()
            && self
                .0
                .iter()
                .zip(dimensions)
                .all(|(&axis, &dimension)| axis == -1 || axis == i64::from(dimension))
    }

    /// The dimensions of a tensor of this shape with `elements` elements, if that determines them.
    pub(crate) fn dimensions(&self, elements: usize) -> Option<Vec<u32>> {
        let mut rest = elements;
        let mut free = None;
        let mut dimensions = Vec::with_capacity(self.0.len());
        for (index, &axis) in self.0.iter().enumerate() {
            if axis == -1 {
                if free.replace(index).is_some() {
                    return None;
                }
                dimensions.push(0);
            } else {
                let axis = u32::try_from(axis).ok()?;
                // Next to an axis of size 0, a free axis is undetermined.
                if axis == 0 || !rest.is_multiple_of(axis as usize) {
                    return self.without_elements(elements);
                }
                rest /= axis as usize;
                dimensions.push(axis);
            }
        }
        match free {
            Some(index) => dimensions[index] = u32::try_from(rest).ok()?,
            None if rest == 1 => {}
            None => return None,
        }
        Some(dimensions)
    }

    /// The dimensions of a tensor without elements, if no axis is free.
    #[cold]
    fn without_elements(&self, elements: usize) -> Option<Vec<u32>> {
        if elements > 0 || !self.0.contains(&0) {
            return None;
        }
        self.0.iter().map(|&axis| u32::try_from(axis).ok()).collect()
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}
