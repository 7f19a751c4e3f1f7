#!/usr/bin/env python3
"""Writes the small graphs that the tests of backends and of wasi:nn load into the folder of this file.

Runs on models/requirements.txt, after models/train.py: truncated.onnx is half of a real graph.
"""

from pathlib import Path

from onnx import TensorProto, checker
from onnx.helper import (
    make_graph,
    make_model,
    make_node,
    make_opsetid,
    make_tensor,
    make_tensor_value_info,
)

FOLDER = Path(__file__).resolve().parent
REAL_GRAPH = FOLDER.parents[1] / "models" / "iris-classifier" / "1" / "model.onnx"

OPSETS = [make_opsetid("", 17), make_opsetid("ai.onnx.ml", 1)]
IR_VERSION = 8  # released with opset 17

# The tensor types of wasi:nn.
TYPES = {
    "fp16": TensorProto.FLOAT16,
    "fp32": TensorProto.FLOAT,
    "fp64": TensorProto.DOUBLE,
    "bf16": TensorProto.BFLOAT16,
    "u8": TensorProto.UINT8,
    "i32": TensorProto.INT32,
    "i64": TensorProto.INT64,
}

HEAVY_WIDTH = 512
HEAVY_STEPS = 2  # each 2 * 512^3 = 0.27 GFLOP


def save(name, nodes, inputs, outputs, opsets=()):
    graph = make_graph(nodes, name, inputs, outputs)
    model = make_model(graph, opset_imports=[*OPSETS, *opsets], producer_name="spinfer tests/models/make.py")
    model.ir_version = IR_VERSION
    checker.check_model(model, full_check=True)
    write(name, model.SerializeToString(deterministic=True))


def write(name, data):
    (FOLDER / f"{name}.onnx").write_bytes(data)
    print(f"{name}.onnx: {len(data)} bytes")


def identity(suffix, element_type):
    """y = x, for any length."""
    save(
        f"identity-{suffix}",
        [make_node("Identity", ["x"], ["y"])],
        [make_tensor_value_info("x", element_type, ["n"])],
        [make_tensor_value_info("y", element_type, ["n"])],
    )


def add_two_inputs():
    """sum = a + b and difference = a - b, which show the order of inputs and of outputs."""
    save(
        "add-two-inputs",
        [make_node("Add", ["a", "b"], ["sum"]), make_node("Sub", ["a", "b"], ["difference"])],
        [make_tensor_value_info(name, TensorProto.FLOAT, [2, 2]) for name in ("a", "b")],
        [make_tensor_value_info(name, TensorProto.FLOAT, [2, 2]) for name in ("sum", "difference")],
    )


def unsupported_op():
    """A valid graph with an operator of a domain that no backend supports."""
    save(
        "unsupported-op",
        [make_node("Det", ["x"], ["determinant"], domain="com.acme")],
        [make_tensor_value_info("x", TensorProto.FLOAT, ["n", 2, 2])],
        [make_tensor_value_info("determinant", TensorProto.FLOAT, ["n"])],
        [make_opsetid("com.acme", 1)],
    )


def heavy_matmul():
    """Milliseconds of compute from a few hundred bytes.

    Each step multiplies a 512x512 matrix, repeated from x, by weights that are all 1/512. If x has no
    negative element, every element of y is the square of x's mean.
    """
    size = make_tensor("size", TensorProto.INT64, [2], [HEAVY_WIDTH, HEAVY_WIDTH])
    weight = make_tensor("weight", TensorProto.FLOAT, [1], [1 / HEAVY_WIDTH])
    nodes = [
        make_node("Constant", [], ["size"], value=size),
        make_node("ConstantOfShape", ["size"], ["weights"], value=weight),
        make_node("Transpose", ["x"], ["column"], perm=[1, 0]),
        make_node("MatMul", ["column", "x"], ["m0"]),
    ]
    for step in range(HEAVY_STEPS):
        # The Relu prevents an optimiser from multiplying the weights with each other at load time.
        nodes.append(make_node("MatMul", [f"m{step}", "weights"], [f"product{step}"]))
        nodes.append(make_node("Relu", [f"product{step}"], [f"m{step + 1}"]))
    nodes.append(make_node("ReduceMean", [f"m{HEAVY_STEPS}"], ["y"], axes=[0], keepdims=1))
    save(
        "heavy-matmul",
        nodes,
        [make_tensor_value_info("x", TensorProto.FLOAT, [1, HEAVY_WIDTH])],
        [make_tensor_value_info("y", TensorProto.FLOAT, [1, HEAVY_WIDTH])],
    )


def truncated():
    data = REAL_GRAPH.read_bytes()
    write("truncated", data[: len(data) // 2])


def main():
    for suffix, element_type in TYPES.items():
        identity(suffix, element_type)
    add_two_inputs()
    unsupported_op()
    heavy_matmul()
    truncated()


if __name__ == "__main__":
    main()
