//! The operators of `ai.onnx.ml` in tract's register: those of [`spinfer_backend_lean::ml`], wrapped.
//!
//! tract's own are replaced: its tree ensembles are slow and FP32 only, its `Normalizer` takes MAX of
//! magnitudes, and all of its classifiers lack two of the post-transforms.

use std::sync::Arc;

use prost::Message;
use spinfer_backend_lean::ml::{
    Array, DOMAIN, ElementType, Kernel, Operator, Output, Slice, Values, View, names,
};
use tract_onnx::Onnx;
use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_core::ops::cast::cast;
use tract_onnx::tract_hir::internal::*;

/// Adds them.
pub(crate) fn register(onnx: &mut Onnx) {
    for name in names() {
        onnx.op_register.insert(name, build);
    }
}

fn build(
    context: &ParsingContext<'_>,
    node: &NodeProto,
) -> TractResult<(Box<dyn InferenceOp>, Vec<String>)> {
    if node.domain != DOMAIN {
        bail!("`{}` is an operator of {DOMAIN}, not of `{}`", node.op_type, node.domain);
    }
    let imports = &context.model.opset_import;
    let version = imports.iter().find(|import| import.domain == DOMAIN).map_or(1, |i| i.version);
    let operator =
        Operator::read(&node.encode_to_vec(), version).map_err(|e| format_err!("{e}"))?;
    let named = |(i, name): (usize, &String)| (!name.is_empty()).then_some(i);
    let outputs: Vec<usize> = node.output.iter().enumerate().filter_map(named).collect();
    if outputs.iter().any(|&i| i >= operator.outputs.len()) {
        bail!("{} has {} outputs", node.op_type, operator.outputs.len());
    }
    let name = node.op_type.clone();
    Ok((expand(Node { name, operator, outputs }), vec![]))
}

/// An operator before the types of its inputs are known.
#[derive(Clone, Debug)]
struct Node {
    name: String,
    operator: Operator,
    /// Which outputs the graph names.
    outputs: Vec<usize>,
}

impl Node {
    fn outputs(&self) -> Vec<Output> {
        self.outputs.iter().map(|&i| self.operator.outputs[i]).collect()
    }
}

impl Expansion for Node {
    fn name(&self) -> StaticName {
        self.name.clone().into()
    }

    fn nboutputs(&self) -> TractResult<usize> {
        Ok(self.outputs.len())
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        s: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        check_input_arity(inputs, self.operator.inputs)?;
        check_output_arity(outputs, self.outputs.len())?;
        s.given(&inputs[0].datum_type, move |s, ty| {
            for (output, proxy) in self.outputs().iter().zip(outputs) {
                s.equals(&proxy.datum_type, datum_type(output.element_type(element_type(ty)?)))?;
            }
            Ok(())
        })?;
        s.given_all(inputs.iter().map(|input| &input.shape), move |s, shapes: Vec<TVec<TDim>>| {
            let shapes: Vec<&[TDim]> = shapes.iter().map(|shape| &shape[..]).collect();
            for (output, proxy) in self.outputs().iter().zip(outputs) {
                s.equals(&proxy.shape, dims(*output, &shapes)?)?;
            }
            Ok(())
        })
    }

    fn wire(
        &self,
        prefix: &str,
        model: &mut TypedModel,
        inputs: &[OutletId],
    ) -> TractResult<TVec<OutletId>> {
        let types = inputs
            .iter()
            .map(|input| element_type(model.outlet_fact(*input)?.datum_type))
            .collect::<TractResult<Vec<ElementType>>>()?;
        let kernel = self.operator.kernel(&types);
        let kernel = kernel.map_err(|e| format_err!("node `{prefix}` ({}): {e}", self.name))?;
        let mut numbers = TVec::new();
        for (i, &input) in inputs.iter().enumerate() {
            let symbolic = model.outlet_fact(input)?.datum_type == DatumType::TDim;
            numbers.push(match symbolic {
                true => {
                    model.wire_node(format!("{prefix}.i64_{i}"), cast(DatumType::I64), &[input])?[0]
                }
                false => input,
            });
        }
        let outputs = self.outputs();
        let indices = self.outputs.clone();
        model.wire_node(
            prefix,
            Typed { name: self.name.clone(), kernel, outputs, indices },
            &numbers,
        )
    }
}

/// An operator that runs. Stateless.
#[derive(Clone, Debug)]
struct Typed {
    name: String,
    kernel: Arc<dyn Kernel>,
    outputs: Vec<Output>,
    /// Which of the kernel's outputs those are.
    indices: Vec<usize>,
}

impl PartialEq for Typed {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.kernel, &other.kernel) && self.indices == other.indices
    }
}

impl Eq for Typed {}

impl Op for Typed {
    fn name(&self) -> StaticName {
        self.name.clone().into()
    }

    op_as_typed_op!();
}

impl EvalOp for Typed {
    op_out_of_plan!();

    fn eval(&self, _: &EvalContext<'_>, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let views = inputs.iter().map(view).collect::<TractResult<Vec<View<'_>>>>()?;
        let results = self.kernel.run(&views);
        let results = results.map_err(|e| format_err!("{}: {e}", self.name))?;
        let named = results.into_iter().enumerate().filter(|(i, _)| self.indices.contains(i));
        named.map(|(_, array)| Ok(tensor(array)?.into_tvalue())).collect()
    }
}

impl TypedOp for Typed {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let first = inputs.first().with_context(|| format!("{} has no input", self.name))?;
        let ty = element_type(first.datum_type)?;
        let shapes: Vec<TVec<TDim>> = inputs.iter().map(|fact| fact.shape.to_tvec()).collect();
        let shapes: Vec<&[TDim]> = shapes.iter().map(|shape| &shape[..]).collect();
        let fact = |output: &Output| {
            Ok(datum_type(output.element_type(ty)).fact(&*dims(*output, &shapes)?))
        };
        self.outputs.iter().map(fact).collect()
    }

    as_op!();
}

fn dims(output: Output, shapes: &[&[TDim]]) -> TractResult<TVec<TDim>> {
    let dims = output.dims(shapes, |size| size.to_dim());
    Ok(dims.map_err(|e| format_err!("{e}"))?.into())
}

fn element_type(ty: DatumType) -> TractResult<ElementType> {
    match ty {
        DatumType::F32 => Ok(ElementType::F32),
        DatumType::F64 => Ok(ElementType::F64),
        DatumType::I16 => Ok(ElementType::I16),
        DatumType::I32 => Ok(ElementType::I32),
        // tract's integers that may be expressions of axes; `wire` has them computed first.
        DatumType::I64 | DatumType::TDim => Ok(ElementType::I64),
        DatumType::String => Ok(ElementType::Str),
        other => {
            bail!("operators of {DOMAIN} take FP32, FP64, I16, I32, I64 and strings, not {other:?}")
        }
    }
}

fn datum_type(ty: ElementType) -> DatumType {
    match ty {
        ElementType::F32 => DatumType::F32,
        ElementType::F64 => DatumType::F64,
        ElementType::I16 => DatumType::I16,
        ElementType::I32 => DatumType::I32,
        ElementType::I64 => DatumType::I64,
        ElementType::Str => DatumType::String,
    }
}

fn view(value: &TValue) -> TractResult<View<'_>> {
    let plain = value.try_as_plain_ram()?;
    let values = match element_type(value.datum_type())? {
        ElementType::F32 => Slice::F32(plain.as_slice()?),
        ElementType::F64 => Slice::F64(plain.as_slice()?),
        ElementType::I16 => Slice::I16(plain.as_slice()?),
        ElementType::I32 => Slice::I32(plain.as_slice()?),
        ElementType::I64 => Slice::I64(plain.as_slice()?),
        ElementType::Str => Slice::Str(plain.as_slice()?),
    };
    Ok(View { shape: value.shape(), values })
}

fn tensor(array: Array) -> TractResult<Tensor> {
    let shape = &array.shape[..];
    match array.values {
        Values::F32(values) => Tensor::from_shape(shape, &values),
        Values::F64(values) => Tensor::from_shape(shape, &values),
        Values::I16(values) => Tensor::from_shape(shape, &values),
        Values::I32(values) => Tensor::from_shape(shape, &values),
        Values::I64(values) => Tensor::from_shape(shape, &values),
        Values::Str(values) => tensor1(&values).into_shape(shape),
    }
}
