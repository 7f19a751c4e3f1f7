//! Operators that converters append to a classifier: `ArrayFeatureExtractor` and `ZipMap`.

use spinfer_backend::{Error, TensorType};
use spinfer_onnx::NodeProto;

use crate::attributes::Attributes;
use crate::builder::{Arena, Builder, output_name};
use crate::refusal::{invalid, unsupported};
use crate::step::Step;

/// Entries of a constant list by computed index: converters map the output of `ArgMax` to labels
/// so.
pub(in super::super) fn array_feature_extractor<'a>(
    builder: &mut Builder<'a>,
    node: &'a NodeProto,
) -> Result<(), Error> {
    let table = builder.constant(node, 0)?;
    let table = table.filter(|t| matches!(t.dims[..], [_] | [1, _]));
    let table = table.as_ref().and_then(|table| table.ints());
    let table = table
        .ok_or_else(|| unsupported(node, "its first input is not a constant list of integers"))?;
    let index = builder.input(node, 1)?;
    if index.arena() != Arena::Ints || index.columns.width != 1 {
        return Err(unsupported(node, "its indices are not one integer per row"));
    }
    let mut output = builder.new_value(node, TensorType::I64, &[])?;
    output.transposed = true;
    let (from, to) = (index.columns, output.columns);
    builder.plan.steps.push(Step::Lookup { from, to, table: table.to_vec() });
    builder.name(output_name(node, 0)?, output)
}

/// `wasi:nn` has no maps, so the output is the tensor with their values.
pub(in super::super) fn zip_map<'a>(
    builder: &mut Builder<'a>,
    node: &'a NodeProto,
) -> Result<(), Error> {
    let value = builder.floats(node, 0)?;
    let attributes = Attributes(node);
    let labels = attributes.ints("classlabels_int64s").len();
    let labels = labels + attributes.strings("classlabels_strings").len();
    let width = value.columns.width;
    if labels != width {
        return Err(invalid(node, format_args!("{labels} class labels for {width} scores")));
    }
    let name = output_name(node, 0)?;
    builder.untyped.insert(name);
    builder.name(name, value)
}
