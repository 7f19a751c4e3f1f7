//! `OneHotEncoder`: a new last axis with 1 at the place of the category, the last of equal ones.
//!
//! What is no category becomes zeros, or with `zeros = 0` is an error. Floats are rounded towards zero
//! and looked up among the integers; NaN and what no I64 holds is no category.

use std::collections::HashMap;

use spinfer_backend::Error;

use super::output::{Output, OutputShape};
use super::values::{Array, ElementType, Slice, View, elements, wrong_type};
use super::{Kernel, NUMBERS, Operator, utf8};
use crate::attributes::{Attributes, invalid};
use crate::onnx::Node;

#[derive(Debug)]
struct OneHotEncoder {
    places: Places,
    categories: usize,
    zeros: bool,
}

#[derive(Debug)]
enum Places {
    Ints(HashMap<i64, usize>),
    Strings(HashMap<String, usize>),
}

pub(super) fn read(node: &Node, _: i64) -> Result<Operator, Error> {
    let attributes = Attributes(node);
    let ints = attributes.ints("cats_int64s");
    let strings = attributes.strings("cats_strings");
    let categories = ints.len() + strings.len();
    let (accepts, places): (_, _) = match (ints.is_empty(), strings.is_empty()) {
        (false, true) => (NUMBERS, Places::Ints(ints.iter().copied().zip(0..).collect())),
        (true, false) => {
            let strings = utf8(node, "cats_strings", strings)?;
            (&[ElementType::Str][..], Places::Strings(strings.into_iter().zip(0..).collect()))
        }
        _ => {
            return Err(invalid(
                node,
                "it takes one of the attributes cats_int64s and cats_strings",
            ));
        }
    };
    let zeros = attributes.int("zeros", 1) != 0;
    let output = Output::new(ElementType::F32, OutputShape::InputAnd(categories));
    Ok(Operator::new(accepts, [output], OneHotEncoder { places, categories, zeros }))
}

impl Kernel for OneHotEncoder {
    fn run(&self, inputs: &[View<'_>]) -> Result<Vec<Array>, Error> {
        let [x] = inputs else { return Err(super::one_input(inputs)) };
        match (&self.places, x.values) {
            (Places::Strings(places), Slice::Str(values)) => {
                self.encode(x.shape, values.iter().map(|x| places.get(x)))
            }
            (Places::Ints(places), Slice::I64(values)) => {
                self.encode(x.shape, values.iter().map(|x| places.get(x)))
            }
            (Places::Ints(places), Slice::I32(values)) => {
                self.encode(x.shape, values.iter().map(|&x| places.get(&i64::from(x))))
            }
            (Places::Ints(places), Slice::F32(values)) => {
                let place = |&x: &f32| places.get(&whole(f64::from(x))?);
                self.encode(x.shape, values.iter().map(place))
            }
            (Places::Ints(places), Slice::F64(values)) => {
                self.encode(x.shape, values.iter().map(|&x| places.get(&whole(x)?)))
            }
            (_, other) => Err(wrong_type(other.ty())),
        }
    }
}

/// Rounded towards zero, if an I64 holds it.
#[expect(clippy::cast_possible_truncation, reason = "the range is checked")]
fn whole(x: f64) -> Option<i64> {
    const LIMIT: f64 = 9_223_372_036_854_775_808.0;
    (-LIMIT..LIMIT).contains(&x).then_some(x as i64)
}

impl OneHotEncoder {
    fn encode<'a>(
        &self,
        shape: &[usize],
        places: impl Iterator<Item = Option<&'a usize>>,
    ) -> Result<Vec<Array>, Error> {
        let shape = [shape, &[self.categories]].concat();
        let mut encoded = vec![0.0; elements(&shape)?];
        for (row, place) in encoded.chunks_exact_mut(self.categories).zip(places) {
            match place {
                Some(&place) => row[place] = 1.0,
                None if self.zeros => {}
                None => {
                    return Err(Error::InvalidArgument(
                        "a value is no category, which its attribute zeros = 0 refuses".into(),
                    ));
                }
            }
        }
        Ok(vec![Array::floats(&shape, encoded)])
    }
}
