//! `LabelEncoder`: each value becomes what the table says, or the default.
//!
//! | version of `ai.onnx.ml` | table |
//! | --- | --- |
//! | 1 | `classes_strings`: from a string to its index, or from an index to its string |
//! | 2, 3 | `keys_*` to `values_*` of floats, int64s and strings |
//! | 4 | those, or `keys_tensor` to `values_tensor`; NaN equals NaN |
//!
//! Of equal keys the first counts; of equal `classes_strings`, the last.

use std::collections::HashMap;

use spinfer_backend::Error;

use super::output::{Output, OutputShape, OutputType};
use super::values::{Array, ElementType, Slice, Values, View, wrong_type};
use super::{Kernel, Operator, utf8};
use crate::attributes::{Attributes, invalid, unsupported};
use crate::onnx::{Node, Tensor, data_type};

/// The first version whose keys may be NaN.
const NAN_SINCE: i64 = 4;

/// Where in the list of values that of a key is. FP64 holds every FP32, I64 every integer.
#[derive(Debug)]
enum Places {
    /// By the bits of the number; all zeros and all NaN have the same.
    Floats(HashMap<u64, usize>),
    Ints(HashMap<i64, usize>),
    Strings(HashMap<String, usize>),
}

#[derive(Debug)]
struct LabelEncoder {
    places: Places,
    nan_equals_nan: bool,
    /// The default after those of the keys.
    values: Values,
}

#[derive(Debug)]
struct Classes {
    indices: HashMap<String, i64>,
    strings: Vec<String>,
    default_index: i64,
    default_string: String,
}

pub(super) fn read(node: &Node, version: i64) -> Result<Operator, Error> {
    let attributes = Attributes(node);
    let classes = attributes.strings("classes_strings");
    if !classes.is_empty() {
        return read_classes(node, utf8(node, "classes_strings", classes)?);
    }
    let keys = list(node, "keys")?;
    let values = list(node, "values")?;
    let (count, there) = (keys.as_slice().len(), values.as_slice().len());
    if count != there {
        return Err(invalid(node, format_args!("{count} keys and {there} values")));
    }
    let (from, to) = (keys.as_slice().ty(), values.as_slice().ty());
    let values = with_default(node, values)?;
    let kernel =
        LabelEncoder { places: Places::new(keys), nan_equals_nan: version >= NAN_SINCE, values };
    Ok(Operator::new(only(from), [Output::new(to, OutputShape::Input)], kernel))
}

fn only(ty: ElementType) -> &'static [ElementType] {
    match ty {
        ElementType::F32 => &[ElementType::F32],
        ElementType::F64 => &[ElementType::F64],
        ElementType::I16 => &[ElementType::I16],
        ElementType::I32 => &[ElementType::I32],
        ElementType::I64 => &[ElementType::I64],
        ElementType::Str => &[ElementType::Str],
    }
}

/// `keys_*` or `values_*`: the one of four attributes that is there.
fn list(node: &Node, prefix: &str) -> Result<Values, Error> {
    let attributes = Attributes(node);
    let name = |ty: &str| format!("{prefix}_{ty}");
    let (floats, ints) = (attributes.floats(&name("floats")), attributes.ints(&name("int64s")));
    let strings = attributes.strings(&name("strings"));
    let tensor = attributes.tensor(&name("tensor"));
    match (floats.is_empty(), ints.is_empty(), strings.is_empty(), tensor) {
        (false, true, true, None) => Ok(Values::F32(floats.to_vec())),
        (true, false, true, None) => Ok(Values::I64(ints.to_vec())),
        (true, true, false, None) => Ok(Values::Str(utf8(node, &name("strings"), strings)?)),
        (true, true, true, Some(tensor)) => elements(node, &name("tensor"), tensor),
        _ => Err(invalid(
            node,
            format_args!(
                "it takes one of the attributes {prefix}_floats, {prefix}_int64s, \
                 {prefix}_strings and {prefix}_tensor"
            ),
        )),
    }
}

/// What a tensor attribute holds.
fn elements(node: &Node, name: &str, tensor: &Tensor) -> Result<Values, Error> {
    let fault = |why: String| invalid(node, format_args!("its attribute {name}: {why}"));
    if tensor.data_type == data_type::STRING {
        return Ok(Values::Str(utf8(node, name, &tensor.string_data)?));
    }
    if tensor.data_type == data_type::INT16 {
        let (pairs, rest) = tensor.raw_data.as_chunks::<2>();
        if !rest.is_empty() {
            return Err(fault(format!("{} bytes of I16", tensor.raw_data.len())));
        }
        let raw = pairs.iter().map(|pair| i16::from_le_bytes(*pair));
        let listed = tensor.int32_data.iter().map(|&x| i16::try_from(x));
        let listed = listed.collect::<Result<Vec<_>, _>>();
        let listed = listed.map_err(|_| fault("a number is not within I16".into()))?;
        return Ok(Values::I16(raw.chain(listed).collect()));
    }
    let constant = crate::attributes::Constant::read(tensor).map_err(fault)?;
    match (constant.elements, tensor.data_type) {
        (crate::attributes::Elements::Float(values), _) => Ok(Values::F32(values)),
        (crate::attributes::Elements::Double(values), _) => Ok(Values::F64(values)),
        (crate::attributes::Elements::Int(values), data_type::INT32) => {
            let values = values.into_iter().map(i32::try_from).collect::<Result<_, _>>();
            Ok(Values::I32(values.map_err(|_| fault("a number is not within I32".into()))?))
        }
        (crate::attributes::Elements::Int(values), _) => Ok(Values::I64(values)),
    }
}

/// Adds the default: `default_tensor`, or the attribute for the type, or what the standard says.
fn with_default(node: &Node, mut values: Values) -> Result<Values, Error> {
    let attributes = Attributes(node);
    // A tensor without elements stands for an attribute that is not there.
    if let Some(tensor) = attributes.tensor("default_tensor").filter(|t| t.data_type != 0) {
        let default = elements(node, "default_tensor", tensor)?;
        return match (&mut values, default) {
            (Values::F32(values), Values::F32(one)) => append(node, values, one),
            (Values::F64(values), Values::F64(one)) => append(node, values, one),
            (Values::I16(values), Values::I16(one)) => append(node, values, one),
            (Values::I32(values), Values::I32(one)) => append(node, values, one),
            (Values::I64(values), Values::I64(one)) => append(node, values, one),
            (Values::Str(values), Values::Str(one)) => append(node, values, one),
            (values, one) => {
                let (of, one) = (values.as_slice().ty(), one.as_slice().ty());
                Err(invalid(node, format_args!("default_tensor is {one}, the values are {of}")))
            }
        }
        .map(|()| values);
    }
    let int = attributes.int("default_int64", -1);
    let float = attributes.float("default_float", -0.0);
    let narrow = || unsupported(node, format_args!("default_int64 is {int}, beyond its values"));
    match &mut values {
        Values::F32(values) => values.push(float),
        Values::F64(values) => values.push(float.into()),
        Values::I16(values) => values.push(int.try_into().map_err(|_| narrow())?),
        Values::I32(values) => values.push(int.try_into().map_err(|_| narrow())?),
        Values::I64(values) => values.push(int),
        Values::Str(values) => values.push(default_string(node)?),
    }
    Ok(values)
}

fn append<T: Clone>(node: &Node, values: &mut Vec<T>, default: Vec<T>) -> Result<(), Error> {
    if default.len() != 1 {
        let count = default.len();
        return Err(invalid(node, format_args!("default_tensor has {count} elements, not one")));
    }
    values.extend(default);
    Ok(())
}

fn default_string(node: &Node) -> Result<String, Error> {
    let default = Attributes(node).string("default_string", "_Unused").to_vec();
    String::from_utf8(default)
        .map_err(|_| invalid(node, "its attribute default_string is not UTF-8"))
}

fn float_key(x: f64) -> u64 {
    if x.is_nan() { f64::NAN.to_bits() } else { (x + 0.0).to_bits() }
}

/// The first of equal keys counts.
fn places<K: std::hash::Hash + Eq>(keys: impl Iterator<Item = K>) -> HashMap<K, usize> {
    let mut places = HashMap::new();
    for (key, place) in keys.zip(0..) {
        places.entry(key).or_insert(place);
    }
    places
}

impl Places {
    fn new(keys: Values) -> Self {
        match keys {
            Values::F32(keys) => {
                Self::Floats(places(keys.into_iter().map(|key| float_key(key.into()))))
            }
            Values::F64(keys) => Self::Floats(places(keys.into_iter().map(float_key))),
            Values::I16(keys) => Self::Ints(places(keys.into_iter().map(i64::from))),
            Values::I32(keys) => Self::Ints(places(keys.into_iter().map(i64::from))),
            Values::I64(keys) => Self::Ints(places(keys.into_iter())),
            Values::Str(keys) => Self::Strings(places(keys.into_iter())),
        }
    }
}

impl Kernel for LabelEncoder {
    fn run(&self, inputs: &[View<'_>]) -> Result<Vec<Array>, Error> {
        let [x] = inputs else { return Err(super::one_input(inputs)) };
        let default = self.values.as_slice().len() - 1;
        let float = |places: &HashMap<u64, usize>, x: f64| {
            let place = (!x.is_nan() || self.nan_equals_nan).then(|| places.get(&float_key(x)));
            place.flatten().copied().unwrap_or(default)
        };
        let places: Vec<usize> = match (&self.places, x.values) {
            (Places::Floats(p), Slice::F32(x)) => x.iter().map(|&x| float(p, x.into())).collect(),
            (Places::Floats(p), Slice::F64(x)) => x.iter().map(|&x| float(p, x)).collect(),
            (Places::Ints(p), Slice::I16(x)) => look_up(p, x.iter().map(|&x| x.into()), default),
            (Places::Ints(p), Slice::I32(x)) => look_up(p, x.iter().map(|&x| x.into()), default),
            (Places::Ints(p), Slice::I64(x)) => look_up(p, x.iter().copied(), default),
            (Places::Strings(p), Slice::Str(x)) => {
                x.iter().map(|x| p.get(x).copied().unwrap_or(default)).collect()
            }
            (_, other) => return Err(wrong_type(other.ty())),
        };
        let values = match &self.values {
            Values::F32(values) => Values::F32(places.iter().map(|&i| values[i]).collect()),
            Values::F64(values) => Values::F64(places.iter().map(|&i| values[i]).collect()),
            Values::I16(values) => Values::I16(places.iter().map(|&i| values[i]).collect()),
            Values::I32(values) => Values::I32(places.iter().map(|&i| values[i]).collect()),
            Values::I64(values) => Values::I64(places.iter().map(|&i| values[i]).collect()),
            Values::Str(values) => Values::Str(places.iter().map(|&i| values[i].clone()).collect()),
        };
        Ok(vec![Array { shape: x.shape.to_vec(), values }])
    }
}

fn look_up(
    places: &HashMap<i64, usize>,
    keys: impl Iterator<Item = i64>,
    default: usize,
) -> Vec<usize> {
    keys.map(|key| places.get(&key).copied().unwrap_or(default)).collect()
}

fn read_classes(node: &Node, strings: Vec<String>) -> Result<Operator, Error> {
    let kernel = Classes {
        indices: strings.iter().cloned().zip(0..).collect(),
        strings,
        default_index: Attributes(node).int("default_int64", -1),
        default_string: default_string(node)?,
    };
    let output = Output { ty: OutputType::StringsOrIndices, shape: OutputShape::Input };
    Ok(Operator::new(&[ElementType::Str, ElementType::I64], [output], kernel))
}

impl Kernel for Classes {
    fn run(&self, inputs: &[View<'_>]) -> Result<Vec<Array>, Error> {
        let [x] = inputs else { return Err(super::one_input(inputs)) };
        let values = match x.values {
            Slice::Str(strings) => {
                let index = |s: &String| self.indices.get(s).copied();
                let index = |s| index(s).unwrap_or(self.default_index);
                Values::I64(strings.iter().map(index).collect())
            }
            Slice::I64(indices) => {
                let string = |&i: &i64| usize::try_from(i).ok().and_then(|i| self.strings.get(i));
                let string = |i| string(i).unwrap_or(&self.default_string).clone();
                Values::Str(indices.iter().map(string).collect())
            }
            other => return Err(wrong_type(other.ty())),
        };
        Ok(vec![Array { shape: x.shape.to_vec(), values }])
    }
}
