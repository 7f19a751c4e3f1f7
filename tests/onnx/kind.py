"""Declares the graphs of kinds.py: inputs, outputs, constants, and one request."""

import numpy as np
from onnx import TensorProto, checker, helper, numpy_helper
from onnx.helper import make_node as node

F32, F16, F64, I64, I32 = np.float32, np.float16, np.float64, np.int64, np.int32
SMALLEST = np.iinfo(np.int64).min
ML = {"": 17, "ai.onnx.ml": 3}

kinds = []


def kind(
    name,
    what,
    nodes,
    inputs,
    outputs,
    constants=None,
    want="equal",
    opset=17,
    batches=True,
    rtol=1e-4,
):
    """`inputs`: the declared axes and the data by name. `outputs`: the declared axes by name, and the type if it is not FLOAT."""
    opsets = opset if isinstance(opset, dict) else {"": opset}
    infos = [
        helper.make_tensor_value_info(key, element_type(data), axes)
        for key, (axes, data) in inputs.items()
    ]
    made = [
        output_info(key, *(of if isinstance(of, tuple) else (of,))) for key, of in outputs.items()
    ]
    initializers = [
        numpy_helper.from_array(np.asarray(value), key) for key, value in (constants or {}).items()
    ]
    graph = helper.make_graph(nodes, name, infos, made, initializers)
    imports = [helper.make_opsetid(domain, version) for domain, version in opsets.items()]
    model = helper.make_model(graph, opset_imports=imports, ir_version=10)
    checker.check_model(model)
    axes = {
        key: axis.index("n")
        for key, (axis, _) in inputs.items()
        if batches and want == "equal" and "n" in axis
    }
    kinds.append(
        (
            name,
            what,
            model,
            {key: np.asarray(data) for key, (_, data) in inputs.items()},
            axes,
            want,
            rtol,
        )
    )


def element_type(data):
    data = np.asarray(data)
    return (
        TensorProto.STRING if data.dtype == object else helper.np_dtype_to_tensor_dtype(data.dtype)
    )


def output_info(name, axes, of=TensorProto.FLOAT, sequence=False):
    if sequence:
        return helper.make_tensor_sequence_value_info(name, of, axes)
    return helper.make_tensor_value_info(name, of, axes)


def f32(*values):
    return np.array(values[0] if len(values) == 1 else values, dtype=F32)


def texts(*values):
    return np.array(values, dtype=object)


def waves(*shape, scale=1.0):
    return (np.sin(np.arange(int(np.prod(shape))) * 1.7) * scale).astype(F32).reshape(shape)


def one(
    op,
    what,
    x,
    out=None,
    shape=None,
    name=None,
    constants=None,
    out_type=TensorProto.FLOAT,
    **options,
):
    """A graph with one operator, the input `x`, constants, and the output `y`."""
    settings = {
        key: options.pop(key) for key in ("opset", "want", "batches", "rtol") if key in options
    }
    x = np.asarray(x)
    shape = ["n", *x.shape[1:]] if shape is None else shape
    out = shape if out is None else out
    inputs = ["x", *(constants or {})]
    kind(
        name or op.lower(),
        what,
        [node(op, inputs, ["y"], **options)],
        {"x": (shape, x)},
        {"y": (out, out_type)},
        constants,
        **settings,
    )
